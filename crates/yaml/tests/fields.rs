//! Reading a document field by field reports everything that is wrong with it.

use attune_yaml::{Report, Severity};

const KNOWN: &[&str] = &["name", "label", "count", "enabled", "mode", "tags", "nested", "free"];

#[test]
fn one_pass_finds_every_problem_with_file_line_and_path() {
    let report = Report::new("pack.yaml");
    let text = "lable: x\nname: ' '\ncount: 11\nenabled: 'yes'\nmode: fast\ntags: [a, {b: c}]\nnested:\n  inner: [1]\n  other: 1\n";
    let root = report.parse(text).unwrap();
    let fields = report.fields(&root, KNOWN).unwrap();
    assert_eq!(fields.required_text("name"), None);
    assert_eq!(fields.required_text("label"), None);
    assert_eq!(fields.integer("count", 0..=10), None);
    assert_eq!(fields.boolean("enabled"), None);
    assert_eq!(fields.choice("mode", &[("slow", 1), ("steady", 2)]), None);
    assert_eq!(fields.texts("tags"), Some(vec!["a".to_owned()]));
    assert_eq!(fields.section("nested", &["inner"]).unwrap().text("inner"), None);
    assert!(fields.section("free", &[]).is_none());
    assert!(report.has_errors());
    let shown: Vec<String> = report.into_problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "pack.yaml:1: label: required, but missing",
            r#"pack.yaml:1: lable: warning: unknown key, ignored; did you mean "label"?"#,
            "pack.yaml:2: name: must not be empty",
            "pack.yaml:3: count: must be from 0 to 10, not 11",
            "pack.yaml:4: enabled: must be true or false, this is a text",
            r#"pack.yaml:5: mode: must be one of slow, steady, not "fast""#,
            "pack.yaml:6: tags[1]: must be a text, this is a mapping",
            "pack.yaml:8: nested.inner: must be a text, this is a list",
            "pack.yaml:9: nested.other: warning: unknown key, ignored",
        ]
    );
}

#[test]
fn a_number_in_the_place_of_a_text_is_taken_as_written_with_a_warning() {
    let report = Report::new("python.yaml");
    let root = report.parse("name: 3.10\n").unwrap();
    assert_eq!(report.fields(&root, KNOWN).unwrap().text("name").unwrap(), "3.10");
    assert!(!report.has_errors());
    let problems = report.into_problems();
    assert_eq!(problems[0].severity, Severity::Warning);
    assert_eq!(problems[0].message, r#"should be a text, this is a number; read as "3.10", put it in quotes"#);
}

#[test]
fn text_that_is_not_yaml_or_not_a_mapping_is_an_error_of_the_report() {
    let report = Report::new("a.yaml");
    assert!(report.parse("a: [").is_none());
    let root = report.parse("- a\n").unwrap();
    assert!(report.fields(&root, KNOWN).is_none());
    let problems = report.into_problems();
    assert_eq!(problems.len(), 2);
    assert_eq!(problems[0].to_string(), "a.yaml:1: must be a mapping, this is a list");
}

//! What is written can be read back, by readers of every version of YAML.

use attune_yaml::{emit, parse};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn a_document_is_readable_and_ends_with_a_line_feed() {
    let value = json!({
        "message": "Hello, World!", "count": 42, "on": "yes", "empty": {}, "none": null,
        "list": [1, {"a": "b", "c": [true]}, [2, []]], "lines": "one\ntwo\n", "date": "2024-01-01",
    });
    let expected = r#"message: "Hello, World!"
count: 42
"on": "yes"
empty: {}
none: null
list:
  - 1
  - a: b
    c:
      - true
  - - 2
    - []
lines: "one\ntwo\n"
date: "2024-01-01"
"#;
    assert_eq!(emit(&value), expected);
}

#[test]
fn an_empty_object_is_still_a_mapping() {
    assert_eq!(emit(&json!({})), "{}\n");
}

#[test]
fn texts_that_some_reader_would_type_are_quoted() {
    for text in [
        "", " a", "a ", "~", "null", "No", "ON", "y", "12", "0x1", "1e3", ".5", "+1", "12:30:45", "=", "<<", "- a",
        "a: b", "a #b", "nan",
    ] {
        assert_eq!(emit(&json!(text)), format!("\"{text}\"\n"));
    }
    assert_eq!(emit(&json!("\u{85}\u{2028}\u{feff}\u{1b}ä\u{1f600}")), "\"\\u0085\\u2028\\uFEFF\\u001Bä\u{1f600}\"\n");
}

#[test]
fn floats_are_floats_for_every_reader() {
    assert_eq!(emit(&json!(1e300)), "1.0e+300\n");
    assert_eq!(emit(&json!(2.5e-7)), "2.5e-7\n");
    assert_eq!(emit(&json!(3.0)), "3.0\n");
}

#[test]
fn a_key_longer_than_yaml_allows_is_written_as_a_complex_one() {
    let value = json!({"outer": {"k".repeat(3000): {"inner": 1}, "next": 2}});
    assert_eq!(parse(&emit(&value)).unwrap().to_json(), value);
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        "[a-z0-9:.#'\"\\-~ \n\t]{0,12}",
        proptest::sample::select(vec![
            "yes", "null", "0x1f", "1e5", "<<", "---", "...", "%YAML", "@a", "&a", "*a", "!a", "? a"
        ])
        .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no other", |f| f.is_finite()).prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((text.clone(), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_back_the_same(value in any_json()) {
        let text = emit(&value);
        prop_assert!(text.ends_with('\n'));
        prop_assert_eq!(parse(&text).unwrap().to_json(), value, "{}", text);
    }
}

//! What the parser accepts, what it refuses, and where it says so.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write;

use attune_yaml::{Node, ParseError, parse};
use proptest::prelude::*;
use serde_json::json;

fn refused(text: &str) -> ParseError {
    parse(text).unwrap_err()
}

fn json_of(text: &str) -> serde_json::Value {
    parse(text).as_ref().map(Node::to_json).unwrap()
}

#[test]
fn every_node_and_key_knows_its_line_and_column() {
    let root = parse("# comment\nname: demo\n\nlist:\n  - one\n  - deep:\n      key: 3.10\n").unwrap();
    let top = root.as_mapping().unwrap();
    assert_eq!((root.line, root.column), (2, 1));
    assert_eq!((top.entry("list").unwrap().line, top.entry("list").unwrap().column), (4, 1));
    assert_eq!((top.get("name").unwrap().line, top.get("name").unwrap().column), (2, 7));
    let text = format!("{:?}", top.get("list").unwrap());
    assert!(text.contains(r#"key: "key", line: 7, column: 7"#), "{text}");
    assert!(text.contains(r#"source: "3.10""#), "{text}");
}

#[test]
fn quoted_and_block_scalars_are_text_whatever_they_look_like() {
    assert_eq!(
        json_of("a: '1'\nb: \"true\"\nc: |\n  12\nd: >-\n  null\n"),
        json!({"a": "1", "b": "true", "c": "12\n", "d": "null"})
    );
}

#[test]
fn keys_keep_their_text() {
    assert_eq!(json_of("1: a\ntrue: b\n~: c\n3.10: d\n"), json!({"1": "a", "true": "b", "~": "c", "3.10": "d"}));
}

#[test]
fn core_tags_decide_and_other_tags_are_refused() {
    assert_eq!(
        json_of("[!!str 12, !!int '12', !!float 1, !!map {a: 1}, !!seq []]"),
        json!(["12", 12, 1.0, {"a": 1}, []])
    );
    assert_eq!(refused("a: !!int x").message, r#""x" is not a value of the type int"#);
    assert_eq!(refused("a:\n  !python/object x").line, 2);
    assert!(refused("a: !!set {x}").message.contains("is not supported"));
}

#[test]
fn a_key_that_stands_twice_is_refused_with_both_lines() {
    let error = refused("a: 1\nb: 2\na: 3\n");
    assert_eq!((error.line, error.column), (3, 1));
    assert_eq!(error.message, r#"the key "a" stands here twice, first on line 1"#);
    assert_eq!(refused("x:\n  {k: 1, \"k\": 2}").line, 2);
}

#[test]
fn a_second_document_is_refused() {
    assert_eq!(refused("a: 1\n---\nb: 2\n").line, 2);
    assert_eq!(json_of("---\na: 1\n...\n"), json!({"a": 1}));
}

#[test]
fn nothing_is_null_and_a_byte_order_mark_is_skipped() {
    assert_eq!(json_of(""), json!(null));
    assert_eq!(json_of("# only a comment\n"), json!(null));
    assert_eq!(json_of("\u{feff}a: 1"), json!({"a": 1}));
}

#[test]
fn aliases_repeat_and_merge_keys_fill_in() {
    assert_eq!(json_of("a: &x {k: 1}\nb: *x\n"), json!({"a": {"k": 1}, "b": {"k": 1}}));
    let text = "base: &b {k: 1, l: 2}\nmore: &m {l: 9, z: 0}\nhere:\n  l: 3\n  <<: [*b, *m]\n";
    assert_eq!(json_of(text)["here"], json!({"l": 3, "k": 1, "z": 0}));
    assert_eq!(json_of("'<<': 1"), json!({"<<": 1}));
    assert!(refused("a:\n  <<: 3\n").message.contains("takes a mapping"));
    assert!(refused("a: *nobody").message.contains("anchor"), "{:?}", refused("a: *nobody"));
    assert!(parse("a: &x [*x]").is_err());
}

#[test]
fn hostile_documents_are_refused_before_they_cost_anything() {
    let deep = "[".repeat(100_000);
    assert!(parse(&deep).is_err());
    let mut nested = String::new();
    for level in 0..400 {
        writeln!(nested, "{}k:", " ".repeat(level)).unwrap();
    }
    assert_eq!(refused(&nested).message, "nested deeper than 128 levels");

    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let row = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{row}]").unwrap();
    }
    let copied = "anchors and aliases copy more than 8388608 bytes";
    assert_eq!(refused(&bomb).message, copied);
    let text = "x".repeat(100_000);
    assert_eq!(refused(&format!("- &a {text}\n{}", "- *a\n".repeat(1000))).message, copied);
    let mut nested = String::new();
    for level in 0..100 {
        write!(nested, "&a{level} [").unwrap();
    }
    nested = format!("{nested}{}x{}", "x, ".repeat(10_000), "]".repeat(100));
    assert_eq!(refused(&nested).message, copied);
}

#[test]
fn broken_syntax_names_its_line() {
    assert_eq!(refused("a: 1\nb: [1, 2\nc: 3\n").line, 3);
    assert_eq!(refused("b: 1\na: 'open\n\n").line, 2);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[\\PC\n\t:\\-\\[\\]{}&*!|>'\"#%@`?, ]{0,60}") {
        drop(parse(&text));
    }
}

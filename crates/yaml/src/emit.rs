//! JSON values as YAML text that every reader understands the same way.
//!
//! Readers of YAML 1.1 type more words than those of 1.2 (`yes`, `0777`, `12:30`, dates). So a text stays plain only if
//! it cannot be anything else in either; all other texts are double-quoted with escapes, on one line.

use serde_json::{Map, Number, Value};

const INDENT: usize = 2;

/// YAML allows a key without `?` only up to 1024 characters.
const MAX_SIMPLE_KEY: usize = 1000;

/// Words that some version of YAML reads as a boolean or null.
const RESERVED: [&str; 10] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan"];

/// The value as a YAML document that ends with a line feed.
pub fn emit(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => {
            mapping(&mut out, map, 0, Position::LineStart);
        }
        Value::Array(items) if !items.is_empty() => {
            sequence(&mut out, items, 0, Position::LineStart);
        }
        other => {
            scalar(&mut out, other);
            out.push('\n');
        }
    }
    out
}

/// Whether the first line of a block still needs its indentation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    LineStart,
    AfterDash,
}

fn mapping(out: &mut String, map: &Map<String, Value>, indent: usize, mut position: Position) {
    for (key, value) in map {
        begin_line(out, indent, &mut position);
        let before = out.len();
        text(out, key);
        if out[before..].chars().count() > MAX_SIMPLE_KEY {
            out.insert_str(before, "? ");
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push(':');
        nested(out, value, indent);
    }
}

fn sequence(out: &mut String, items: &[Value], indent: usize, mut position: Position) {
    for item in items {
        begin_line(out, indent, &mut position);
        out.push('-');
        match item {
            Value::Object(map) if !map.is_empty() => {
                out.push(' ');
                mapping(out, map, indent + INDENT, Position::AfterDash);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push(' ');
                sequence(out, items, indent + INDENT, Position::AfterDash);
            }
            other => inline(out, other),
        }
    }
}

fn begin_line(out: &mut String, indent: usize, position: &mut Position) {
    if *position == Position::LineStart {
        out.extend(std::iter::repeat_n(' ', indent));
    }
    *position = Position::LineStart;
}

/// The value of a key: on the same line if it has one, below it otherwise.
fn nested(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            mapping(out, map, indent + INDENT, Position::LineStart);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            sequence(out, items, indent + INDENT, Position::LineStart);
        }
        other => inline(out, other),
    }
}

fn inline(out: &mut String, value: &Value) {
    out.push(' ');
    scalar(out, value);
    out.push('\n');
}

fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(value) => number(out, value),
        Value::String(value) => text(out, value),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// A float keeps a point and a signed exponent: without them readers of YAML 1.1 take it for text.
fn number(out: &mut String, value: &Number) {
    let plain = value.to_string();
    let Some((mantissa, exponent)) = plain.split_once(['e', 'E']) else {
        out.push_str(&plain);
        return;
    };
    out.push_str(mantissa);
    if !mantissa.contains('.') {
        out.push_str(".0");
    }
    out.push('e');
    if !exponent.starts_with(['-', '+']) {
        out.push('+');
    }
    out.push_str(exponent);
}

fn text(out: &mut String, value: &str) {
    if is_plain(value) {
        out.push_str(value);
    } else {
        quoted(out, value);
    }
}

fn is_plain(value: &str) -> bool {
    let starts_well = value.starts_with(|first: char| first.is_ascii_alphabetic() || matches!(first, '_' | '/'));
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ' ' | '+' | '@' | '(' | ')');
    starts_well
        && value.chars().all(inner)
        && !value.ends_with(' ')
        && !RESERVED.iter().any(|word| value.eq_ignore_ascii_case(word))
}

fn quoted(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if needs_escape(c) => escape(out, c),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// What is not printable in YAML, and the line breaks that only some versions know.
fn needs_escape(c: char) -> bool {
    matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn escape(out: &mut String, c: char) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push_str("\\u");
    let code = u32::from(c);
    for shift in [12, 8, 4, 0] {
        let digit = usize::try_from((code >> shift) & 0xf).expect("four bits fit");
        out.push(char::from(DIGITS[digit]));
    }
}

//! Standard output of a child as data, by the action's output format. Output that does not parse is not an error.

use attune_model::status::OutputFormat;
use serde_json::Value;

/// The text that stands for the bytes a stream lost. A fact of the platform.
pub(crate) fn truncation_notice(stream: &str) -> String {
    format!("\n\n[OUTPUT TRUNCATED: {stream} exceeded size limit]\n")
}

/// Bytes of the limit that are kept free for the notice. A fact of the platform.
pub(crate) const NOTICE_RESERVE: usize = 128;

/// Whether all of the output is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completeness {
    /// All of it.
    Whole,
    /// The end was cut off: a document is not one any more, single lines still are.
    Cut,
}

/// Reads `stdout` as data. None for text, for blank output and when nothing parses.
pub(crate) fn parse(stdout: &str, format: OutputFormat, completeness: Completeness) -> Option<Value> {
    let text = stdout.trim();
    if text.is_empty() {
        return None;
    }
    match (format, completeness) {
        (OutputFormat::Text, _) | (OutputFormat::Json | OutputFormat::Yaml, Completeness::Cut) => None,
        (OutputFormat::Json, Completeness::Whole) => json(text),
        (OutputFormat::Yaml, Completeness::Whole) => attune_yaml::parse(text).ok().map(|node| node.to_json()),
        (OutputFormat::Jsonl, _) => json_lines(text),
    }
}

/// The whole text, else its last line: log lines may come before it.
fn json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().or_else(|| serde_json::from_str(text.lines().next_back()?.trim()).ok())
}

fn json_lines(text: &str) -> Option<Value> {
    let values: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line.trim()).ok()).collect();
    (!values.is_empty()).then_some(Value::Array(values))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn whole(stdout: &str, format: OutputFormat) -> Option<Value> {
        parse(stdout, format, Completeness::Whole)
    }

    #[test]
    fn each_format_reads_what_the_platform_reads() {
        use OutputFormat::{Json, Jsonl, Text, Yaml};
        for (format, stdout, expected) in [
            (Text, "{\"a\":1}", None),
            (Json, " {\"a\": 1}\n", Some(json!({"a": 1}))),
            (Json, "{\n \"a\": 1\n}", Some(json!({"a": 1}))),
            (Json, "starting\n{\"a\": 2}\n\n", Some(json!({"a": 2}))),
            (Json, "{\"a\":1}\nnot json", None),
            (Json, "   \n", None),
            (Yaml, "a: 1\nb: [x]\n", Some(json!({"a": 1, "b": ["x"]}))),
            (Yaml, "plain text", Some(json!("plain text"))),
            (Yaml, "a: [", None),
            (Jsonl, "{\"a\":1}\nlog\n2\n", Some(json!([{"a": 1}, 2]))),
            (Jsonl, "log\nlog", None),
        ] {
            assert_eq!(whole(stdout, format), expected, "{format} {stdout:?}");
        }
    }

    #[test]
    fn a_cut_document_is_no_data_but_its_whole_lines_are() {
        let cut = |stdout: &str, format| parse(stdout, format, Completeness::Cut);
        assert_eq!(cut("log\n{\"a\":1}", OutputFormat::Json), None);
        assert_eq!(cut("a: 1", OutputFormat::Yaml), None);
        assert_eq!(cut("1\n2\n{\"a\":", OutputFormat::Jsonl), Some(json!([1, 2])));
    }

    #[test]
    fn nesting_without_end_is_no_data_and_no_crash() {
        let deep = "[".repeat(100_000);
        assert_eq!(whole(&deep, OutputFormat::Json), None);
        assert_eq!(whole(&deep, OutputFormat::Yaml), None);
    }
}

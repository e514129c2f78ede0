//! The parameter document of one run: defaults, given values, secrets, and its three encodings.
//!
//! The encodings are facts of the platform, byte for byte: packs parse them with a line of shell or Python.

use attune_model::JsonMap;
use attune_model::status::ParameterFormat;
use serde_json::Value;

/// The parameters with the secrets over them.
pub(crate) fn merge(mut parameters: JsonMap, secrets: &JsonMap) -> JsonMap {
    for (key, value) in secrets {
        parameters.insert(key.clone(), value.clone());
    }
    parameters
}

/// The document as the child reads it, without the final line feed that delivery on standard input adds.
pub(crate) fn encode(parameters: &JsonMap, format: ParameterFormat) -> String {
    match format {
        ParameterFormat::Json => Value::Object(parameters.clone()).to_string(),
        ParameterFormat::Dotenv => dotenv(parameters),
        ParameterFormat::Yaml => attune_yaml::emit(&Value::Object(parameters.clone())),
    }
}

fn dotenv(parameters: &JsonMap) -> String {
    let mut lines = Vec::new();
    flatten(&mut lines, "", parameters);
    lines.sort_unstable();
    lines.join("\n")
}

fn flatten(lines: &mut Vec<String>, prefix: &str, object: &JsonMap) {
    for (key, value) in object {
        let name = format!("{prefix}{key}");
        match value {
            Value::Object(inner) => flatten(lines, &format!("{name}."), inner),
            Value::Null => lines.push(format!("{name}=''")),
            other => lines.push(format!("{name}={}", single_quoted(&text_of(other)))),
        }
    }
}

/// A value as shell code and environment variables carry it: texts raw, everything else as compact JSON.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A text as one word of a shell.
pub(crate) fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> JsonMap {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is not an object"),
        }
    }

    #[test]
    fn a_secret_wins_over_a_parameter_of_its_name() {
        let merged = merge(object(json!({"a": 1, "b": {"deep": 1}})), &object(json!({"b": 2, "c": 3})));
        assert_eq!(Value::Object(merged), json!({"a": 1, "b": 2, "c": 3}));
    }

    #[test]
    fn json_is_one_compact_line() {
        let parameters = object(json!({"z": "two\nlines", "a": [1, null], "o": {"k": true}}));
        assert_eq!(encode(&parameters, ParameterFormat::Json), r#"{"z":"two\nlines","a":[1,null],"o":{"k":true}}"#);
        assert_eq!(encode(&JsonMap::new(), ParameterFormat::Json), "{}");
    }

    #[test]
    fn dotenv_lines_are_flat_quoted_and_sorted_by_bytes() {
        let parameters = object(json!({
            "message": "It's a test",
            "count": 42,
            "enabled": true,
            "ratio": 1.5,
            "nothing": null,
            "list": [1, "two", {"three": 3}],
            "empty": {},
            "headers": {"Content-Type": "application/json", "X": {"Y": "z"}},
            "Upper": "first by bytes",
            "lines": "one\ntwo",
        }));
        let expected = [
            "Upper='first by bytes'",
            "count='42'",
            "enabled='true'",
            "headers.Content-Type='application/json'",
            "headers.X.Y='z'",
            "lines='one\ntwo'",
            r#"list='[1,"two",{"three":3}]'"#,
            r"message='It'\''s a test'",
            "nothing=''",
            "ratio='1.5'",
        ];
        assert_eq!(encode(&parameters, ParameterFormat::Dotenv), expected.join("\n"));
        assert_eq!(encode(&JsonMap::new(), ParameterFormat::Dotenv), "");
    }

    #[test]
    fn yaml_is_a_mapping_that_ends_with_a_line_feed() {
        let parameters = object(json!({"name": "x", "answer": "yes", "list": [1], "none": {}}));
        assert_eq!(encode(&parameters, ParameterFormat::Yaml), "name: x\nanswer: \"yes\"\nlist:\n  - 1\nnone: {}\n");
        assert_eq!(encode(&JsonMap::new(), ParameterFormat::Yaml), "{}\n");
    }
}

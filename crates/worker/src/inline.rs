//! Code without a file: shell text in `action.entrypoint`, with the parameters as shell variables in front of it.
//!
//! The variables are not exported, so they do not show in the environment of what the code starts.

use attune_model::JsonMap;

use crate::parameters::{single_quoted, text_of};

/// `code` behind an assignment of every parameter, as `PARAM_<NAME>` and as the plain name.
pub(crate) fn wrap(code: &str, shell: &str, parameters: &JsonMap) -> String {
    let mut script = format!("#!{shell}\nset -e\n");
    for (key, value) in parameters {
        let name = identifier(key);
        let word = single_quoted(&text_of(value));
        script.push_str("PARAM_");
        script.push_str(&name.to_uppercase());
        script.push('=');
        script.push_str(&word);
        script.push('\n');
        script.push_str(&name);
        script.push('=');
        script.push_str(&word);
        script.push('\n');
    }
    script.push_str(code);
    if !code.ends_with('\n') {
        script.push('\n');
    }
    script
}

/// A key as a shell identifier: what does not belong there becomes `_`.
fn identifier(key: &str) -> String {
    let mut name: String = key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.replace_range(..1, "_");
    }
    if name.is_empty() {
        name.push('_');
    }
    name
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_parameter_becomes_two_assignments() {
        let Value::Object(parameters) = json!({"test.api_url": "it's", "n": 3, "list": [1, "a"], "none": null}) else {
            panic!("an object");
        };
        let expected = [
            "#!/bin/sh",
            "set -e",
            r"PARAM_TEST_API_URL='it'\''s'",
            r"test_api_url='it'\''s'",
            "PARAM_N='3'",
            "n='3'",
            r#"PARAM_LIST='[1,"a"]'"#,
            r#"list='[1,"a"]'"#,
            "PARAM_NONE='null'",
            "none='null'",
            "echo hi",
            "",
        ];
        assert_eq!(wrap("echo hi", "/bin/sh", &parameters), expected.join("\n"));
    }

    #[test]
    fn odd_keys_become_identifiers() {
        for (key, name) in [("", "_"), ("1st", "_st"), ("a b", "a_b"), ("ä", "_"), ("_x9", "_x9"), ("$(id)", "__id_")]
        {
            assert_eq!(identifier(key), name, "{key:?}");
        }
    }
}

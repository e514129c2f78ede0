//! The environment of a child, built from nothing.
//!
//! Order: what the host lets through, what the platform promises, what the runtime adds, what the execution asks for.
//! Nothing of the agent's own settings is ever in it: the host's part is chosen by the caller, and names that start with
//! `ATTUNE_` are set here alone.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use attune_model::JsonMap;
use serde_json::Value;
use thiserror::Error;

use crate::parameters::text_of;

const OWN_PREFIX: &str = "ATTUNE_";

/// A variable that no process can have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum EnvironmentError {
    /// The name is empty or has a `=` or NUL in it.
    #[error("{name:?} of {origin} cannot be the name of an environment variable")]
    Name {
        /// The name.
        name: String,
        /// Where it was asked for.
        origin: &'static str,
    },
    /// The value has a NUL in it.
    #[error("the value of {name} from {origin} contains a NUL, which no environment variable can carry")]
    Value {
        /// The name.
        name: String,
        /// Where it was asked for.
        origin: &'static str,
    },
    /// `execution.env_vars` is not an object of texts.
    #[error("env_vars of the execution must be an object of texts{0}")]
    Shape(String),
}

/// Variables in the order in which they were first set.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct ChildEnvironment {
    variables: Vec<(OsString, OsString)>,
}

impl std::fmt::Debug for ChildEnvironment {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.variables.iter().map(|(name, _)| name)).finish()
    }
}

impl ChildEnvironment {
    /// Starts with what the host lets through.
    pub(crate) fn new(passed: &[(OsString, OsString)]) -> Self {
        let allowed = |(name, _): &&(OsString, OsString)| !name.as_bytes().starts_with(OWN_PREFIX.as_bytes());
        Self { variables: passed.iter().filter(allowed).cloned().collect() }
    }

    /// Sets variables that were made from those that are here.
    pub(crate) fn set_all(&mut self, variables: &[(OsString, OsString)]) {
        for (name, value) in variables {
            self.set(name, value.clone());
        }
    }

    /// Sets a variable whose name is ours.
    pub(crate) fn set(&mut self, name: impl AsRef<OsStr>, value: impl Into<OsString>) {
        let name = name.as_ref();
        let value = value.into();
        match self.variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.variables.push((name.into(), value)),
        }
    }

    /// One variable for each key of `context`, the object under `config.context`. Upper-casing is all that is done to
    /// the key: a fact of the platform.
    pub(crate) fn set_context(&mut self, context: &JsonMap) -> Result<(), EnvironmentError> {
        for (key, value) in context {
            self.set_checked(&format!("ATTUNE_CONTEXT_{}", key.to_uppercase()), text_of(value), "config.context")?;
        }
        Ok(())
    }

    /// `execution.env_vars`, without those that would replace a variable of the platform.
    pub(crate) fn set_requested(&mut self, requested: &Value) -> Result<(), EnvironmentError> {
        let map = match requested {
            Value::Null => return Ok(()),
            Value::Object(map) => map,
            _ => return Err(EnvironmentError::Shape(String::new())),
        };
        for (name, value) in map {
            if name.starts_with(OWN_PREFIX) {
                tracing::warn!(variable = name, "env_vars of the execution cannot set a variable of the platform");
                continue;
            }
            let text = match value {
                Value::String(_) | Value::Number(_) | Value::Bool(_) => text_of(value),
                _ => return Err(EnvironmentError::Shape(format!(": {name} is not a text"))),
            };
            self.set_checked(name, text, "env_vars of the execution")?;
        }
        Ok(())
    }

    fn set_checked(&mut self, name: &str, value: String, origin: &'static str) -> Result<(), EnvironmentError> {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(EnvironmentError::Name { name: name.to_owned(), origin });
        }
        if value.contains('\0') {
            return Err(EnvironmentError::Value { name: name.to_owned(), origin });
        }
        self.set(name, value);
        Ok(())
    }

    /// The variables so far.
    pub(crate) fn variables(&self) -> &[(OsString, OsString)] {
        &self.variables
    }

    /// The variables.
    pub(crate) fn into_variables(self) -> Vec<(OsString, OsString)> {
        self.variables
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn passed() -> Vec<(OsString, OsString)> {
        vec![("PATH".into(), "/bin".into()), ("ATTUNE__SECURITY__JWT_SECRET".into(), "hidden".into())]
    }

    fn get<'a>(environment: &'a ChildEnvironment, name: &str) -> Option<&'a str> {
        environment.variables.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.to_str())
    }

    #[test]
    fn the_agents_own_variables_do_not_pass_even_when_handed_in() {
        let environment = ChildEnvironment::new(&passed());
        assert_eq!(environment.variables(), [("PATH".into(), "/bin".into())]);
    }

    #[test]
    fn context_keys_are_upper_cased_and_values_are_texts() {
        let mut environment = ChildEnvironment::default();
        let Value::Object(context) = json!({"user": "ann", "n": 1, "on": true, "deep": {"a": [1]}, "no": null}) else {
            panic!("an object");
        };
        environment.set_context(&context).unwrap();
        for (name, value) in [("USER", "ann"), ("N", "1"), ("ON", "true"), ("DEEP", r#"{"a":[1]}"#), ("NO", "null")] {
            assert_eq!(get(&environment, &format!("ATTUNE_CONTEXT_{name}")), Some(value));
        }
        let Value::Object(bad) = json!({"a=b": "x"}) else { panic!("an object") };
        let error = environment.set_context(&bad).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"ATTUNE_CONTEXT_A=B\" of config.context cannot be the name of an environment variable"
        );
    }

    #[test]
    fn an_execution_sets_variables_but_none_of_the_platform() {
        let mut environment = ChildEnvironment::new(&passed());
        environment.set("ATTUNE_EXEC_ID", "7");
        environment.set_requested(&json!({"PATH": "/opt/bin", "DEBUG": true, "ATTUNE_EXEC_ID": "8"})).unwrap();
        assert_eq!(get(&environment, "PATH"), Some("/opt/bin"));
        assert_eq!(get(&environment, "DEBUG"), Some("true"));
        assert_eq!(get(&environment, "ATTUNE_EXEC_ID"), Some("7"));
        assert_eq!(environment.variables().len(), 3);
        environment.set_requested(&Value::Null).unwrap();
        for bad in [json!(["A=1"]), json!({"A": {}}), json!({"": "x"}), json!({"A": "x\u{0}"})] {
            assert!(environment.set_requested(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_do_not_show_in_debug_output() {
        let mut environment = ChildEnvironment::default();
        environment.set("ATTUNE_API_TOKEN", "hidden");
        assert_eq!(format!("{environment:?}"), "[\"ATTUNE_API_TOKEN\"]");
    }
}

//! `runtime.execution_config`: how a runtime starts code and builds its environments (shape: a fact of the platform).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The whole configuration. `{}` means that the code file is executed itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecutionConfig {
    /// The program that reads the code file.
    pub interpreter: Interpreter,
    /// How code without a file is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline_execution: Option<InlineExecution>,
    /// The environment a pack gets for this runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// What is installed into that environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Dependencies>,
    /// Variables that code of this runtime gets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env_vars: BTreeMap<String, EnvVar>,
}

impl ExecutionConfig {
    /// Whether the code file is executed itself: no interpreter, or one of the platform's words for none.
    pub fn is_native(&self) -> bool {
        matches!(self.interpreter.binary.as_str(), "" | "native" | "none")
    }
}

/// `interpreter`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Interpreter {
    /// Name to look up on `PATH`, or an absolute path.
    pub binary: String,
    /// Arguments before the code file.
    pub args: Vec<String>,
    /// With the dot, for actions that name no runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_extension: Option<String>,
}

/// `inline_execution`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InlineExecution {
    /// As an argument or as a temporary file.
    pub strategy: InlineStrategy,
    /// Extension of that file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension: Option<String>,
    /// Whether parameters become shell variables in front of the code.
    pub inject_shell_helpers: bool,
}

/// `inline_execution.strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InlineStrategy {
    /// `interpreter -c CODE`.
    #[default]
    Direct,
    /// A file that is removed afterwards.
    TempFile,
}

/// `environment`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// `virtualenv`, `node_modules`, …; `none` switches environments off.
    pub env_type: String,
    /// Unused by the platform (environments live outside the pack), kept for round trips.
    #[serde(default = "default_dir_name")]
    pub dir_name: String,
    /// The command that makes the environment, with templates.
    #[serde(default)]
    pub create_command: Vec<String>,
    /// The interpreter inside the environment, with templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter_path: Option<String>,
}

fn default_dir_name() -> String {
    ".venv".to_owned()
}

/// `dependencies`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependencies {
    /// File in the pack directory.
    pub manifest_file: String,
    /// The command that installs it, with templates.
    #[serde(default)]
    pub install_command: Vec<String>,
}

/// A value of `env_vars`: a text, or a text with an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EnvVar {
    /// Replaces the variable.
    Set(String),
    /// Combines with the value that is there.
    Combine {
        /// The text, with templates.
        value: String,
        /// What to do with the value that is there.
        #[serde(default)]
        operation: EnvOperation,
        /// Between the two, when both are non-empty.
        #[serde(default = "default_separator")]
        separator: String,
    },
}

/// `operation` of an environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvOperation {
    /// Replace.
    #[default]
    Set,
    /// In front.
    Prepend,
    /// Behind.
    Append,
}

fn default_separator() -> String {
    ":".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_object_is_native() {
        let config: ExecutionConfig = serde_json::from_str("{}").unwrap();
        assert!(config.is_native());
        assert_eq!(serde_json::to_string(&ExecutionConfig::default().env_vars).unwrap(), "{}");
    }

    #[test]
    fn both_forms_of_a_variable_are_read() {
        let config: ExecutionConfig = serde_json::from_str(
            r#"{"interpreter":{"binary":"python3","args":["-u"],"file_extension":".py"},
                "env_vars":{"A":"x","PYTHONPATH":{"value":"{pack_dir}/lib","operation":"prepend"}}}"#,
        )
        .unwrap();
        assert_eq!(config.env_vars["A"], EnvVar::Set("x".into()));
        assert_eq!(
            config.env_vars["PYTHONPATH"],
            EnvVar::Combine { value: "{pack_dir}/lib".into(), operation: EnvOperation::Prepend, separator: ":".into() }
        );
        assert!(!config.is_native());
    }
}

//! Where variables come from: the process environment, or a map in tests and embedded use.
//!
//! This is the only place of the workspace that reads the environment of the process. Nothing ever changes it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

/// Something that has environment variables. Names and values need not be UTF-8.
pub trait Source: fmt::Debug {
    /// The value of `name`; none when it is not set.
    fn get(&self, name: &str) -> Option<OsString>;

    /// Everything that is set.
    fn all(&self) -> Vec<(OsString, OsString)>;

    /// The value of `name` as text; none when it is not set, empty or not UTF-8. For variables that only tune something.
    fn text(&self, name: &str) -> Option<String> {
        self.get(name)?.into_string().ok().filter(|value| !value.is_empty())
    }
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

/// The environment of this process.
pub fn process_env() -> ProcessEnvironment {
    ProcessEnvironment
}

impl Source for ProcessEnvironment {
    #[expect(clippy::disallowed_methods, reason = "the one reader of the environment")]
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    #[expect(clippy::disallowed_methods, reason = "the one reader of the environment")]
    fn all(&self) -> Vec<(OsString, OsString)> {
        std::env::vars_os().collect()
    }
}

/// Variables held in a map. Its debug form shows names only: values may be secrets.
#[derive(Clone, Default)]
pub struct MapSource {
    variables: BTreeMap<OsString, OsString>,
}

impl fmt::Debug for MapSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl MapSource {
    /// The same with `name` set to `value`.
    #[must_use]
    pub fn with(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }
}

impl Source for MapSource {
    fn get(&self, name: &str) -> Option<OsString> {
        self.variables.get(OsStr::new(name)).cloned()
    }

    fn all(&self) -> Vec<(OsString, OsString)> {
        self.variables.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

//! Where variables come from: the process environment, or a map in tests and embedded use.
//!
//! This is the only place of the workspace that reads the environment of the process. Nothing changes it, but agents empty their
//! own variables in it once these have been read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::sync::OnceLock;

use crate::child::OWN_PREFIX;

/// Tells whose descendant this process is; not a secret, and others look for it.
const PROCESS_TREE: &str = "ATTUNE_PROCESS_TREE";

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

/// The environment with which this process was started, as it was at the first look.
#[derive(Debug, Clone, Copy)]
pub struct ProcessEnvironment(());

static STARTED_WITH: OnceLock<Vec<(OsString, OsString)>> = OnceLock::new();

/// The environment of this process. Read once; later it is remembered.
#[expect(clippy::disallowed_methods, reason = "the one reader of the environment")]
pub fn process_env() -> ProcessEnvironment {
    STARTED_WITH.get_or_init(|| std::env::vars_os().collect());
    ProcessEnvironment(())
}

/// Empties the values of the agent's own variables where the kernel shows them (`/proc/<pid>/environ`): they hold its secrets.
/// [`process_env`] still knows them; nothing else of this process does, and what it starts does not inherit them.
///
/// To be called before there is a second thread, which is refused.
pub fn forget_process_env() -> io::Result<()> {
    process_env();
    attune_sys::empty_variables(|name| {
        let is_own =
            name.get(..OWN_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX.as_bytes()));
        is_own && name != PROCESS_TREE.as_bytes()
    })
    .map(drop)
}

impl Source for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<OsString> {
        let variables = STARTED_WITH.get()?;
        variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    fn all(&self) -> Vec<(OsString, OsString)> {
        STARTED_WITH.get().cloned().unwrap_or_default()
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

//! What the worker is told: validated values, no reading of files or of the environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attune_http::Transport;
use attune_model::status::{RetentionPolicy, WorkerType};
use attune_model::{JsonMap, RuntimeId, Secret, is_plain_name};
use attune_process::Policy;
use attune_runtime::Advertised;
use attune_runtime::plan::Builtin;

/// Time limit of an action that names none. A fact of the platform: its tokens are made for it.
pub const DEFAULT_TIME_LIMIT: Duration = Duration::from_mins(5);

/// Bytes of each output stream that are kept, unless configured otherwise.
pub const DEFAULT_OUTPUT_LIMIT: usize = 10 * 1024 * 1024;

/// Between the polite and the final signal to a child. A fact of the platform.
pub const CHILD_GRACE: Duration = Duration::from_secs(5);

/// The worker as a member of an installation.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Unique name over workers and sensor hosts; the row of that name is taken over.
    pub name: String,
    /// Kind of machine, written when the row is made.
    pub worker_type: WorkerType,
    /// The runtime that the row names, written when the row is made.
    pub runtime: Option<RuntimeId>,
    /// Host name.
    pub host: Option<String>,
    /// Port, when configured.
    pub port: Option<i32>,
    /// What the worker says about itself beside its runtimes (agent mode, labels, taints, `worker.capabilities`). A key
    /// that the worker would fill in itself keeps the value given here.
    pub capabilities: JsonMap,
    /// How many executions run at once; at least 1.
    pub max_concurrent_tasks: u16,
    /// Time between two signs of life. The platform gives up on a worker after 90 s.
    pub heartbeat_interval: Duration,
    /// Whether runtimes that this host has and the installation does not know get rows of their own.
    pub registers_runtimes: bool,
    /// Where results wait for storage that is away; below it each worker has a folder of its own.
    pub spool_dir: PathBuf,
    /// How files and packs travel.
    pub transports: Transports,
    /// How one execution is run.
    pub executor: ExecutorConfig,
}

/// How files and packs travel between this worker and the platform.
#[derive(Debug, Clone, Default)]
pub struct Transports {
    /// Logs and files of executions.
    pub artifacts: Transport,
    /// Packs.
    pub packs: Transport,
    /// Base address of the API, as this worker reaches it.
    pub api_url: String,
    /// PEM certificates that are trusted besides the built-in roots.
    pub ca_file: Option<PathBuf>,
}

/// How one execution is run.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// Where packs are.
    pub packs: PackFolders,
    /// What this host can run.
    pub advertised: Advertised,
    /// Programs of this installation that stand for entry points without a file.
    pub builtins: Vec<Builtin>,
    /// Where shared environments are built.
    pub runtime_envs_dir: PathBuf,
    /// Where logs and files of executions go.
    pub artifacts_dir: PathBuf,
    /// Where parameter files and inline code go while an execution runs.
    pub temp_dir: PathBuf,
    /// The API as the child sees it.
    pub api_url: String,
    /// Absolute path of this program, for packs that need a tool of it.
    pub agent_bin: PathBuf,
    /// The part of the agent's own environment that user code may see.
    pub passed_environment: Vec<(OsString, OsString)>,
    /// Time limit of an execution whose action and task name none.
    pub time_limit: Duration,
    /// Most bytes of standard output that are kept.
    pub max_stdout_bytes: usize,
    /// Most bytes of standard error that are kept.
    pub max_stderr_bytes: usize,
    /// How long logs are kept when the action says nothing.
    pub log_retention: (RetentionPolicy, i32),
    /// What each child sets up in itself before it becomes the action, above all to die with this process; none starts
    /// the action directly, which is cheaper.
    pub policy: Option<Policy>,
    /// The polite signal to a child.
    pub child_signal: i32,
    /// Between the polite and the final signal to a child.
    pub child_grace: Duration,
    /// The platform's key for secrets at rest.
    pub encryption_key: Option<Secret>,
    /// The platform's key for tokens.
    pub jwt_secret: Option<Secret>,
}

/// The folders that hold packs, each in a folder of its ref, in the order in which they are asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackFolders {
    bases: Vec<PathBuf>,
}

impl PackFolders {
    /// One folder, as on the platform (`packs_base_dir`).
    pub fn base(base: impl Into<PathBuf>) -> Self {
        Self::new([base.into()])
    }

    /// Several folders.
    pub fn new(bases: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { bases: bases.into_iter().collect() }
    }

    /// Where new packs go.
    pub(crate) fn first(&self) -> Option<&Path> {
        self.bases.first().map(PathBuf::as_path)
    }

    /// The folder that holds the pack: the first that has it, else the first, where it is expected.
    ///
    /// None when `pack_ref` is not a plain name, which could lead out of the folder, or when there are no folders.
    pub fn base_of(&self, pack_ref: &str) -> Option<&Path> {
        if !is_plain_name(pack_ref) {
            return None;
        }
        let has_it = |base: &&PathBuf| base.join(pack_ref).is_dir();
        self.bases.iter().find(has_it).or_else(|| self.bases.first()).map(PathBuf::as_path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_has_the_pack_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::create_dir_all(second.join("demo")).unwrap();
        let packs = PackFolders::new([first.clone(), second.clone()]);
        assert_eq!(packs.base_of("demo"), Some(second.as_path()));
        assert_eq!(packs.base_of("missing"), Some(first.as_path()));
        assert_eq!(PackFolders::default().base_of("demo"), None);
    }

    #[test]
    fn a_pack_ref_cannot_lead_out_of_the_folders() {
        let packs = PackFolders::new([PathBuf::from("/packs")]);
        for bad in ["", ".", "..", "../etc", "a/b", "/etc", "a/", "a\0b"] {
            assert_eq!(packs.base_of(bad), None, "{bad:?}");
        }
    }
}

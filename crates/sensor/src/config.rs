//! Settings of a sensor host, validated by whoever made them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use attune_http::Transport;
use attune_model::{JsonMap, Secret};
use attune_process::{Guard, Policy, SIGTERM};
use attune_runtime::Host;
use attune_runtime::plan::Planner;
use attune_security::TokenKey;

/// Everything a sensor host is told. Nothing here is read from the environment by the host itself.
#[derive(Debug, Clone)]
pub struct SensorConfig {
    /// Name of the worker row, unique over both roles.
    pub name: String,
    /// Host name, for people.
    pub host: Option<String>,
    /// What this host can do: `runtimes`, `runtime_versions`, `detected_interpreters`, `labels`, `taints` and whatever else
    /// was configured. The host adds its own numbers and its version.
    pub capabilities: JsonMap,
    /// Reported only; the platform's readers compute utilisation from it.
    pub max_concurrent_sensors: u32,
    /// Folders.
    pub paths: SensorPaths,
    /// Base URL of the API, for this host and its children.
    pub api_url: String,
    /// Trusted besides the built-in roots when that URL is `https`.
    pub ca_file: Option<PathBuf>,
    /// The installation's key for tokens, by which the host shows the API that it belongs to it.
    pub token_key: Option<TokenKey>,
    /// `ATTUNE_MQ_URL` of the children; none means the platform's default.
    pub mq_url: Option<Secret>,
    /// Variables of this process that children may see; everything else is invisible to them.
    pub base_environment: Vec<(OsString, OsString)>,
    /// How code is started on this machine: interpreters, folders, programs that stand for entry points without a file.
    pub planner: Planner,
    /// The programs and variables that environments of packs are built with.
    pub build_host: Arc<Host>,
    /// What each process sets up in itself before it becomes the sensor, above all to die with this host; none starts
    /// the sensor directly.
    pub policy: Option<Policy>,
    /// Ends the sensors when this process is stopped or dies and cannot do it; none in a process that must start no other.
    pub guard: Option<Arc<Guard>>,
    /// Delays and limits.
    pub timing: SensorTiming,
    /// Log files.
    pub logs: LogLimits,
    /// How logs reach the platform: through `paths.artifacts`, or through the API.
    pub artifacts: Transport,
    /// How packs reach `paths.packs`: they are there, or come through the API.
    pub packs: Transport,
    /// Whether a sensor is started again when its pack is registered with other files in its shared folder, whatever they are. Not
    /// where a pack is registered whenever one of its files changes.
    pub restarts_registered: bool,
}

/// Folders and files of a sensor host, all absolute.
#[derive(Debug, Clone)]
pub struct SensorPaths {
    /// `packs_base_dir`.
    pub packs: PathBuf,
    /// `artifacts_dir`.
    pub artifacts: PathBuf,
    /// Our own binary; `ATTUNE_AGENT_BIN` of the children.
    pub agent_binary: PathBuf,
    /// Private folder for tokens, for the sockets on which sensors say how they are, and for the control socket. None:
    /// there are none of these.
    pub run: Option<PathBuf>,
}

/// Delays and limits of a sensor host.
#[derive(Debug, Clone)]
pub struct SensorTiming {
    /// Well below the 90 s after which the platform takes a host for dead.
    pub heartbeat_interval: Duration,
    /// How often the wanted and the running sensors are compared without being asked to.
    pub reconcile_interval: Duration,
    /// How long a change may be followed by further ones before it is acted upon: a storm of changes is one restart.
    pub change_window: Duration,
    /// How long this host may run sensors after the store has last heard of it. Another host takes over within twice this
    /// time. None where no other host can use the store: nothing is leased, and nothing ends when the store is away.
    pub lease_time: Option<Duration>,
    /// Life of a sensor's token; the API takes one hour to three days.
    pub token_lifetime: Duration,
    /// First delay after a failure; it doubles with each further one.
    pub backoff_min: Duration,
    /// Longest delay after a failure.
    pub backoff_max: Duration,
    /// A sensor that ran so long is healthy: its next failure counts as the first.
    pub healthy_after: Duration,
    /// A sensor that gives signs of life (`WATCHDOG=1`) and gives none for so long hangs.
    pub watchdog: Duration,
    /// The signal that asks a sensor to end.
    pub stop_signal: i32,
    /// How long a sensor may take to end after it.
    pub stop_grace: Duration,
    /// How logs are brought to the API, where they are.
    pub delivery: LogDelivery,
    /// How packs are fetched from the API, where they are.
    pub fetching: PackFetching,
}

/// How packs are fetched from the API.
#[derive(Debug, Clone, Copy)]
pub struct PackFetching {
    /// Shortest and longest delay after a failure.
    pub backoff: (Duration, Duration),
    /// How long the sensors of a pack wait for a new version of it before they run with what is here, or say that nothing is.
    pub patience: Duration,
    /// For one call.
    pub call_limit: Duration,
}

impl Default for PackFetching {
    /// The limit of a call is a fact of the platform.
    fn default() -> Self {
        Self {
            backoff: (Duration::from_secs(1), Duration::from_mins(1)),
            patience: Duration::from_secs(10),
            call_limit: Duration::from_mins(5),
        }
    }
}

/// How logs are brought to the API.
#[derive(Debug, Clone, Copy)]
pub struct LogDelivery {
    /// How long a line may wait for others that go with it.
    pub gather: Duration,
    /// Shortest and longest delay after a failure.
    pub backoff: (Duration, Duration),
    /// For one call; a piece is at most 1 MiB.
    pub call_limit: Duration,
}

impl Default for LogDelivery {
    /// Lines are read live, and an API that has come back is found soon.
    fn default() -> Self {
        Self {
            gather: Duration::from_millis(500),
            backoff: (Duration::from_secs(1), Duration::from_mins(1)),
            call_limit: Duration::from_secs(30),
        }
    }
}

impl Default for SensorTiming {
    /// Ours: the platform's own delays, 5 s to 5 min, keep a mended sensor down for too long.
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(30),
            reconcile_interval: Duration::from_secs(30),
            change_window: Duration::from_millis(200),
            lease_time: Some(Duration::from_secs(30)),
            token_lifetime: Duration::from_hours(24),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_mins(1),
            healthy_after: Duration::from_mins(10),
            watchdog: Duration::from_mins(1),
            stop_signal: SIGTERM,
            stop_grace: Duration::from_secs(5),
            delivery: LogDelivery::default(),
            fetching: PackFetching::default(),
        }
    }
}

/// Limits of log files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// `artifacts.sensor_log_max_bytes`: a file that would grow beyond it is followed by a new one.
    pub max_bytes: u64,
    /// `artifacts.sensor_log_max_files`: older files outside the store; 0 means that files grow for ever.
    pub max_files: u32,
}

impl Default for LogLimits {
    /// The platform's defaults.
    fn default() -> Self {
        Self { max_bytes: 10 * 1024 * 1024, max_files: 4 }
    }
}

//! What the hub is told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use attune_model::Secret;
use attune_model::activity::{NoObserver, Observer};
use attune_security::{SealingKey, TokenKey};

use crate::folders::Folders;

/// Settings of a hub. The times are the platform's unless changed.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Where to listen; port 0 takes a free one. Sensor tokens are given without authentication to clients that come from
    /// a loopback address only.
    pub listen: SocketAddr,
    /// Signs and verifies tokens.
    pub token_key: TokenKey,
    /// Encrypts secret parameters.
    pub sealing_key: SealingKey,
    /// The folders that agents without shared folders read and write through this hub; none: it has none to give.
    pub folders: Option<Folders>,
    /// What `/health/detailed` says.
    pub version: String,
    /// The agents' binary, for images without the volume; none offers no download.
    pub agent: Option<AgentDownloads>,
    /// How long a worker may be silent before it counts as lost.
    pub heartbeat_limit: Duration,
    /// How long an execution may wait for its worker to start it.
    pub scheduled_limit: Duration,
    /// How long an execution may wait for a worker that fits to come back.
    pub waiting_limit: Duration,
    /// How often lost workers and overdue executions are looked for.
    pub monitor_period: Duration,
    /// How often it is looked whether a worker came back, while an execution waits for one.
    pub fleet_period: Duration,
    /// How often executions are looked for whose message was lost.
    pub sweep_period: Duration,
    /// How often storage is asked for a sign of life; without two of them the hub is not ready.
    pub health_period: Duration,
    /// Is told about connections and consumers.
    pub observer: Arc<dyn Observer>,
}

impl HubConfig {
    /// The platform's times.
    pub fn new(listen: SocketAddr, token_key: TokenKey, sealing_key: SealingKey) -> Self {
        Self {
            listen,
            token_key,
            sealing_key,
            folders: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            agent: None,
            heartbeat_limit: Duration::from_secs(90),
            scheduled_limit: Duration::from_mins(5),
            waiting_limit: Duration::from_hours(2),
            monitor_period: Duration::from_mins(1),
            fleet_period: Duration::from_secs(1),
            sweep_period: Duration::from_secs(30),
            health_period: Duration::from_secs(5),
            observer: Arc::new(NoObserver),
        }
    }
}

/// Where the binaries of the agents are, and who may have them.
#[derive(Debug, Clone)]
pub struct AgentDownloads {
    /// The folder with `attune-agent-<arch>`, as an install leaves it.
    pub binary_dir: PathBuf,
    /// What the header `X-Agent-Token` has to hold; without it nothing is handed out.
    pub bootstrap_token: Option<Secret>,
}

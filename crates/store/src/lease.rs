//! Which host runs which sensor: leases on the platform's own tables.
//!
//! ```text
//!   worker.meta.attune_session        {"id", "process", "life_us", "earlier"}   one life of a host, written at its start
//!                                     {…, "until_us"}   until when it holds, once another process registered; gone when renewed
//!   worker.last_heartbeat             renewed; the session holds until this time and its life
//!   sensor_process.meta.attune_lease  {"session"}                             what it holds; null when it was given back
//! ```
//!
//! All leases of a host are renewed by the one heartbeat that the platform expects anyway. Renewing a row per sensor instead
//! would be a row of history per sensor and renewal, because the platform records every change of `sensor_process` and none
//! of a heartbeat.
//!
//! A session that was not renewed in time is over for good, and so is one whose row was taken over by a later life of the
//! host; what it held counts as held until its time is over.
//!
//! For a store with concurrent writers: taking must wait for a renewal of the holder that is being written, and must see it
//! (lock the holders' `worker` rows first, decide in a later statement); two takers of one sensor must wait for each other.

use std::time::Duration;

use async_trait::async_trait;
use attune_model::{SensorId, WorkerId};
use uuid::Uuid;

use crate::StoreError;

/// A host that knows no leases counts as alive so long after its last heartbeat (a fact of the platform).
pub const UNLEASED_LIFE: Duration = Duration::from_secs(90);

/// One process of a host, for what it writes about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostProcess<'a> {
    /// Its row.
    pub worker: WorkerId,
    /// The name of that row.
    pub worker_name: &'a str,
    /// Unique for this process.
    pub id: Uuid,
}

/// One life of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSession {
    /// Its row.
    pub worker: WorkerId,
    /// The name of that row.
    pub worker_name: String,
    /// The process that lives it. One that was cut off from the store for too long begins another life.
    pub process: Uuid,
    /// Unique for this life.
    pub id: Uuid,
    /// How long it holds after a renewal.
    pub life: Duration,
}

impl HostSession {
    /// Who lives it.
    pub fn process(&self) -> HostProcess<'_> {
        HostProcess { worker: self.worker, worker_name: &self.worker_name, id: self.process }
    }
}

/// What came of the beginning of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// It holds.
    Begun {
        /// Whether an operator wants the host to take nothing new.
        cordoned: bool,
    },
    /// A later life of the host, or another host of its name, holds the row.
    Taken,
    /// There is no such row any more.
    Gone,
}

/// What came of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The session holds from now on for another life.
    Renewed {
        /// Whether an operator wants the host to take nothing new.
        cordoned: bool,
    },
    /// It was over already, or its row belongs to a later session: nothing is held any more.
    Lost,
}

/// Somebody else who runs a sensor, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// Which sensor.
    pub sensor: SensorId,
    /// Name of its host.
    pub worker_name: String,
    /// Whether that host knows leases. One that does not can appear while another holds the lease.
    pub leased: bool,
}

/// Leases of sensors.
#[async_trait]
pub trait LeaseStore: Send + Sync + std::fmt::Debug {
    /// Begins a session: the row is `active` with a fresh heartbeat. What earlier sessions of that row hold stays held until
    /// their time is over. It takes the place of whatever session there is when it is the first one of its process, else only
    /// of `before`, of itself, and of one that is over: of two processes that share a row the later one keeps it.
    async fn begin_session(&self, session: &HostSession, before: Option<&HostSession>)
    -> Result<Beginning, StoreError>;

    /// Renews the session, and with it all that it holds. This is a heartbeat with status `active`.
    async fn renew_session(&self, session: &HostSession) -> Result<Renewal, StoreError>;

    /// Takes those of `sensors` that nobody else runs or may run; returns them. Takes nothing when the session is over.
    ///
    /// Rows of hosts whose lease of a taken sensor ran out are set to `stopped`: they died without saying so.
    async fn take_sensors(&self, session: &HostSession, sensors: &[SensorId]) -> Result<Vec<SensorId>, StoreError>;

    /// Gives back what the session holds of `sensors`; rows that still tell of a process are set to `stopped`. Works after
    /// the end of the session too.
    async fn give_back_sensors(&self, session: &HostSession, sensors: &[SensorId]) -> Result<(), StoreError>;

    /// Sets rows of other hosts to `stopped` that still tell of a process, or of a next start, under a session that is over: those
    /// hosts died without saying so, and perhaps nobody ever takes what they ran. Returns how many.
    async fn correct_rows(&self, session: &HostSession) -> Result<u64, StoreError>;

    /// Whether the rows of this process belong to another one of its name: that one has a session, and it holds. Then this one
    /// has nothing to say about them, however late it finds out.
    async fn is_replaced(&self, process: HostProcess<'_>) -> Result<bool, StoreError>;

    /// Everybody else who runs a sensor, or may: leases of other sessions, and living hosts that know no leases.
    async fn runners_elsewhere(&self, session: &HostSession) -> Result<Vec<Runner>, StoreError>;
}

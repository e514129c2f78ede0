//! Shared environments: virtual environments, `node_modules` and the like, one per pack and runtime or version.
//!
//! ```text
//!   <envs>/<pack>/python          symlink, replaced in one step ─┐
//!   <envs>/<pack>/.python.4be1…   a build, complete or unseen  ◄─┘
//!   <envs>/<pack>/.python.lock    held while building
//!   <envs>/<pack>/.python.log     output of the last build
//!   <envs>/<pack>/python.for-1f…  the same for images that `python` does not fit
//! ```
//!
//! Virtual environments contain their own path, so they cannot be built elsewhere and moved. Each build therefore gets a
//! folder that it keeps for ever, and only a complete one is linked to the name that everybody uses: a build that died is
//! never seen, and code that still runs in the previous build is not disturbed.
//!
//! Builders exclude each other in this process (a lock), on this machine and file system (a file lock) and across machines
//! (the claim in `pack_environment`), always in this order. Losers wait for the winner and then look again.

mod build;
mod caches;
mod claim;
mod error;
mod generation;
mod inspect;
mod lock;
mod manifest;
mod origin;
mod shared;
mod survey;
#[cfg(test)]
mod tests;
mod usage;

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use attune_model::activity::Observer;
use attune_model::{PackEnvironmentId, PackId, WorkerId};
use attune_process::Policy;
use attune_store::{EnvironmentOutcome, EnvironmentStore};

use crate::host::Host;
use crate::plan::Chosen;
use inspect::{Condition, Inspector};
use lock::{LastFailure, Locks};

pub use error::{EnvironmentError, Step};
pub use generation::remove;
pub use survey::{State, Surveyed, survey};
pub use usage::InUse;

/// A state in which code can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Environment {
    /// The runtime has none.
    NotNeeded,
    /// Complete, and fit for this image.
    Ready {
        /// Its folder: one build, which stays as it is whatever is built later.
        folder: PathBuf,
        /// The interpreter inside it; none when environments of this runtime have none.
        interpreter: Option<PathBuf>,
        /// To be kept for as long as code of it runs: what is not in use may be removed after a rebuild.
        in_use: InUse,
    },
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// One command of a build.
    pub command: Duration,
    /// Another builder's build.
    pub wait: Duration,
}

impl Default for Limits {
    /// A quarter of an hour for a command, half an hour for others.
    fn default() -> Self {
        Self { command: Duration::from_mins(15), wait: Duration::from_mins(30) }
    }
}

/// The part of other machines in a build.
#[derive(Debug, Clone, Copy)]
pub struct Coordination<'a> {
    /// Where claims are.
    pub store: &'a dyn EnvironmentStore,
    /// Who claims.
    pub worker: WorkerId,
    /// The pack of the environment.
    pub pack: PackId,
}

/// Makes environments ready, one for all users in this process.
#[derive(Debug)]
pub struct Environments {
    host: Arc<Host>,
    observer: Arc<dyn Observer>,
    limits: Limits,
    policy: Option<Policy>,
    inspector: Inspector,
    locks: Locks,
}

impl Environments {
    /// Builds with the programs and variables of `host`; `observer` is told about every build.
    pub fn new(host: Arc<Host>, observer: Arc<dyn Observer>) -> Self {
        Self {
            host,
            observer,
            limits: Limits::default(),
            policy: None,
            inspector: Inspector::default(),
            locks: Locks::default(),
        }
    }

    /// Other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Commands of builds run under the policy of user code, but for what must not be theirs: as every user of an
    /// environment has to be able to read and replace it, its files belong to the agent's user and get the agent's mask;
    /// a build is no execution, so its CPU time has no such limit ([`Limits::command`] holds).
    #[must_use]
    pub fn with_policy(self, of_user_code: Option<&Policy>) -> Self {
        let policy = of_user_code.cloned().map(|policy| Policy {
            limits: attune_process::Limits { cpu_seconds: None, ..policy.limits },
            umask: None,
            user: None,
            ..policy
        });
        Self { policy, ..self }
    }

    /// Makes the environment of `chosen` ready, building it or waiting for its builder if need be.
    ///
    /// For a ready one this costs a few `stat` calls. When `stop` completes, the commands of an own build are killed and
    /// its claim is given back. Dropping the future kills the commands too, but leaves the claim to expire.
    pub async fn ensure(
        &self,
        chosen: &Chosen,
        coordination: Option<Coordination<'_>>,
        stop: impl Future<Output = ()>,
    ) -> Result<Environment, EnvironmentError> {
        let Some(site) = build::Site::of(chosen) else {
            return Ok(Environment::NotNeeded);
        };
        // The row of the table has one path; a sensor's base folder may have another name than the action's.
        let coordination = coordination.filter(|_| chosen.has_shared_name());
        let claimed = Mutex::new(None);
        tokio::select! {
            biased;
            ready = self.shared_or_own(&site, coordination, &claimed) => ready,
            () = stop => {
                self.give_back(coordination, &claimed).await;
                Err(EnvironmentError::Cancelled { env_dir: site.env_dir.clone() })
            }
        }
    }

    /// The environment that all share; where that one serves another kind of image, one for images like this. The table
    /// has no row for the latter: its row tells of the shared one.
    async fn shared_or_own(
        &self,
        site: &build::Site<'_>,
        coordination: Option<Coordination<'_>>,
        claimed: &Mutex<Option<PackEnvironmentId>>,
    ) -> Result<Environment, EnvironmentError> {
        match self.look_or_build(site, coordination, claimed).await {
            Err(EnvironmentError::Unfit { reason, .. }) => {
                let own = site.for_this_image(&self.inspector);
                tracing::debug!(env_dir = %site.env_dir.display(), own = %own.env_dir.display(), reason, "not for this image");
                self.look_or_build(&own, None, claimed).await
            }
            other => other,
        }
    }

    async fn look_or_build(
        &self,
        site: &build::Site<'_>,
        coordination: Option<Coordination<'_>>,
        claimed: &Mutex<Option<PackEnvironmentId>>,
    ) -> Result<Environment, EnvironmentError> {
        match self.inspector.inspect(site)?.condition {
            Condition::Ready(ready) => Ok(ready),
            Condition::Unfit(reason) => Err(site.unfit(reason)),
            Condition::Missing(_) => self.build_or_wait(site, coordination, claimed).await,
        }
    }

    async fn build_or_wait(
        &self,
        site: &build::Site<'_>,
        coordination: Option<Coordination<'_>>,
        claimed: &Mutex<Option<PackEnvironmentId>>,
    ) -> Result<Environment, EnvironmentError> {
        let asked = Instant::now();
        let lock = self.locks.of(&site.env_dir);
        let mut last_failure = lock.lock().await;
        if let Some(failure) = last_failure.as_ref().filter(|failure| failure.ended > asked) {
            // This build was waited for; trying the same again at once would only make everybody wait once more.
            return Err(EnvironmentError::FailedMeanwhile {
                env_dir: site.env_dir.clone(),
                cause: failure.cause.clone(),
            });
        }
        let _on_machine = lock::acquire(site, self.limits.wait).await?;
        // Whoever had the lock before may have done it.
        let inspected = self.inspector.inspect(site)?;
        let reason = match inspected.condition {
            Condition::Ready(ready) => return Ok(ready),
            Condition::Unfit(reason) => return Err(site.unfit(reason)),
            Condition::Missing(reason) => reason,
        };
        tracing::info!(env_dir = %site.env_dir.display(), reason, "environment has to be built");
        let built = match coordination {
            None => self.build(site, inspected.checksum.as_deref()).await.result,
            Some(others) => self.build_claimed(site, inspected.checksum, others, claimed).await,
        };
        *last_failure =
            built.as_ref().err().map(|error| LastFailure { ended: Instant::now(), cause: attune_model::chain(error) });
        built
    }

    async fn give_back(&self, coordination: Option<Coordination<'_>>, claimed: &Mutex<Option<PackEnvironmentId>>) {
        let held = claimed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(others), Some(row)) = (coordination, held) else {
            return;
        };
        let outcome = EnvironmentOutcome::Failed { error: "the build was cancelled".to_owned(), log: String::new() };
        if let Err(error) = others.store.finish_environment(row, others.worker, &outcome).await {
            tracing::warn!(%row, error = attune_model::chain(&error), "a cancelled build keeps its claim until it expires");
        }
    }
}

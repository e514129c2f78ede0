//! Builders on other machines: the claim in `pack_environment`.
//!
//! The caller holds the file lock already, so of all processes that share this file system only one is here. That is why
//! an own claim that is still live can only be left over from an earlier life of this agent.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use attune_model::PackEnvironmentId;
use attune_model::status::PackEnvironmentStatus;
use attune_store::{EnvironmentOutcome, EnvironmentRow, EnvironmentTarget, StoreError};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::build::{Built, Site};
use super::inspect::Condition;
use super::{Coordination, Environment, EnvironmentError, Environments};

/// How long a claim lives without renewal. A fact of the platform, as the next one.
const CLAIM_LIFETIME: Duration = Duration::from_mins(5);
const RENEW_EVERY: Duration = Duration::from_mins(1);
/// How often a builder on another machine is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What to do next.
enum Turn {
    /// The environment is ours to build.
    Build,
    /// It is there.
    Ready(Environment),
    /// Somebody else builds it.
    Wait,
}

impl Environments {
    /// Builds it, or waits for the builder on another machine. While the row is claimed, `claimed` holds its id.
    pub(super) async fn build_claimed(
        &self,
        site: &Site<'_>,
        checksum: Option<String>,
        others: Coordination<'_>,
        claimed: &Mutex<Option<PackEnvironmentId>>,
    ) -> Result<Environment, EnvironmentError> {
        let store_error = |source| EnvironmentError::Store { env_dir: site.env_dir.clone(), source };
        let target = target(site, checksum.clone(), &others);
        let row = others.store.upsert_environment(&target).await.map_err(store_error)?.id;
        let deadline = Instant::now() + self.limits.wait;
        loop {
            match self.turn(site, row, checksum.as_deref(), &others).await? {
                Turn::Ready(ready) => return Ok(ready),
                Turn::Build => break,
                Turn::Wait if Instant::now() >= deadline => {
                    return Err(EnvironmentError::Waited { env_dir: site.env_dir.clone(), limit: self.limits.wait });
                }
                Turn::Wait => sleep(LOOK_EVERY).await,
            }
        }
        let hold = |id| *claimed.lock().unwrap_or_else(PoisonError::into_inner) = id;
        hold(Some(row));
        let built = tokio::select! {
            built = self.build(site, checksum.as_deref()) => built,
            () = keep_claim(row, &others) => {
                hold(None);
                return Err(EnvironmentError::ClaimLost { env_dir: site.env_dir.clone() });
            }
        };
        let outcome = outcome(&built, checksum);
        let finished = others.store.finish_environment(row, others.worker, &outcome).await;
        hold(None);
        match finished {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(%row, "the claim on an environment was lost at the end of its build");
            }
            Err(error) => {
                tracing::warn!(%row, error = attune_model::chain(&error), "the end of a build was not recorded");
            }
        }
        built.result
    }

    async fn turn(
        &self,
        site: &Site<'_>,
        id: PackEnvironmentId,
        checksum: Option<&str>,
        others: &Coordination<'_>,
    ) -> Result<Turn, EnvironmentError> {
        let store_error = |source| EnvironmentError::Store { env_dir: site.env_dir.clone(), source };
        let row = others.store.environment(id).await.map_err(store_error)?;
        if let Some(row) = &row {
            if row.status == PackEnvironmentStatus::Ready {
                match self.inspector.inspect(site)?.condition {
                    Condition::Ready(ready) if row.manifest_checksum.as_deref() == checksum => {
                        return Ok(Turn::Ready(ready));
                    }
                    Condition::Unfit(reason) => return Err(site.unfit(reason)),
                    _ => others.store.mark_environment_outdated(id).await.map_err(store_error)?,
                }
            }
            if is_left_over(row, others) {
                let renewed = others.store.renew_environment_claim(id, others.worker, CLAIM_LIFETIME).await;
                return Ok(if renewed.map_err(store_error)? { Turn::Build } else { Turn::Wait });
            }
        }
        let mine = others.store.claim_environment(id, others.worker, CLAIM_LIFETIME).await.map_err(store_error)?;
        Ok(if mine { Turn::Build } else { Turn::Wait })
    }
}

fn is_left_over(row: &EnvironmentRow, others: &Coordination<'_>) -> bool {
    row.status == PackEnvironmentStatus::Installing && row.claimed_by == Some(others.worker) && !row.claim_expired
}

/// Ends when the claim is lost. A store that cannot be reached is no loss: the claim lives for several renewals.
async fn keep_claim(row: PackEnvironmentId, others: &Coordination<'_>) {
    let mut renewals = interval_at(Instant::now() + RENEW_EVERY, RENEW_EVERY);
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        renewals.tick().await;
        let renewed: Result<bool, StoreError> =
            others.store.renew_environment_claim(row, others.worker, CLAIM_LIFETIME).await;
        match renewed {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%row, error = attune_model::chain(&error), "a claim was not renewed; trying again");
            }
        }
    }
}

fn target(site: &Site<'_>, manifest_checksum: Option<String>, others: &Coordination<'_>) -> EnvironmentTarget {
    let chosen = site.chosen;
    EnvironmentTarget {
        pack: others.pack,
        pack_ref: chosen.pack_ref.clone(),
        runtime: chosen.runtime,
        runtime_ref: chosen.runtime_ref.clone(),
        version: chosen.version.clone(),
        env_path: site.env_dir.display().to_string(),
        manifest_checksum,
    }
}

fn outcome(built: &Built, manifest_checksum: Option<String>) -> EnvironmentOutcome {
    let log = built.log.clone();
    match &built.result {
        Ok(_) => EnvironmentOutcome::Ready { manifest_checksum, log },
        Err(error) => EnvironmentOutcome::Failed { error: attune_model::chain(error), log },
    }
}

//! What is compared: the rows of the store, judged for this host, and whether there is anything new in them at all.
//!
//! As a rule there is not. Then nothing is read but a digest of the rows, and nothing is looked at but the files of the sensors.

use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::spawn_blocking;
use attune_model::SensorId;
use attune_model::capabilities::CapabilityView;
use attune_model::chain;
use attune_store::{DesiredSensor, SensorStore, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Dispatcher, Owner};
use crate::context::{Context, STORE_LIMIT};
use crate::files::Look;
use crate::packs::Packs;
use crate::registrations::Registrations;
use crate::supervisor::Status;
use crate::target::{Refusal, Target};

/// So long nothing but rows and files is believed to matter; an interpreter may be installed while the host runs.
const BELIEVED: Duration = Duration::from_mins(10);

/// A comparison that was made.
pub(super) struct Compared {
    digest: String,
    at: Instant,
}

impl Compared {
    pub(super) fn now(digest: String) -> Self {
        Self { digest, at: Instant::now() }
    }
}

/// One enabled sensor, and whether it is to run here.
pub(super) struct Judged {
    pub(super) sensor: SensorId,
    pub(super) sensor_ref: String,
    pub(super) verdict: Result<Target, Refusal>,
}

pub(super) fn judge_all(context: &Context, desired: Vec<DesiredSensor>) -> Vec<Judged> {
    let config = &context.config;
    let host = CapabilityView::of(&config.capabilities);
    let _still = context.packs.as_ref().map(Packs::hold_still);
    let registrations = context.registrations();
    if let Some(registrations) = registrations {
        registrations.look(&config.paths.packs);
    }
    let mut look = Look::at(&config.paths.packs);
    let mut judge = |desired: DesiredSensor| {
        let (sensor, sensor_ref) = (desired.sensor.id, desired.sensor.r#ref.clone());
        let mut verdict = Target::judge(desired, &config.planner, &host, &mut look);
        if let Ok(target) = &mut verdict {
            if let Some(packs) = &context.packs {
                target.follow(packs);
            }
            target.input.registration = registration(registrations, target);
        }
        Judged { sensor, sensor_ref, verdict }
    };
    desired.into_iter().map(&mut judge).collect()
}

fn registration(registrations: Option<&Registrations>, target: &Target) -> u64 {
    let known = registrations.zip(target.sensor.pack_ref.as_ref());
    known.map_or(0, |(registrations, pack_ref)| registrations.generation(pack_ref))
}

/// The answer of the store, in time.
pub(super) async fn asked<T>(
    context: &Context,
    question: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, String> {
    let problem: &dyn Display = match context.deadline.within(STORE_LIMIT, question).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => &chain(&error),
        Err(late) => &late.to_string(),
    };
    Err(problem.to_string())
}

/// What the store says is wanted.
#[derive(Debug)]
pub(crate) struct Wanted {
    digest: String,
    sensors: Vec<DesiredSensor>,
}

impl Wanted {
    pub(crate) async fn read(store: &dyn SensorStore) -> Result<Self, StoreError> {
        // Before the rows: what changes in between is seen the next time.
        let digest = store.desired_digest().await?;
        Ok(Self { digest, sensors: store.desired_sensors().await? })
    }
}

/// What a comparison needs to know of what the host does. It holds nothing of the dispatcher: that hears operators meanwhile,
/// however long the store takes.
pub(super) struct Known {
    context: Arc<Context>,
    /// The digest of the last comparison, where that is believed.
    digest: Option<String>,
    /// What runs as it should; none while one that is not wanted any more is waited for, to be forgotten by a comparison.
    targets: Option<Vec<Arc<Target>>>,
    /// All that run, by pack.
    pub(super) owners: Vec<(Option<String>, watch::Receiver<Status>)>,
    is_first: bool,
    /// What was read already.
    wanted: Option<Wanted>,
}

/// What came of it.
pub(super) enum Seen {
    /// There would be nothing to do after another comparison.
    Same,
    New(News),
}

/// The rows of the store.
pub(super) struct News {
    pub(super) digest: String,
    pub(super) judged: Vec<Judged>,
    /// Failures that the rows of this host tell of, after whatever earlier life of it: for the first comparison. What becomes
    /// wanted later begins anew.
    pub(super) histories: HashMap<SensorId, (i32, i32)>,
}

impl Dispatcher {
    /// What is known now.
    pub(super) fn known(&mut self) -> Known {
        let believed = self.compared.as_ref().filter(|compared| compared.at.elapsed() < BELIEVED);
        let target = |owner: &Owner| owner.wish.borrow().target().cloned().filter(|_| !owner.task.is_finished());
        let status = |owner: &Owner| (owner.pack_ref.clone(), owner.status.clone());
        let packs = self.context.packs.is_some();
        Known {
            context: self.context.clone(),
            digest: believed.map(|compared| compared.digest.clone()),
            targets: self.owners.values().map(target).collect(),
            owners: self.owners.values().filter(|_| packs).map(status).collect(),
            is_first: self.started.is_some(),
            wanted: self.wanted.take(),
        }
    }
}

impl Known {
    /// Looks what there is to be done.
    pub(super) async fn compare(mut self) -> Result<Seen, String> {
        let context = self.context.clone();
        let Wanted { digest, sensors } = if let Some(wanted) = self.wanted.take() {
            wanted
        } else {
            self.follow_registrations().await?;
            // Before the rows: what changes in between is seen the next time.
            let digest = asked(&context, context.store.desired_digest()).await?;
            if self.is_same(&digest).await? {
                self.follow_packs(&[]).await?;
                return Ok(Seen::Same);
            }
            Wanted { digest, sensors: asked(&context, context.store.desired_sensors()).await? }
        };
        // After the rows: a pack that is as new as they are is waited for.
        self.follow_packs(&sensors).await?;
        let has_histories = self.is_first && !sensors.is_empty();
        let judging = context.clone();
        let judging = spawn_blocking(move || judge_all(&judging, sensors));
        let histories = if has_histories { self.histories().await? } else { HashMap::new() };
        let judged = judging.await.map_err(|error| error.to_string())?;
        Ok(Seen::New(News { digest, judged, histories }))
    }

    async fn is_same(&mut self, digest: &str) -> Result<bool, String> {
        let targets = self.targets.take().filter(|_| self.digest.as_deref() == Some(digest));
        let Some(targets) = targets else { return Ok(false) };
        let context = self.context.clone();
        let look = move || {
            let _still = context.packs.as_ref().map(Packs::hold_still);
            let (folder, registrations) = (&context.config.paths.packs, context.registrations());
            if let Some(registrations) = registrations {
                registrations.look(folder);
            }
            let mut look = Look::at(folder);
            let mut is_same = |target: &Target| {
                registration(registrations, target) == target.input.registration && target.has_files_of_now(&mut look)
            };
            targets.iter().all(|target| is_same(target))
        };
        spawn_blocking(look).await.map_err(|error| error.to_string())
    }

    async fn histories(&self) -> Result<HashMap<SensorId, (i32, i32)>, String> {
        let rows = asked(&self.context, self.context.store.processes(self.context.worker)).await?;
        let counts = |row: attune_model::rows::SensorProcess| {
            (row.sensor, (row.consecutive_failures, row.last_alerted_failure_count))
        };
        Ok(rows.into_iter().map(counts).collect())
    }

    /// The context of the comparison.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }
}

//! The world: which sensors this host is to run. Compares wish and reality whenever it is told to look again, and slowly
//! by itself.
//!
//! Messages carry no state here: whatever arrives, however often, comes to one comparison with the store. An error of the
//! store means "unknown": everything stays as it is. This task alone makes supervisors, so each sensor has one.

mod compare;
mod obey;
mod packs;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::{Backoff, Tasks, spawn_blocking};
use attune_model::SensorId;
use attune_model::activity::Activity;
use attune_model::chain;
use attune_model::order;
use attune_model::status::SensorProcessStatus;
use attune_store::ProcessChange;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use crate::context::Context;
use crate::control::Command;
use crate::delay::shortened;
use crate::registrations::Registrations;
use crate::registry::Registry;
use crate::supervisor::{Phase, Status, Supervisor, Wish};
use crate::target::{Refusal, Target};

use compare::{Compared, Judged, News, Seen, asked};

pub(crate) use compare::Wanted;

const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A look at the store usually takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// So long a host that starts waits for a look at the folders of packs.
const FOLDERS: Duration = Duration::from_secs(5);
/// Changes that never pause are acted upon after so many windows.
const MOST_WINDOWS: u32 = 5;

/// Decides what runs.
pub(crate) struct Dispatcher {
    context: Arc<Context>,
    tasks: Tasks,
    registry: Registry,
    owners: HashMap<SensorId, Owner>,
    /// What was last said about each sensor that does not run here, so that it is said once.
    refused: HashMap<SensorId, String>,
    /// The enabled sensors by ref.
    known: BTreeMap<String, SensorId>,
    /// Those that an operator does not want to run here.
    paused: HashSet<SensorId>,
    /// How often an operator wanted each one started again.
    restarts: HashMap<SensorId, u64>,
    commands: mpsc::Receiver<Command>,
    /// What was read before it began.
    wanted: Option<Wanted>,
    /// What the last comparison was about.
    compared: Option<Compared>,
    sight: Sight,
    /// Whether there was a comparison.
    has_read: bool,
    /// The look at folders that nobody had looked at.
    looking: Option<AbortHandle>,
    /// Becomes true when each sensor that was wanted at first has been tried.
    started: Option<watch::Sender<bool>>,
}

/// Whether this host knows what is wanted.
#[derive(Debug, Clone)]
enum Sight {
    /// As far as anybody knows.
    Clear,
    /// It looks, since then.
    Looking(Instant),
    /// The last look failed.
    Lost(String),
}

impl Sight {
    fn looking(&self) -> Self {
        match self {
            Self::Clear | Self::Looking(_) => Self::Looking(Instant::now()),
            Self::Lost(problem) => Self::Lost(problem.clone()),
        }
    }

    /// Why it cannot be said when a comparison will have been made.
    fn problem(&self) -> Option<String> {
        match self {
            Self::Clear => None,
            Self::Looking(since) => {
                (since.elapsed() > PATIENCE).then(|| format!("no answer for {:?}", since.elapsed()))
            }
            Self::Lost(problem) => Some(problem.clone()),
        }
    }
}

struct Owner {
    pack_ref: Option<String>,
    wish: watch::Sender<Wish>,
    status: watch::Receiver<Status>,
    task: JoinHandle<()>,
}

impl Dispatcher {
    pub(crate) fn new(
        context: Arc<Context>,
        tasks: Tasks,
        registry: Registry,
        wanted: Option<Wanted>,
        (started, commands): (watch::Sender<bool>, mpsc::Receiver<Command>),
    ) -> Self {
        Self {
            context,
            tasks,
            registry,
            owners: HashMap::new(),
            refused: HashMap::new(),
            known: BTreeMap::new(),
            paused: HashSet::new(),
            restarts: HashMap::new(),
            sight: Sight::Clear,
            has_read: false,
            looking: None,
            commands,
            wanted,
            compared: None,
            started: Some(started),
        }
    }

    /// Until the host stops and every sensor has ended.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        let soft = self.context.stop.soft().clone();
        while !soft.is_cancelled() {
            self.sight = self.sight.looking();
            let mut comparing = Box::pin(self.known().compare());
            let mut is_asked = false;
            let seen = loop {
                tokio::select! {
                    biased;
                    // Nothing is half done when it is given up: it only reads before it decides.
                    () = soft.cancelled() => break None,
                    seen = &mut comparing => break Some(seen),
                    Some(command) = self.commands.recv() => is_asked |= self.obey(command),
                }
            };
            let wait = match seen {
                None => break,
                Some(Ok(seen)) => {
                    backoff.reset();
                    self.sight = Sight::Clear;
                    match seen {
                        Seen::New(news) => self.apply(news),
                        // It knew nothing of what was asked for meanwhile.
                        Seen::Same if is_asked => continue,
                        Seen::Same => {}
                    }
                    let interval = self.context.config.timing.reconcile_interval;
                    shortened(interval, Uuid::new_v4().as_bytes()[0])
                }
                Some(Err(problem)) => {
                    let wait = backoff.next_delay();
                    if !matches!(self.sight, Sight::Lost(_)) {
                        tracing::warn!(error = %problem, "failed to read the wanted sensors; everything stays as it is");
                    }
                    self.sight = Sight::Lost(problem);
                    wait
                }
            };
            self.wait(Instant::now() + wait).await;
        }
        // It may be that nobody waits for anything now but for the sensors.
        self.context.deadline.begin();
        // The supervisors follow the same token, all at once; here they are only waited for.
        for (sensor, owner) in self.owners.drain() {
            if let Err(error) = owner.task.await {
                tracing::error!(sensor.id = %sensor, %error, "the supervisor of a sensor panicked");
            }
        }
    }

    /// Until it is time to compare again. Questions are answered meanwhile.
    async fn wait(&mut self, until: Instant) {
        let soft = self.context.stop.soft().clone();
        loop {
            let is_asked = tokio::select! {
                () = soft.cancelled() => return,
                () = self.context.look_again.notified() => return self.settle().await,
                Some(command) = self.commands.recv() => self.obey(command),
                () = sleep_until(until) => return,
            };
            if is_asked {
                return;
            }
        }
    }

    /// Waits until nothing more changes, but not for ever.
    async fn settle(&self) {
        let window = self.context.config.timing.change_window;
        let quiet = async { while timeout(window, self.context.look_again.notified()).await.is_ok() {} };
        tokio::select! {
            () = self.context.stop.soft().cancelled() => {}
            () = quiet => {}
            () = sleep(window * MOST_WINDOWS) => {}
        }
    }

    fn apply(&mut self, News { digest, judged, mut histories }: News) {
        let mut wanted = HashSet::new();
        let mut without_rules = HashSet::new();
        let mut enabled = HashSet::new();
        let mut is_complete = true;
        self.known = order::map(judged.iter().map(|judged| (judged.sensor_ref.clone(), judged.sensor)));
        for Judged { sensor, sensor_ref, verdict } in judged {
            enabled.insert(sensor);
            if self.paused.contains(&sensor) {
                continue;
            }
            match verdict {
                Ok(mut target) => {
                    target.input.restarts = self.restarts.get(&sensor).copied().unwrap_or_default();
                    self.refused.remove(&sensor);
                    wanted.insert(sensor);
                    if self.has_to_wait(sensor, &target) {
                        is_complete = false;
                        continue;
                    }
                    self.wish_for(sensor, Arc::new(target), histories.remove(&sensor));
                }
                Err(Refusal::NoRules) => {
                    self.refused.remove(&sensor);
                    without_rules.insert(sensor);
                }
                Err(refusal) => self.refuse(sensor, &sensor_ref, &refusal),
            }
        }
        self.refused.retain(|sensor, _| enabled.contains(sensor));
        self.release(&wanted, &without_rules);
        let seen = self.look_at_folders();
        self.announce_start(seen);
        self.compared = is_complete.then(|| Compared::now(digest));
        self.has_read = true;
    }

    fn wish_for(&mut self, sensor: SensorId, target: Arc<Target>, history: Option<(i32, i32)>) {
        if self.owners.get(&sensor).is_some_and(|owner| owner.task.is_finished()) {
            tracing::error!(sensor.ref = %target.sensor.r#ref, "the supervisor of a sensor ended; making another");
            self.forget(sensor);
        }
        if let Some(owner) = self.owners.get(&sensor) {
            owner.wish.send_replace(Wish::Run(target));
            return;
        }
        let (sensor_ref, pack_ref) = (target.sensor.r#ref.clone(), target.sensor.pack_ref.clone());
        let (wish, wishes) = watch::channel(Wish::Run(target));
        let (statuses, status) = watch::channel(Status::default());
        let supervisor = Supervisor::new(self.context.clone(), wishes, statuses, history);
        let task = self.tasks.spawn(supervisor.run());
        self.registry.add(sensor, &sensor_ref, status.clone());
        self.owners.insert(sensor, Owner { pack_ref, wish, status, task });
    }

    /// Stops what is not wanted any more, and forgets what has stopped. A supervisor that is idle and without a wish
    /// starts nothing unless it is told to from here.
    fn release(&mut self, wanted: &HashSet<SensorId>, without_rules: &HashSet<SensorId>) {
        let unwanted: Vec<SensorId> = self.owners.keys().filter(|sensor| !wanted.contains(*sensor)).copied().collect();
        for sensor in unwanted {
            let Some(owner) = self.owners.get(&sensor) else {
                continue;
            };
            let active_rules = without_rules.contains(&sensor).then_some(0);
            let before = owner.wish.send_replace(Wish::Rest { active_rules });
            if owner.task.is_finished() {
                tracing::error!(sensor.id = %sensor, "the supervisor of a sensor ended; it is not wanted any more");
                if let Some(target) = before.target() {
                    // What becomes of that is logged there.
                    let written = self.context.changes.hand_in(target.clone(), ProcessChange::Stopped);
                    self.tasks.spawn(async move { drop(written.await) });
                }
                self.forget(sensor);
            } else if before.target().is_none() && owner.status.borrow().phase == Phase::Idle {
                self.forget(sensor);
            }
        }
    }

    fn forget(&mut self, sensor: SensorId) {
        self.owners.remove(&sensor);
        self.registry.remove(sensor);
    }

    fn refuse(&mut self, sensor: SensorId, sensor_ref: &str, refusal: &Refusal) {
        let reason = chain(refusal);
        if self.refused.get(&sensor) == Some(&reason) {
            return;
        }
        tracing::warn!(sensor.ref = sensor_ref, "sensor does not run on this host: {reason}");
        self.context.observer.observe(Activity::Sensor {
            sensor_ref: sensor_ref.to_owned(),
            status: SensorProcessStatus::Failed,
            pid: None,
            reason: Some(reason.clone()),
            log: None,
        });
        self.refused.insert(sensor, reason);
    }

    /// Beside the starts: no large folder on a slow volume is to delay them.
    fn look_at_folders(&mut self) -> Option<JoinHandle<()>> {
        let context = self.context.clone();
        let is_looking = self.looking.as_ref().is_some_and(|looking| !looking.is_finished());
        if is_looking || !context.registrations().is_some_and(Registrations::has_unseen) {
            return None;
        }
        let soft = context.stop.soft().clone();
        let look = async move {
            // The next comparison asks again.
            if let (Some(registrations), Ok(stamps)) =
                (context.registrations(), asked(&context, context.store.pack_stamps()).await)
                && registrations.follow(&stamps)
            {
                context.look_again.notify_one();
            }
            let look = move || {
                let folder = &context.config.paths.packs;
                context.registrations().iter().for_each(|registrations| registrations.look_at_unseen(folder));
            };
            // What a panic has left unseen counts as changed.
            drop(spawn_blocking(look).await);
        };
        let looking = self.tasks.spawn(async move {
            soft.run_until_cancelled(look).await;
        });
        self.looking = Some(looking.abort_handle());
        Some(looking)
    }

    /// After the first look: waits beside the loop until each wanted sensor was tried and, as a rule, the folders of their packs
    /// were `seen`.
    fn announce_start(&mut self, seen: Option<JoinHandle<()>>) {
        let Some(started) = self.started.take() else {
            return;
        };
        let statuses: Vec<_> = self.owners.values().map(|owner| owner.status.clone()).collect();
        let soft = self.context.stop.soft().clone();
        self.tasks.spawn(async move {
            for mut status in statuses {
                tokio::select! {
                    () = soft.cancelled() => return,
                    // An error means that its supervisor is gone: nothing to wait for.
                    _ = status.wait_for(|status| status.settled) => {}
                }
            }
            if let Some(seen) = seen {
                // They are seen later where that takes long.
                drop(timeout(FOLDERS, seen).await);
            }
            started.send_replace(true);
        });
    }
}

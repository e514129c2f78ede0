//! The one task that speaks with the store about leases: sessions, renewals, and what is taken and given back, each for
//! everybody at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::{CancellationToken, Tasks};
use attune_model::SensorId;
use attune_model::chain;
use attune_model::measure::{LeaseChange, Measure, Success};
use attune_process::boottime;
use attune_store::{Beginning, HostProcess, HostSession, Renewal, Runner, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::fence::fence;
use super::{Grant, Leases, Session, Terms, Word};
use crate::context::{Context, STORE_LIMIT};
use crate::host::tell_stale;

/// At the end of the host nobody waits long for a store that does not answer.
const LAST_LIMIT: Duration = Duration::from_secs(2);

/// Keeps the session of this host.
pub(crate) struct Keeper {
    context: Arc<Context>,
    tasks: Tasks,
    terms: Terms,
    words: mpsc::UnboundedReceiver<Word>,
    sender: mpsc::UnboundedSender<Word>,
    session: Option<Session>,
    /// How many have begun.
    begun: u64,
    /// The last one that has begun.
    before: Option<Arc<HostSession>>,
    /// Of the one that is to begin, until that is known to have been done.
    next_id: Option<Uuid>,
    /// Whether nothing of an earlier process is said to live any more.
    is_cleared: bool,
    /// Whether it was said that another process has the row of this host.
    is_taken: bool,
    cordoned: bool,
    asking: Vec<(SensorId, oneshot::Sender<Result<Grant, String>>)>,
    waiting: BTreeMap<SensorId, oneshot::Sender<Grant>>,
    held: BTreeMap<SensorId, CancellationToken>,
    giving_back: Vec<(Arc<HostSession>, SensorId)>,
    renew_at: Instant,
    look_at: Instant,
    /// When what dead hosts left is looked for next.
    correct_at: Instant,
    /// Nothing runs any more.
    done: CancellationToken,
}

impl Leases {
    /// For hosts that share a store.
    pub(crate) fn shared(hard: CancellationToken) -> (Self, Option<Words>) {
        let (sender, words) = mpsc::unbounded_channel();
        (Self { keeper: Some(sender.clone()), hard }, Some(Words { sender, words }))
    }
}

/// Where the keeper hears from supervisors.
pub(crate) struct Words {
    sender: mpsc::UnboundedSender<Word>,
    words: mpsc::UnboundedReceiver<Word>,
}

impl Keeper {
    pub(crate) fn new(
        context: Arc<Context>,
        tasks: Tasks,
        terms: Terms,
        words: Words,
        done: CancellationToken,
    ) -> Self {
        let Words { sender, words } = words;
        let correct_at = Instant::now() + context.config.timing.reconcile_interval;
        Self {
            context,
            tasks,
            terms,
            words,
            sender,
            session: None,
            begun: 0,
            before: None,
            next_id: None,
            is_cleared: false,
            is_taken: false,
            cordoned: false,
            asking: Vec::new(),
            waiting: BTreeMap::new(),
            held: BTreeMap::new(),
            giving_back: Vec::new(),
            renew_at: Instant::now(),
            look_at: Instant::now(),
            correct_at,
            done,
        }
    }

    /// Until nothing runs any more and everything was given back.
    pub(crate) async fn run(mut self) {
        let done = self.done.clone();
        while !done.is_cancelled() {
            self.step().await;
            let look_at = if self.waiting.is_empty() { self.renew_at } else { self.look_at };
            tokio::select! {
                () = done.cancelled() => {}
                Some(word) = self.words.recv() => self.hear(word),
                () = sleep_until(self.renew_at.min(look_at)) => {}
            }
            while let Ok(word) = self.words.try_recv() {
                self.hear(word);
            }
        }
        // What cannot be given back now is free when the session's time is over.
        self.give_back(LAST_LIMIT).await;
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Ask(sensor, reply) => self.asking.push((sensor, reply)),
            Word::Wait(sensor, reply) => {
                self.waiting.insert(sensor, reply);
            }
            Word::GiveBack(session, sensor) => {
                if let Some(revoked) = self.held.remove(&sensor) {
                    let change = if revoked.is_cancelled() { LeaseChange::Lost } else { LeaseChange::Released };
                    self.measure(change);
                }
                self.giving_back.push((session, sensor));
                // Whoever waits here for the same sensor gets it with the next look.
                self.look_at = Instant::now();
            }
        }
    }

    async fn step(&mut self) {
        if Instant::now() >= self.renew_at {
            let answered = match self.session.clone().filter(Session::is_valid) {
                Some(session) => self.renew(session).await,
                None => self.begin().await,
            };
            if !answered {
                // The next renewal must not wait for other calls that fail as well.
                return self.refuse("the store does not answer");
            }
        }
        if !self.clear().await {
            return self.refuse("the store does not answer");
        }
        // What is still to be given back must not be taken again meanwhile: the one would undo the other.
        let is_clear = self.give_back(STORE_LIMIT).await;
        let Some(session) = self.session.clone().filter(|session| session.is_valid() && is_clear) else {
            return self.refuse("this host has no lease at the moment");
        };
        if self.cordoned {
            return self.refuse("this host is cordoned");
        }
        self.answer(&session).await;
        if Instant::now() >= self.look_at && !self.waiting.is_empty() {
            self.look_at = Instant::now() + self.terms.look_interval();
            self.look(&session).await;
        }
    }

    /// Sets the rows of an earlier process right, once there is a session: until then that one may go on. False when the store did
    /// not answer.
    async fn clear(&mut self) -> bool {
        if !self.is_cleared && self.session.is_some() {
            let cleared = self.context.store.clear_stale_processes(self.context.worker);
            let cleared = self.call("clear the rows of an earlier life of this host", cleared).await;
            self.is_cleared = cleared.is_some();
            tell_stale(cleared.unwrap_or_default());
            return self.is_cleared;
        }
        true
    }

    fn measure(&self, change: LeaseChange) {
        self.context.observer.measure(Measure::Lease(change));
    }

    fn refuse(&mut self, reason: &str) {
        for (_, reply) in self.asking.drain(..) {
            // Whoever does not listen any more wants nothing.
            drop(reply.send(Err(reason.to_owned())));
        }
        self.look_at = Instant::now() + self.terms.look_interval();
    }

    /// False when the store did not answer.
    async fn begin(&mut self) -> bool {
        self.session = None;
        let HostProcess { worker, worker_name, id: process } = self.context.host();
        let id = *self.next_id.get_or_insert_with(Uuid::new_v4);
        let worker_name = worker_name.to_owned();
        let session = HostSession { worker, worker_name, process, id, life: self.terms.life };
        let (sent, asked) = (boottime(), Instant::now());
        let begun = self.context.store.begin_session(&session, self.before.as_deref());
        let begun = self.call("begin a session", begun).await;
        let has_begun = matches!(begun, Some(Beginning::Begun { .. }));
        self.context.vitals.sign_of_life(if has_begun { Success::Ok } else { Success::Failed }, asked);
        let Some(Beginning::Begun { cordoned }) = begun else {
            self.tell_why_not(begun);
            self.renew_at = Instant::now() + self.terms.retry_interval();
            return begun.is_some();
        };
        (self.next_id, self.cordoned) = (None, cordoned);
        // What another process has left is set right as well.
        self.is_cleared &= !std::mem::take(&mut self.is_taken);
        // What still ends under the session before keeps the limit that it had: others were promised that.
        self.begun += 1;
        let session = Session::new(session, self.begun, self.context.stop.hard());
        self.allow(&session, sent);
        // It ends with its session, but without it two hosts may run one sensor.
        let fence = fence(session.clone(), self.terms, self.done.clone());
        self.tasks.spawn_guarded("fence of a lease", &self.context.stop, fence);
        for _ in std::mem::take(&mut self.held) {
            self.measure(LeaseChange::Lost);
        }
        self.before = Some(session.store.clone());
        self.session = Some(session);
        true
    }

    fn tell_why_not(&mut self, begun: Option<Beginning>) {
        let name = &self.context.config.name;
        match begun {
            Some(Beginning::Taken) if !std::mem::replace(&mut self.is_taken, true) => {
                tracing::error!("another host has the name {name}; this one waits until that one has ended");
            }
            Some(Beginning::Gone) => {
                tracing::error!("the row of host {name} is gone; starting again makes a new one");
                self.context.stop.soft().cancel();
            }
            _ => {}
        }
    }

    fn allow(&mut self, session: &Session, sent: Duration) {
        let killed_at = self.terms.killed_at(sent);
        session.allow_until(killed_at);
        if let Some(guard) = &self.context.guard {
            guard.allow_until(session.term, killed_at);
        }
        let interval = self.terms.renewal_interval().min(self.context.config.timing.heartbeat_interval);
        self.renew_at = Instant::now() + interval.saturating_sub(boottime().saturating_sub(sent));
    }

    /// False when the store did not answer.
    async fn renew(&mut self, session: Session) -> bool {
        let (sent, asked) = (boottime(), Instant::now());
        let renewed = self.call("renew the lease of this host", self.context.store.renew_session(&session.store)).await;
        let is_renewed = matches!(renewed, Some(Renewal::Renewed { .. }));
        self.context.vitals.sign_of_life(if is_renewed { Success::Ok } else { Success::Failed }, asked);
        match renewed {
            // A renewal that comes after the end changes nothing: what runs is being ended.
            Some(Renewal::Renewed { cordoned }) if session.is_valid() => {
                self.cordoned = cordoned;
                self.allow(&session, sent);
                self.yield_to_others(&session).await;
                self.correct(&session).await;
            }
            Some(Renewal::Renewed { .. } | Renewal::Lost) => {
                if !session.ended.is_cancelled() {
                    tracing::error!("the lease of this host was lost; all its sensors end");
                }
                session.ended.cancel();
                self.session = None;
                self.renew_at = Instant::now() + self.terms.retry_interval();
            }
            None => {
                self.renew_at = Instant::now() + self.terms.retry_interval();
                return false;
            }
        }
        true
    }

    /// Ends what somebody runs who does not ask for leases.
    async fn yield_to_others(&mut self, session: &Session) {
        if self.held.is_empty() {
            return;
        }
        let others = self.call("read who runs sensors", self.context.store.runners_elsewhere(&session.store)).await;
        for Runner { sensor, worker_name, .. } in others.unwrap_or_default() {
            if let Some(revoked) = self.held.get(&sensor).filter(|revoked| !revoked.is_cancelled()) {
                tracing::error!(sensor.id = %sensor, "host {worker_name} runs this sensor without a lease; it ends here");
                revoked.cancel();
            }
        }
    }

    /// Sets rows right that hosts left which died without saying so, and whose sensors nobody takes.
    async fn correct(&mut self, session: &Session) {
        if Instant::now() < self.correct_at {
            return;
        }
        self.correct_at = Instant::now() + self.context.config.timing.reconcile_interval;
        let corrected = self.call("correct rows of dead hosts", self.context.store.correct_rows(&session.store)).await;
        if let Some(rows @ 1..) = corrected {
            tracing::info!(rows, "sensors of hosts that died are recorded as stopped");
        }
    }

    async fn answer(&mut self, session: &Session) {
        if self.asking.is_empty() {
            return;
        }
        let asking = std::mem::take(&mut self.asking);
        let sensors: Vec<SensorId> = asking.iter().map(|(sensor, _)| *sensor).collect();
        let Some(taken) = self.take(session, &sensors).await else {
            for (_, reply) in asking {
                drop(reply.send(Err("the store does not answer".to_owned())));
            }
            return;
        };
        let (granted, refused): (Vec<_>, Vec<_>) = asking.into_iter().partition(|(sensor, _)| taken.contains(sensor));
        for (sensor, reply) in granted {
            let grant = self.grant(session, sensor);
            // A grant that nobody takes gives itself back.
            drop(reply.send(Ok(grant)));
        }
        if refused.is_empty() {
            return;
        }
        let others = self.call("read who runs sensors", self.context.store.runners_elsewhere(&session.store)).await;
        let others = others.unwrap_or_default();
        for (sensor, reply) in refused {
            let holder = others.iter().find(|runner| runner.sensor == sensor);
            let holder = holder.map_or("another host", |runner| &runner.worker_name);
            drop(reply.send(Err(format!("host {holder} runs it"))));
        }
    }

    /// Takes what somebody here waits for and nobody elsewhere runs.
    async fn look(&mut self, session: &Session) {
        self.waiting.retain(|_, reply| !reply.is_closed());
        let others = self.call("read who runs sensors", self.context.store.runners_elsewhere(&session.store)).await;
        let Some(others) = others else { return };
        let busy: BTreeSet<SensorId> = others.into_iter().map(|runner| runner.sensor).collect();
        let free: Vec<SensorId> = self.waiting.keys().filter(|sensor| !busy.contains(sensor)).copied().collect();
        if free.is_empty() {
            return;
        }
        for sensor in self.take(session, &free).await.unwrap_or_default() {
            let grant = self.grant(session, sensor);
            if let Some(reply) = self.waiting.remove(&sensor) {
                drop(reply.send(grant));
            }
        }
    }

    async fn take(&self, session: &Session, sensors: &[SensorId]) -> Option<BTreeSet<SensorId>> {
        let taken = self.call("take sensors", self.context.store.take_sensors(&session.store, sensors)).await?;
        Some(taken.into_iter().collect())
    }

    fn grant(&mut self, session: &Session, sensor: SensorId) -> Grant {
        let grant = Grant::leased(sensor, session.clone(), self.sender.clone());
        if self.held.insert(sensor, grant.revoked().clone()).is_none() {
            self.measure(LeaseChange::Acquired);
        }
        grant
    }

    /// False when something is left.
    async fn give_back(&mut self, limit: Duration) -> bool {
        while let Some((session, _)) = self.giving_back.first().cloned() {
            let is_same = |(other, _): &(Arc<HostSession>, SensorId)| other.id == session.id;
            let sensors: Vec<SensorId> =
                self.giving_back.iter().filter(|given| is_same(given)).map(|(_, sensor)| *sensor).collect();
            let given_back = self.context.store.give_back_sensors(&session, &sensors);
            if self.bounded("give back sensors", limit, given_back).await.is_none() {
                return false;
            }
            self.giving_back.retain(|given| !is_same(given));
        }
        true
    }

    /// No call may make this task late for the next renewal.
    async fn call<T>(&self, what: &str, call: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
        self.bounded(what, STORE_LIMIT.min(self.terms.renewal_interval()), call).await
    }

    async fn bounded<T>(
        &self,
        what: &str,
        limit: Duration,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Option<T> {
        let problem: &dyn Display = match self.context.deadline.within(limit, call).await {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => &chain(&error),
            Err(late) => &late.to_string(),
        };
        tracing::warn!(error = %problem, "failed to {what}");
        None
    }
}

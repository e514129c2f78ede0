//! The right of this host to run sensors.
//!
//! ```text
//!   supervisor ── ask, wait, give back ──► keeper ── one statement for all ──► store
//!        ▲                                    │ renewed until
//!        └── revoked, ended, killed ── fence ◄┘──► guardian
//! ```
//!
//! Invariant: a process that was started under a grant is dead before the store gives the sensor to another host. The store
//! counts from its own clock at the renewal; this host counts from before the renewal was sent, and stops earlier.

mod fence;
mod keeper;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use attune_lifecycle::CancellationToken;
use attune_model::SensorId;
use attune_process::boottime;
use attune_store::HostSession;
use tokio::sync::{mpsc, oneshot};

pub(crate) use keeper::{Keeper, Words};

/// How a session is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// `sensor.lease_time`.
    life: Duration,
    /// What a sensor may take to end by itself.
    grace: Duration,
}

impl Terms {
    pub(crate) fn new(life: Duration, stop_grace: Duration) -> Self {
        // With a short life the grace has to be short too, or there would be no time left to run.
        Self { life, grace: stop_grace.min(life / 4) }
    }

    /// A third: one renewal may be lost.
    fn renewal_interval(self) -> Duration {
        self.life / 3
    }

    fn retry_interval(self) -> Duration {
        self.life / 12
    }

    /// How often whoever waits looks for a free sensor.
    fn look_interval(self) -> Duration {
        self.life / 10
    }

    /// When the last process is killed, after a renewal that was sent at `sent`. The rest of the time is for the kernel to
    /// end it, and for clocks that do not go equally fast.
    fn killed_at(self, sent: Duration) -> Duration {
        sent + self.life.saturating_sub(self.life / 10)
    }

    /// When processes are asked to end.
    fn ended_at(self, killed_at: Duration) -> Duration {
        killed_at.saturating_sub(self.grace)
    }
}

/// One session, for those who run something under it.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    store: Arc<HostSession>,
    /// Its number in this life, by which the guardian knows it.
    term: u64,
    /// Everything under it is to end.
    ended: CancellationToken,
    /// Everything under it has to be dead.
    killed: CancellationToken,
    /// `killed_at` in milliseconds of `boottime`.
    until: Arc<AtomicU64>,
}

impl Session {
    fn new(store: HostSession, term: u64, hard: &CancellationToken) -> Self {
        let killed = hard.child_token();
        Self { store: Arc::new(store), term, ended: killed.child_token(), killed, until: Arc::default() }
    }

    fn allow_until(&self, killed_at: Duration) {
        self.until.store(millis(killed_at), Ordering::Release);
    }

    fn killed_at(&self) -> Duration {
        Duration::from_millis(self.until.load(Ordering::Acquire))
    }

    fn is_valid(&self) -> bool {
        !self.ended.is_cancelled() && boottime() < self.killed_at()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The right to run one sensor. Dropped, it is given back.
#[derive(Debug)]
pub(crate) struct Grant {
    sensor: SensorId,
    /// None where no other host can exist.
    lease: Option<(Session, mpsc::UnboundedSender<Word>)>,
    revoked: CancellationToken,
    killed: CancellationToken,
}

impl Grant {
    fn leased(sensor: SensorId, session: Session, keeper: mpsc::UnboundedSender<Word>) -> Self {
        let (revoked, killed) = (session.ended.child_token(), session.killed.clone());
        Self { sensor, lease: Some((session, keeper)), revoked, killed }
    }

    /// Ready when the process is to end with its grace.
    pub(crate) fn revoked(&self) -> &CancellationToken {
        &self.revoked
    }

    /// Ready when the process has to be dead.
    pub(crate) fn killed(&self) -> &CancellationToken {
        &self.killed
    }

    /// What the guardian is told about a process under it.
    pub(crate) fn term(&self) -> Option<u64> {
        self.lease.as_ref().map(|(session, _)| session.term)
    }

    /// Whether a process may be started now. Looks at the clock: the host may just have been stopped for an hour.
    pub(crate) fn is_valid(&self) -> bool {
        !self.revoked.is_cancelled() && self.lease.as_ref().is_none_or(|(session, _)| session.is_valid())
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some((session, keeper)) = self.lease.take() {
            // A keeper that is gone has given everything back.
            drop(keeper.send(Word::GiveBack(session.store, self.sensor)));
        }
    }
}

/// What supervisors say to the keeper.
#[derive(Debug)]
enum Word {
    /// Wants a sensor, and an answer soon.
    Ask(SensorId, oneshot::Sender<Result<Grant, String>>),
    /// Wants it whenever it is free.
    Wait(SensorId, oneshot::Sender<Grant>),
    GiveBack(Arc<HostSession>, SensorId),
}

/// Where supervisors get grants.
#[derive(Debug)]
pub(crate) struct Leases {
    /// None where no other host can exist.
    keeper: Option<mpsc::UnboundedSender<Word>>,
    hard: CancellationToken,
}

impl Leases {
    /// For a store that no other host uses: everything is granted.
    pub(crate) fn alone(hard: CancellationToken) -> (Self, Option<Words>) {
        (Self { keeper: None, hard }, None)
    }

    /// The sensor, or who has it. Cancel-safe: what is granted to nobody is given back.
    pub(crate) async fn ask(&self, sensor: SensorId) -> Result<Grant, String> {
        let Some(keeper) = &self.keeper else {
            let revoked = CancellationToken::new();
            return Ok(Grant { sensor, lease: None, revoked, killed: self.hard.clone() });
        };
        let (reply, answer) = oneshot::channel();
        drop(keeper.send(Word::Ask(sensor, reply)));
        answer.await.unwrap_or_else(|_gone| Err("the host is stopping".to_owned()))
    }

    /// The sensor, as soon as nobody else has it; never when the keeper is gone. Cancel-safe.
    pub(crate) async fn wait(&self, sensor: SensorId) -> Grant {
        let (reply, answer) = oneshot::channel();
        if let Some(keeper) = &self.keeper {
            drop(keeper.send(Word::Wait(sensor, reply)));
        }
        match answer.await {
            Ok(grant) => grant,
            Err(_gone) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_dead_before_the_store_gives_it_away_whatever_the_terms() {
        for (life, grace) in [(30, 5), (15, 5), (10, 60), (1, 5), (600, 5)] {
            let terms = Terms::new(Duration::from_secs(life), Duration::from_secs(grace));
            let sent = Duration::from_secs(1000);
            let killed = terms.killed_at(sent);
            let ended = terms.ended_at(killed);
            assert!(killed < sent + terms.life, "{life} {grace}");
            assert!(ended + terms.grace == killed);
            assert!(sent + terms.renewal_interval() + 2 * terms.retry_interval() < ended, "a renewal may be lost");
        }
    }

    #[test]
    fn a_grant_is_not_valid_beyond_its_time_even_if_nobody_said_so() {
        let hard = CancellationToken::new();
        let store = HostSession {
            worker: attune_model::WorkerId(1),
            worker_name: String::new(),
            process: uuid::Uuid::nil(),
            id: uuid::Uuid::nil(),
            life: Duration::ZERO,
        };
        let session = Session::new(store, 1, &hard);
        let (keeper, mut words) = mpsc::unbounded_channel();
        let grant = Grant::leased(SensorId(7), session.clone(), keeper);
        assert!(!grant.is_valid());
        session.allow_until(boottime() + Duration::from_mins(1));
        assert!(grant.is_valid());
        session.ended.cancel();
        assert!(!grant.is_valid() && grant.revoked().is_cancelled() && !grant.killed().is_cancelled());
        drop(grant);
        assert!(matches!(words.try_recv(), Ok(Word::GiveBack(_, SensorId(7)))));
    }
}

//! Several logs are sent side by side, so that one answer that does not come holds up no other log. Of each log there is one
//! call at a time: its pieces follow one another.

use std::collections::HashMap;
use std::io::SeekFrom;
use std::sync::atomic::Ordering;

use attune_http::{Decision, Problem};
use attune_lifecycle::{Backoff, CancellationToken};
use attune_model::chain;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::time::{Instant, sleep_until};

use super::parcel::{Append, Arrived, Step};
use super::{Courier, Trouble};

/// Logs under way at once. Each holds a piece in memory and a connection.
const AT_ONCE: usize = 8;
/// Steps for one log before it is another one's turn.
const STEPS: usize = 64;

/// What became of one log's turn.
struct Visited {
    log: String,
    outcome: Result<(), Trouble>,
    /// Whether any log got anything to the platform meanwhile.
    others_arrived: bool,
}

/// What is known about the way to the platform.
struct Way {
    backoff: Backoff,
    /// Nothing is sent before, since it would fail.
    closed_until: Option<Instant>,
    /// The log that has shown it, and the error.
    closed_by: Option<(String, String)>,
    is_told: bool,
    /// Logs that fail while others do not.
    failing: HashMap<String, Backoff>,
    /// When it is their turn again.
    resting: Vec<(Instant, String)>,
}

impl Courier {
    /// Until `done`, and until everything that is there then was sent or has failed once more.
    pub(super) async fn deliver_logs(&self, done: &CancellationToken) {
        let mut visits = FuturesUnordered::new();
        let (backoff, failing) = (self.backoff(), HashMap::new());
        let mut way =
            Way { backoff, closed_until: None, closed_by: None, is_told: false, failing, resting: Vec::new() };
        let mut ends = false;
        loop {
            self.end_rests(&mut way, ends);
            // After that, so that what has just rested counts as waiting before.
            let now = Instant::now();
            let is_open = way.closed_until.is_none_or(|until| until <= now && !ends);
            // Lines wait for others that go with them, but not at the end.
            let gathered = if ends { Some(now) } else { now.checked_sub(self.delivery.gather) };
            while is_open
                && visits.len() < AT_ONCE
                && let Some(log) = gathered.and_then(|before| self.outbox.take(before))
            {
                visits.push(self.visited(log));
            }
            if ends && visits.is_empty() {
                return;
            }
            let wake = if ends { None } else { self.wake(&way, visits.len() < AT_ONCE) };
            tokio::select! {
                () = done.cancelled(), if !ends => {
                    // One more attempt, now.
                    (ends, way.closed_until) = (true, None);
                }
                Some(visited) = visits.next() => self.judge(&mut way, visited, ends),
                () = self.outbox.log_ready() => {}
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
    }

    /// When something is to be done although nothing happens.
    fn wake(&self, way: &Way, has_room: bool) -> Option<Instant> {
        let ready = self.outbox.waits_since().map(|since| since + self.delivery.gather);
        let open = ready.map(|ready| way.closed_until.map_or(ready, |until| until.max(ready)));
        let rested = way.resting.iter().map(|(until, _)| *until).min();
        open.filter(|_| has_room).into_iter().chain(rested).min()
    }

    fn end_rests(&self, way: &mut Way, all: bool) {
        let now = Instant::now();
        for (_, log) in way.resting.extract_if(.., |(until, _)| all || *until <= now) {
            self.outbox.give_back(&log);
        }
    }

    async fn visited(&self, log: String) -> Visited {
        let before = self.arrived.load(Ordering::Relaxed);
        let outcome = self.visit(&log).await;
        Visited { log, outcome, others_arrived: self.arrived.load(Ordering::Relaxed) != before }
    }

    fn judge(&self, way: &mut Way, visited: Visited, ends: bool) {
        let Visited { log, outcome, others_arrived } = visited;
        let now = Instant::now();
        // What was thought to be everybody's is that log's, which would close the way again at its next turn.
        if others_arrived
            && let Some((failed, error)) = way.open()
            && failed != log
            && self.outbox.take_back(&failed)
        {
            self.rest(way, failed, &error, now);
        }
        match outcome {
            Ok(()) => {
                if way.failing.remove(&log).is_some() {
                    tracing::info!(log, "a log of a sensor reaches the platform again");
                }
                self.outbox.give_back(&log);
            }
            Err(trouble) if trouble.is_general() && !others_arrived => {
                self.outbox.give_back(&log);
                // At the end nothing more is begun then, but what is under way may have more luck.
                way.close(log, &trouble, now);
            }
            // That was its last attempt.
            Err(trouble) if ends => tracing::warn!(log, error = chain(&trouble), "a log of a sensor has to wait"),
            Err(trouble) => self.rest(way, log, &chain(&trouble), now),
        }
    }

    /// Each time for longer.
    fn rest(&self, way: &mut Way, log: String, error: &str, now: Instant) {
        let backoff = way.failing.entry(log.clone()).or_insert_with(|| {
            tracing::warn!(log, error, "a log of a sensor waits; others do not");
            self.backoff()
        });
        way.resting.push((now + backoff.next_delay(), log));
    }

    async fn visit(&self, log: &str) -> Result<(), Trouble> {
        let mut has_sent = false;
        for _ in 0..STEPS {
            let Some((path, step)) = self.outbox.step(log, !has_sent) else {
                break;
            };
            match step {
                Step::Measure => {
                    let there = self.api.file_size(&path).await.map_err(Trouble::Api)?.unwrap_or_default();
                    self.outbox.tell(&path, |parcel| parcel.measure(there));
                }
                Step::Append(append) => {
                    self.append(&path, append).await?;
                    has_sent = true;
                }
                Step::Remove => {
                    self.api.delete_file(&path).await.map_err(Trouble::Api)?;
                    self.outbox.tell(&path, |parcel| parcel.arrived = Arrived::Bytes(0));
                }
                Step::Finish => self.clear_up(self.outbox.finish(log, &path)).await,
                Step::Wait => break,
            }
        }
        while let Some(path) = self.outbox.next_outdated(log) {
            if let Err(error) = self.api.delete_file(&path).await
                && !error.is_refusal()
            {
                return Err(Trouble::Api(error));
            }
            self.outbox.is_removed(&path);
        }
        Ok(())
    }

    async fn append(&self, path: &str, append: Append) -> Result<(), Trouble> {
        let before = Arrived::Bytes(append.at);
        let content = match self.read(path, &append).await {
            Ok(content) => content,
            // Somebody has removed it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.outbox.tell(path, |parcel| parcel.arrived = before);
                return Err(Trouble::Read(error));
            }
        };
        if content.is_empty() {
            self.outbox.tell(path, |parcel| parcel.arrived = Arrived::Refused(append.at));
            return Ok(());
        }
        let after = append.at + content.len() as u64;
        let error = match self.api.append_file(path, content).await {
            Ok(()) => {
                self.arrived.fetch_add(1, Ordering::Relaxed);
                self.outbox.tell(path, |parcel| parcel.arrived = Arrived::Bytes(after));
                return Ok(());
            }
            Err(error) => error,
        };
        if error.is_refusal() {
            tracing::warn!(path, error = chain(&error), "the API refuses a log");
            self.outbox.tell(path, |parcel| parcel.arrived = Arrived::Refused(append.at));
            return Ok(());
        }
        let was_not_sent = matches!(error.problem, Problem::Connect(_)) || error.decision() == Decision::Fail;
        self.outbox.tell(path, |parcel| {
            if was_not_sent {
                parcel.arrived = before;
            } else {
                parcel.doubt();
            }
        });
        Err(Trouble::Api(error))
    }

    async fn read(&self, path: &str, append: &Append) -> std::io::Result<Vec<u8>> {
        let mut content = append.note.clone();
        let mut file = File::open(self.outbox.folder().join(path)).await?;
        file.seek(SeekFrom::Start(append.from)).await?;
        file.take(append.count).read_to_end(&mut content).await?;
        Ok(content)
    }
}

impl Way {
    /// Which log had closed it.
    fn open(&mut self) -> Option<(String, String)> {
        self.backoff.reset();
        self.closed_until = None;
        if std::mem::replace(&mut self.is_told, false) {
            tracing::info!("logs of sensors reach the platform again");
        }
        self.closed_by.take()
    }

    /// Calls that were under way together count as one failure.
    fn close(&mut self, log: String, trouble: &Trouble, now: Instant) {
        if self.closed_until.is_some_and(|until| until > now) {
            return;
        }
        self.closed_by = Some((log, chain(trouble)));
        self.closed_until = Some(now + self.backoff.next_delay());
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(error = chain(trouble), "logs of sensors wait");
        }
    }
}

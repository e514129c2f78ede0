//! Signals, soft and hard stop, tracked tasks, bounded drain.
//!
//! ```text
//!   running ── first TERM/INT, or a vital task ended ──► soft: take nothing new, finish
//!   soft    ── another request, or grace over ───────────► hard: end children, record their outcome
//!   hard    ── HARD_STOP_LIMIT over ───────────────────► report what is stuck and leave
//! ```
//!
//! Every wait on that path has a limit. Nothing else in the workspace spawns a task, and nothing but the
//! reaping of strays (attune-process) listens for a signal.

mod backoff;
mod standing;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
pub use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use backoff::{Backoff, doubled};
pub use standing::Standing;

/// How long tasks have after the hard stop.
pub const HARD_STOP_LIMIT: Duration = Duration::from_secs(5);

/// A signal that arrives twice within this time is one request: whoever stops a group reaches the agent itself and again by way of its
/// process 1, and `timeout(1)` signals its child and then the child's group.
const SAME_REQUEST: Duration = Duration::from_millis(100);

/// The two tokens that everything obeys. A hard stop implies the soft one.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    soft: CancellationToken,
    hard: CancellationToken,
    asked: CancellationToken,
}

impl Stop {
    /// A stop that nobody has asked for.
    pub fn new() -> Self {
        let hard = CancellationToken::new();
        Self { soft: hard.child_token(), hard, asked: CancellationToken::new() }
    }

    /// Take no new work and finish what is there.
    pub fn soft(&self) -> &CancellationToken {
        &self.soft
    }

    /// Stop now.
    pub fn hard(&self) -> &CancellationToken {
        &self.hard
    }

    /// Asks for the soft stop from inside the program: a wanted end, unlike that of a vital task.
    pub fn ask(&self) {
        self.asked.cancel();
        self.soft.cancel();
    }

    /// Whether the process stops because something in it ended on its own, and not because somebody asked it to.
    pub fn is_failing(&self) -> bool {
        self.soft.is_cancelled() && !self.asked.is_cancelled()
    }
}

/// What a task runs, without its type: the code around a task is in the binary once for every type that is spawned and for each of
/// the two schedulers.
type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs `work`, which may wait for a file or compute for long, on a thread that is there for such.
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let work: Box<dyn FnOnce() -> T + Send> = Box::new(work);
    tokio::task::spawn_blocking(work)
}

/// Spawns tasks that the drain waits for.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    attendants: TaskTracker,
    rest: CancellationToken,
}

impl Tasks {
    /// Runs `future` as a tracked task.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let work: Work<F::Output> = Box::pin(future);
        self.tracker.spawn(work)
    }

    /// Runs `future` as a task whose end, by return or by panic, stops the process.
    pub fn spawn_vital<F>(&self, name: &'static str, stop: &Stop, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_under_guard(name, stop, Box::pin(future), Return::Stops)
    }

    /// Runs `future` as a task that may be over before the process is, but whose panic stops it: nobody would do its work.
    pub fn spawn_guarded<F>(&self, name: &'static str, stop: &Stop, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_under_guard(name, stop, Box::pin(future), Return::IsFine)
    }

    fn spawn_under_guard(&self, name: &'static str, stop: &Stop, work: Work<()>, returned: Return) -> JoinHandle<()> {
        let guard = VitalGuard { name, soft: stop.soft.clone(), is_over: false };
        self.tracker.spawn(async move {
            // As a whole: of what is only changed the block would take the changed part.
            let mut guard = guard;
            work.await;
            guard.is_over = matches!(returned, Return::IsFine);
        })
    }

    /// Runs a task that serves the others until the last of them has ended, and then ends by the given token.
    pub fn spawn_attendant<F>(&self, task: impl FnOnce(CancellationToken) -> F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let work: Work<F::Output> = Box::pin(task(self.rest.clone()));
        self.attendants.spawn(work)
    }

    /// How many are alive, without attendants.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether none is alive, attendants aside.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Waits until none is alive. Tasks may still be spawned meanwhile; they are waited for too.
    pub async fn drained(&self) {
        self.tracker.close();
        self.tracker.wait().await;
        self.rest.cancel();
        self.attendants.close();
        self.attendants.wait().await;
    }
}

/// What it means when a task returns.
enum Return {
    Stops,
    IsFine,
}

struct VitalGuard {
    name: &'static str,
    soft: CancellationToken,
    /// Whether it ends as it should.
    is_over: bool,
}

impl Drop for VitalGuard {
    fn drop(&mut self) {
        if !self.is_over && !self.soft.is_cancelled() {
            tracing::error!(task = self.name, "a vital task ended on its own; stopping");
            self.soft.cancel();
        }
    }
}

/// Why the process could not be stopped in order.
#[derive(Debug, Error)]
pub enum StopError {
    /// A vital task ended without being asked to.
    #[error("a vital task ended on its own")]
    TaskEnded,
    /// Tasks ignored the hard stop.
    #[error("{0} tasks ignored the hard stop")]
    Stuck(usize),
}

/// The signals that ask for the end.
#[derive(Debug)]
struct Requests {
    sigterm: Signal,
    sigint: Signal,
    last: Option<(SignalKind, Instant)>,
}

impl Requests {
    fn new() -> io::Result<Self> {
        Ok(Self { sigterm: signal(SignalKind::terminate())?, sigint: signal(SignalKind::interrupt())?, last: None })
    }

    /// Waits for a signal that is not a part of the last request. Cancel-safe.
    async fn next(&mut self) {
        loop {
            let signal = tokio::select! {
                _ = self.sigterm.recv() => SignalKind::terminate(),
                _ = self.sigint.recv() => SignalKind::interrupt(),
            };
            let is_repeated = |(last, at): (SignalKind, Instant)| last == signal && at.elapsed() < SAME_REQUEST;
            if !self.last.is_some_and(is_repeated) {
                self.last = Some((signal, Instant::now()));
                return;
            }
        }
    }
}

/// The signals of this process, its stop and its tasks.
#[derive(Debug)]
pub struct Lifecycle {
    stop: Stop,
    tasks: Tasks,
    requests: Requests,
}

impl Lifecycle {
    /// Installs the handlers. Done first, so that a stop during the start is seen.
    pub fn new() -> io::Result<Self> {
        Ok(Self { stop: Stop::new(), tasks: Tasks::default(), requests: Requests::new()? })
    }

    /// The tokens.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// The spawner.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Runs `start` unless a signal comes first; none means that the process was asked to stop meanwhile.
    pub async fn starting<T>(&mut self, start: impl Future<Output = T>) -> Option<T> {
        let signalled = tokio::select! {
            biased;
            () = self.requests.next() => None,
            value = start => Some(value),
        };
        if signalled.is_none() {
            self.stop.ask();
        }
        signalled
    }

    /// Waits for a reason to stop, then drains within `grace` and [`HARD_STOP_LIMIT`].
    pub async fn run(mut self, grace: Duration) -> Result<(), StopError> {
        let asked = tokio::select! {
            () = self.requests.next() => true,
            () = self.stop.soft.cancelled() => self.stop.asked.is_cancelled(),
        };
        if asked {
            tracing::info!(?grace, "asked to stop: nothing new is taken, what runs may finish");
            self.stop.ask();
        }
        self.drain(grace).await?;
        if asked { Ok(()) } else { Err(StopError::TaskEnded) }
    }

    async fn drain(&mut self, grace: Duration) -> Result<(), StopError> {
        self.stop.soft.cancel();
        let cause = tokio::select! {
            () = self.tasks.drained() => None,
            () = self.requests.next() => Some("asked a second time"),
            () = self.stop.hard.cancelled() => Some("asked to stop at once"),
            () = sleep(grace) => Some("the grace is over"),
        };
        if let Some(cause) = cause {
            tracing::warn!(cause, tasks = self.tasks.len(), "what still runs is ended now");
            self.stop.hard.cancel();
            timeout(HARD_STOP_LIMIT, self.tasks.drained())
                .await
                .map_err(|_elapsed| StopError::Stuck(self.tasks.len() + self.tasks.attendants.len()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_hard_stop_is_a_soft_stop_too() {
        let stop = Stop::new();
        stop.hard().cancel();
        assert!(stop.soft().is_cancelled());
        let other = Stop::new();
        other.soft().cancel();
        assert!(!other.hard().is_cancelled());
    }

    #[test]
    fn a_panicking_vital_task_stops_the_process_and_is_not_a_success() {
        runtime().block_on(async {
            let lifecycle = Lifecycle::new().unwrap();
            lifecycle.tasks().spawn_vital("doomed", lifecycle.stop(), async { panic!("on purpose") });
            let ended = lifecycle.run(Duration::from_secs(5)).await;
            assert!(matches!(ended, Err(StopError::TaskEnded)), "{ended:?}");
        });
    }

    #[test]
    fn a_guarded_task_may_return_and_must_not_panic() {
        runtime().block_on(async {
            let (stop, tasks) = (Stop::new(), Tasks::default());
            tasks.spawn_guarded("short", &stop, async {}).await.unwrap();
            assert!(!stop.soft().is_cancelled());
            tasks.spawn_guarded("doomed", &stop, async { panic!("on purpose") }).await.unwrap_err();
            assert!(stop.is_failing());
        });
    }

    #[test]
    fn a_task_that_needs_the_hard_stop_gets_it_when_the_grace_is_over() {
        runtime().block_on(async {
            let lifecycle = Lifecycle::new().unwrap();
            let hard = lifecycle.stop().hard().clone();
            lifecycle.tasks().spawn(async move { hard.cancelled().await });
            lifecycle.stop().ask();
            lifecycle.run(Duration::from_millis(10)).await.unwrap();
        });
    }

    fn signal_self() {
        attune_sys::kill(attune_sys::Pid::current(), attune_sys::SIGTERM).unwrap();
    }

    #[test]
    fn a_request_that_arrives_twice_at_once_is_one_and_a_later_one_is_another() {
        runtime().block_on(async {
            let mut requests = Requests::new().unwrap();
            signal_self();
            requests.next().await;
            let (_, first) = requests.last.unwrap();
            signal_self();
            // Not before the time is over that makes it another one, however often it is sent.
            loop {
                tokio::select! {
                    biased;
                    () = requests.next() => break,
                    () = tokio::task::yield_now() => signal_self(),
                }
            }
            assert!(requests.last.unwrap().1 - first >= SAME_REQUEST);
            // Another signal is another request, however soon it comes.
            attune_sys::kill(attune_sys::Pid::current(), attune_sys::SIGINT).unwrap();
            requests.next().await;
            assert_eq!(requests.last.unwrap().0, SignalKind::interrupt());
        });
    }

    #[test]
    fn a_task_that_ignores_the_hard_stop_is_counted() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let lifecycle = Lifecycle::new().unwrap();
            lifecycle.tasks().spawn(std::future::pending::<()>());
            lifecycle.stop().ask();
            let ended = lifecycle.run(Duration::from_secs(1)).await;
            assert!(matches!(ended, Err(StopError::Stuck(1))), "{ended:?}");
        });
    }

    #[test]
    fn an_attendant_serves_until_the_last_task_has_ended() {
        runtime().block_on(async {
            let tasks = Tasks::default();
            let (end, ended) = tokio::sync::oneshot::channel::<()>();
            let attendant = tasks.spawn_attendant(|rest| async move { rest.cancelled().await });
            tasks.spawn(ended);
            assert_eq!(tasks.len(), 1);
            let drained = tasks.drained();
            tokio::pin!(drained);
            tokio::select! {
                biased;
                () = &mut drained => panic!("a task is alive"),
                () = tokio::task::yield_now() => {}
            }
            assert!(!attendant.is_finished());
            end.send(()).unwrap();
            drained.await;
            assert!(attendant.is_finished());
        });
    }

    #[test]
    fn a_stop_that_nobody_asked_for_is_a_failure() {
        let stop = Stop::new();
        assert!(!stop.is_failing());
        stop.soft().cancel();
        assert!(stop.is_failing());
        stop.ask();
        assert!(!stop.is_failing());
    }
}

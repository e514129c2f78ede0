//! Threads that live as long as the process and start children.
//!
//! The kernel sends the parent-death signal when the *thread* ends that started the child. Threads of the runtime come and
//! go, so none of them may be that thread. And the thread that starts a child stands still until the child has become another
//! program, which on a busy machine is most of what a start takes: so there are two, and the second one goes on meanwhile.
//!
//! A program may also be on a volume that hangs, or be looked at by a scanner first: a thread that starts it may stand still for
//! as long. Where that holds up others, further threads are made.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::child::{Child, start};
use crate::command::Command;
use crate::start_error::StartError;

/// More do not start children any sooner: each child needs a processor to become another program.
const THREADS: usize = 2;

/// With those that are made because others stand still. A thread stays once it is there: its children would die with it.
const MOST_THREADS: usize = 32;

/// A start that has waited for so long, while none began, waits for threads that stand still.
const PATIENCE: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce() + Send>;

static SPAWNERS: Mutex<Option<Spawners>> = Mutex::new(None);

/// Jobs that were handed over.
static HANDED_OVER: AtomicUsize = AtomicUsize::new(0);

/// Those of them that a thread has taken.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The threads and what they take their work from.
struct Spawners {
    jobs: Sender<Job>,
    queue: Arc<Mutex<Receiver<Job>>>,
    threads: Vec<JoinHandle<()>>,
}

thread_local! {
    static IS_SPAWNER: Cell<bool> = const { Cell::new(false) };
}

/// [`start`], while the thread of the caller goes on with other tasks. Dropped, the child is killed or never started.
///
/// # Panics
///
/// Outside a tokio runtime with I/O and time enabled.
pub async fn start_aside(command: Command) -> Result<Child, StartError> {
    let program = command.program.clone();
    let failed = |source| StartError::Other { program, source };
    let (reply, result) = oneshot::channel();
    let runtime = Handle::current();
    let job = move || {
        if !reply.is_closed() {
            let _inside = runtime.enter();
            // A child that nobody waits for any more is dropped, which kills it.
            drop(reply.send(start(command)));
        }
    };
    if let Err(error) = hand_over(Box::new(job)) {
        return Err(failed(error));
    }
    let mut result = result;
    let mut look = Look::new();
    loop {
        match timeout(PATIENCE, &mut result).await {
            Ok(Ok(started)) => return started,
            Ok(Err(_gone)) => return Err(failed(gone())),
            Err(_waited) => look.again(),
        }
    }
}

/// Runs `start` on a thread that lasts, this one or a spawner, and waits for its result.
pub(crate) fn on_lasting_thread<T: Send + 'static>(
    start: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if attune_sys::is_first_thread() || IS_SPAWNER.get() {
        return start();
    }
    let (reply, result) = sync_channel(1);
    // The caller waits without a limit, so the result is only refused by one that panicked.
    hand_over(Box::new(move || drop(reply.send(start()))))?;
    let mut look = Look::new();
    loop {
        match result.recv_timeout(PATIENCE) {
            Ok(started) => return started,
            Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            Err(RecvTimeoutError::Timeout) => look.again(),
        }
    }
}

/// How somebody who waits sees whether the threads still do anything.
struct Look {
    taken: usize,
}

impl Look {
    fn new() -> Self {
        Self { taken: TAKEN.load(Ordering::Relaxed) }
    }

    /// After [`PATIENCE`]: makes another thread when there are jobs and none was taken since.
    fn again(&mut self) {
        let before = std::mem::replace(self, Self::new()).taken;
        if self.taken != before || self.taken == HANDED_OVER.load(Ordering::Relaxed) {
            return;
        }
        let mut spawners = SPAWNERS.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(spawners) = spawners.as_mut() else { return };
        // Another one who waits may have been first.
        if TAKEN.load(Ordering::Relaxed) != self.taken || spawners.threads.len() >= MOST_THREADS {
            return;
        }
        let threads = spawners.threads.len();
        match spawners.add() {
            Ok(()) => tracing::warn!(threads, "all threads that start processes stand still: making another one"),
            Err(error) => tracing::warn!(threads, %error, "all threads that start processes stand still"),
        }
    }
}

fn hand_over(job: Job) -> io::Result<()> {
    // A panic while the lock was held left threads that work, or fewer.
    let mut spawners = SPAWNERS.lock().unwrap_or_else(PoisonError::into_inner);
    let spawners = spawners.get_or_insert_with(|| {
        let (jobs, queue) = channel();
        Spawners { jobs, queue: Arc::new(Mutex::new(queue)), threads: Vec::new() }
    });
    spawners.complete()?;
    HANDED_OVER.fetch_add(1, Ordering::Relaxed);
    spawners.jobs.send(job).map_err(|_| gone())
}

impl Spawners {
    /// Makes the threads that are not there: at first, and in the place of one that went with a job that panicked. All its
    /// children have been sent their signal. An error when there is none at all.
    fn complete(&mut self) -> io::Result<()> {
        self.threads.retain(|thread| !thread.is_finished());
        while self.threads.len() < THREADS {
            match self.add() {
                Ok(()) => {}
                Err(error) if self.threads.is_empty() => return Err(error),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn add(&mut self) -> io::Result<()> {
        let queue = self.queue.clone();
        self.threads.push(thread::Builder::new().name("spawner".to_owned()).spawn(move || serve(&queue))?);
        Ok(())
    }
}

fn serve(queue: &Mutex<Receiver<Job>>) {
    IS_SPAWNER.set(true);
    loop {
        // Whoever waits for a job holds the lock; the jobs themselves do not.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        TAKEN.fetch_add(1, Ordering::Relaxed);
        job();
    }
}

fn gone() -> io::Error {
    io::Error::other("a thread that starts processes is gone")
}

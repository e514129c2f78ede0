//! Threads that live as long as the process and start children.
//!
//! The kernel sends the parent-death signal when the *thread* ends that started the child. Threads of the runtime come and
//! go, so none of them may be that thread. And the thread that starts a child stands still until the child has become another
//! program, which on a busy machine is most of what a start takes: so there are two, and the second one goes on meanwhile.

use std::cell::Cell;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::child::{Child, start};
use crate::command::Command;
use crate::start_error::StartError;

/// More do not start children any sooner: each child needs a processor to become another program.
const MOST_THREADS: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

static SPAWNERS: Mutex<Option<Spawners>> = Mutex::new(None);

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
    match hand_over(Box::new(job)) {
        Ok(()) => match result.await {
            Ok(started) => started,
            Err(_gone) => Err(failed(gone())),
        },
        Err(error) => Err(failed(error)),
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
    result.recv().map_err(|_| gone())?
}

fn hand_over(job: Job) -> io::Result<()> {
    // A panic while the lock was held left threads that work, or fewer.
    let mut spawners = SPAWNERS.lock().unwrap_or_else(PoisonError::into_inner);
    let spawners = spawners.get_or_insert_with(|| {
        let (jobs, queue) = channel();
        Spawners { jobs, queue: Arc::new(Mutex::new(queue)), threads: Vec::new() }
    });
    spawners.complete()?;
    spawners.jobs.send(job).map_err(|_| gone())
}

impl Spawners {
    /// Makes the threads that are not there: at first, and in the place of one that went with a job that panicked. All its
    /// children have been sent their signal. An error when there is none at all.
    fn complete(&mut self) -> io::Result<()> {
        self.threads.retain(|thread| !thread.is_finished());
        while self.threads.len() < MOST_THREADS {
            let queue = self.queue.clone();
            match thread::Builder::new().name("spawner".to_owned()).spawn(move || serve(&queue)) {
                Ok(thread) => self.threads.push(thread),
                Err(error) if self.threads.is_empty() => return Err(error),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }
}

fn serve(queue: &Mutex<Receiver<Job>>) {
    IS_SPAWNER.set(true);
    loop {
        // Whoever waits for a job holds the lock; the jobs themselves do not.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        job();
    }
}

fn gone() -> io::Error {
    io::Error::other("a thread that starts processes is gone")
}

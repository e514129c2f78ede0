//! A thread that lives as long as the process and starts children.
//!
//! The kernel sends the parent-death signal when the *thread* ends that started the child. Threads of the runtime come and
//! go, so none of them may be that thread. And the thread that starts a child stands still until the child has become another
//! program, which on a busy machine is most of what a start takes.

use std::cell::Cell;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::child::{Child, start};
use crate::command::Command;
use crate::start_error::StartError;

type Job = Box<dyn FnOnce() + Send>;

static JOBS: Mutex<Option<Sender<Job>>> = Mutex::new(None);

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

/// Runs `start` on a thread that lasts, this one or the spawner, and waits for its result.
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
    // A panic while the lock was held left either a working sender or none.
    let mut jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
    let job = match &*jobs {
        Some(jobs) => match jobs.send(job) {
            Ok(()) => return Ok(()),
            // The thread is gone, with a job that panicked. All its children have been sent their signal.
            Err(refused) => refused.0,
        },
        None => job,
    };
    let (sender, receiver) = channel();
    thread::Builder::new().name("spawner".to_owned()).spawn(move || serve(&receiver))?;
    jobs.insert(sender).send(job).map_err(|_| gone())
}

fn serve(jobs: &Receiver<Job>) {
    IS_SPAWNER.set(true);
    for job in jobs {
        job();
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts processes is gone")
}

//! A thread that lives as long as the process and starts those children that are to die with it.
//!
//! The kernel sends the parent-death signal when the *thread* ends that started the child. Threads of the runtime come and
//! go, so none of them may be that thread.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::mark::Mark;

type Start = fn(Command, Option<&Mark>) -> io::Result<Child>;

struct Job {
    command: Command,
    mark: Option<Mark>,
    start: Start,
    reply: SyncSender<io::Result<Child>>,
}

static JOBS: Mutex<Option<Sender<Job>>> = Mutex::new(None);

/// Runs `start` on the thread and waits for its result.
pub(crate) fn on_lasting_thread(command: Command, mark: Option<Mark>, start: Start) -> io::Result<Child> {
    let (reply, result) = sync_channel(1);
    let job = Job { command, mark, start, reply };
    jobs()?.send(job).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

fn jobs() -> io::Result<Sender<Job>> {
    // A panic while the lock was held left either a working sender or none.
    let mut jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(jobs) = &*jobs {
        return Ok(jobs.clone());
    }
    let (sender, receiver) = channel();
    thread::Builder::new().name("spawner".to_owned()).spawn(move || serve(&receiver))?;
    Ok(jobs.insert(sender).clone())
}

fn serve(jobs: &Receiver<Job>) {
    for job in jobs {
        if let Err(unwanted) = job.reply.send((job.start)(job.command, job.mark.as_ref())) {
            // The caller waits without a limit, so this is a caller that panicked; its child has no owner.
            drop(unwanted);
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts processes is gone")
}

//! Tokio runtimes, built by hand: named threads, few of them.

use std::thread;

use tokio::runtime::{Builder, Runtime};

use crate::exit::{Exit, Failure};

/// Agents wait much and compute little; more workers would only add wake-ups.
const MOST_WORKERS: usize = 4;

/// Threads for blocking file work. Work beyond that waits for a free one.
const BLOCKING_THREADS: usize = 16;

/// The runtime of a long-running service. On one core it has one thread.
pub(crate) fn service() -> Result<Runtime, Failure> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut builder = if cores == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    build(builder.worker_threads(cores.min(MOST_WORKERS)))
}

/// The runtime of a command that does one thing: no thread is started for it.
pub(crate) fn command() -> Result<Runtime, Failure> {
    build(&mut Builder::new_current_thread())
}

fn build(builder: &mut Builder) -> Result<Runtime, Failure> {
    builder
        .thread_name("attune")
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::message(Exit::OperatingSystem, format!("failed to start the runtime: {error}")))
}

//! Tokio runtimes, built by hand: named threads, few of them.

use std::thread;

use tokio::runtime::{Builder, Runtime};

use crate::exit::{Exit, Failure};

/// Services wait much and compute little; more workers would only add wake-ups.
const MOST_WORKERS: usize = 4;

/// Threads for blocking file work. Work beyond that waits for a free one.
const BLOCKING_THREADS: usize = 16;

/// The runtime of a long-running service. On one core it has one thread.
pub(crate) fn service() -> Result<Runtime, Failure> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut builder = if cores == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    build(builder.worker_threads(cores.min(MOST_WORKERS)))
}

/// One thread, the first of the process: for commands that do one thing, and for agents. What an agent does goes from one short
/// step to the next, and each step that another thread takes wakes that up first: an execution costs a quarter less of CPU time
/// without, and what is left to others, children and servers, is so much more (docs/benchmarks.md).
pub(crate) fn one_thread() -> Result<Runtime, Failure> {
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

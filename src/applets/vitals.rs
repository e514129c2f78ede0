//! What the health of a service of this binary is made of: the one place that joins services and [`Health`].

use attune_config::{process_env, service_manager};
use attune_health::{About, Health, NotifyConfig, Parts, serve};
use attune_lifecycle::{Stop, Tasks};
use attune_model::listen::Listen;
use attune_worker::{Overview, RunningExecution};
use serde_json::{Value, json};

use crate::applet::VERSION;
use crate::exit::{Exit, Failure};

/// Tells the health of a service that is starting at `listen`, and to a service manager, until everything has ended.
///
/// To be called first, so that a start that takes long can be watched; [`Health::started`] ends it.
pub(crate) async fn begin(
    (role, name, parts): (&'static str, &str, Parts),
    listen: &Listen,
    (stop, tasks): (&Stop, &Tasks),
) -> Result<(Health, Listen), Failure> {
    let about = About { role, name: name.to_owned(), version: VERSION, parts };
    let health = Health::new(about, stop.clone());
    let manager = service_manager(&process_env(), std::process::id());
    let notify = manager.map(|manager| NotifyConfig { socket: manager.socket, watchdog: manager.watchdog });
    let address =
        serve(listen, notify, &health, (stop, tasks)).await.map_err(|error| Failure::new(Exit::Unavailable, error))?;
    Ok((health, address))
}

/// Makes a worker part of the health: its consumers and its row, and what it runs.
pub(crate) fn watch_worker(health: &Health, worker: Overview) {
    let section = worker.clone();
    health.watch(move |all| worker.conditions(all));
    health.section("worker", move || worker_status(&section));
}

/// Ids, refs and ages; what an execution was given stays out.
fn worker_status(worker: &Overview) -> Value {
    let running = worker.running().into_iter().map(|RunningExecution { id, action_ref, age }| {
        json!({"id": id, "action_ref": action_ref, "age_seconds": age.as_secs()})
    });
    json!({"id": worker.id(), "slots": worker.slots(), "running": running.collect::<Vec<_>>()})
}

//! What the health of a service of this binary is made of: the one place that joins services and [`Health`].

use std::time::Instant;

use attune_bus_amqp::{AmqpState, Consumers, Link};
use attune_config::{process_env, service_manager};
use attune_health::{About, Health, NotifyConfig, Parts, serve};
use attune_hub::HubHandle;
use attune_lifecycle::{Stop, Tasks};
use attune_model::activity::Observer;
use attune_model::condition::Condition;
use attune_model::listen::Listen;
use attune_model::measure::{ConnectionState, Measure, Server};
use attune_worker::{Overview, RunningExecution};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::applet::VERSION;
use crate::exit::{Exit, Failure};

/// Which service this process is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service<'a> {
    /// `worker`, `sensor`, `hub`, `dev`.
    pub(crate) role: &'static str,
    /// Its name, also for the broker.
    pub(crate) name: &'a str,
    /// What of it is counted.
    pub(crate) parts: Parts,
}

/// Tells the health of a service that is starting at `listen`, and to a service manager, until everything has ended.
///
/// To be called first, so that a start that takes long can be watched; [`Health::started`] ends it.
pub(crate) async fn begin(
    service: Service<'_>,
    listen: &Listen,
    (stop, tasks): (&Stop, &Tasks),
) -> Result<(Health, Listen), Failure> {
    let Service { role, name, parts } = service;
    let about = About { role, name: name.to_owned(), version: VERSION, parts };
    let health = Health::new(about, stop.clone());
    let manager = service_manager(&process_env(), std::process::id());
    let notify = manager.map(|manager| NotifyConfig { socket: manager.socket, watchdog: manager.watchdog });
    let address =
        serve(listen, notify, &health, (stop, tasks)).await.map_err(|error| Failure::new(Exit::Unavailable, error))?;
    Ok((health, address))
}

/// Makes the connection to the broker part of the health, with every consumer on it.
pub(crate) fn watch_bus(health: &Health, state: watch::Receiver<AmqpState>, tasks: &Tasks) {
    let asked = state.clone();
    health.watch(move |all| all.push(bus_condition(&asked.borrow())));
    let metrics = health.metrics();
    tasks.spawn_attendant(|rest| async move {
        tokio::select! {
            () = rest.cancelled() => {}
            () = follow_bus(state, &*metrics) => {}
        }
    });
}

/// The reasons name no addresses and repeat nothing that the broker said: the log does.
fn bus_condition(state: &AmqpState) -> Condition {
    const NAME: &str = "bus";
    let since = match &state.link {
        Link::Up { since } | Link::Lost { since, .. } => since.into_std(),
        Link::Closed => return Condition::problem(NAME, "the connection to the broker was closed", Instant::now()),
    };
    let Consumers { wanted, confirmed, missing_since } = state.consumers;
    match (&state.link, &state.blocked) {
        (Link::Lost { attempts, .. }, _) => {
            let text = format!("the connection to the broker is lost, {attempts} attempts to get it back");
            Condition::problem(NAME, text, since)
        }
        (_, Some(block)) => Condition::problem(NAME, "the broker takes no messages for now", block.since.into_std()),
        _ if !state.is_fresh() => {
            let text = format!("nothing was heard from the broker for {} s", state.silence.as_secs());
            // By looks of every few seconds, as the text has it too.
            let heard = Instant::now().checked_sub(state.silence).unwrap_or(since);
            Condition::problem(NAME, text, heard.max(since))
        }
        _ if confirmed != wanted => {
            let missing_since = missing_since.map_or(since, tokio::time::Instant::into_std);
            Condition::problem(NAME, format!("{confirmed} of {wanted} consumers are confirmed"), missing_since)
        }
        _ => Condition::well(NAME, since),
    }
}

async fn follow_bus(mut state: watch::Receiver<AmqpState>, observer: &dyn Observer) {
    let mut told = None;
    loop {
        let now = {
            let state = state.borrow_and_update();
            match &state.link {
                Link::Up { .. } if state.blocked.is_some() => ConnectionState::Blocked,
                Link::Up { .. } => ConnectionState::Connected,
                Link::Lost { .. } | Link::Closed => ConnectionState::Lost,
            }
        };
        if told.replace(now) != Some(now) {
            observer.measure(Measure::Connection { server: Server::Bus, state: now });
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// Makes a worker part of the health: its consumers and its row, and what it runs.
pub(crate) fn watch_worker(health: &Health, worker: Overview) {
    let section = worker.clone();
    health.watch(move |all| worker.conditions(all));
    health.section("worker", move || worker_status(&section));
}

/// Makes a hub part of the health: its storage and its consumers.
pub(crate) fn watch_hub(health: &Health, hub: HubHandle) {
    health.watch(move |all| hub.conditions(all));
}

/// Makes a sensor host part of the health: its row and its ear for changes, and where its sensors stand.
pub(crate) fn watch_sensors(health: &Health, host: attune_sensor::Overview) {
    let section = host.clone();
    health.watch(move |all| host.conditions(all));
    health.section("sensor", move || sensor_status(&section));
}

fn sensor_status(host: &attune_sensor::Overview) -> Value {
    let sensors = host.sensors().into_iter().map(|sensor| {
        json!({
            "id": sensor.id,
            "ref": sensor.sensor_ref,
            "state": sensor.state_word(),
            "pid": sensor.pid,
            "failures": sensor.failures,
            "active_rules": sensor.active_rules,
        })
    });
    json!({"id": host.id(), "sensors": sensors.collect::<Vec<_>>()})
}

/// Ids, refs and ages; what an execution was given stays out.
fn worker_status(worker: &Overview) -> Value {
    let running = worker.running().into_iter().map(|RunningExecution { id, action_ref, age }| {
        json!({"id": id, "action_ref": action_ref, "age_seconds": age.as_secs()})
    });
    json!({"id": worker.id(), "slots": worker.slots(), "running": running.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use attune_bus_amqp::Block;

    use super::*;

    #[test]
    fn a_broker_is_silent_since_it_was_heard_and_not_since_it_was_connected() {
        let connected = Instant::now().checked_sub(Duration::from_hours(1)).unwrap();
        let state = AmqpState {
            link: Link::Up { since: connected.into() },
            blocked: None,
            heartbeat: Some(Duration::from_secs(10)),
            silence: Duration::from_secs(20),
            consumers: Consumers::default(),
            losses: 0,
        };
        let heard = Instant::now().checked_sub(state.silence).unwrap();
        let condition = bus_condition(&state);
        assert_eq!(condition.problem.as_deref(), Some("nothing was heard from the broker for 20 s"));
        assert!(condition.since >= heard, "{condition:?}");
    }

    #[test]
    fn what_is_missing_counts_from_when_it_went_and_not_from_the_connection() {
        let ago = |minutes| Instant::now().checked_sub(Duration::from_mins(minutes)).unwrap();
        let (connected, went) = (ago(60), ago(5));
        let mut state = AmqpState {
            link: Link::Up { since: connected.into() },
            blocked: None,
            heartbeat: None,
            silence: Duration::ZERO,
            consumers: Consumers { wanted: 3, confirmed: 2, missing_since: Some(went.into()) },
            losses: 0,
        };
        let condition = bus_condition(&state);
        assert_eq!(condition.problem.as_deref(), Some("2 of 3 consumers are confirmed"));
        assert_eq!(condition.since, went);
        state.blocked = Some(Block { reason: "low on disk".to_owned(), since: went.into() });
        let condition = bus_condition(&state);
        assert_eq!(condition.problem.as_deref(), Some("the broker takes no messages for now"));
        assert_eq!(condition.since, went);
    }
}

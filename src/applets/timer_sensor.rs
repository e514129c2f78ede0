//! `attune-core-timer-sensor`, `attune-agents timer-sensor`: the timer sensor of the core pack.
//!
//! Started by a sensor host, configured by the environment of sensors. Its log is JSON lines on standard output, as the
//! platform's readers know it; only why it ended goes to standard error, where the host looks for that.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use argh::FromArgs;
use attune_config::{Source, process_env};
use attune_lifecycle::Lifecycle;
use attune_model::Secret;
use attune_timer_sensor::{TimerError, TimerSensorConfig};
use tokio::sync::oneshot;
use tracing::level_filters::LevelFilter;

use crate::applets::machine;
use crate::applets::notify;
use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::rt;

/// How often the rules are read again, should a change have been missed.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// Events on their way have a second; nothing else takes time.
const GRACE: Duration = Duration::from_secs(3);

/// Emits the events of timers. Meant to be started by a sensor host: the settings are in the environment.
#[derive(Debug, FromArgs)]
struct TimerSensorArguments {}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|TimerSensorArguments {}| {
        let environment = process_env();
        log_to_standard_output(&environment)?;
        let config = configuration(&environment)?;
        let keeps = if config.api_token_file.is_some() { "\nX_ATTUNE_KEEPS=token" } else { "" };
        if let Err(error) = notify::say(&environment, &format!("READY=1{keeps}")) {
            tracing::warn!(%error, "the sensor host does not listen");
        }
        rt::one_thread()?.block_on(serve(config))
    })
}

fn configuration(environment: &dyn Source) -> Result<TimerSensorConfig, Failure> {
    let required = |name: &str| {
        environment.text(name).ok_or_else(|| {
            Failure::message(
                Exit::Configuration,
                format!("{name} is not set; a sensor host sets it when it starts a sensor"),
            )
        })
    };
    let api_url = required("ATTUNE_API_URL")?;
    if !api_url.starts_with("http://") && !api_url.starts_with("https://") {
        return Err(Failure::message(Exit::Configuration, "ATTUNE_API_URL must begin with http:// or https://"));
    }
    Ok(TimerSensorConfig {
        ca_file: machine::api_ca_file(&api_url),
        api_url,
        api_token: Secret::new(required("ATTUNE_API_TOKEN")?),
        api_token_file: environment.get("ATTUNE_API_TOKEN_FILE").map(PathBuf::from),
        triggers: environment.text("ATTUNE_SENSOR_TRIGGERS"),
        trigger_refs: environment.text("ATTUNE_SENSOR_TRIGGER_REFS"),
        poll_interval: POLL_INTERVAL,
    })
}

async fn serve(config: TimerSensorConfig) -> Result<Exit, Failure> {
    let lifecycle = Lifecycle::new()
        .map_err(|error| Failure::message(Exit::OperatingSystem, format!("failed to watch for signals: {error}")))?;
    let stop = lifecycle.stop().clone();
    let (sender, mut receiver) = oneshot::channel();
    lifecycle.tasks().spawn_vital("timers", lifecycle.stop(), async move {
        let result = attune_timer_sensor::run(config, stop.soft()).await;
        if sender.send(result).is_ok() {
            stop.ask();
        }
    });
    lifecycle.run(GRACE).await.map_err(|error| Failure::new(Exit::Internal, error))?;
    match receiver.try_recv() {
        Ok(Ok(())) => Ok(Exit::Success),
        Ok(Err(error @ TimerError::Unauthorized { .. })) => Err(Failure::new(Exit::Unavailable, error)),
        Ok(Err(error @ TimerError::Client { .. })) => Err(Failure::new(Exit::OperatingSystem, error)),
        Err(error) => Err(Failure::new(Exit::Internal, error)),
    }
}

fn log_to_standard_output(environment: &dyn Source) -> Result<(), Failure> {
    let level = environment.text("ATTUNE_LOG_LEVEL").and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(level)
        .with_writer(io::stdout)
        .try_init()
        .map_err(|error| Failure::message(Exit::Internal, format!("failed to start logging: {error}")))
}

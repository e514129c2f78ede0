//! `attune-agents hub`: the small control plane on the platform's own storage and broker.
//!
//! With PostgreSQL, RabbitMQ and the agents it is a whole installation; in a full one, the platform's API and executor are
//! in its place.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use argh::FromArgs;
use attune_config::{HubAgentConfig, Sources, load_hub, process_env, working_folder};
use attune_health::Parts;
use attune_hub::{AgentDownloads, DEFAULT_UPLOAD_LIMIT_BYTES, Folders, Hub, HubConfig};
use attune_model::Secret;
use attune_model::clock::SystemClock;
use attune_security::{SealingKey, TokenKey};
use attune_store_postgres::Role as StoreRole;
use tracing::level_filters::LevelFilter;

use crate::applets::agent::{self, level, not_blank};
use crate::applets::dev::hub_failed;
use crate::applets::platform::{Platform, accept};
use crate::applets::vitals::{self, Service};
use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::rt;
use crate::telemetry::{LogFormat, Telemetry};

/// How long requests in hand may take to finish after the stop was asked for.
const GRACE: Duration = Duration::from_secs(10);

/// The hub has no row that would give it a name.
pub(crate) const NAME: &str = "attune-hub";

/// For an installation that never ends executions which their worker does not start.
const NEVER: Duration = Duration::from_hours(24 * 365 * 100);

/// Serves the platform's API, matches rules and gives executions to workers, until it is asked to stop.
#[derive(Debug, FromArgs)]
struct HubArguments {
    #[argh(option, short = 'c', description = "configuration file (default: $ATTUNE_CONFIG, then ./config.yaml)")]
    config: Option<String>,
    #[argh(option, description = "log lines on standard error: json or text (default: $ATTUNE_LOG_FORMAT, then text)")]
    log_format: Option<LogFormat>,
}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|HubArguments { config, log_format }| {
        let (environment, folder) = (process_env(), working_folder());
        let telemetry = Telemetry::start(&environment, log_format, LevelFilter::INFO)?;
        let file = config.map(|file| not_blank("--config", file)).transpose()?;
        let sources = Sources { environment: &environment, file: file.as_deref().map(Path::new), folder: &folder };
        let config = accept(load_hub(sources))?;
        telemetry.set_level(level(config.platform.log_level));
        let settings = settings(&config)?;
        let service = Service { role: "hub", name: NAME, parts: Parts::NONE };
        let prepared = std::future::ready(Ok(settings));
        agent::live(
            rt::service()?,
            service,
            &config.platform,
            GRACE,
            prepared,
            async |platform, settings, health, (stop, tasks)| {
                platform.check(StoreRole::Hub).await?;
                let Platform { store, bus } = platform.clone();
                let settings = HubConfig { observer: health.metrics(), ..settings };
                let hub = Hub::build(settings, store, bus, Arc::new(SystemClock)).await.map_err(hub_failed)?;
                tracing::info!(address = %hub.local_addr(), "hub listens");
                vitals::watch_hub(health, hub.handle());
                hub.spawn(stop, tasks);
                Ok(())
            },
        )
    })
}

fn settings(config: &HubAgentConfig) -> Result<HubConfig, Failure> {
    let security = &config.platform.security;
    let invalid = |error| Failure::new(Exit::Configuration, error);
    let token_key = TokenKey::new(required("security.jwt_secret", security.jwt_secret.as_ref())?).map_err(invalid)?;
    let sealing_key = required("security.encryption_key", security.encryption_key.as_ref())?;
    let sealing_key = SealingKey::new(sealing_key).map_err(|error| Failure::new(Exit::Configuration, error))?;
    let agent = config.downloads.as_ref().map(|downloads| AgentDownloads {
        binary_dir: downloads.binary_dir.clone(),
        bootstrap_token: Some(downloads.bootstrap_token.clone()),
    });
    Ok(HubConfig {
        agent,
        folders: Some(Folders {
            packs_dir: config.platform.folders.packs.clone(),
            artifacts_dir: config.platform.folders.artifacts.clone(),
            upload_limit_bytes: DEFAULT_UPLOAD_LIMIT_BYTES,
        }),
        scheduled_limit: config.executor.scheduled_timeout.unwrap_or(NEVER),
        monitor_period: config.executor.timeout_check_interval,
        heartbeat_limit: config.executor.heartbeat_limit,
        ..HubConfig::new(config.listen, token_key, sealing_key)
    })
}

/// The hub makes tokens and encrypts secrets, so it has to have both keys.
fn required<'a>(key: &str, value: Option<&'a Secret>) -> Result<&'a Secret, Failure> {
    value.ok_or_else(|| Failure::message(Exit::Configuration, format!("{key}: the hub does not work without it")))
}

//! `attune-sensor-agent`, `attune-agents sensor`: the sensor host. `sensor ctl …` asks one that runs.

use std::ffi::OsString;
use std::sync::Arc;

use attune_config::{SENSOR_RUNTIMES, SensorAgentConfig, SensorConfig as SensorSection, child_env, load_sensor};
use attune_health::Parts;
use attune_model::clock::SystemClock;
use attune_process::Guard;
use attune_runtime::plan::Planner;
use attune_runtime::{Advertised, Host};
use attune_security::TokenKey;
use attune_sensor::{LogLimits, SensorConfig, SensorHost, SensorPaths, SensorTiming, Transport};
use attune_store_postgres::Role as StoreRole;
use serde_json::json;

use crate::applets::agent::{self, AgentArguments, Role};
use crate::applets::doctor::{self, Patient};
use crate::applets::machine;
use crate::applets::platform::{Platform, accept};
use crate::applets::sensor_ctl;
use crate::applets::user_code;
use crate::applets::vitals::{self, Service};
use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::rt;

/// The program that this applet is.
const PROGRAM: &str = "attune-sensor-agent";

/// Runs it.
pub(crate) fn run(mut call: Call) -> Result<Exit, Failure> {
    if call.arguments.first().is_some_and(|word| word == "ctl") {
        call.arguments.remove(0);
        call.command.push_str(" ctl");
        return sensor_ctl::run(call);
    }
    call.with(|arguments: AgentArguments| {
        let Some(start) = agent::begin(Role::Sensor, arguments)? else { return Ok(Exit::Success) };
        let config = accept(load_sensor(start.sources(), start.name()))?;
        start.log_as(&config.platform);
        let SensorAgentConfig { platform, sensor, .. } = &config;
        let name = sensor.worker_name.clone().unwrap_or_else(|| Role::Sensor.default_name(&machine::host_name()));
        let service = Service { role: Role::Sensor.as_str(), name: &name, parts: Parts::SENSOR };
        let visible = child_env(&start.environment, &sensor.pass_env);
        let prepare = async {
            let advertised = start.offer(platform, &sensor.capabilities).await?;
            settings(&config, &name, &advertised, visible)
        };
        let grace = sensor.shutdown_timeout;
        let patient = Patient { role: Role::Sensor, platform, child: &sensor.child };
        let ended = agent::live(
            rt::one_thread()?,
            service,
            platform,
            grace,
            prepare,
            async |platform, settings, health, (stop, tasks)| {
                platform.check(StoreRole::Sensor).await?;
                let Platform { store, bus } = platform.clone();
                let host = SensorHost::build(settings, store, bus, Arc::new(SystemClock), health.metrics()).await;
                let host = host.map_err(|error| Failure::new(Exit::Unavailable, error))?;
                vitals::watch_sensors(health, host.overview());
                user_code::tell_limits(user_code::policy(&config.sensor.child), health, tasks);
                let mut started = host.spawn(stop, tasks);
                tasks.spawn(async move {
                    // A fact of the platform.
                    if started.wait().await {
                        tracing::info!("Attune Sensor Agent is ready");
                    }
                });
                Ok(())
            },
        );
        ended.inspect_err(|failure| doctor::tell(patient, failure))
    })
}

fn settings(
    config: &SensorAgentConfig,
    name: &str,
    advertised: &Advertised,
    visible: Vec<(OsString, OsString)>,
) -> Result<SensorConfig, Failure> {
    let SensorAgentConfig { platform, sensor, sensors_message_queue_url } = config;
    let token_key = platform.security.jwt_secret.as_ref().map(TokenKey::new);
    let program = machine::program()?;
    let host = Arc::new(Host::new(visible.clone()));
    let folders = &platform.folders;
    let planner = Planner::new(host.clone(), folders.packs.clone(), folders.runtime_envs.clone(), advertised)
        .with_builtins(machine::builtins());
    let mut capabilities = agent::capabilities(PROGRAM, &sensor.labels, &sensor.taints, &sensor.capabilities);
    for (key, value) in [
        ("runtimes", json!(advertised.runtimes)),
        ("runtime_versions", json!(advertised.runtime_versions)),
        ("detected_interpreters", json!(advertised.detected_interpreters)),
    ] {
        capabilities.entry(key).or_insert(value);
    }
    // Sensors see what their host offers under the name by which an operator would choose it.
    let handed_on = advertised.handed_on.iter().map(|runtimes| (SENSOR_RUNTIMES.into(), runtimes.into()));
    Ok(SensorConfig {
        name: name.to_owned(),
        host: Some(sensor.host.clone().unwrap_or_else(machine::host_name)),
        capabilities,
        max_concurrent_sensors: sensor.max_concurrent_sensors,
        paths: SensorPaths {
            packs: folders.packs.clone(),
            artifacts: folders.artifacts.clone(),
            agent_binary: program,
            run: Some(sensor.run_dir.clone()),
        },
        api_url: platform.api_url.clone(),
        ca_file: machine::api_ca_file(&platform.api_url),
        token_key: token_key.transpose().map_err(|error| Failure::new(Exit::Configuration, error))?,
        mq_url: Some(sensors_message_queue_url.clone()),
        base_environment: visible.into_iter().chain(handed_on).collect(),
        planner,
        build_host: host,
        policy: Some(user_code::policy(&sensor.child)),
        guard: guard(),
        timing: timing(sensor),
        logs: LogLimits {
            max_bytes: platform.artifacts.sensor_log_max_bytes,
            max_files: platform.artifacts.sensor_log_max_files,
        },
        artifacts: machine::artifacts_way(platform.artifacts.transport),
        packs: Transport::Auto,
        restarts_registered: true,
    })
}

fn timing(sensor: &SensorSection) -> SensorTiming {
    SensorTiming {
        heartbeat_interval: sensor.heartbeat_interval,
        lease_time: Some(sensor.lease_time),
        backoff_min: sensor.backoff.0,
        backoff_max: sensor.backoff.1,
        reconcile_interval: sensor.reconcile_interval,
        watchdog: sensor.watchdog,
        stop_signal: sensor.child.stop_signal,
        stop_grace: sensor.child.stop_grace,
        ..SensorTiming::default()
    }
}

/// A host without one runs sensors as well, and ends them in time as long as it works itself.
fn guard() -> Option<Arc<Guard>> {
    match Guard::start(None) {
        Ok(guard) => Some(guard),
        Err(error) => {
            tracing::error!(%error, "no guardian: the sensors of a frozen host run on beside those of its successor");
            None
        }
    }
}

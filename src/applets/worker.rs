//! `attune-agent`, `attune-agents worker`: the action worker.

use std::ffi::OsString;
use std::sync::Arc;

use attune_config::{WorkerAgentConfig, child_env, load_worker};
use attune_health::Parts;
use attune_model::RuntimeId;
use attune_model::clock::SystemClock;
use attune_runtime::Advertised;
use attune_store_postgres::Role as StoreRole;
use attune_worker::{ExecutorConfig, PackFolders, Transport, Transports, Worker, WorkerConfig};

use crate::applets::agent::{self, AgentArguments, Role};
use crate::applets::doctor::{self, Patient};
use crate::applets::machine;
use crate::applets::platform::{Platform, accept};
use crate::applets::user_code;
use crate::applets::vitals::{self, Service};
use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::rt;

/// The program that this applet is.
const PROGRAM: &str = "attune-agent";

/// Where results wait for storage, below the folder of artifacts.
pub(crate) const SPOOL: &str = "_spool";

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|arguments: AgentArguments| {
        let Some(start) = agent::begin(Role::Worker, arguments)? else { return Ok(Exit::Success) };
        let config = accept(load_worker(start.sources(), start.name()))?;
        start.log_as(&config.platform);
        let WorkerAgentConfig { platform, worker } = &config;
        let name = worker.name.clone().unwrap_or_else(|| Role::Worker.default_name(&machine::host_name()));
        let service = Service { role: Role::Worker.as_str(), name: &name, parts: Parts::WORKER };
        let visible = child_env(&start.environment, &worker.pass_env);
        let prepare = async {
            let advertised = start.offer(platform, &worker.capabilities).await?;
            settings(&config, &name, advertised, visible)
        };
        let grace = worker.shutdown_timeout;
        let patient = Patient { role: Role::Worker, platform, child: &worker.child };
        let ended = agent::live(
            rt::one_thread()?,
            service,
            platform,
            grace,
            prepare,
            async |platform, settings, health, (stop, tasks)| {
                platform.check(StoreRole::Worker).await?;
                let Platform { store, bus } = platform.clone();
                let worker = Worker::build(settings, store, bus, Arc::new(SystemClock), health.metrics()).await;
                let worker = worker.map_err(|error| Failure::new(Exit::Unavailable, error))?;
                vitals::watch_worker(health, worker.overview());
                user_code::tell_limits(user_code::policy(&config.worker.child), health, tasks);
                worker.spawn(stop, tasks);
                Ok(())
            },
        );
        ended.inspect_err(|failure| doctor::tell(patient, failure))
    })
}

fn settings(
    config: &WorkerAgentConfig,
    name: &str,
    advertised: Advertised,
    visible: Vec<(OsString, OsString)>,
) -> Result<WorkerConfig, Failure> {
    let WorkerAgentConfig { platform, worker } = config;
    let host = machine::host_name();
    let program = machine::program()?;
    Ok(WorkerConfig {
        name: name.to_owned(),
        worker_type: worker.worker_type,
        host: Some(worker.host.clone().unwrap_or(host)),
        port: worker.port.map(i32::from),
        capabilities: agent::capabilities(PROGRAM, &worker.labels, &worker.taints, &worker.capabilities),
        max_concurrent_tasks: worker.max_concurrent_tasks,
        heartbeat_interval: worker.heartbeat_interval,
        runtime: worker.runtime_id.map(RuntimeId),
        registers_runtimes: true,
        spool_dir: platform.folders.artifacts.join(SPOOL),
        transports: Transports {
            artifacts: machine::artifacts_way(platform.artifacts.transport),
            packs: Transport::Auto,
            api_url: platform.api_url.clone(),
            ca_file: machine::api_ca_file(&platform.api_url),
        },
        executor: ExecutorConfig {
            time_limit: worker.task_timeout,
            packs: PackFolders::base(&platform.folders.packs),
            advertised,
            builtins: machine::builtins(),
            runtime_envs_dir: platform.folders.runtime_envs.clone(),
            artifacts_dir: platform.folders.artifacts.clone(),
            temp_dir: std::env::temp_dir(),
            api_url: platform.api_url.clone(),
            agent_bin: program,
            passed_environment: visible,
            max_stdout_bytes: bytes(worker.max_stdout_bytes),
            max_stderr_bytes: bytes(worker.max_stderr_bytes),
            log_retention: (worker.execution_log_retention_policy, worker.execution_log_retention_limit),
            policy: Some(user_code::policy(&worker.child)),
            child_signal: worker.child.stop_signal,
            child_grace: worker.child.stop_grace,
            encryption_key: platform.security.encryption_key.clone(),
            jwt_secret: platform.security.jwt_secret.clone(),
        },
    })
}

fn bytes(configured: u64) -> usize {
    usize::try_from(configured).unwrap_or(usize::MAX)
}

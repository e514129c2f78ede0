//! Rows and folders for tests of the worker.

pub mod flaky;
pub mod golden;
pub mod rig;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::CancellationToken;
use attune_model::activity::NoObserver;
use attune_model::rows::{Action, Execution, RawPlacement, Retention, Runtime};
use attune_model::status::{ExecutionStatus, OutputFormat, ParameterDelivery, ParameterFormat, RetentionPolicy};
use attune_model::{ActionId, ExecutionId, PackId, RuntimeId, Secret, WorkerId};
use attune_runtime::advertise::{Advertised, Tier};
use attune_security::SealingKey;
use attune_store::{ClaimedExecution, Fence};
use attune_worker::{Conclusion, Control, Executor, ExecutorConfig, PackFolders, Sinks};
use chrono::Utc;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The installation's key for secrets.
pub const KEY: &str = "0123456789abcdef0123456789abcdef";

/// `value` as it is stored under [`KEY`].
pub fn sealed(value: &Value) -> Value {
    key().seal(value).unwrap()
}

/// [`KEY`], ready to use.
pub fn key() -> SealingKey {
    SealingKey::new(&Secret::new(KEY.to_owned())).unwrap()
}

/// A folder with packs and everything else an executor writes to.
#[derive(Debug)]
pub struct Place {
    dir: TempDir,
}

impl Place {
    /// With an empty pack `demo`.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("packs/demo/actions")).unwrap();
        Self { dir }
    }

    /// A path below it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes an executable action file.
    pub fn file(&self, name: &str, code: &str) {
        let path = self.path("packs/demo/actions").join(name);
        fs::write(&path, code).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Settings that keep everything in this folder.
    pub fn config(&self) -> ExecutorConfig {
        ExecutorConfig {
            packs: PackFolders::new([self.path("packs")]),
            advertised: advertised(),
            builtins: Vec::new(),
            runtime_envs_dir: self.path("envs"),
            artifacts_dir: self.path("artifacts"),
            temp_dir: self.path("tmp"),
            api_url: "http://127.0.0.1:8080".to_owned(),
            agent_bin: PathBuf::from("/opt/attune/attune-agents"),
            passed_environment: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
            time_limit: attune_worker::DEFAULT_TIME_LIMIT,
            max_stdout_bytes: 10 * 1024 * 1024,
            max_stderr_bytes: 10 * 1024 * 1024,
            log_retention: (RetentionPolicy::Days, 7),
            policy: None,
            child_signal: attune_process::SIGTERM,
            child_grace: Duration::from_secs(5),
            encryption_key: Some(Secret::new(KEY.to_owned())),
            jwt_secret: None,
        }
    }

    /// An executor with [`Place::config`].
    pub fn executor(&self) -> Executor {
        executor(self.config())
    }

    /// Whether nothing is left of the files that a run needs.
    pub fn is_swept(&self) -> bool {
        fs::read_dir(self.path("tmp")).map_or(true, |mut entries| entries.next().is_none())
    }
}

/// An executor with these settings.
pub fn executor(config: ExecutorConfig) -> Executor {
    Executor::new(config, Arc::new(NoObserver)).unwrap()
}

/// A host that knows nothing about its runtimes.
pub fn advertised() -> Advertised {
    Advertised {
        tier: Tier::Database,
        runtimes: Vec::new(),
        runtime_versions: BTreeMap::new(),
        detected_interpreters: Vec::new(),
        handed_on: Some("shell,python".to_owned()),
        warnings: Vec::new(),
    }
}

/// A runtime row.
pub fn runtime(name: &str, execution_config: Value) -> Runtime {
    Runtime {
        id: RuntimeId(1),
        r#ref: format!("core.{name}"),
        pack: None,
        pack_ref: None,
        description: None,
        name: name.to_owned(),
        aliases: vec![name.to_owned()],
        distributions: json!({}),
        execution_config,
    }
}

/// Files for `/bin/sh`, and shell text behind the variables of its parameters.
pub fn shell() -> Runtime {
    runtime(
        "shell",
        json!({
            "interpreter": {"binary": "/bin/sh", "file_extension": ".sh"},
            "inline_execution": {"strategy": "temp_file", "extension": ".sh", "inject_shell_helpers": true},
        }),
    )
}

/// Files that are run themselves.
pub fn native() -> Runtime {
    runtime("native", json!({}))
}

/// An action that reads JSON from its standard input and writes text.
pub fn action(entrypoint: &str) -> Action {
    Action {
        id: ActionId(3),
        r#ref: "demo.act".to_owned(),
        pack: PackId(2),
        pack_ref: "demo".to_owned(),
        label: "Act".to_owned(),
        description: None,
        entrypoint: entrypoint.to_owned(),
        runtime: Some(RuntimeId(1)),
        param_schema: None,
        out_schema: None,
        parameter_delivery: ParameterDelivery::Stdin,
        parameter_format: ParameterFormat::Json,
        output_format: OutputFormat::Text,
        is_adhoc: false,
        timeout_seconds: None,
        runtime_version_constraint: None,
        required_worker_runtimes: json!({}),
        placement: RawPlacement::default(),
        default_execution_permission_set_refs: Vec::new(),
        log_retention: Retention::default(),
    }
}

/// An execution of `action` with these parameters.
pub fn claimed(action: Action, runtime: Runtime, config: Value) -> ClaimedExecution {
    let now = Utc::now();
    ClaimedExecution {
        fence: Fence { execution: ExecutionId(7), worker: WorkerId(1), started_at: now },
        execution: Execution {
            id: ExecutionId(7),
            action: Some(action.id),
            action_ref: action.r#ref.clone(),
            config: Some(config),
            env_vars: None,
            parent: None,
            enforcement: None,
            executor: None,
            permission_set_refs: Vec::new(),
            worker: Some(WorkerId(1)),
            status: ExecutionStatus::Running,
            result: None,
            started_at: Some(now),
            workflow_task: None,
            created: now,
            updated: now,
        },
        action: Some(action),
        pack: None,
        runtime: Some(runtime),
        runtime_versions: Vec::new(),
        enforcement: None,
        parent_action_ref: None,
        keys: Vec::new(),
        secret_values: Vec::new(),
    }
}

/// Nobody cancels, nobody stops.
pub fn undisturbed() -> Control {
    Control { cancel: CancellationToken::new(), hard: CancellationToken::new() }
}

/// Runs on `executor` to the end.
pub async fn conclude(executor: &Executor, claimed: &ClaimedExecution, control: &Control) -> Conclusion {
    executor.run(claimed, None, control, Sinks::default()).await
}

/// Runs and returns status and result.
pub async fn run(executor: &Executor, claimed: &ClaimedExecution) -> (ExecutionStatus, Value) {
    let conclusion = conclude(executor, claimed, &undisturbed()).await;
    (conclusion.status(), conclusion.document(None))
}

/// The text under `key` of a result.
pub fn text<'a>(result: &'a Value, key: &str) -> &'a str {
    result[key].as_str().unwrap_or_else(|| panic!("no text {key} in {result}"))
}

/// Whether a process is alive.
pub fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

//! `attune-agents run`: one action, by the very executor that a worker uses; no storage, no queues, no server.
//!
//! The rows that a worker would claim are made from the files of the pack. What is not needed is not read, probed or
//! started, so that running an action costs hardly more than its own process.

mod request;
mod rows;
mod terminal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use argh::FromArgs;
use attune_config::{Source, child_env};
use attune_lifecycle::Lifecycle;
use attune_model::Secret;
use attune_model::status::{ExecutionStatus, RetentionPolicy};
use attune_process::SIGTERM;
use attune_store::ClaimedExecution;
use attune_worker::{
    CHILD_GRACE, Conclusion, Control, DEFAULT_OUTPUT_LIMIT, DEFAULT_TIME_LIMIT, Ending, Executor, ExecutorConfig,
    PackFolders,
};
use tracing::level_filters::LevelFilter;

use crate::applets::dev::STRAYS_LIMIT;
use crate::applets::host;
use crate::applets::user_code;
use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::rt;
use crate::telemetry::{LogFormat, Telemetry};

use self::request::Request;
use self::terminal::{Progress, Terminal};

/// Where nothing listens; actions that need the API are told where an installation of one's own usually has it.
const API_URL: &str = "http://127.0.0.1:8080";

/// Runs one action on this machine, exactly as a worker would.
#[derive(Debug, FromArgs)]
struct RunArguments {
    /// the action, as pack.name
    #[argh(positional)]
    action: String,
    /// a pack or a folder of packs; may be repeated (default: packs)
    #[argh(option)]
    packs: Vec<PathBuf>,
    /// a parameter as name=value; a value that is not for a text is read as JSON; may be repeated
    #[argh(option, arg_name = "name=value")]
    param: Vec<String>,
    /// all parameters as a JSON object, or @FILE with one; --param wins over it
    #[argh(option, arg_name = "JSON|@FILE")]
    params: Option<String>,
    /// a secret as name=value, handed over like a key of the platform; may be repeated
    #[argh(option, arg_name = "name=value")]
    secret: Vec<String>,
    /// a variable of the action's environment as name=value; may be repeated
    #[argh(option, arg_name = "name=value")]
    env: Vec<String>,
    /// time limit, for example 500ms, 30s or 5m (default: the action's, then 5m)
    #[argh(option, from_str_fn(attune_config::parse_duration))]
    timeout: Option<Duration>,
    /// folder for environments and artifacts (default: .attune)
    #[argh(option, default = "PathBuf::from(\".attune\")")]
    data: PathBuf,
    /// print the result as one JSON object, and nothing else, on standard output
    #[argh(switch)]
    json: bool,
    /// how log lines look on standard error: json or text (default: text, unless `ATTUNE_LOG_FORMAT` says so)
    #[argh(option)]
    log_format: Option<LogFormat>,
}

/// What goes to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// That of the action, as it comes.
    Output,
    /// The result.
    Result,
}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|arguments: RunArguments| {
        let RunArguments { action, packs, param, params, secret, env, timeout, data, json, log_format } = arguments;
        let prepared = host::prepare();
        let environment = prepared.environment;
        Telemetry::start(&environment, log_format, LevelFilter::WARN)?;
        prepared.log();
        let packs = if packs.is_empty() { vec![PathBuf::from("packs")] } else { packs };
        let request = Request { param, params, secret, env, timeout };
        let loaded = rows::load(&packs, &action)?;
        let (claimed, key) = request.claim(&loaded)?;
        let config = executor_config(&loaded, &environment, &data, key)?;
        let style = if json { Style::Result } else { Style::Output };
        let progress = Arc::new(Progress);
        let executor = Executor::new(config, progress).map_err(|error| Failure::new(Exit::Internal, error))?;
        let ended = rt::one_thread()?.block_on(execute(executor, claimed, style));
        attune_process::end_all_strays(STRAYS_LIMIT);
        ended
    })
}

fn executor_config(
    loaded: &rows::Loaded,
    environment: &dyn Source,
    data: &Path,
    key: Secret,
) -> Result<ExecutorConfig, Failure> {
    let here = |error: std::io::Error| {
        Failure::message(Exit::OperatingSystem, format!("failed to find this program or folder: {error}"))
    };
    let data = std::path::absolute(data).map_err(here)?;
    let passed = child_env(environment, &[]);
    Ok(ExecutorConfig {
        packs: PackFolders::base(std::path::absolute(&loaded.base).map_err(here)?),
        advertised: rows::advertised(loaded, passed.clone()),
        builtins: Vec::new(),
        runtime_envs_dir: data.join("runtime_envs"),
        artifacts_dir: data.join("artifacts"),
        temp_dir: std::env::temp_dir(),
        api_url: API_URL.to_owned(),
        agent_bin: std::env::current_exe().map_err(here)?,
        passed_environment: passed,
        time_limit: DEFAULT_TIME_LIMIT,
        max_stdout_bytes: DEFAULT_OUTPUT_LIMIT,
        max_stderr_bytes: DEFAULT_OUTPUT_LIMIT,
        log_retention: (RetentionPolicy::Days, 7),
        // Costs a second start of this program, and a killed `run` leaves nothing behind for it.
        policy: Some(user_code::unconfigured()),
        child_signal: SIGTERM,
        child_grace: CHILD_GRACE,
        encryption_key: Some(key),
        jwt_secret: None,
    })
}

/// A first signal cancels the action, a second one kills it.
async fn execute(executor: Executor, claimed: ClaimedExecution, style: Style) -> Result<Exit, Failure> {
    let lifecycle = Lifecycle::new().map_err(|error| Failure::new(Exit::OperatingSystem, error))?;
    let stop = lifecycle.stop().clone();
    let control = Control { cancel: stop.soft().clone(), hard: stop.hard().clone() };
    let terminal = Terminal::default();
    let sinks = terminal.sinks(style);
    let action = claimed.execution.action_ref.clone();
    let running = lifecycle.tasks().spawn(async move {
        // A panic stops the process too, without having asked.
        let _ended = stop.soft().clone().drop_guard();
        let conclusion = executor.run(&claimed, None, &control, sinks).await;
        stop.ask();
        conclusion
    });
    let grace = CHILD_GRACE + Duration::from_secs(1);
    lifecycle.run(grace).await.map_err(|error| Failure::new(Exit::Internal, error))?;
    let conclusion = running.await.map_err(|error| Failure::new(Exit::Internal, error))?;
    match style {
        Style::Result => {
            output::print(&format!("{}\n", conclusion.document(None)))?;
        }
        Style::Output => {
            terminal.conclude()?;
            terminal::summarise(&action, &conclusion);
        }
    }
    Ok(exit_of(&conclusion))
}

fn exit_of(conclusion: &Conclusion) -> Exit {
    match (conclusion.status(), conclusion) {
        (ExecutionStatus::Completed, _) => Exit::Success,
        (ExecutionStatus::Cancelled, _) => Exit::Cancelled,
        (_, Conclusion::Ran(ran)) if matches!(ran.ending, Ending::TimedOut(_)) => Exit::TimedOut,
        _ => Exit::Failed,
    }
}

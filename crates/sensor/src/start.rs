//! From a wanted sensor to a running process: plan, environment, token, variables, logs, start.
//!
//! [`prepare`] does everything that may take long or fail for reasons outside, while a predecessor may still be running;
//! [`Prepared::start`] does the rest in a moment.

use std::sync::Arc;
use std::time::Duration;

use attune_http::HttpError;
use attune_lifecycle::{CancellationToken, spawn_blocking};
use attune_model::chain;
use attune_model::measure::Measure;
use attune_process::{Command, Ending, Keep, Redactor, StartError, Stream, start_aside};
use attune_runtime::environment::{Coordination, Environment, EnvironmentError};
use attune_runtime::plan::{Chosen, LaunchPlan, PlanError, PlanRequest};
use attune_store::LogStream;
use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::context::Context;
use crate::excerpt::LIMIT_BYTES;
use crate::lease::Grant;
use crate::log::{LogTarget, LogWriter, queue};
use crate::notify::NotifySocket;
use crate::process::{Attached, Process};
use crate::renewal::Renewal;
use crate::target::Target;
use crate::token::{self, Token};
use crate::tokens::LaterTokens;
use crate::variables::{self, VariableError};

/// How long the claim on an environment may take to be given back when its build is cancelled.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(1);

/// Why a sensor could not be started.
#[derive(Debug, Error)]
pub(crate) enum StartFailure {
    /// Its code, runtime or version is not there.
    #[error("it cannot be run here")]
    Plan(#[source] PlanError),
    /// Its pack has not come from the API.
    #[error("its pack is not here: {0}")]
    Pack(String),
    /// Its pack is another one since it was planned.
    #[error("its pack was replaced")]
    Replaced,
    /// Its environment cannot be made.
    #[error("its environment is not ready")]
    Environment(#[source] EnvironmentError),
    /// No token, no events.
    #[error("failed to get a token for it")]
    Token(#[source] HttpError),
    /// The kernel would not take its variables.
    #[error("its environment variables are not possible")]
    Variables(#[source] VariableError),
    /// The program did not start.
    #[error("its program did not start")]
    Start(#[source] StartError),
    /// It is not wanted any more.
    #[error("it is not wanted any more")]
    Stopping,
    /// A bug of ours.
    #[error("its plan was not finished: {0}")]
    Interrupted(String),
}

impl StartFailure {
    /// Whether another host may have more luck.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Plan(_) | Self::Pack(_) | Self::Environment(_) | Self::Start(_))
    }
}

/// Everything that a start needs.
pub(crate) struct Prepared {
    plan: LaunchPlan,
    token: Token,
    renewal: Renewal,
}

/// Plans the start, makes the environment ready and gets a token. Ends soon after `stop`.
pub(crate) async fn prepare(
    context: &Context,
    target: &Arc<Target>,
    stop: &CancellationToken,
) -> Result<Prepared, StartFailure> {
    pack(target, stop).await?;
    let chosen = choose(context, target).await?;
    let environment = environment(context, target, &chosen, stop).await?;
    let plan = chosen.launch(&environment, &context.config.base_environment).map_err(StartFailure::Plan)?;
    let token = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(StartFailure::Stopping),
        token = token::fetch(context, target) => token.map_err(StartFailure::Token)?,
    };
    let renewal = Renewal::of(&token);
    Ok(Prepared { plan, token, renewal })
}

/// Waits for the version of its pack that is on its way, not for ever. What was planned for another one is not started.
async fn pack(target: &Target, stop: &CancellationToken) -> Result<(), StartFailure> {
    let Some(mut pack) = target.pack.clone() else { return Ok(()) };
    let planned = target.input.generation;
    let state = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(StartFailure::Stopping),
        state = pack.wait_for(|state| state.is_settled || state.generation != planned) => state,
    };
    match state.map(|state| state.clone()) {
        Ok(state) if state.generation != planned => Err(StartFailure::Replaced),
        Ok(state) if !state.is_here => Err(StartFailure::Pack(state.problem.unwrap_or_default())),
        // Nobody fetches packs any more: the host stops.
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn choose(context: &Context, target: &Arc<Target>) -> Result<Arc<Chosen>, StartFailure> {
    if let Some(chosen) = target.just_chosen() {
        return Ok(chosen);
    }
    let (planner, target) = (context.config.planner.clone(), target.clone());
    spawn_blocking(move || planner.choose(&PlanRequest::sensor(&target.sensor, &target.runtime, &target.versions)))
        .await
        .map_err(|error| StartFailure::Interrupted(error.to_string()))?
        .map(Arc::new)
        .map_err(StartFailure::Plan)
}

async fn environment(
    context: &Context,
    target: &Target,
    chosen: &Chosen,
    stop: &CancellationToken,
) -> Result<Environment, StartFailure> {
    let coordination =
        target.sensor.pack.map(|pack| Coordination { store: context.store.as_ref(), worker: context.worker, pack });
    let ensured = context.environments.ensure(chosen, coordination, stop.cancelled());
    let late = async {
        stop.cancelled().await;
        sleep(GIVE_BACK_LIMIT).await;
    };
    tokio::select! {
        ready = ensured => match ready {
            Err(error) if chosen.can_do_without(&error) => {
                tracing::warn!(sensor.ref = %target.sensor.r#ref, error = chain(&error),
                    "the sensor runs without its environment, which would be empty");
                Ok(Environment::NotNeeded)
            }
            ready => ready.map_err(StartFailure::Environment),
        },
        // Its commands are killed now at the latest, and its claim expires.
        () = late => Err(StartFailure::Stopping),
    }
}

impl Prepared {
    /// Starts the process with its logs.
    pub(crate) async fn start(
        self,
        context: &Context,
        target: &Target,
        grant: &Grant,
    ) -> Result<Process, StartFailure> {
        let config = &context.config;
        let (sensor, tokens) = (&target.sensor, LaterTokens::default());
        let notify = self.private_files(context, target);
        let mut reserved = variables::reserved(config, target, &self.token.value).map_err(StartFailure::Variables)?;
        if let Some((run_dir, notify)) = context.run_dir.as_ref().zip(notify.as_ref()) {
            reserved.extend(variables::private(&run_dir.token(sensor.id), notify.path(), config.timing.watchdog));
        }
        let env =
            variables::layered(&config.base_environment, &self.plan.env, reserved).map_err(StartFailure::Variables)?;
        // A sensor that prints its variables must not put its token into a log, nor the way into the broker.
        let broker = variables::broker_secrets(config);
        let secrets = broker.iter().chain([self.token.value.expose()]);
        let redactor = Arc::new(Redactor::new(secrets));
        let log = |stream: LogStream, keep: Keep| {
            let (sink, source) = queue();
            let log_target = LogTarget::new(sensor, stream, context.logs.clone());
            let writer = LogWriter::new(context.store.clone(), log_target, source, tokens.clone());
            (Stream::keep(keep).to(sink).without(&redactor), writer)
        };
        let (stdout, stdout_log) = log(LogStream::Stdout, Keep::Nothing);
        let (stderr, stderr_log) = log(LogStream::Stderr, Keep::Tail { limit_bytes: LIMIT_BYTES });
        let mut command = Command::new(self.plan.program);
        command.args = self.plan.args;
        command.cwd = self.plan.cwd;
        command.env = env;
        command.stdout = stdout;
        command.stderr = stderr;
        command.policy.clone_from(&config.policy);
        command.ending =
            Ending { signal: config.timing.stop_signal, grace: config.timing.stop_grace, ..Ending::default() };
        let (begun, begun_at) = (Instant::now(), context.clock.now());
        let child = start_aside(command).await.map_err(|error| {
            context.observer.measure(Measure::ChildNotStarted);
            StartFailure::Start(error)
        })?;
        context.observer.measure(Measure::ChildStarted { took: begun.elapsed() });
        let guarded = context.guard.as_ref().map(|guard| guard.watch(&child, grant.term()));
        let (renewal, at_once, in_use) = (self.renewal, grant.killed().clone(), self.plan.in_use);
        let attended = context.logs.outbox.as_ref().map(|outbox| outbox.attend(&sensor.r#ref, begun_at));
        let attached = Attached {
            notify,
            tokens,
            renewal,
            at_once,
            guarded,
            in_use,
            attended,
            deadline: context.deadline.clone(),
        };
        Ok(Process::watch(child, (stdout_log, stderr_log), attached))
    }

    /// The file with the token and the socket; none of both when one cannot be made. The sensor runs without them, too.
    fn private_files(&self, context: &Context, target: &Target) -> Option<NotifySocket> {
        let (run_dir, sensor) = (context.run_dir.as_ref()?, target.sensor.id);
        let made = run_dir.write_token(sensor, &self.token.value).and_then(|()| run_dir.bind_notify(sensor));
        made.inspect_err(|error| {
            tracing::warn!(sensor.ref = %target.sensor.r#ref, %error, "no token file and no notify socket");
        })
        .ok()
    }
}

//! Everything between a claimed execution and a command that can be started: parameters, secrets, runtime, environment,
//! variables, delivery.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attune_model::JsonMap;
use attune_model::chain;
use attune_model::execution_config::{InlineExecution, InlineStrategy};
use attune_model::rows::Action;
use attune_model::schema::apply_defaults;
use attune_model::status::{OutputFormat, ParameterDelivery, ParameterFormat};
use attune_process::{Command, Ending, Input, Keep, Redactor, Sink, Strays, Stream};
use attune_runtime::environment::{Environment, InUse};
use attune_runtime::plan::{Chosen, Code, LaunchPlan, PlanError, PlanRequest};
use attune_security::{ExecutionToken, sign_execution_token};
use attune_store::ClaimedExecution;
use serde_json::Value;

use crate::claims::Claims;
use crate::environment::ChildEnvironment;
use crate::executor::{Control, Executor, Sinks, has_secret_output};
use crate::output::NOTICE_RESERVE;
use crate::result::Kind;
use crate::scratch::{Scratch, ScratchFile};
use crate::secrets::Opened;
use crate::{inline, parameters, time_limit};

/// A token outlives the time limit of its run by this much. A fact of the platform.
const TOKEN_RESERVE: Duration = Duration::from_mins(1);

/// How long pipes are read that a descendant of the action keeps open.
const PIPE_DRAIN: Duration = Duration::from_millis(500);

/// Why there is nothing to start. The prefix is the platform's word for the kind of failure.
#[derive(Debug)]
pub(crate) struct Failure {
    /// `Setup error` and the like.
    pub(crate) prefix: &'static str,
    /// What went wrong.
    pub(crate) cause: String,
}

impl Failure {
    fn setup(cause: &(dyn std::error::Error + 'static)) -> Self {
        Self { prefix: "Setup error", cause: chain(cause) }
    }

    fn invalid_action(cause: impl Into<String>) -> Self {
        Self { prefix: "Invalid action", cause: cause.into() }
    }

    fn io(what: &str, cause: &std::io::Error) -> Self {
        Self { prefix: "IO error", cause: format!("{what}: {cause}") }
    }
}

/// A child to be started.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The child.
    pub(crate) command: Command,
    /// Its time.
    pub(crate) time_limit: Duration,
    /// What its code is started with.
    pub(crate) kind: Kind,
    /// How its output is read.
    pub(crate) output_format: OutputFormat,
    /// What it reads; to be kept until it has ended.
    pub(crate) files: Vec<ScratchFile>,
    /// Keeps the environment of its code; as long.
    pub(crate) in_use: InUse,
    /// Knows the secrets that it was given.
    pub(crate) redactor: Option<Arc<Redactor>>,
}

/// Code and parameters on their way into the child.
struct Delivery {
    args: Vec<OsString>,
    stdin: Input,
    files: Vec<ScratchFile>,
}

impl Executor {
    pub(crate) async fn prepare(
        &self,
        claimed: &ClaimedExecution,
        claims: Option<Claims<'_>>,
        control: &Control,
        sinks: Sinks,
    ) -> Result<Prepared, Failure> {
        let begun = Instant::now();
        let execution = &claimed.execution;
        let action = claimed.action.as_ref().ok_or_else(|| {
            Failure::invalid_action(format!("action '{}' does not exist any more", execution.action_ref))
        })?;
        let mut opened = Opened::default();
        let (config, sealed) = (execution.config.as_ref(), &claimed.secret_values);
        let given = self.secrets.restore(config, sealed, &mut opened).map_err(|error| Failure::setup(&error))?;
        let time_limit =
            time_limit::of(execution.workflow_task.as_ref(), action.timeout_seconds, self.config.time_limit);
        let mut environment = self.platform_variables(claimed, action, &given)?;
        let (chosen, built) = self.plan(claimed, action, claims, control).await?;
        // Now, not before: its environment may take longer to build than a token lives.
        if let Some(token) = self.token(claimed, time_limit, begun.elapsed()) {
            opened.add(&Value::String(token.clone()));
            environment.set("ATTUNE_API_TOKEN", token);
        }
        let plan = chosen.launch(&built, environment.variables()).map_err(|error| plan_failure(&error, action))?;
        environment.set_all(&plan.env);
        let requested = execution.env_vars.as_ref().unwrap_or(&Value::Null);
        environment.set_requested(requested).map_err(|error| Failure::setup(&error))?;
        let merged = self.parameters(claimed, action, given, &mut opened);
        let delivery = self.deliver(action, &plan, &merged, &mut environment)?;
        let redactor = opened.redactor();
        // Secret output is data first: it is masked when its declared parts are sealed.
        let masks_stdout = redactor.clone().filter(|_| !has_secret_output(Some(action)));
        let mut command = Command::new(plan.program);
        command.args = delivery.args;
        command.cwd = plan.cwd;
        command.env = environment.into_variables();
        command.stdin = delivery.stdin;
        command.stdout = stream(self.config.max_stdout_bytes, sinks.stdout, masks_stdout);
        command.stderr = stream(self.config.max_stderr_bytes, sinks.stderr, redactor.clone());
        command.policy.clone_from(&self.config.policy);
        command.ending = Ending {
            signal: self.config.child_signal,
            grace: self.config.child_grace,
            drain: PIPE_DRAIN,
            strays: strays(claimed, action),
        };
        Ok(Prepared {
            command,
            time_limit,
            kind: kind_of(&chosen),
            output_format: action.output_format,
            files: delivery.files,
            in_use: plan.in_use,
            redactor,
        })
    }

    /// Given values over defaults, secrets over both.
    fn parameters(
        &self,
        claimed: &ClaimedExecution,
        action: &Action,
        mut given: JsonMap,
        opened: &mut Opened,
    ) -> JsonMap {
        if let Some(schema) = &action.param_schema {
            apply_defaults(schema, &mut given);
        }
        parameters::merge(given, &self.secrets.ambient(&claimed.keys, opened))
    }

    /// Decides how the code is started and makes its environment ready.
    async fn plan(
        &self,
        claimed: &ClaimedExecution,
        action: &Action,
        claims: Option<Claims<'_>>,
        control: &Control,
    ) -> Result<(Chosen, Environment), Failure> {
        let runtime = claimed.runtime.as_ref().ok_or_else(|| Failure {
            prefix: "Runtime not found",
            cause: format!("no runtime for action: {} ({})", action.r#ref, self.available()),
        })?;
        if !self.advertised().admits(runtime) {
            return Err(Failure {
                prefix: "Runtime not found",
                cause: format!(
                    "Runtime '{}' not found for action: {} ({})",
                    runtime.name.to_lowercase(),
                    action.r#ref,
                    self.available()
                ),
            });
        }
        let planner = self
            .planner(&action.pack_ref)
            .ok_or_else(|| Failure::invalid_action(format!("pack ref {:?} is no folder name", action.pack_ref)))?;
        let request = PlanRequest::action(action, runtime, &claimed.runtime_versions);
        let chosen = planner.choose(&request).map_err(|error| plan_failure(&error, action))?;
        let claims = claims.map(|claims| claims.of_pack(action.pack));
        match self.environments.ensure(&chosen, claims, control.ended()).await {
            Ok(environment) => Ok((chosen, environment)),
            Err(error) if chosen.can_do_without(&error) => {
                tracing::warn!(error = chain(&error), "the action runs without its environment, which would be empty");
                Ok((chosen, Environment::NotNeeded))
            }
            Err(error) => Err(Failure::setup(&error)),
        }
    }

    fn available(&self) -> String {
        let advertised = self.advertised();
        let runtimes = &advertised.runtimes;
        if runtimes.is_empty() { "available: any".to_owned() } else { format!("available: {}", runtimes.join(", ")) }
    }

    /// What the platform promises to every action.
    fn platform_variables(
        &self,
        claimed: &ClaimedExecution,
        action: &Action,
        given: &JsonMap,
    ) -> Result<ChildEnvironment, Failure> {
        let (config, execution) = (&self.config, &claimed.execution);
        let mut environment = ChildEnvironment::new(&config.passed_environment);
        environment.set("ATTUNE_EXEC_ID", execution.id.to_string());
        environment.set("ATTUNE_ACTION", &execution.action_ref);
        environment.set("ATTUNE_API_URL", &config.api_url);
        environment.set("ATTUNE_ARTIFACTS_DIR", &config.artifacts_dir);
        environment.set("ATTUNE_RUNTIME_ENVS_DIR", &config.runtime_envs_dir);
        environment.set("ATTUNE_PACK_REF", execution.action_ref.split('.').next().unwrap_or_default());
        environment.set("ATTUNE_AGENT_BIN", &config.agent_bin);
        if let Some(runtimes) = &self.advertised().handed_on {
            environment.set("ATTUNE_WORKER_RUNTIMES", runtimes);
        }
        if let Some((rule, trigger)) = &claimed.enforcement {
            environment.set("ATTUNE_RULE", rule);
            environment.set("ATTUNE_TRIGGER", trigger);
        }
        if let Some(Value::Object(context)) = given.get("context") {
            environment.set_context(context).map_err(|error| Failure::setup(&error))?;
        }
        environment.set("ATTUNE_PARAMETER_DELIVERY", action.parameter_delivery.as_str());
        environment.set("ATTUNE_PARAMETER_FORMAT", action.parameter_format.as_str());
        Ok(environment)
    }

    /// Without permission sets there is no token; a token that cannot be made is missing, not fatal. It lives from `waited` after
    /// the claim.
    fn token(&self, claimed: &ClaimedExecution, time_limit: Duration, waited: Duration) -> Option<String> {
        let execution = &claimed.execution;
        if execution.permission_set_refs.is_empty() {
            return None;
        }
        let Some(key) = &self.tokens else {
            tracing::warn!("the action gets no token: no security.jwt_secret is configured");
            return None;
        };
        let token = ExecutionToken {
            execution: execution.id,
            executor: execution.executor,
            action_ref: &execution.action_ref,
            parent_action_ref: claimed.parent_action_ref.as_deref(),
            permission_set_refs: &execution.permission_set_refs,
            lifetime: time_limit.saturating_add(TOKEN_RESERVE),
        };
        // The database's time, as the claim has it: this host's clock may be wrong.
        match sign_execution_token(key, &token, claimed.fence.started_at + waited) {
            Ok(token) => Some(token.expose().clone()),
            Err(error) => {
                tracing::warn!(error = chain(&error), "the action gets no token");
                None
            }
        }
    }

    /// Brings code without a file and parameters to where the child finds them.
    fn deliver(
        &self,
        action: &Action,
        plan: &LaunchPlan,
        merged: &JsonMap,
        environment: &mut ChildEnvironment,
    ) -> Result<Delivery, Failure> {
        let reader = self.config.policy.as_ref().and_then(|policy| policy.user.as_ref());
        let scratch = Scratch { folder: &self.config.temp_dir, reader };
        let mut args = plan.args.clone();
        let mut files = Vec::new();
        let mut wants_stdin = true;
        if let Code::Inline { text, execution } = &plan.code {
            wants_stdin = !execution.inject_shell_helpers;
            let script = if execution.inject_shell_helpers {
                inline::wrap(text, &plan.program.to_string_lossy(), merged)
            } else {
                text.clone()
            };
            if is_argument(execution) {
                args.extend(["-c".into(), script.into()]);
            } else {
                let extension = execution.extension.as_deref().unwrap_or_default();
                let file = ScratchFile::create(scratch, "code", &dotted(extension), script.as_bytes())
                    .map_err(|error| Failure::io("cannot write the code of the action", &error))?;
                args.push(file.path().into());
                files.push(file);
            }
        }
        let text = parameters::encode(merged, action.parameter_format);
        let stdin = match action.parameter_delivery {
            ParameterDelivery::Stdin if wants_stdin => Input::Bytes((text + "\n").into_bytes()),
            ParameterDelivery::Stdin => Input::Null,
            ParameterDelivery::File => {
                let file =
                    ScratchFile::create(scratch, "parameters", extension(action.parameter_format), text.as_bytes())
                        .map_err(|error| Failure::io("cannot write the parameter file", &error))?;
                environment.set("ATTUNE_PARAMETER_FILE", file.path());
                files.push(file);
                Input::Null
            }
        };
        Ok(Delivery { args, stdin, files })
    }
}

/// What becomes of processes that the action leaves behind.
fn strays(claimed: &ClaimedExecution, action: &Action) -> Strays {
    match &claimed.pack {
        Some(pack) if pack.starts_daemons(&action.r#ref) => Strays::LeaveAlone,
        _ => Strays::End,
    }
}

fn kind_of(chosen: &Chosen) -> Kind {
    if chosen.config.is_native() { Kind::Native } else { Kind::Interpreted }
}

fn stream(limit_bytes: usize, sink: Option<Box<dyn Sink>>, redact: Option<Arc<Redactor>>) -> Stream {
    let keep = Keep::Head { limit_bytes: limit_bytes.saturating_sub(NOTICE_RESERVE) };
    Stream { keep, sink, redact }
}

/// Code with parameters in it is never an argument: everybody on the host can read those.
fn is_argument(execution: &InlineExecution) -> bool {
    execution.strategy == InlineStrategy::Direct && !execution.inject_shell_helpers
}

fn dotted(extension: &str) -> String {
    if extension.is_empty() || extension.starts_with('.') { extension.to_owned() } else { format!(".{extension}") }
}

const fn extension(format: ParameterFormat) -> &'static str {
    match format {
        ParameterFormat::Json => ".json",
        ParameterFormat::Dotenv => ".env",
        ParameterFormat::Yaml => ".yaml",
    }
}

/// Two of the texts are facts of the platform.
fn plan_failure(error: &PlanError, action: &Action) -> Failure {
    match error {
        PlanError::NoCode { expected, .. } => Failure::invalid_action(format!(
            "No executable content found for action '{}'. Expected file at: {}",
            action.r#ref,
            expected.display()
        )),
        PlanError::NoInterpreter { binary, .. } => Failure {
            prefix: "Setup error",
            cause: format!("Interpreter '{binary}' is not available for action '{}' on this worker", action.r#ref),
        },
        PlanError::Outside { .. } | PlanError::PackRef { .. } | PlanError::NotExecutable { .. } => {
            Failure::invalid_action(chain(error))
        }
        PlanError::Config { .. } | PlanError::Constraint { .. } | PlanError::NoVersion { .. } => Failure::setup(error),
    }
}

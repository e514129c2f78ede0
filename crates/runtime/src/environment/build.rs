//! One build: create, install, mark, publish.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use attune_model::activity::Activity;
use attune_model::execution_config::{Environment as Settings, ExecutionConfig};
use attune_process::{Captured, Command, Keep, Outcome, Report, Stream};

use super::generation::{self, Generation};
use super::inspect::{Condition, Inspector, MARKER};
use super::origin::ORIGIN;
use super::{Environment, EnvironmentError, Environments, Step, caches, shared, usage};
use crate::places::is_executable;
use crate::plan::Chosen;
use crate::template::Templates;

/// Behind the name of the shared environment, and before the tag of the images that one of their own is for.
pub(super) const FOR: &str = ".for-";
/// How much of each stream of a command is kept.
const KEPT_OUTPUT_BYTES: usize = 64 * 1024;
/// How much of it an error quotes.
const QUOTED_BYTES: usize = 2 * 1024;
/// Settings that keep package managers from asking questions and from looking for newer versions of themselves.
const QUIET: &[(&str, &str)] = &[
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("PIP_NO_INPUT", "1"),
    ("npm_config_update_notifier", "false"),
    ("npm_config_fund", "false"),
];

/// An environment and everything that decides how it is built.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) chosen: &'a Chosen,
    pub(super) env_dir: PathBuf,
    pub(super) manifest: Option<PathBuf>,
    settings: &'a Settings,
}

/// The end of a build, with the output of its commands.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) result: Result<Environment, EnvironmentError>,
    pub(super) log: String,
}

impl<'a> Site<'a> {
    /// None when the runtime has no environments.
    pub(super) fn of(chosen: &'a Chosen) -> Option<Self> {
        let settings = chosen.config.environment.as_ref().filter(|settings| settings.env_type != "none")?;
        Some(Self { chosen, env_dir: chosen.env_dir.clone(), manifest: chosen.manifest(), settings })
    }

    /// The same for images like this one, beside the shared environment.
    pub(super) fn for_this_image(&self, inspector: &Inspector) -> Self {
        let mut name = self.env_dir.file_name().unwrap_or_default().to_owned();
        name.push(FOR);
        name.push(inspector.origin(self).tag());
        Self {
            chosen: self.chosen,
            env_dir: self.env_dir.with_file_name(name),
            manifest: self.manifest.clone(),
            settings: self.settings,
        }
    }

    /// Whether there is a command that installs the manifest.
    pub(super) fn installs(&self) -> bool {
        self.install_command().is_some()
    }

    /// The interpreter inside an environment at `folder`, whether or not it exists.
    pub(super) fn interpreter_in(&self, folder: &Path) -> Option<PathBuf> {
        let path = self.settings.interpreter_path.as_ref()?;
        Some(PathBuf::from(self.templates(folder, self.chosen.interpreter.as_deref()).fill(path)))
    }

    pub(super) fn unfit(&self, reason: String) -> EnvironmentError {
        EnvironmentError::Unfit { env_dir: self.env_dir.clone(), reason }
    }

    /// A file that belongs to the environment and lies beside it.
    pub(super) fn beside(&self, what: &str) -> PathBuf {
        generation::hidden(&self.env_dir, what)
    }

    /// Makes the folder that environments of the pack are in.
    pub(super) fn create_parent(&self) -> Result<(), EnvironmentError> {
        let Some(parent) = self.env_dir.parent() else {
            return Ok(());
        };
        if parent.is_dir() {
            return Ok(());
        }
        let io_error = |source| EnvironmentError::Io { what: "create the folder", path: parent.to_owned(), source };
        shared::make_folder(parent).map_err(io_error)
    }

    fn install_command(&self) -> Option<&[String]> {
        let dependencies = self.chosen.config.dependencies.as_ref()?;
        Some(dependencies.install_command.as_slice()).filter(|command| !command.is_empty())
    }

    fn templates<'t>(&'t self, folder: &'t Path, interpreter: Option<&'t Path>) -> Templates<'t> {
        Templates { pack_dir: &self.chosen.pack_dir, env_dir: folder, interpreter, manifest: self.manifest.as_deref() }
    }

    fn config(&self) -> &ExecutionConfig {
        &self.chosen.config
    }
}

impl Environments {
    /// Builds it anew. The caller holds the locks.
    pub(super) async fn build(&self, site: &Site<'_>, checksum: Option<&str>) -> Built {
        let begun = Instant::now();
        let generation = Generation::new(&site.env_dir);
        let mut log = String::new();
        let result = self.build_steps(site, &generation, checksum, &mut log).await;
        discard(caches::folder(&generation)).await;
        if result.is_err() {
            discard(generation.path.clone()).await;
        }
        self.observer.observe(Activity::EnvironmentFinished {
            pack_ref: site.chosen.pack_ref.clone(),
            runtime: site.chosen.label.clone(),
            took: begun.elapsed(),
            error: result.as_ref().err().map(|error| attune_model::chain(error)),
        });
        Built { result, log }
    }

    async fn build_steps(
        &self,
        site: &Site<'_>,
        generation: &Generation,
        checksum: Option<&str>,
        log: &mut String,
    ) -> Result<Environment, EnvironmentError> {
        let folder = generation.path.as_path();
        let caches = caches::variables(&self.host, &caches::folder(generation));
        let outside = site.chosen.interpreter.as_deref();
        if site.settings.create_command.is_empty() {
            return Err(EnvironmentError::NoCreateCommand { runtime: site.chosen.runtime_ref.clone() });
        }
        let create = Work {
            site,
            step: Step::Create,
            command: &site.settings.create_command,
            folder,
            interpreter: outside,
            caches,
        };
        self.run(&create, log).await?;
        let inside = site.interpreter_in(folder);
        let made = inside.as_deref().map_or_else(|| folder.is_dir(), is_executable);
        if !made {
            return Err(EnvironmentError::Incomplete { path: inside.unwrap_or_else(|| folder.to_owned()) });
        }
        if let (Some(checksum), Some(command)) = (checksum, site.install_command()) {
            // Resolved again: dependencies belong into the environment, not into the interpreter it was made with.
            let interpreter = inside.as_deref().or(outside);
            self.run(&Work { step: Step::Install, command, interpreter, ..create }, log).await?;
            let marker = folder.join(MARKER);
            fs::write(&marker, checksum).map_err(io_error("write the marker", &marker))?;
        }
        if folder.is_dir() {
            let origin = self.inspector.origin(site);
            origin.write(folder).map_err(io_error("write the origin", &folder.join(ORIGIN)))?;
        }
        // Before anybody sees it, so that nobody removes it.
        let in_use = usage::hold(folder).unwrap_or_default();
        let previous = generation.publish().map_err(io_error("put the new environment in place at", &site.env_dir))?;
        self.clean_up(site, previous).await;
        match self.inspector.inspect(site)?.condition {
            Condition::Ready(ready) => Ok(ready),
            Condition::Unfit(reason) => Err(site.unfit(reason)),
            // The manifest changed while it was being installed; the next user builds again.
            Condition::Missing(_) => {
                Ok(Environment::Ready { folder: generation.path.clone(), interpreter: inside, in_use })
            }
        }
    }

    async fn run(&self, work: &Work<'_>, log: &mut String) -> Result<(), EnvironmentError> {
        let command = work.command(self)?;
        self.observer.observe(Activity::EnvironmentStarted {
            pack_ref: work.site.chosen.pack_ref.clone(),
            runtime: work.site.chosen.label.clone(),
            step: work.summary(&command.program),
        });
        let child = attune_process::start_aside(command).await.map_err(|source| EnvironmentError::Start {
            step: work.step,
            env_dir: work.site.env_dir.clone(),
            source,
        })?;
        // A stop drops this future, which kills the group.
        let report = child.supervise(Some(self.limits.command), std::future::pending()).await;
        record(log, work, &report);
        let path = work.site.beside("log");
        if let Err(error) = shared::write(&path, log.as_bytes()) {
            tracing::warn!(path = %path.display(), %error, "the log of a build could not be written");
        }
        let Some(how) = failure(&report.outcome) else {
            return Ok(());
        };
        Err(EnvironmentError::Failed { step: work.step, how, output: quoted(&report), log: path })
    }

    /// The previous build is kept: code that was started in it may still load parts of it.
    async fn clean_up(&self, site: &Site<'_>, previous: Option<PathBuf>) {
        let (env_dir, age) = (site.env_dir.clone(), 2 * self.limits.command);
        let keep = [generation::current(&env_dir), previous];
        in_background(move || generation::remove_old(&env_dir, &keep, age)).await;
    }
}

/// One command.
struct Work<'a> {
    site: &'a Site<'a>,
    step: Step,
    command: &'a [String],
    folder: &'a Path,
    interpreter: Option<&'a Path>,
    caches: Vec<(OsString, OsString)>,
}

impl Work<'_> {
    fn command(&self, environments: &Environments) -> Result<Command, EnvironmentError> {
        let templates = self.site.templates(self.folder, self.interpreter);
        let mut words = self.command.iter().map(|word| templates.fill(word));
        let first = words.next().unwrap_or_default();
        let program = self.program(&first, environments).ok_or_else(|| EnvironmentError::NoProgram {
            step: self.step,
            env_dir: self.site.env_dir.clone(),
            program: first.to_string_lossy().into_owned(),
        })?;
        let folders: Vec<&Path> =
            [self.interpreter, Some(&program)].into_iter().flatten().filter_map(Path::parent).collect();
        let quiet = QUIET.iter().map(|&(name, value)| (OsString::from(name), OsString::from(value)));
        let set = quiet.chain(self.caches.iter().cloned());
        let env = environments.host.env_with_path(&folders).into_iter().chain(set).collect();
        let keep = || Stream::keep(Keep::Tail { limit_bytes: KEPT_OUTPUT_BYTES });
        let cwd = Some(self.site.chosen.pack_dir.clone());
        let policy = environments.policy.clone();
        Ok(Command { args: words.collect(), cwd, env, stdout: keep(), stderr: keep(), policy, ..Command::new(program) })
    }

    /// For people: which step, and the first words of its command.
    fn summary(&self, program: &Path) -> String {
        const WORDS_CHARS: usize = 40;
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let others = self.command.iter().skip(1).take(2).map(String::as_str);
        let words = std::iter::once(&*name).chain(others).collect::<Vec<_>>().join(" ");
        match words.char_indices().nth(WORDS_CHARS) {
            Some((cut, _)) => format!("{} ({}…)", self.step, &words[..cut]),
            None => format!("{} ({words})", self.step),
        }
    }

    /// A path as it is, the configured interpreter's name as it was resolved for the code, other names by look-up.
    fn program(&self, first: &OsString, environments: &Environments) -> Option<PathBuf> {
        let path = Path::new(first);
        if path.components().count() > 1 {
            return Some(self.site.chosen.pack_dir.join(path));
        }
        let name = first.to_str()?;
        if name == self.site.config().interpreter.binary {
            return self.site.chosen.interpreter.clone();
        }
        environments.host.find(name).map(|found| found.program)
    }
}

fn failure(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Exited(0) => None,
        Outcome::NotStarted(error) => Some(attune_model::chain(error)),
        Outcome::Exited(code) => Some(format!("exit {code}")),
        Outcome::Signalled { signal, .. } => Some(format!("signal {signal}")),
        Outcome::OutOfMemory => Some("the kernel killed it because memory was out".to_owned()),
        Outcome::TimedOut { limit, .. } => Some(format!("no end within {} s", limit.as_secs())),
        Outcome::Cancelled { .. } => Some("cancelled".to_owned()),
        Outcome::Lost(reason) => Some(reason.clone()),
    }
}

fn record(log: &mut String, work: &Work<'_>, report: &Report) {
    log.push_str("$ ");
    log.push_str(&work.command.join(" "));
    log.push('\n');
    for stream in [&report.stdout, &report.stderr] {
        append(log, stream);
    }
}

fn append(log: &mut String, stream: &Captured) {
    if stream.dropped_bytes > 0 {
        log.push_str("[the beginning was dropped]\n");
    }
    log.push_str(&String::from_utf8_lossy(&stream.bytes));
    if !log.ends_with('\n') {
        log.push('\n');
    }
}

/// The end of what the command complained about.
fn quoted(report: &Report) -> String {
    let stream = if report.stderr.bytes.is_empty() { &report.stdout } else { &report.stderr };
    let from = stream.bytes.len().saturating_sub(QUOTED_BYTES);
    String::from_utf8_lossy(&stream.bytes[from..]).trim().to_owned()
}

async fn discard(folder: PathBuf) {
    in_background(move || {
        if let Err(error) = generation::remove(&folder) {
            tracing::warn!(path = %folder.display(), %error, "what a build left could not be removed");
        }
    })
    .await;
}

/// Removing a tree can take seconds, which an async thread must not spend.
async fn in_background(work: impl FnOnce() + Send + 'static) {
    // The code around a task is there once for each type.
    let work: Box<dyn FnOnce() + Send> = Box::new(work);
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::error!(%error, "cleaning up environments failed");
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EnvironmentError {
    let path = path.to_owned();
    move |source| EnvironmentError::Io { what, path, source }
}

//! The second half of planning: program, arguments and variables, against an environment that is ready.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use attune_model::execution_config::{EnvOperation, EnvVar, ExecutionConfig};

use super::code::Code;
use super::{Chosen, Kind, LaunchPlan, PlanError};
use crate::environment::{Environment, EnvironmentError, InUse};
use crate::places::is_executable;
use crate::template::Templates;

impl Chosen {
    /// Resolves everything. `existing` is what the variables of the runtime are prepended or appended to.
    pub fn launch(
        &self,
        environment: &Environment,
        existing: &[(OsString, OsString)],
    ) -> Result<LaunchPlan, PlanError> {
        let (env_dir, inside, in_use) = match environment {
            Environment::Ready { folder, interpreter, in_use } => (folder, interpreter.as_deref(), in_use.clone()),
            Environment::NotNeeded => (&self.env_dir, None, InUse::default()),
        };
        let interpreter = inside.or(self.interpreter.as_deref());
        let (program, args) = self.command(interpreter)?;
        let manifest = self.manifest();
        let templates = Templates { pack_dir: &self.pack_dir, env_dir, interpreter, manifest: manifest.as_deref() };
        // Sensors and native code run wherever the agent is: a fact of the platform that packs rely on.
        let in_pack = self.kind == Kind::Action && interpreter.is_some() && self.pack_dir.is_dir();
        Ok(LaunchPlan {
            program,
            args,
            code: self.code.clone(),
            cwd: in_pack.then(|| self.pack_dir.clone()),
            env: variables(&self.config, &templates, existing),
            env_dir: env_dir.clone(),
            version: self.version.as_ref().map(|(_, text)| text.clone()),
            in_use,
        })
    }

    /// The manifest of the pack, whether or not it exists; none when no dependencies are configured.
    pub(crate) fn manifest(&self) -> Option<PathBuf> {
        self.config.dependencies.as_ref().map(|dependencies| self.pack_dir.join(&dependencies.manifest_file))
    }

    /// Whether the plain interpreter will do where the environment failed with `error`: without a manifest it would have nothing in it
    /// but what the interpreter has anyway. The platform's own services go on as well, and images without `venv` or packs without
    /// `package.json` rely on that.
    pub fn can_do_without(&self, error: &EnvironmentError) -> bool {
        let installs_nothing = || self.manifest().is_none_or(|manifest| !manifest.is_file());
        !matches!(error, EnvironmentError::Cancelled { .. }) && installs_nothing()
    }

    fn command(&self, interpreter: Option<&Path>) -> Result<(PathBuf, Vec<OsString>), PlanError> {
        let options = || self.config.interpreter.args.iter().map(OsString::from);
        match (&self.code, interpreter) {
            (Code::Builtin(builtin), _) => Ok((builtin.program.clone(), builtin.args.clone())),
            (Code::File(file), Some(interpreter)) => {
                Ok((interpreter.to_owned(), options().chain([file.clone().into_os_string()]).collect()))
            }
            (Code::File(file), None) if is_executable(file) => Ok((file.clone(), Vec::new())),
            (Code::File(file), None) => Err(PlanError::NotExecutable { path: file.clone() }),
            (Code::Inline { .. }, Some(interpreter)) => Ok((interpreter.to_owned(), options().collect())),
            (Code::Inline { .. }, None) => Err(PlanError::NoInterpreter {
                kind: self.kind,
                owner: self.owner_ref.clone(),
                runtime: self.runtime_ref.clone(),
                binary: self.config.interpreter.binary.clone(),
            }),
        }
    }
}

fn variables(
    config: &ExecutionConfig,
    templates: &Templates<'_>,
    existing: &[(OsString, OsString)],
) -> Vec<(OsString, OsString)> {
    let present = |name: &str| existing.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.as_os_str());
    let resolve = |(name, variable): (&String, &EnvVar)| {
        let value = match variable {
            EnvVar::Set(value) => templates.fill(value),
            EnvVar::Combine { value, operation, separator } => {
                let own = templates.fill(value);
                let other = present(name).unwrap_or_default();
                match operation {
                    EnvOperation::Set => own,
                    EnvOperation::Prepend => joined(&own, separator, other),
                    EnvOperation::Append => joined(other, separator, &own),
                }
            }
        };
        (OsString::from(name), value)
    };
    config.env_vars.iter().map(resolve).collect()
}

/// An empty side takes the separator with it.
fn joined(first: &OsStr, separator: &str, second: &OsStr) -> OsString {
    let mut text = first.to_owned();
    if !first.is_empty() && !second.is_empty() {
        text.push(separator);
    }
    text.push(second);
    text
}

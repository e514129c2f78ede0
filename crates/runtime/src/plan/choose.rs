//! The first half of planning: configuration, version, code and environment folder.

use attune_model::RuntimeVersionId;
use attune_model::execution_config::ExecutionConfig;
use attune_model::runtime_name::names_of;
use attune_model::version::Constraint;
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;

use super::code::{self, Code, Source};
use super::interpreter::{self, NotFound};
use super::version_choice::candidates;
use super::{Chosen, PlanError, PlanRequest, Planner};

/// A configuration that can be used here.
struct Selected {
    version: Option<(RuntimeVersionId, String)>,
    config: ExecutionConfig,
    interpreter: Option<PathBuf>,
}

impl Planner {
    /// Decides configuration, version, code and environment folder.
    pub fn choose(&self, request: &PlanRequest<'_>) -> Result<Chosen, PlanError> {
        let source = code::find(request, self)?;
        let names: Vec<String> = names_of(request.runtime).into_iter().collect();
        let selected = self.select(request, &names)?;
        let label = match &selected.version {
            Some((_, version)) => format!("{}-{version}", request.runtime.name.to_lowercase()),
            None => request.base_label(),
        };
        let code = match source {
            Source::File(path) => Code::File(path),
            Source::Builtin(builtin) => Code::Builtin(builtin),
            Source::Text(text) => {
                Code::Inline { text, execution: selected.config.inline_execution.clone().unwrap_or_default() }
            }
        };
        let row = selected.version.as_ref().map(|(_, version)| version.as_str());
        let version = row.or_else(|| self.base_version(&names)).map(str::to_owned);
        Ok(Chosen {
            kind: request.kind,
            owner_ref: request.owner_ref.to_owned(),
            pack_ref: request.env_pack().to_owned(),
            runtime: request.runtime.id,
            runtime_ref: request.runtime.r#ref.clone(),
            runtime_name: request.runtime.name.to_lowercase(),
            version: selected.version,
            config: selected.config,
            code,
            pack_dir: self.packs_dir.join(request.pack_ref),
            env_dir: self.envs_dir.join(request.env_pack()).join(&label),
            label,
            interpreter: selected.interpreter,
            interpreter_version: version,
        })
    }

    /// The best row whose interpreter exists here, else the runtime's own configuration.
    fn select(&self, request: &PlanRequest<'_>, names: &[String]) -> Result<Selected, PlanError> {
        let constraint = Constraint::parse(request.constraint.unwrap_or_default()).map_err(|source| {
            PlanError::Constraint { kind: request.kind, owner: request.owner_ref.to_owned(), source }
        })?;
        let local = self.versions_of(names);
        let pack_dir = self.packs_dir.join(request.pack_ref);
        let mut absent = Vec::new();
        for row in candidates(request.kind, request.versions, &local, &constraint) {
            let config = config_of(format!("version {} of {}", row.version, row.runtime_ref), &row.execution_config)?;
            match interpreter::locate(&config, names, &pack_dir, &self.host) {
                Ok(interpreter) => {
                    return Ok(Selected { version: Some((row.id, row.version.clone())), config, interpreter });
                }
                Err(NotFound(binary)) => absent.push(binary),
            }
        }
        if !constraint.is_any() && !self.base_version(names).is_some_and(|version| constraint.matches_text(version)) {
            return Err(PlanError::NoVersion {
                kind: request.kind,
                owner: request.owner_ref.to_owned(),
                runtime: request.runtime.r#ref.clone(),
                constraint: constraint.to_string(),
                known: in_words(&local, &absent),
            });
        }
        let config = config_of(request.runtime.r#ref.clone(), &request.runtime.execution_config)?;
        let interpreter = interpreter::locate(&config, names, &pack_dir, &self.host).map_err(|NotFound(binary)| {
            PlanError::NoInterpreter {
                kind: request.kind,
                owner: request.owner_ref.to_owned(),
                runtime: request.runtime.r#ref.clone(),
                binary,
            }
        })?;
        Ok(Selected { version: None, config, interpreter })
    }
}

pub(super) fn config_of(row: String, config: &Value) -> Result<ExecutionConfig, PlanError> {
    ExecutionConfig::deserialize(config).map_err(|source| PlanError::Config { row, source })
}

fn in_words(local: &[String], absent: &[String]) -> String {
    let mut words = match local {
        [] => "no known version of it".to_owned(),
        versions => versions.join(", "),
    };
    if !absent.is_empty() {
        words.push_str(" and lacks ");
        words.push_str(&absent.join(", "));
    }
    words
}

//! The environments that the code of a pack may run in, before anything of it runs.

use attune_model::rows::{Runtime, RuntimeVersion};
use attune_model::runtime_name::names_of;
use attune_model::version::{Constraint, covers};

use super::choose::config_of;
use super::{Chosen, Code, Kind, Planner, interpreter};

impl Planner {
    /// The environment of the runtime itself, and one for each of its versions that meets any of `constraints` and was found
    /// on this machine. What has no environment, or no interpreter here, is left out. Nothing is run in them: the code of
    /// each is the pack's folder.
    pub fn environments(
        &self,
        pack_ref: &str,
        runtime: &Runtime,
        versions: &[&RuntimeVersion],
        constraints: &[String],
    ) -> Vec<Chosen> {
        let names: Vec<String> = names_of(runtime).into_iter().collect();
        let local = self.versions_of(&names);
        let wanted: Vec<Constraint> = constraints.iter().filter_map(|text| Constraint::parse(text).ok()).collect();
        let fits = |row: &RuntimeVersion| {
            let here = local.iter().filter(|version| covers(&row.version, version));
            here.into_iter().any(|version| wanted.iter().any(|constraint| constraint.matches_text(version)))
        };
        let base = std::iter::once(None);
        let rows = versions.iter().copied().filter(|row| fits(row)).map(Some);
        base.chain(rows).filter_map(|version| self.environment_of(pack_ref, runtime, version, &names)).collect()
    }

    fn environment_of(
        &self,
        pack_ref: &str,
        runtime: &Runtime,
        version: Option<&RuntimeVersion>,
        names: &[String],
    ) -> Option<Chosen> {
        let name = runtime.name.to_lowercase();
        let (row, stored) = version.map_or((&runtime.r#ref, &runtime.execution_config), |version| {
            (&version.runtime_ref, &version.execution_config)
        });
        let config = config_of(row.clone(), stored)
            .inspect_err(|error| tracing::warn!(runtime = row, error = attune_model::chain(error), "no environment"))
            .ok()?;
        config.environment.as_ref()?;
        let pack_dir = self.packs_dir.join(pack_ref);
        let interpreter = interpreter::locate(&config, names, &pack_dir, &self.host).ok()?;
        let label = version.map_or_else(|| name.clone(), |version| format!("{name}-{}", version.version));
        let row = version.map(|version| version.version.as_str());
        let interpreter_version = row.or_else(|| self.base_version(names)).map(str::to_owned);
        Some(Chosen {
            kind: Kind::Action,
            owner_ref: pack_ref.to_owned(),
            pack_ref: pack_ref.to_owned(),
            runtime: runtime.id,
            runtime_ref: runtime.r#ref.clone(),
            runtime_name: name,
            version: version.map(|version| (version.id, version.version.clone())),
            config,
            code: Code::File(pack_dir.clone()),
            env_dir: self.envs_dir.join(pack_ref).join(&label),
            pack_dir,
            label,
            interpreter,
            interpreter_version,
        })
    }
}

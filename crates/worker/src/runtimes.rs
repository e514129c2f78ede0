//! The runtimes of the installation, for actions that name none. Read when first needed, forgotten when a pack changes.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use attune_model::execution_config::ExecutionConfig;
use attune_model::rows::{Runtime, RuntimeVersion};
use attune_model::runtime_name::is_advertised;
use attune_store::{AgentStore, StoreError};
use serde::Deserialize as _;

/// All runtimes, by ref, and their versions.
#[derive(Debug)]
struct Known {
    runtimes: Vec<Runtime>,
    versions: Vec<RuntimeVersion>,
}

/// What is known about runtimes.
#[derive(Debug, Default)]
pub(crate) struct Runtimes {
    known: Mutex<Option<Arc<Known>>>,
}

impl Runtimes {
    /// Forgets everything.
    pub(crate) fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The first runtime for files like `entrypoint`, with its versions. A file without an extension is native.
    ///
    /// Only runtimes in `advertised` count; a worker that says nothing about runtimes takes all.
    pub(crate) async fn of_file(
        &self,
        store: &dyn AgentStore,
        entrypoint: &str,
        advertised: &[String],
    ) -> Result<Option<(Runtime, Vec<RuntimeVersion>)>, StoreError> {
        let known = self.known(store).await?;
        let usable = |runtime: &&Runtime| advertised.is_empty() || is_advertised(runtime, advertised);
        let Some(found) = first_for_file(known.runtimes.iter().filter(usable), entrypoint) else {
            return Ok(None);
        };
        let versions = known.versions.iter().filter(|version| version.runtime == found.id).cloned().collect();
        Ok(Some((found.clone(), versions)))
    }

    async fn known(&self, store: &dyn AgentStore) -> Result<Arc<Known>, StoreError> {
        let remembered = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = remembered {
            return Ok(known);
        }
        let known = Arc::new(Known { runtimes: store.runtimes().await?, versions: store.runtime_versions().await? });
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known.clone());
        Ok(known)
    }
}

/// The first of `runtimes` for files like `entrypoint`, for an action that names none. A file without an extension is
/// native.
pub fn runtime_of_file<'a>(runtimes: &'a [Runtime], entrypoint: &str) -> Option<&'a Runtime> {
    first_for_file(runtimes.iter(), entrypoint)
}

fn first_for_file<'a>(mut runtimes: impl Iterator<Item = &'a Runtime>, entrypoint: &str) -> Option<&'a Runtime> {
    let extension = Path::new(entrypoint).extension();
    runtimes.find(|runtime| fits(runtime, extension))
}

fn fits(runtime: &Runtime, extension: Option<&OsStr>) -> bool {
    let Ok(config) = ExecutionConfig::deserialize(&runtime.execution_config) else {
        return false;
    };
    match (extension, &config.interpreter.file_extension) {
        (None, _) => config.is_native(),
        (Some(_), None) => false,
        (Some(extension), Some(own)) => extension.eq_ignore_ascii_case(own.trim_start_matches('.')),
    }
}

#[cfg(test)]
mod tests {
    use attune_model::RuntimeId;
    use serde_json::{Value, json};

    use super::*;

    fn runtime(execution_config: Value) -> Runtime {
        Runtime {
            id: RuntimeId(1),
            r#ref: "core.x".to_owned(),
            pack: None,
            pack_ref: None,
            description: None,
            name: "X".to_owned(),
            aliases: Vec::new(),
            distributions: json!({}),
            execution_config,
        }
    }

    #[test]
    fn the_extension_chooses_whatever_its_case_and_none_means_native() {
        let shell = runtime(json!({"interpreter": {"binary": "sh", "file_extension": ".sh"}}));
        let native = runtime(json!({}));
        for (entrypoint, shell_fits, native_fits) in
            [("a.sh", true, false), ("dir/a.SH", true, false), ("a.py", false, false), ("tool", false, true)]
        {
            let extension = Path::new(entrypoint).extension();
            assert_eq!((fits(&shell, extension), fits(&native, extension)), (shell_fits, native_fits), "{entrypoint}");
        }
        assert!(!fits(&runtime(json!({"interpreter": 7})), None));
    }
}

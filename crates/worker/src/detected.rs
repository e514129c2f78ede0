//! Rows for runtimes that this host has and the installation does not know: `auto.<name>`, made from the core pack's row
//! where there is one. Columns and texts are facts of the platform.

use attune_model::capabilities::DetectedInterpreter;
use attune_model::chain;
use attune_model::rows::Runtime;
use attune_model::runtime_name::lookup;
use attune_store::{DetectedRuntime, WorkerStore};
use serde_json::{Map, Value, json};

/// Registers what nobody knows yet. Nothing that goes wrong here keeps a worker from working.
pub(crate) async fn register(store: &dyn WorkerStore, detected: &[DetectedInterpreter]) {
    if detected.is_empty() {
        return;
    }
    let known = match store.runtimes().await {
        Ok(known) => known,
        Err(error) => {
            tracing::warn!(
                error = chain(&error),
                "detected runtimes are not registered: the known ones cannot be read"
            );
            return;
        }
    };
    for found in detected {
        let Some(row) = row_for(found, &known) else { continue };
        match store.add_detected_runtime(&row).await {
            Ok(true) => tracing::info!(runtime = row.r#ref, path = found.path, "detected runtime registered"),
            Ok(false) => tracing::debug!(runtime = row.r#ref, "another worker has registered this runtime"),
            Err(error) => {
                tracing::warn!(runtime = row.r#ref, error = chain(&error), "detected runtime is not registered");
            }
        }
    }
}

/// None when the runtime is known under any spelling of its name.
fn row_for(found: &DetectedInterpreter, known: &[Runtime]) -> Option<DetectedRuntime> {
    let name = found.name.to_lowercase();
    let suffix = format!(".{name}");
    let is_known = |runtime: &Runtime| {
        runtime.aliases.iter().any(|alias| alias.to_lowercase() == name) || runtime.r#ref.ends_with(&suffix)
    };
    // A template that has the name would count as known: it is one for rows whose aliases were taken away.
    let template = known.iter().find(|runtime| runtime.r#ref == format!("core.{name}"));
    if known.iter().any(is_known) {
        return None;
    }
    Some(template.map_or_else(|| minimal(found, &name), |template| from_template(found, &name, template)))
}

fn from_template(found: &DetectedInterpreter, name: &str, template: &Runtime) -> DetectedRuntime {
    let mut execution_config = template.execution_config.clone();
    if let Some(config) = execution_config.as_object_mut() {
        let interpreter = config.entry("interpreter").or_insert_with(|| json!({}));
        if let Some(interpreter) = interpreter.as_object_mut() {
            interpreter.insert("binary".to_owned(), found.path.clone().into());
        }
    }
    if let Some(path) = execution_config.pointer_mut("/environment/interpreter_path")
        && path.as_str().is_some_and(|path| !path.contains('{'))
    {
        *path = found.path.clone().into();
    }
    DetectedRuntime {
        r#ref: format!("auto.{name}"),
        template: Some(template.id),
        pack: template.pack,
        pack_ref: template.pack_ref.clone(),
        description: format!("Auto-detected {name} runtime (from template {})", template.r#ref),
        name: template.name.clone(),
        aliases: template.aliases.clone(),
        distributions: template.distributions.clone(),
        execution_config,
        detection_config: detection_config(found, name),
    }
}

fn minimal(found: &DetectedInterpreter, name: &str) -> DetectedRuntime {
    let known = lookup(name);
    let mut interpreter = Map::new();
    interpreter.insert("binary".to_owned(), found.path.clone().into());
    interpreter.insert("args".to_owned(), json!([]));
    if let Some(extension) = known.and_then(|known| known.file_extension) {
        interpreter.insert("file_extension".to_owned(), extension.into());
    }
    let mut display = name.to_owned();
    if let Some(first) = display.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let aliases =
        known.map_or_else(|| vec![name.to_owned()], |known| known.aliases.iter().map(|&a| a.into()).collect());
    DetectedRuntime {
        r#ref: format!("auto.{name}"),
        template: None,
        pack: None,
        pack_ref: None,
        description: format!("Auto-detected {name} runtime at {}", found.path),
        name: display,
        aliases,
        distributions: json!({"verification": {"commands": [
            {"binary": found.path, "args": ["--version"], "exit_code": 0, "priority": 1},
        ]}}),
        execution_config: json!({ "interpreter": interpreter }),
        detection_config: detection_config(found, name),
    }
}

fn detection_config(found: &DetectedInterpreter, name: &str) -> Value {
    let mut config = json!({"detected_path": found.path, "detected_name": name});
    if let (Some(version), Some(config)) = (&found.version, config.as_object_mut()) {
        config.insert("detected_version".to_owned(), version.clone().into());
    }
    config
}

#[cfg(test)]
mod tests {
    use attune_model::{PackId, RuntimeId};

    use super::*;

    fn found(name: &str, version: Option<&str>) -> DetectedInterpreter {
        DetectedInterpreter {
            name: name.to_owned(),
            path: format!("/usr/bin/{name}"),
            version: version.map(str::to_owned),
        }
    }

    fn runtime(r#ref: &str, aliases: &[&str], execution_config: Value) -> Runtime {
        Runtime {
            id: RuntimeId(5),
            r#ref: r#ref.to_owned(),
            pack: Some(PackId(1)),
            pack_ref: Some("core".to_owned()),
            description: None,
            name: "Ruby".to_owned(),
            aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
            distributions: json!({"verification": {}}),
            execution_config,
        }
    }

    #[test]
    fn a_runtime_that_is_known_by_alias_or_ref_gets_no_row() {
        for known in [runtime("core.x", &["Ruby"], json!({})), runtime("mine.ruby", &[], json!({}))] {
            assert_eq!(row_for(&found("ruby", None), &[known]), None);
        }
        assert!(row_for(&found("ruby", None), &[runtime("mine.jruby", &["jruby"], json!({}))]).is_some());
    }

    #[test]
    fn a_minimal_row_says_all_that_is_needed_to_run_files() {
        let row = row_for(&found("r", Some("4.2.2")), &[]).unwrap();
        assert_eq!((row.r#ref.as_str(), row.name.as_str(), row.pack), ("auto.r", "R", None));
        assert_eq!(row.description, "Auto-detected r runtime at /usr/bin/r");
        assert_eq!(row.aliases, ["r", "rscript"]);
        assert_eq!(
            row.execution_config,
            json!({"interpreter": {"binary": "/usr/bin/r", "args": [], "file_extension": ".R"}})
        );
        assert_eq!(
            row.distributions,
            json!({"verification": {"commands": [
                {"binary": "/usr/bin/r", "args": ["--version"], "exit_code": 0, "priority": 1}]}})
        );
        assert_eq!(
            row.detection_config,
            json!({"detected_path": "/usr/bin/r", "detected_name": "r", "detected_version": "4.2.2"})
        );
        let other = row_for(&found("lua", None), &[]).unwrap();
        assert_eq!((other.name.as_str(), &other.aliases[..]), ("Lua", &["lua".to_owned()][..]));
        assert_eq!(other.execution_config["interpreter"].get("file_extension"), None);
        assert_eq!(other.detection_config.get("detected_version"), None);
    }

    #[test]
    fn a_template_gives_everything_but_the_interpreter() {
        let config = json!({
            "interpreter": {"binary": "ruby", "args": ["-W0"], "file_extension": ".rb"},
            "environment": {"env_type": "gems", "interpreter_path": "/opt/ruby/bin/ruby"},
            "env_vars": {"A": "1"},
        });
        let template = runtime("core.ruby", &["jruby"], config);
        let row = from_template(&found("ruby", None), "ruby", &template);
        assert_eq!(row.description, "Auto-detected ruby runtime (from template core.ruby)");
        assert_eq!((row.template, row.pack, row.pack_ref.as_deref()), (Some(template.id), template.pack, Some("core")));
        assert_eq!(
            (&row.name, &row.aliases, &row.distributions),
            (&template.name, &template.aliases, &template.distributions)
        );
        assert_eq!(
            row.execution_config,
            json!({
                "interpreter": {"binary": "/usr/bin/ruby", "args": ["-W0"], "file_extension": ".rb"},
                "environment": {"env_type": "gems", "interpreter_path": "/usr/bin/ruby"},
                "env_vars": {"A": "1"},
            })
        );
        let config = json!({"environment": {"interpreter_path": "{env_dir}/bin/ruby"}});
        let row = from_template(&found("ruby", None), "ruby", &runtime("core.ruby", &[], config));
        assert_eq!(row.execution_config["environment"]["interpreter_path"], "{env_dir}/bin/ruby");
        assert_eq!(row.execution_config["interpreter"]["binary"], "/usr/bin/ruby");
    }
}

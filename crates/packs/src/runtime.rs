//! `runtimes/*.yaml`.

use attune_model::execution_config::ExecutionConfig;
use attune_model::version::Version;
use attune_store::{NewRuntime, NewRuntimeVersion};
use attune_yaml::Fields;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::component::{Component, Declared};
use crate::content::ComponentKind;

const KEYS: &[&str] = &[
    "ref",
    "pack_ref",
    "name",
    "label",
    "description",
    "aliases",
    "distributions",
    "installation",
    "installers",
    "execution_config",
    "versions",
    "tags",
    "meta",
    "metadata",
];

const VERSION_KEYS: &[&str] = &["version", "execution_config", "distributions", "is_default", "meta"];

const CONFIG_KEYS: &[&str] = &["interpreter", "inline_execution", "environment", "dependencies", "env_vars"];

impl Declared for NewRuntime {
    const KIND: ComponentKind = ComponentKind::Runtime;
    const KEYS: &'static [&'static str] = KEYS;

    fn read(component: &Component<'_>) -> Option<Self> {
        let fields = &component.fields;
        let own_ref = component.own_ref().unwrap_or_default();
        let name = fields.required_text("name");
        let versions = versions(fields);
        let runtime = NewRuntime {
            r#ref: own_ref,
            name: name.unwrap_or_default(),
            description: fields.text("description"),
            aliases: fields.texts("aliases").unwrap_or_default(),
            distributions: Value::Object(fields.object("distributions").unwrap_or_default()),
            installation: fields.json("installation"),
            execution_config: execution_config(fields),
            versions,
        };
        if runtime.aliases.is_empty() {
            fields.warning("aliases", "none: workers can be asked for this runtime by its name only");
        }
        Some(runtime)
    }

    fn own_ref(&self) -> &str {
        &self.r#ref
    }
}

fn versions(fields: &Fields<'_>) -> Vec<NewRuntimeVersion> {
    let mut versions: Vec<NewRuntimeVersion> = Vec::new();
    for (path, node) in fields.items("versions").unwrap_or_default() {
        let Some(fields) = fields.item(path, node, VERSION_KEYS) else {
            continue;
        };
        let Some(version) = fields.required_text("version") else {
            continue;
        };
        if Version::parse(&version).is_none() {
            fields.error("version", format!("{version:?} is not a version of one to three numbers"));
        }
        if versions.iter().any(|other| other.version == version) {
            fields.error("version", format!("{version:?} stands here twice"));
        }
        let is_default = fields.boolean("is_default").unwrap_or(false);
        if is_default && versions.iter().any(|other| other.is_default) {
            fields.error("is_default", "only one version can be the default");
        }
        versions.push(NewRuntimeVersion {
            version,
            execution_config: execution_config(&fields),
            distributions: Value::Object(fields.object("distributions").unwrap_or_default()),
            is_default,
            meta: fields.json("meta").unwrap_or_else(|| json!({})),
        });
    }
    versions
}

/// Stays JSON as written, once it is known that agents can read it.
fn execution_config(fields: &Fields<'_>) -> Value {
    let field = "execution_config";
    let Some(config) = fields.object(field).map(Value::Object) else {
        return json!({});
    };
    if let Err(error) = ExecutionConfig::deserialize(&config) {
        fields.error(field, error.to_string());
    }
    if let Some(section) = fields.section(field, CONFIG_KEYS) {
        section.section("interpreter", &["binary", "args", "file_extension"]);
        section.section("inline_execution", &["strategy", "extension", "inject_shell_helpers"]);
        section.section("environment", &["env_type", "dir_name", "create_command", "interpreter_path"]);
        section.section("dependencies", &["manifest_file", "install_command"]);
    }
    config
}

//! `runtimes/*.yaml`.

use attune_model::execution_config::{EnvVar, ExecutionConfig, InlineStrategy};
use attune_model::version::Version;
use attune_store::{NewRuntime, NewRuntimeVersion};
use attune_yaml::Fields;
use serde::Deserialize;
use serde::de::DeserializeOwned;
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
    let parts_fit = fields.section(field, CONFIG_KEYS).is_none_or(|section| parts_fit(&section));
    // What is left, such as a missing key, is about the whole.
    if let (true, Err(error)) = (parts_fit, ExecutionConfig::deserialize(&config)) {
        fields.error(field, error.to_string());
    }
    config
}

/// Whether every value has its type; those that have not are reported where they stand.
fn parts_fit(config: &Fields<'_>) -> bool {
    let mut checks = Vec::new();
    if let Some(section) = config.section("interpreter", &["binary", "args", "file_extension"]) {
        checks.push(fits::<String>(&section, "binary"));
        checks.push(fits::<Vec<String>>(&section, "args"));
        checks.push(fits::<String>(&section, "file_extension"));
    }
    if let Some(section) = config.section("inline_execution", &["strategy", "extension", "inject_shell_helpers"]) {
        checks.push(fits::<InlineStrategy>(&section, "strategy"));
        checks.push(fits::<String>(&section, "extension"));
        checks.push(fits::<bool>(&section, "inject_shell_helpers"));
    }
    let environment_keys = &["env_type", "dir_name", "create_command", "interpreter_path"];
    if let Some(section) = config.section("environment", environment_keys) {
        checks.push(fits::<String>(&section, "env_type"));
        checks.push(fits::<String>(&section, "dir_name"));
        checks.push(fits::<Vec<String>>(&section, "create_command"));
        checks.push(fits::<String>(&section, "interpreter_path"));
    }
    if let Some(section) = config.section("dependencies", &["manifest_file", "install_command"]) {
        checks.push(fits::<String>(&section, "manifest_file"));
        checks.push(fits::<Vec<String>>(&section, "install_command"));
    }
    if let Some(section) = config.open_section("env_vars") {
        checks.extend(section.mapping().iter().map(|entry| is_variable(&section, &entry.key)));
    }
    checks.into_iter().all(|fits| fits)
}

fn fits<T: DeserializeOwned>(section: &Fields<'_>, key: &str) -> bool {
    let Some(Err(error)) = section.json(key).map(serde_json::from_value::<T>) else {
        return true;
    };
    section.error(key, error.to_string());
    false
}

fn is_variable(section: &Fields<'_>, name: &str) -> bool {
    let fits = section.json(name).is_some_and(|value| serde_json::from_value::<EnvVar>(value).is_ok());
    if !fits {
        section.error(name, "must be a text, or {value, operation: set|prepend|append, separator}");
    }
    fits
}

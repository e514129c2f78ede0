//! `pack.yaml`.

use std::path::Path;

use attune_model::schema;
use attune_store::NewPack;
use attune_yaml::Fields;
use serde_json::Value;

pub(crate) const KEYS: &[&str] = &[
    "ref",
    "name",
    "label",
    "description",
    "version",
    "author",
    "email",
    "enabled",
    "config_schema",
    "conf_schema",
    "config",
    "metadata",
    "meta",
    "keywords",
    "tags",
    "runtime_deps",
    "dependencies",
    "system",
    "testing",
    "license",
    "homepage",
    "repository",
];

/// Fields that mean the same, each read by one of the platform's two loaders.
const PAIRS: &[(&str, &str)] =
    &[("label", "name"), ("conf_schema", "config_schema"), ("meta", "metadata"), ("tags", "keywords")];

/// The pack without its components. None when it has no usable ref.
pub(crate) fn read(fields: &Fields<'_>, folder: &Path) -> Option<NewPack> {
    check_pairs(fields);
    let pack_ref = fields.required_text("ref");
    let version = fields.required_text("version");
    if let Some(version) = &version
        && !is_semver(version)
    {
        fields.error("version", format!("{version:?} is not a version of three numbers, such as 1.0.0"));
    }
    let pack_ref = pack_ref?;
    if !is_pack_ref(&pack_ref) {
        fields.error("ref", format!("{pack_ref:?} must be two or more of a-z, 0-9, - and _, beginning with a letter"));
        return None;
    }
    warn_about_folder(fields, folder, &pack_ref);
    Some(NewPack {
        label: fields.text("label").or_else(|| fields.text("name")).unwrap_or_else(|| pack_ref.clone()),
        description: fields.text("description"),
        version: version.unwrap_or_default(),
        conf_schema: conf_schema(fields),
        config: Value::Object(fields.object("config").unwrap_or_default()),
        meta: Value::Object(fields.object(written(fields, "meta", "metadata")).unwrap_or_default()),
        tags: fields.texts(written(fields, "tags", "keywords")).unwrap_or_default(),
        runtime_deps: fields.texts("runtime_deps").unwrap_or_default(),
        dependencies: fields.texts("dependencies").unwrap_or_default(),
        is_standard: fields.boolean("system").unwrap_or(false),
        r#ref: pack_ref,
        ..NewPack::default()
    })
}

/// The one of two names that is used in this file.
fn written(fields: &Fields<'_>, one: &'static str, other: &'static str) -> &'static str {
    if fields.get(one).is_some() { one } else { other }
}

fn conf_schema(fields: &Fields<'_>) -> Value {
    let field = written(fields, "conf_schema", "config_schema");
    let schema = Value::Object(fields.object(field).unwrap_or_default());
    for wrong in schema::check(&schema) {
        fields.error(field, wrong.to_string());
    }
    for unknown in schema::unknown_types(&schema) {
        fields.warning(field, unknown.to_string());
    }
    if let Some(config) = fields.object("config") {
        for wrong in schema::validate(&schema, &config, schema::Values::Final) {
            fields.error("config", wrong.to_string());
        }
    }
    schema
}

fn check_pairs(fields: &Fields<'_>) {
    for (one, other) in PAIRS {
        match (fields.json(one), fields.json(other)) {
            (Some(first), Some(second)) if *one != "label" && first != second => {
                fields.warning(other, format!("differs from {one}, which is used here"));
            }
            (Some(_), None) => {
                fields.warning(one, format!("write {other} as well, one of the platform's loaders reads only that"))
            }
            (None, Some(_)) => {
                fields.warning(other, format!("write {one} as well, one of the platform's loaders reads only that"))
            }
            _ => {}
        }
    }
}

/// Agents look for a pack's files in a folder that is called like the pack.
fn warn_about_folder(fields: &Fields<'_>, folder: &Path, pack_ref: &str) {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let Some(name) = absolute.file_name() else {
        return;
    };
    if name != pack_ref {
        let name = name.display();
        fields.warning(
            "ref",
            format!("the folder is called {name}; agents look for the pack in a folder called {pack_ref}"),
        );
    }
}

fn is_pack_ref(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    text.len() >= 2 && text.as_bytes()[0].is_ascii_lowercase() && text.bytes().all(allowed)
}

/// Three numbers, then optional `-prerelease` and `+build` of dot-separated letters, digits and hyphens.
fn is_semver(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, prerelease) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_words = |part: &str| {
        let word =
            |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        part.split('.').all(word)
    };
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && prerelease.is_none_or(is_words)
        && build.is_none_or(is_words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_three_numbers_and_optional_tails() {
        for good in ["1.0.0", "0.10.2-rc.1", "1.2.3+build-7", "1.2.3-a.b+c.d"] {
            assert!(is_semver(good), "{good}");
        }
        for bad in ["1", "1.0", "1.0.0.0", "v1.0.0", "1.0.x", "1.0.0-", "1.0.0+", "1.0.0-a..b", ""] {
            assert!(!is_semver(bad), "{bad}");
        }
    }

    #[test]
    fn refs_of_packs_have_no_dots_and_no_capitals() {
        assert!(is_pack_ref("my-pack_2"));
        for bad in ["a", "Core", "2go", "a.b", "a b", ""] {
            assert!(!is_pack_ref(bad), "{bad}");
        }
    }
}

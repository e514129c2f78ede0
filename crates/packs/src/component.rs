//! What the files of all components have in common: refs, labels, schemas, versions, placement, retention.

use std::path::Path;
use std::str::FromStr;

use attune_model::placement::Placement;
use attune_model::rows::{RawPlacement, Retention};
use attune_model::schema;
use attune_model::status::RetentionPolicy;
use attune_model::version::Constraint;
use attune_yaml::Fields;
use serde_json::{Value, json};

use crate::content::ComponentKind;

/// What one file of a pack declares, and how it is read.
pub(crate) trait Declared: Sized {
    /// Its kind.
    const KIND: ComponentKind;
    /// Every key that some version of the platform writes; others are warned about.
    const KEYS: &'static [&'static str];

    /// Reads it, as far as it can be read: with an error in the report the pack is not used anyway, and going on finds
    /// the other errors. None when it is ignored with a warning.
    fn read(component: &Component<'_>) -> Option<Self>;

    /// Its ref.
    fn own_ref(&self) -> &str;
}

/// One file while it is read.
#[derive(Debug)]
pub(crate) struct Component<'a> {
    /// The file's fields.
    pub(crate) fields: Fields<'a>,
    /// What it declares.
    pub(crate) kind: ComponentKind,
    /// The pack's folder.
    pub(crate) folder: &'a Path,
    /// The pack's ref.
    pub(crate) pack_ref: &'a str,
}

impl Component<'_> {
    /// `ref`, or `<pack>.<name>` where one of the platform's loaders would say so.
    pub(crate) fn own_ref(&self) -> Option<String> {
        let written = self.fields.text("ref").filter(|text| !text.is_empty());
        let own_ref = match (written, self.kind) {
            (Some(text), ComponentKind::Runtime) => return self.runtime_ref(text),
            (Some(text), ComponentKind::Rule) => self.with_pack(text),
            (Some(text), _) => text,
            (None, ComponentKind::Runtime | ComponentKind::Rule) => {
                return self.fields.required_text("ref");
            }
            (None, _) => self.ref_from_name()?,
        };
        self.check_ref("ref", &own_ref)?;
        if own_ref.split('.').next() != Some(self.pack_ref) {
            self.fields.error("ref", format!("must begin with the pack's own ref: \"{}.…\"", self.pack_ref));
            return None;
        }
        Some(own_ref)
    }

    fn ref_from_name(&self) -> Option<String> {
        let Some(name) = self.fields.text("name").filter(|name| !name.is_empty()) else {
            self.fields.error("ref", "required, but missing");
            return None;
        };
        let own_ref = format!("{}.{name}", self.pack_ref);
        self.fields.warning(
            "name",
            format!("no ref, taken as {own_ref:?}; write it, one of the platform's loaders skips this file"),
        );
        Some(own_ref)
    }

    fn runtime_ref(&self, text: String) -> Option<String> {
        if text.chars().any(|c| c.is_uppercase() || c.is_whitespace()) {
            self.fields.error("ref", "must be lower case without blanks");
            return None;
        }
        Some(text)
    }

    /// A ref to something that may belong to another pack; without a dot it belongs to this one.
    pub(crate) fn foreign_ref(&self, field: &str, text: String) -> Option<String> {
        let full = self.with_pack(text);
        self.check_ref(field, &full).map(|()| full)
    }

    fn with_pack(&self, text: String) -> String {
        if text.contains('.') { text } else { format!("{}.{text}", self.pack_ref) }
    }

    fn check_ref(&self, field: &str, text: &str) -> Option<()> {
        let mut parts = text.split('.');
        let two = matches!((parts.next(), parts.next(), parts.next()), (Some(a), Some(b), None) if !a.is_empty() && !b.is_empty());
        let plain = !text.chars().any(|c| c.is_uppercase() || c.is_whitespace() || c == '/');
        if two && plain {
            return Some(());
        }
        let example = format!("{}.{}", self.pack_ref, text.rsplit('.').next().unwrap_or("name").to_lowercase());
        self.fields.error(field, format!("{text:?} must be lower case with exactly one dot, such as {example:?}"));
        None
    }

    /// `label`, else `name`, else the last part of the ref.
    pub(crate) fn label(&self, own_ref: &str) -> String {
        let written = self.fields.text("label").or_else(|| self.fields.text("name"));
        let fallback = || own_ref.rsplit('.').next().unwrap_or(own_ref).to_owned();
        written.filter(|label| !label.trim().is_empty()).unwrap_or_else(fallback)
    }

    /// A parameter schema in either spelling.
    pub(crate) fn schema(&self, field: &str) -> Option<Value> {
        let schema = Value::Object(self.fields.object(field)?);
        for wrong in schema::check(&schema) {
            self.fields.error(field, wrong.to_string());
        }
        for unknown in schema::unknown_types(&schema) {
            self.fields.warning(field, unknown.to_string());
        }
        Some(schema)
    }

    /// A constraint on versions, as text.
    pub(crate) fn version_constraint(&self, field: &str) -> Option<String> {
        let text = self.fields.text(field).filter(|text| !text.trim().is_empty())?;
        if let Err(error) = Constraint::parse(&text) {
            self.fields.error(field, error.to_string());
            return None;
        }
        Some(text)
    }

    /// `required_worker_runtimes`: name to constraint.
    pub(crate) fn required_runtimes(&self) -> Value {
        let field = "required_worker_runtimes";
        let Some(names) = self.fields.object(field) else {
            return json!({});
        };
        for (name, constraint) in &names {
            let wrong = match constraint.as_str() {
                Some(text) => Constraint::parse(text).err().map(|error| error.to_string()),
                None => Some("must be a version constraint in quotes, \"*\" for any version".to_owned()),
            };
            if let Some(wrong) = wrong {
                self.fields.error(field, format!("{name}: {wrong}"));
            }
        }
        Value::Object(names)
    }

    /// `worker_selector`, `worker_tolerations`, `worker_affinity`.
    pub(crate) fn placement(&self) -> RawPlacement {
        let raw = RawPlacement {
            selector: self.fields.json("worker_selector").unwrap_or_else(|| json!({})),
            tolerations: self.fields.json("worker_tolerations").unwrap_or_else(|| json!([])),
            affinity: self.fields.json("worker_affinity").unwrap_or_else(|| json!({})),
        };
        if let Err(error) = Placement::parse(&raw) {
            let field = error.place.split(['.', '[']).next().unwrap_or_default();
            let below = &error.place[field.len()..];
            let message = if below.is_empty() { error.detail.clone() } else { format!("{below}: {}", error.detail) };
            self.fields.error(field, message);
        }
        raw
    }

    /// `<what>_retention_policy` and `<what>_retention_limit`.
    pub(crate) fn retention(&self, what: &str) -> Retention {
        let policies = RetentionPolicy::ALL.iter().map(|policy| (policy.as_str(), *policy));
        let policies: Vec<(&str, RetentionPolicy)> = policies.collect();
        let limit = self.fields.integer(&format!("{what}_retention_limit"), 1..=i64::from(i32::MAX));
        Retention {
            policy: self.fields.choice(&format!("{what}_retention_policy"), &policies),
            limit: limit.and_then(|limit| i32::try_from(limit).ok()),
        }
    }

    /// One of the words of a status type, or its default.
    pub(crate) fn word<T: FromStr + Copy>(&self, field: &str, all: &[(&str, T)], default: T) -> T {
        self.fields.choice(field, all).unwrap_or(default)
    }
}

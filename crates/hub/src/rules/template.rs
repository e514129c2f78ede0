//! Templates in `rule.action_params`: double braces around a dotted path.
//!
//! A text that is exactly one template keeps the JSON type of what it names; inside longer text a template becomes
//! text. Keys are not rendered and what is not a text stays as it is.

use serde_json::{Value, json};

use attune_model::rows::{Event, Rule};
use chrono::{DateTime, Utc};

use crate::expression::text_of;

/// What paths may begin with.
#[derive(Debug, Clone)]
pub(super) struct Context {
    roots: Value,
    /// Paths below `pack.config` that the pack's schema marks as secret, as segments.
    secrets: Vec<Vec<String>>,
}

impl Context {
    /// The roots for one event and one rule. `secrets` are pointers into `config`.
    pub(super) fn new(event: &Event, rule: &Rule, config: (&Value, &[String]), now: DateTime<Utc>) -> Self {
        let (config, secrets) = config;
        let roots = json!({
            "event": {
                "id": event.id,
                "trigger": event.trigger_ref,
                "created": event.created,
                "payload": event.payload,
            },
            "pack": {"config": config},
            "system": {"timestamp": now, "rule": {"id": rule.id, "ref": rule.r#ref}},
        });
        Self { roots, secrets: secrets.iter().map(|pointer| segments(pointer)).collect() }
    }

    /// Whether reading `path` reads a secret: the path is a secret's, leads into one, or contains one.
    fn is_secret(&self, path: &[&str]) -> bool {
        let full = |secret: &Vec<String>| {
            let secret = ["pack", "config"].into_iter().chain(secret.iter().map(String::as_str));
            secret.zip(path).all(|(left, right)| left == *right)
        };
        self.secrets.iter().any(full)
    }
}

/// What rendering gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Rendered {
    /// The result.
    pub(super) value: Value,
    /// Pointers to the texts of the result that a secret went into.
    pub(super) tainted: Vec<String>,
    /// Paths that were not found.
    pub(super) missing: Vec<String>,
}

/// Renders every text in `value`.
pub(super) fn render(value: &Value, context: &Context) -> Rendered {
    let mut rendered = Rendered::default();
    rendered.value = Walk { context, rendered: &mut rendered }.value(value, "");
    rendered
}

/// The segments of a JSON pointer, unescaped.
pub(super) fn segments(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|segment| segment.replace("~1", "/").replace("~0", "~")).collect()
}

/// One more segment of a JSON pointer.
pub(super) fn child(pointer: &str, segment: &str) -> String {
    format!("{pointer}/{}", segment.replace('~', "~0").replace('/', "~1"))
}

/// What is at the end of a path; a segment is a key of an object or an index of a list.
pub(super) fn walk<'v, 's>(value: &'v Value, mut path: impl Iterator<Item = &'s str>) -> Option<&'v Value> {
    path.try_fold(value, |value, segment| match value {
        Value::Object(entries) => entries.get(segment),
        Value::Array(items) => items.get(segment.parse::<usize>().ok()?),
        _ => None,
    })
}

struct Walk<'a> {
    context: &'a Context,
    rendered: &'a mut Rendered,
}

impl Walk<'_> {
    fn value(&mut self, value: &Value, pointer: &str) -> Value {
        match value {
            Value::String(text) => self.text(text, pointer),
            Value::Array(items) => {
                let items = items.iter().enumerate();
                items.map(|(index, item)| self.value(item, &child(pointer, &index.to_string()))).collect()
            }
            Value::Object(entries) => {
                let entries = entries.iter();
                Value::Object(
                    entries.map(|(key, value)| (key.clone(), self.value(value, &child(pointer, key)))).collect(),
                )
            }
            other => other.clone(),
        }
    }

    fn text(&mut self, text: &str, pointer: &str) -> Value {
        let parts = parts(text);
        if let [Part::Template(path)] = parts.as_slice() {
            return self.look_up(path, pointer).unwrap_or(Value::Null);
        }
        let mut result = String::new();
        for part in parts {
            match part {
                Part::Text(text) => result.push_str(text),
                Part::Template(path) => {
                    result.push_str(&self.look_up(path, pointer).map(|value| text_of(&value)).unwrap_or_default());
                }
            }
        }
        Value::String(result)
    }

    fn look_up(&mut self, path: &str, pointer: &str) -> Option<Value> {
        let path: Vec<&str> = path.split('.').map(str::trim).collect();
        if self.context.is_secret(&path) && self.rendered.tainted.last().is_none_or(|last| last != pointer) {
            self.rendered.tainted.push(pointer.to_owned());
        }
        let found = walk(&self.context.roots, path.iter().copied()).cloned();
        if found.is_none() {
            self.rendered.missing.push(path.join("."));
        }
        found
    }
}

enum Part<'a> {
    Text(&'a str),
    Template(&'a str),
}

/// Splits at templates; braces that are not closed are text.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find("{{") {
        let Some(length) = rest[begin + 2..].find("}}") else {
            break;
        };
        if begin > 0 {
            parts.push(Part::Text(&rest[..begin]));
        }
        parts.push(Part::Template(rest[begin + 2..begin + 2 + length].trim()));
        rest = &rest[begin + 2 + length + 2..];
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(Part::Text(rest));
    }
    parts
}

#[cfg(test)]
mod tests {
    use attune_model::{EventId, PackId, RuleId, TriggerId};

    use super::*;

    fn context(secrets: &[&str]) -> Context {
        let time = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let event = Event {
            id: EventId(7),
            trigger: Some(TriggerId(3)),
            trigger_ref: "web.hook".into(),
            config: None,
            payload: Some(json!({
                "n": 5, "f": 1.5, "yes": true, "s": "hi", "nothing": null,
                "list": [{"name": "first"}, "second"], "object": {"k": [1]}, "weird key": 1, "trap": "{{ event.id }}",
            })),
            source: None,
            source_ref: None,
            rule: None,
            rule_ref: None,
            created: time,
        };
        let rule = Rule {
            id: RuleId(9),
            r#ref: "web.rule".into(),
            pack: PackId(1),
            pack_ref: "web".into(),
            label: String::new(),
            description: None,
            action: None,
            action_ref: String::new(),
            trigger: None,
            trigger_ref: String::new(),
            conditions: Value::Null,
            action_params: Value::Null,
            trigger_params: Value::Null,
            permission_set_refs: None,
            enabled: true,
            created: time,
            updated: time,
        };
        let config = json!({"url": "http://x", "auth": {"user": "u", "password": "p"}});
        let secrets: Vec<String> = secrets.iter().map(|&secret| secret.into()).collect();
        Context::new(&event, &rule, (&config, &secrets), time)
    }

    fn rendered(value: &Value) -> Value {
        render(value, &context(&[])).value
    }

    #[test]
    fn a_text_that_is_one_template_keeps_the_type() {
        for (template, expected) in [
            ("{{ event.payload.n }}", json!(5)),
            ("{{event.payload.f}}", json!(1.5)),
            ("{{ event.payload.yes }}", json!(true)),
            ("{{event.payload.nothing}}", json!(null)),
            ("{{ event.payload.list }}", json!([{"name": "first"}, "second"])),
            ("{{ event.payload.list.0.name }}", json!("first")),
            ("{{ event.payload.object.k }}", json!([1])),
            ("{{ event.payload.weird key }}", json!(1)),
            ("{{ event.id }}", json!(7)),
            ("{{ event.trigger }}", json!("web.hook")),
            ("{{ event.created }}", json!("2023-11-14T22:13:20Z")),
            ("{{ pack.config.auth.user }}", json!("u")),
            ("{{ system.timestamp }}", json!("2023-11-14T22:13:20Z")),
            ("{{ system.rule.id }}", json!(9)),
            ("{{ system.rule.ref }}", json!("web.rule")),
        ] {
            assert_eq!(rendered(&json!(template)), expected, "{template}");
        }
    }

    #[test]
    fn inside_longer_text_everything_becomes_text() {
        for (template, expected) in [
            ("n={{ event.payload.n }}!", "n=5!"),
            ("{{event.payload.s}} {{event.payload.yes}}", "hi true"),
            (" {{event.payload.n}}", " 5"),
            ("{{ event.payload.object }}{{ event.payload.f }}", r#"{"k":[1]}1.5"#),
            ("a{{ event.payload.missing }}b", "ab"),
            ("ü{{ event.payload.s }}🙂", "ühi🙂"),
        ] {
            assert_eq!(rendered(&json!(template)), json!(expected), "{template}");
        }
    }

    #[test]
    fn what_is_missing_is_null_and_is_reported() {
        for path in ["event.payload.x.y", "event.payload.list.9", "event.payload.n.x", "nothing.at.all", "", "event."] {
            let result = render(&json!({"a": format!("{{{{ {path} }}}}")}), &context(&[]));
            assert_eq!(result.value, json!({"a": null}), "{path}");
            assert_eq!(result.missing, [path.to_owned()]);
        }
        assert!(render(&json!("{{event.payload.nothing}}"), &context(&[])).missing.is_empty());
    }

    #[test]
    fn values_are_walked_and_keys_and_other_leaves_stay() {
        let value = json!({"{{event.id}}": [1, true, null, "{{event.id}}", {"deep": "{{event.payload.s}}"}]});
        assert_eq!(rendered(&value), json!({"{{event.id}}": [1, true, null, 7, {"deep": "hi"}]}));
    }

    #[test]
    fn text_without_a_whole_template_stays() {
        for text in ["", "plain", "{{ open", "}} {{", "{ event.id }", "{}"] {
            assert_eq!(rendered(&json!(text)), json!(text));
        }
        assert_eq!(rendered(&json!("{{ event.id }} {{ open")), json!("7 {{ open"));
    }

    #[test]
    fn what_comes_out_of_a_template_is_not_a_template() {
        assert_eq!(rendered(&json!("{{ event.payload.trap }}")), json!("{{ event.id }}"));
    }

    #[test]
    fn secrets_taint_where_they_land() {
        let context = context(&["/auth/password"]);
        let value = json!({
            "a": "{{pack.config.auth.password}}",
            "b": ["x {{ pack . config . auth }} {{pack.config.auth.password}}"],
            "c/d": "{{pack.config}}",
            "e": "{{pack.config.auth.password.deeper}}",
            "harmless": "{{pack.config.auth.user}} {{pack.config.url}} {{event}} pack.config.auth.password",
        });
        assert_eq!(render(&value, &context).tainted, ["/a", "/b/0", "/c~1d", "/e"]);
        assert_eq!(render(&json!("{{ pack }}"), &context).tainted, [""]);
    }
}

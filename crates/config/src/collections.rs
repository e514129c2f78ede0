//! The types of values that hold several: lists and maps.

use std::collections::BTreeMap;

use attune_model::JsonMap;
use attune_model::placement::Taint;
use serde_json::Value;

use crate::child::OWN_PREFIX;
use crate::key::{Given, Kind, Shape};
use crate::kinds::{expected, scalar};

/// Names of variables that are handed on to user code. As a variable: a comma list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PassedNames;

impl Kind for PassedNames {
    type Value = Vec<String>;

    fn describe(&self) -> String {
        "list of variable names, `*` at the end for any ending; as a variable: separated by commas".to_owned()
    }

    fn read(&self, given: Given<'_>) -> Result<Vec<String>, String> {
        let names: Vec<String> = match json_list(given)? {
            Some(items) => items
                .into_iter()
                .map(|item| item.as_str().map(str::to_owned).ok_or("must be a list of texts".to_owned()))
                .collect::<Result<_, _>>()?,
            None => scalar(given)
                .ok_or_else(|| expected("a list of names", given))?
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect(),
        };
        match names.iter().find_map(|name| name_problem(name)) {
            Some(problem) => Err(problem),
            None => Ok(names),
        }
    }
}

fn name_problem(name: &str) -> Option<String> {
    let stem = name.strip_suffix('*').unwrap_or(name);
    if stem.contains(['=', '\0', '*', ' ']) || name.is_empty() {
        Some(format!("{name:?} is not the name of a variable"))
    } else if stem.starts_with(OWN_PREFIX) {
        Some(format!("{name} belongs to the agent and is never handed on to user code"))
    } else {
        None
    }
}

/// Marks that keep work away.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taints;

impl Kind for Taints {
    type Value = Vec<Taint>;

    fn describe(&self) -> String {
        "list of `{key, value?, effect}`, effect `no_schedule` (default) or `prefer_no_schedule`; as a variable: JSON"
            .to_owned()
    }

    fn read(&self, given: Given<'_>) -> Result<Vec<Taint>, String> {
        let items = json_list(given)?.ok_or_else(|| expected("a list of taints", given))?;
        let read = |(index, item): (usize, Value)| {
            serde_json::from_value::<Taint>(item)
                .map_err(|error| format!("item {} is not a taint: {error}", index + 1))
                .and_then(|taint| if taint.key.is_empty() { Err("a taint needs a key".to_owned()) } else { Ok(taint) })
        };
        items.into_iter().enumerate().map(read).collect()
    }
}

/// Names and texts for placement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Labels;

impl Kind for Labels {
    type Value = BTreeMap<String, String>;

    fn describe(&self) -> String {
        "map of texts; as variables: one for each entry, its name in lower case".to_owned()
    }

    fn read(&self, given: Given<'_>) -> Result<BTreeMap<String, String>, String> {
        let read = |(name, value): (String, Value)| match value {
            Value::String(text) => Ok((name, text)),
            _ => Err(format!("the value of `{name}` must be a text")),
        };
        json_object(given)?.into_iter().map(read).collect()
    }

    fn shape(&self) -> Shape {
        Shape::TextMap
    }
}

/// Any JSON object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object;

impl Kind for Object {
    type Value = JsonMap;

    fn describe(&self) -> String {
        "map of anything; as variables: one for each entry, its name in lower case".to_owned()
    }

    fn read(&self, given: Given<'_>) -> Result<JsonMap, String> {
        json_object(given)
    }

    fn shape(&self) -> Shape {
        Shape::JsonMap
    }
}

/// A list of a file, or one written as JSON in a variable; none when it is something else.
fn json_list(given: Given<'_>) -> Result<Option<Vec<Value>>, String> {
    let value = match given {
        Given::Text(text) if text.trim_start().starts_with('[') => {
            serde_json::from_str(text).map_err(|error| format!("must be a list as JSON: {error}"))?
        }
        Given::Text(_) => return Ok(None),
        Given::Node(node) => node.to_json(),
        Given::Json(value) => value.clone(),
    };
    match value {
        Value::Array(items) => Ok(Some(items)),
        _ => Ok(None),
    }
}

fn json_object(given: Given<'_>) -> Result<JsonMap, String> {
    let value = match given {
        Given::Text(text) => {
            serde_json::from_str(text).map_err(|error| format!("must be an object as JSON: {error}"))?
        }
        Given::Node(node) => node.to_json(),
        Given::Json(value) => value.clone(),
    };
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(expected("a mapping", given)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_list_or_separated_by_commas() {
        let node = attune_yaml::parse("[CUDA_HOME, NVIDIA_*]").unwrap();
        let expected = Ok(vec!["CUDA_HOME".to_owned(), "NVIDIA_*".to_owned()]);
        assert_eq!(PassedNames.read(Given::Node(&node)), expected);
        assert_eq!(PassedNames.read(Given::Text(" CUDA_HOME, NVIDIA_*,")), expected);
        assert_eq!(PassedNames.read(Given::Text(r#"["CUDA_HOME","NVIDIA_*"]"#)), expected);
    }

    #[test]
    fn the_agents_own_variables_cannot_be_asked_for() {
        for text in ["ATTUNE__SECURITY__JWT_SECRET", "ATTUNE_*"] {
            let problem = PassedNames.read(Given::Text(text)).unwrap_err();
            assert!(problem.contains("never handed on"), "{problem}");
        }
        assert!(PassedNames.read(Given::Text("A=B")).unwrap_err().contains("not the name of a variable"));
    }

    #[test]
    fn taints_have_an_effect_and_mistakes_are_named() {
        let node = attune_yaml::parse("- {key: gpu}\n- {key: old, value: yes, effect: prefer_no_schedule}").unwrap();
        let taints = Taints.read(Given::Node(&node)).unwrap();
        assert_eq!(taints.len(), 2);
        assert_eq!(taints[0].to_string(), "gpu");
        assert_eq!(taints[1].to_string(), "old=yes");
        let wrong = attune_yaml::parse("- {key: gpu}\n- {key: old, effect: never}").unwrap();
        assert!(Taints.read(Given::Node(&wrong)).unwrap_err().starts_with("item 2 is not a taint"));
        assert!(Taints.read(Given::Text("gpu")).unwrap_err().starts_with("must be a list of taints"));
    }
}

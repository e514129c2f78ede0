//! Placement: which agent may run what (JSON shapes: facts of the platform).
//!
//! Malformed placement is an error that names the column and the entry. It never counts as "no condition": that would
//! let work run where its author wanted to keep it away from.

mod parse;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::capabilities::CapabilityView;
use crate::rows::RawPlacement;

/// What an untolerated `prefer_no_schedule` taint costs: as much as the heaviest preference can give.
const AVOIDED_TAINT_COST: i64 = 100;

/// A mark on a worker that keeps work away unless tolerated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    /// Name.
    pub key: String,
    /// Value to compare with `equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// How strongly.
    #[serde(default)]
    pub effect: TaintEffect,
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.key),
            None => f.write_str(&self.key),
        }
    }
}

/// `effect` of a taint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaintEffect {
    /// Never without a toleration.
    #[default]
    NoSchedule,
    /// Rather not.
    PreferNoSchedule,
}

/// The permission to run in spite of a taint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Toleration {
    /// Name of the taint.
    pub key: String,
    /// Whether the value counts.
    #[serde(default)]
    pub operator: TolerationOperator,
    /// For `equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// None tolerates every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
}

impl Toleration {
    fn tolerates(&self, taint: &Taint) -> bool {
        self.key == taint.key
            && self.effect.is_none_or(|effect| effect == taint.effect)
            && (self.operator == TolerationOperator::Exists || self.value == taint.value)
    }
}

/// `operator` of a toleration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TolerationOperator {
    /// The value must be the taint's.
    #[default]
    Equal,
    /// Any value.
    Exists,
}

/// Conditions on labels that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Term {
    /// Labels with exactly these values.
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions.
    pub match_expressions: Vec<Expression>,
}

impl Term {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        has_all(labels, &self.match_labels) && self.match_expressions.iter().all(|expression| expression.holds(labels))
    }
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expression {
    /// Name of the label.
    pub key: String,
    /// How it is compared.
    pub operator: ExpressionOperator,
    /// With what, for `in` and `not_in`.
    #[serde(default)]
    pub values: Vec<String>,
}

impl Expression {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let label = labels.get(&self.key);
        match self.operator {
            ExpressionOperator::In => label.is_some_and(|value| self.values.contains(value)),
            ExpressionOperator::NotIn => label.is_none_or(|value| !self.values.contains(value)),
            ExpressionOperator::Exists => label.is_some(),
            ExpressionOperator::DoesNotExist => label.is_none(),
        }
    }
}

/// `operator` of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpressionOperator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// A term that makes an agent more welcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preferred {
    /// 1 to 100.
    pub weight: u8,
    /// When it counts.
    pub preference: Term,
}

/// `worker_affinity`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Affinity {
    /// One of these must match; none means no condition.
    pub required: Vec<Term>,
    /// Each that matches adds its weight.
    pub preferred: Vec<Preferred>,
    /// None of these may match.
    pub anti_affinity: Vec<Term>,
}

/// Where an action or a sensor may run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    /// Labels that the agent must have with these values.
    pub selector: BTreeMap<String, String>,
    /// Taints that do not matter.
    pub tolerations: Vec<Toleration>,
    /// Conditions and preferences.
    pub affinity: Affinity,
}

/// Placement that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {detail}")]
pub struct PlacementError {
    /// Column and entry, such as `worker_affinity.required[0]`.
    pub place: String,
    /// What is wrong.
    pub detail: String,
}

/// Why an agent does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Misfit {
    /// A label of the selector is absent or different.
    #[error("worker_selector wants label {key}={value}")]
    Selector {
        /// Name.
        key: String,
        /// The wanted value.
        value: String,
    },
    /// A taint keeps the work away.
    #[error("taint {0} is not tolerated")]
    Taint(Taint),
    /// No required term matches.
    #[error("no term of worker_affinity.required matches the labels")]
    Required,
    /// A term that must not match does.
    #[error("worker_affinity.anti_affinity[{0}] matches the labels")]
    AntiAffinity(usize),
}

impl Placement {
    /// Reads the three columns; null and absent ones are no condition.
    pub fn parse(raw: &RawPlacement) -> Result<Self, PlacementError> {
        Ok(Self {
            selector: parse::whole("worker_selector", &raw.selector)?,
            tolerations: parse::list("worker_tolerations", &raw.tolerations)?,
            affinity: parse::affinity(&raw.affinity)?,
        })
    }

    /// Whether an agent with these labels and taints may run it.
    pub fn matches(&self, agent: &CapabilityView) -> bool {
        self.check(agent).is_ok()
    }

    /// Like [`Placement::matches`], with the first reason against it.
    pub fn check(&self, agent: &CapabilityView) -> Result<(), Misfit> {
        if let Some((key, value)) = self.selector.iter().find(|(key, value)| agent.labels.get(*key) != Some(value)) {
            return Err(Misfit::Selector { key: key.clone(), value: value.clone() });
        }
        if let Some(taint) = self.untolerated(agent, TaintEffect::NoSchedule).next() {
            return Err(Misfit::Taint(taint.clone()));
        }
        let required = &self.affinity.required;
        if !required.is_empty() && !required.iter().any(|term| term.matches(&agent.labels)) {
            return Err(Misfit::Required);
        }
        match self.affinity.anti_affinity.iter().position(|term| term.matches(&agent.labels)) {
            Some(index) => Err(Misfit::AntiAffinity(index)),
            None => Ok(()),
        }
    }

    /// How welcome a fitting agent is; the highest wins. Matching preferences add their weight, taints of the kind
    /// "rather not" that are not tolerated take 100 each.
    pub fn preference(&self, agent: &CapabilityView) -> i64 {
        let wanted: i64 = self
            .affinity
            .preferred
            .iter()
            .filter(|preferred| preferred.preference.matches(&agent.labels))
            .map(|preferred| i64::from(preferred.weight))
            .sum();
        self.untolerated(agent, TaintEffect::PreferNoSchedule).fold(wanted, |score, _| score - AVOIDED_TAINT_COST)
    }

    fn untolerated<'a>(&'a self, agent: &'a CapabilityView, effect: TaintEffect) -> impl Iterator<Item = &'a Taint> {
        agent
            .taints
            .iter()
            .filter(move |taint| taint.effect == effect)
            .filter(|taint| !self.tolerations.iter().any(|toleration| toleration.tolerates(taint)))
    }
}

fn has_all(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn agent(labels: &[(&str, &str)], taints: Value) -> CapabilityView {
        CapabilityView {
            labels: labels.iter().map(|&(key, value)| (key.into(), value.into())).collect(),
            taints: serde_json::from_value(taints).unwrap(),
            ..CapabilityView::default()
        }
    }

    fn placement(selector: Value, tolerations: Value, affinity: Value) -> Placement {
        Placement::parse(&RawPlacement { selector, tolerations, affinity }).unwrap()
    }

    #[test]
    fn nothing_said_fits_everywhere_but_a_tainted_agent() {
        let anywhere = placement(json!({}), json!([]), Value::Null);
        assert!(anywhere.matches(&agent(&[], json!([]))));
        let tainted = agent(&[], json!([{"key": "gpu", "value": "a100", "effect": "no_schedule"}]));
        assert_eq!(anywhere.check(&tainted).unwrap_err().to_string(), "taint gpu=a100 is not tolerated");
    }

    #[test]
    fn the_selector_wants_every_label() {
        let wanted = placement(json!({"zone": "eu", "disk": "ssd"}), Value::Null, Value::Null);
        assert!(wanted.matches(&agent(&[("zone", "eu"), ("disk", "ssd"), ("more", "x")], json!([]))));
        let other = wanted.check(&agent(&[("zone", "us"), ("disk", "ssd")], json!([]))).unwrap_err();
        assert_eq!(other.to_string(), "worker_selector wants label zone=eu");
    }

    #[test]
    fn a_toleration_matches_key_value_and_effect() {
        let tainted = agent(&[], json!([{"key": "gpu", "value": "a100", "effect": "no_schedule"}]));
        let fits = |toleration: Value| placement(Value::Null, json!([toleration]), Value::Null).matches(&tainted);
        assert!(fits(json!({"key": "gpu", "operator": "exists"})));
        assert!(fits(json!({"key": "gpu", "value": "a100"})));
        assert!(fits(json!({"key": "gpu", "operator": "equal", "value": "a100", "effect": "no_schedule"})));
        assert!(!fits(json!({"key": "gpu", "operator": "equal", "value": "v100"})));
        assert!(!fits(json!({"key": "gpu", "operator": "exists", "effect": "prefer_no_schedule"})));
        assert!(!fits(json!({"key": "cpu", "operator": "exists"})));
    }

    #[test]
    fn required_is_any_term_and_a_term_is_all_of_its_conditions() {
        let wanted = placement(
            Value::Null,
            Value::Null,
            json!({"required": [
                {"match_labels": {"zone": "eu"}, "match_expressions": [{"key": "disk", "operator": "in", "values": ["ssd"]}]},
                {"match_expressions": [{"key": "gpu", "operator": "exists"}]},
            ]}),
        );
        assert!(wanted.matches(&agent(&[("zone", "eu"), ("disk", "ssd")], json!([]))));
        assert!(wanted.matches(&agent(&[("gpu", "")], json!([]))));
        assert_eq!(wanted.check(&agent(&[("zone", "eu"), ("disk", "hdd")], json!([]))), Err(Misfit::Required));
    }

    #[test]
    fn negative_expressions_hold_for_an_absent_label() {
        let wanted = |operator: &str| {
            placement(
                Value::Null,
                Value::Null,
                json!({"required": [{"match_expressions": [{"key": "k", "operator": operator, "values": ["a"]}]}]}),
            )
        };
        assert!(wanted("not_in").matches(&agent(&[], json!([]))));
        assert!(!wanted("not_in").matches(&agent(&[("k", "a")], json!([]))));
        assert!(wanted("does_not_exist").matches(&agent(&[], json!([]))));
        assert!(!wanted("does_not_exist").matches(&agent(&[("k", "b")], json!([]))));
        assert!(!wanted("in").matches(&agent(&[], json!([]))));
    }

    #[test]
    fn anti_affinity_keeps_away() {
        let wanted = placement(Value::Null, Value::Null, json!({"anti_affinity": [{"match_labels": {"spot": "yes"}}]}));
        assert!(wanted.matches(&agent(&[], json!([]))));
        assert_eq!(wanted.check(&agent(&[("spot", "yes")], json!([]))), Err(Misfit::AntiAffinity(0)));
    }

    #[test]
    fn preferences_add_up_and_soft_taints_take_away() {
        let wanted = placement(
            Value::Null,
            json!([{"key": "old", "operator": "exists"}]),
            json!({"preferred": [
                {"weight": 30, "preference": {"match_labels": {"zone": "eu"}}},
                {"weight": 5, "preference": {"match_labels": {"disk": "ssd"}}},
            ]}),
        );
        assert_eq!(wanted.preference(&agent(&[("zone", "eu"), ("disk", "ssd")], json!([]))), 35);
        assert_eq!(wanted.preference(&agent(&[("zone", "us")], json!([]))), 0);
        let soft = json!([
            {"key": "old", "effect": "prefer_no_schedule"},
            {"key": "busy", "effect": "prefer_no_schedule"},
        ]);
        let avoided = agent(&[("zone", "eu")], soft);
        assert!(wanted.matches(&avoided));
        assert_eq!(wanted.preference(&avoided), 30 - AVOIDED_TAINT_COST);
    }
}

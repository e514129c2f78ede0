//! Which worker gets an execution. Pure, but for the turn among equals.

use std::collections::BTreeSet;
use std::time::Duration;

use attune_model::WorkerId;
use attune_model::capabilities::CapabilityView;
use attune_model::placement::Placement;
use attune_model::rows::{Action, RawPlacement, Runtime};
use attune_model::runtime_name::{fold, is_advertised, names_of};
use attune_model::status::WorkerStatus;
use attune_model::version::{Constraint, advertised_versions};
use attune_store::{Candidate, PlacementOverride, Schedulable};
use serde_json::Value;

/// Most workers that an error explains one by one.
const MOST_EXPLAINED: usize = 5;

/// The choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// This one.
    Worker(WorkerId),
    /// A worker would fit, but none can take it just now; or no worker is known at all yet.
    NotNow(String),
    /// No known worker fits.
    Never(String),
}

/// Chooses, and remembers whose turn it is.
#[derive(Debug)]
pub(super) struct Chooser {
    heartbeat_limit: Duration,
    turn: usize,
}

/// What a worker must have.
struct Needs<'a> {
    runtime: Option<&'a Runtime>,
    version: Constraint,
    required: Vec<(String, Constraint)>,
    placement: Placement,
}

impl Chooser {
    pub(super) fn new(heartbeat_limit: Duration) -> Self {
        Self { heartbeat_limit, turn: 0 }
    }

    /// Of the workers that fit and can take work the most preferred, of those the least loaded, of those in turn.
    pub(super) fn choose(&mut self, execution: &Schedulable, workers: &[Candidate]) -> Choice {
        let Some(action) = &execution.action else {
            return Choice::Never(format!("action {} does not exist any more", execution.execution.action_ref));
        };
        let needs = match Needs::new(execution, action) {
            Ok(needs) => needs,
            Err(reason) => return Choice::Never(format!("action {}: {reason}", action.r#ref)),
        };
        if workers.is_empty() {
            return Choice::NotNow("no action worker is registered yet".to_owned());
        }
        let mut fitting = Vec::new();
        let mut reasons = Vec::new();
        for candidate in workers {
            let capabilities = CapabilityView::of(&candidate.worker.capabilities);
            match needs.misfit(&capabilities) {
                None => fitting.push((candidate, needs.placement.preference(&capabilities))),
                Some(reason) => reasons.push(format!("worker {}: {reason}", candidate.worker.name)),
            }
        }
        if fitting.is_empty() {
            return Choice::Never(format!("no compatible worker for action {}: {}", action.r#ref, listed(&reasons)));
        }
        self.among(&fitting)
    }

    fn among(&mut self, fitting: &[(&Candidate, i64)]) -> Choice {
        let mut ready = Vec::new();
        let mut reasons = Vec::new();
        for (candidate, preference) in fitting {
            match self.obstacle(candidate) {
                None => ready.push((*preference, std::cmp::Reverse(candidate.load), candidate.worker.id)),
                Some(reason) => reasons.push(format!("worker {} {reason}", candidate.worker.name)),
            }
        }
        let Some(best) = ready.iter().map(|(preference, load, _)| (*preference, *load)).max() else {
            return Choice::NotNow(listed(&reasons));
        };
        let equals: Vec<WorkerId> =
            ready.iter().filter(|(preference, load, _)| (*preference, *load) == best).map(|ready| ready.2).collect();
        let chosen = equals[self.turn % equals.len()];
        self.turn = self.turn.wrapping_add(1);
        Choice::Worker(chosen)
    }

    /// Why a worker that fits cannot take work now.
    fn obstacle(&self, candidate: &Candidate) -> Option<String> {
        if candidate.worker.status != WorkerStatus::Active {
            return Some(format!("is {}", candidate.worker.status));
        }
        if candidate.worker.cordoned {
            return Some("is cordoned".to_owned());
        }
        if !self.is_fresh(candidate) {
            return Some(match candidate.heartbeat_age {
                Some(age) => format!("gave its last sign of life {} s ago", age.as_secs()),
                None => "never gave a sign of life".to_owned(),
            });
        }
        None
    }

    /// Whether the worker gave a sign of life within the limit.
    pub(super) fn is_fresh(&self, candidate: &Candidate) -> bool {
        candidate.heartbeat_age.is_some_and(|age| age <= self.heartbeat_limit)
    }
}

impl<'a> Needs<'a> {
    fn new(execution: &'a Schedulable, action: &Action) -> Result<Self, String> {
        if action.runtime.is_some() && execution.runtime.is_none() {
            return Err("its runtime does not exist any more".to_owned());
        }
        let version = action.runtime_version_constraint.as_deref().unwrap_or_default();
        let placement = effective(&execution.placement, &action.placement);
        Ok(Self {
            runtime: execution.runtime.as_ref(),
            version: Constraint::parse(version).map_err(|error| error.to_string())?,
            required: required(&action.required_worker_runtimes)?,
            placement: Placement::parse(&placement).map_err(|error| error.to_string())?,
        })
    }

    /// What is missing on a worker.
    fn misfit(&self, capabilities: &CapabilityView) -> Option<String> {
        if let Some(runtime) = self.runtime {
            if !is_advertised(runtime, &capabilities.runtimes) {
                return Some(missing(&runtime.name, capabilities));
            }
            if let Some(reason) = wrong_version(&runtime.name, &names_of(runtime), &self.version, capabilities) {
                return Some(reason);
            }
        }
        for (name, constraint) in &self.required {
            let folded = fold(name);
            if !capabilities.runtimes.iter().any(|advertised| fold(advertised) == folded) {
                return Some(missing(name, capabilities));
            }
            if let Some(reason) = wrong_version(name, &BTreeSet::from([folded]), constraint, capabilities) {
                return Some(reason);
            }
        }
        self.placement.check(capabilities).err().map(|misfit| misfit.to_string())
    }
}

fn missing(name: &str, capabilities: &CapabilityView) -> String {
    format!("runtime {name} is missing, it has {}", list(&capabilities.runtimes))
}

fn wrong_version(
    name: &str,
    names: &BTreeSet<String>,
    constraint: &Constraint,
    capabilities: &CapabilityView,
) -> Option<String> {
    if constraint.is_any() {
        return None;
    }
    let versions = advertised_versions(capabilities, names);
    let fits = versions.iter().any(|version| constraint.matches_text(version));
    (!fits).then(|| format!("runtime {name} has version {}, wanted is {constraint}", list(&versions)))
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

fn listed(reasons: &[String]) -> String {
    let shown = reasons.iter().take(MOST_EXPLAINED).cloned().collect::<Vec<_>>().join("; ");
    match reasons.len().checked_sub(MOST_EXPLAINED) {
        None | Some(0) => shown,
        Some(more) => format!("{shown}; and {more} more"),
    }
}

/// The execution's own placement, and the action's where it has none.
fn effective(own: &PlacementOverride, action: &RawPlacement) -> RawPlacement {
    RawPlacement {
        selector: own.selector.as_ref().unwrap_or(&action.selector).clone(),
        tolerations: own.tolerations.as_ref().unwrap_or(&action.tolerations).clone(),
        affinity: own.affinity.as_ref().unwrap_or(&action.affinity).clone(),
    }
}

/// `required_worker_runtimes`: name to constraint, `*` for any version.
fn required(value: &Value) -> Result<Vec<(String, Constraint)>, String> {
    let entries = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Object(entries) => entries,
        _ => return Err("required_worker_runtimes is not an object".to_owned()),
    };
    let constraint = |(name, constraint): (&String, &Value)| {
        let text = constraint.as_str().ok_or_else(|| format!("required_worker_runtimes.{name} is not a text"))?;
        let constraint =
            Constraint::parse(text).map_err(|error| format!("required_worker_runtimes.{name}: {error}"))?;
        Ok((name.clone(), constraint))
    };
    entries.iter().map(constraint).collect()
}

#[cfg(test)]
mod tests;

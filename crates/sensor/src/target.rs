//! One wanted sensor: everything that decides how it runs, and whether a change of it matters to a running process.

use std::sync::Arc;
use std::time::Duration;

use attune_model::capabilities::CapabilityView;
use attune_model::placement::{Misfit, Placement, PlacementError};
use attune_model::rows::{Retention, Rule, Runtime, RuntimeVersion, Sensor, Trigger};
use attune_model::{SensorId, runtime_name};
use attune_runtime::plan::{Chosen, PlanError, PlanRequest, Planner};
use attune_store::DesiredSensor;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::files::{Fingerprint, Look};
use crate::packs::{PackState, Packs};

/// So long after a comparison what it found is taken for what is there.
const FRESH: Duration = Duration::from_secs(1);

/// A sensor that this host is to run.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) sensor: Sensor,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) versions: Arc<[RuntimeVersion]>,
    /// How many rules wait for its events.
    pub(crate) active_rules: i32,
    /// What its process is started with.
    pub(crate) input: Input,
    /// Where its pack stands; none where the folder of packs is shared.
    pub(crate) pack: Option<watch::Receiver<PackState>>,
    judged: Instant,
}

/// What a process reads once, at its start. Another input needs another process.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Input {
    sensor: SensorId,
    sensor_ref: String,
    config: Option<Value>,
    log_retention: Retention,
    /// Refs of all its triggers, for its token.
    pub(crate) trigger_refs: Vec<String>,
    /// `ATTUNE_SENSOR_TRIGGERS`.
    pub(crate) rules_json: String,
    /// `ATTUNE_SENSOR_TRIGGER_REFS`: the trigger of each of those rules, in the same order.
    pub(crate) rule_triggers_json: String,
    /// None when it cannot be planned; the start will say why.
    chosen: Option<Arc<Chosen>>,
    files: Fingerprint,
    /// Of its pack, where that comes through the API.
    pub(crate) generation: u64,
    /// Of its pack, where the folder is shared: rises when it was registered with other files.
    pub(crate) registration: u64,
    /// Rises when an operator wants another process.
    pub(crate) restarts: u64,
}

impl Input {
    fn new(sensor: &Sensor, triggers: &[Trigger], rules: &[Rule], chosen: Option<Chosen>, files: Fingerprint) -> Self {
        let rule_triggers: Vec<&str> = rules.iter().map(|rule| rule.trigger_ref.as_str()).collect();
        Self {
            sensor: sensor.id,
            sensor_ref: sensor.r#ref.clone(),
            config: sensor.config.clone(),
            log_retention: sensor.log_retention,
            trigger_refs: triggers.iter().map(|trigger| trigger.r#ref.clone()).collect(),
            rules_json: Value::Array(rules.iter().map(element).collect()).to_string(),
            rule_triggers_json: json!(rule_triggers).to_string(),
            chosen: chosen.map(Arc::new),
            files,
            generation: 0,
            registration: 0,
            restarts: 0,
        }
    }
}

/// One element of `ATTUNE_SENSOR_TRIGGERS` (a fact of the platform).
fn element(rule: &Rule) -> Value {
    let config = if rule.trigger_params.is_null() { json!({}) } else { rule.trigger_params.clone() };
    json!({ "config": config, "id": rule.id, "ref": rule.r#ref })
}

/// Why an enabled sensor does not run on this host.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    /// Nothing waits for its events. This is the normal state of many sensors and no news.
    #[error("no enabled rule waits for its events")]
    NoRules,
    /// A placement that nobody can read: nobody may run it until it is mended.
    #[error("its placement is not valid")]
    Placement(#[source] PlacementError),
    /// Another host's.
    #[error("it is not placed here")]
    Misfit(#[source] Misfit),
    /// Nothing here runs it.
    #[error("this host does not offer runtime {runtime} (it offers: {offered})")]
    Runtime { runtime: String, offered: String },
    /// Here are other versions, or nobody can tell: a constraint that cannot be read is met by none (a fact of the platform).
    #[error("no version fits")]
    Version(#[source] PlanError),
}

impl Target {
    /// Decides whether `desired` is to run on this host. Reads files; blocks.
    pub(crate) fn judge(
        desired: DesiredSensor,
        planner: &Planner,
        host: &CapabilityView,
        look: &mut Look<'_>,
    ) -> Result<Self, Refusal> {
        if desired.rules.is_empty() {
            return Err(Refusal::NoRules);
        }
        let DesiredSensor { sensor, runtime, runtime_versions: versions, triggers, rules } = desired;
        Placement::parse(&sensor.placement).map_err(Refusal::Placement)?.check(host).map_err(Refusal::Misfit)?;
        if !is_offered(&runtime, host) {
            let offered = host.runtimes.join(", ");
            return Err(Refusal::Runtime { runtime: runtime.r#ref.clone(), offered });
        }
        let chosen = match planner.choose(&PlanRequest::sensor(&sensor, &runtime, &versions)) {
            Ok(chosen) => Some(chosen),
            Err(error @ (PlanError::NoVersion { .. } | PlanError::Constraint { .. })) => {
                return Err(Refusal::Version(error));
            }
            Err(_) => None,
        };
        let files = look.fingerprint(&sensor, chosen.as_ref().map(|chosen| &chosen.config));
        Ok(Self {
            active_rules: i32::try_from(rules.len()).unwrap_or(i32::MAX),
            input: Input::new(&sensor, &triggers, &rules, chosen, files),
            sensor,
            runtime,
            versions,
            pack: None,
            judged: Instant::now(),
        })
    }

    /// Notes what is there of its pack, while the folders of packs are held still.
    pub(crate) fn follow(&mut self, packs: &Packs) {
        self.pack = self.sensor.pack_ref.as_ref().and_then(|pack_ref| packs.state(pack_ref));
        self.input.generation = self.pack.as_ref().map_or(0, |pack| pack.borrow().generation);
    }

    /// What was chosen at the comparison, while that is news. Not of a pack that comes through the API: it may have come since.
    pub(crate) fn just_chosen(&self) -> Option<Arc<Chosen>> {
        let is_news = self.pack.is_none() && self.judged.elapsed() < FRESH;
        self.input.chosen.clone().filter(|_| is_news)
    }

    /// The same with another number of rules, for its row.
    pub(crate) fn with_rules(&self, active_rules: i32) -> Self {
        Self { active_rules, ..self.clone() }
    }

    /// The same, to be started anew for the so-manieth time.
    pub(crate) fn restarted(&self, times: u64) -> Self {
        let mut again = self.clone();
        again.input.restarts = times;
        again
    }

    /// Whether its files are still the same. Blocks.
    pub(crate) fn has_files_of_now(&self, look: &mut Look<'_>) -> bool {
        let config = self.input.chosen.as_ref().map(|chosen| &chosen.config);
        look.fingerprint(&self.sensor, config) == self.input.files
    }

    /// Whether a process that was started for `self`, and learns of rules by itself, is also right for `other`.
    pub(crate) fn differs_in_rules_only(&self, other: &Self) -> bool {
        let (own, other) = (&self.input, &other.input);
        let with_rules_of_other = Input {
            rules_json: other.rules_json.clone(),
            rule_triggers_json: other.rule_triggers_json.clone(),
            ..own.clone()
        };
        with_rules_of_other == *other
    }

    /// Whether a process that was started for `self` is also right for `other`.
    pub(crate) fn has_input_of(&self, other: &Self) -> bool {
        self.input == other.input
    }
}

/// Runtimes that detection knows, and native code, have to be advertised. One that detection has never heard of is tried,
/// and so is everything on a host that advertises nothing: the start names the interpreter if that is missing.
fn is_offered(runtime: &Runtime, host: &CapabilityView) -> bool {
    host.runtimes.is_empty()
        || runtime_name::is_advertised(runtime, &host.runtimes)
        || runtime_name::names_of(runtime).iter().all(|name| runtime_name::lookup(name).is_none())
}

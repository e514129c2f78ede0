//! Checks across packs: what a pack refers to exists, belongs to one owner and gets parameters that fit.
//!
//! What belongs to a pack that is not at hand can be right, so it is only warned about: packs are loaded independently.

use attune_model::JsonMap;
use attune_model::rows::Pack;
use attune_model::schema::{self, Values};
use attune_yaml::{Problem, Report};
use serde_json::Value;

use crate::content::{ComponentKind, PackContent};
use crate::folder;
use crate::world::{Absence, World};

/// The pack with its runtimes by ref, and what is wrong with it among the others.
pub(crate) fn link(content: &PackContent, world: &World<'_>) -> (PackContent, Vec<Problem>) {
    let mut linked = content.clone();
    let mut checks = Checks { content, world, problems: Vec::new() };
    checks.runtimes();
    for action in &mut linked.pack.actions {
        if let Some(name) = &action.runtime_ref {
            action.runtime_ref = Some(checks.runtime_of(ComponentKind::Action, &action.r#ref, name));
        }
    }
    for sensor in &mut linked.pack.sensors {
        sensor.runtime_ref = checks.runtime_of(ComponentKind::Sensor, &sensor.r#ref, &sensor.runtime_ref);
    }
    checks.sensors();
    checks.rules();
    checks.daemon_starters();
    (linked, checks.problems)
}

struct Checks<'a> {
    content: &'a PackContent,
    world: &'a World<'a>,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    fn runtimes(&mut self) {
        for runtime in &self.content.pack.runtimes {
            let owner = self.world.runtime_owner(&runtime.r#ref);
            if let Some(owner) = owner.filter(|owner| *owner != self.content.pack.r#ref) {
                let message = format!("the runtime {} is already declared by the pack {owner}", runtime.r#ref);
                self.error(ComponentKind::Runtime, &runtime.r#ref, "ref", message);
            }
        }
    }

    fn runtime_of(&mut self, kind: ComponentKind, component: &str, name: &str) -> String {
        if let Some(runtime) = self.world.runtime(name) {
            return runtime.r#ref.clone();
        }
        let known = self.world.runtime_refs().join(", ");
        let advice = format!("; known are {known}");
        self.absent((kind, component), "runner_type", ("runtime", name), &advice);
        name.to_owned()
    }

    fn sensors(&mut self) {
        for sensor in &self.content.pack.sensors {
            for trigger in &sensor.trigger_refs {
                if self.world.trigger(trigger).is_none() {
                    let place = (ComponentKind::Sensor, sensor.r#ref.as_str());
                    self.absent(place, "trigger_types", ("trigger", trigger), "");
                }
                let emitter = self.world.emitter(trigger).filter(|emitter| *emitter != sensor.r#ref);
                if let Some(emitter) = emitter {
                    let message =
                        format!("{trigger} already belongs to the sensor {emitter}, a trigger has one sensor only");
                    self.error(ComponentKind::Sensor, &sensor.r#ref, "trigger_types", message);
                }
            }
        }
    }

    fn rules(&mut self) {
        for rule in &self.content.pack.rules {
            let place = (ComponentKind::Rule, rule.r#ref.as_str());
            match self.world.trigger(&rule.trigger_ref) {
                Some(trigger) => {
                    self.parameters(place.1, "trigger_params", trigger.param_schema.as_ref(), &rule.trigger_params)
                }
                None => self.absent(place, "trigger_ref", ("trigger", &rule.trigger_ref), ""),
            }
            match self.world.action(&rule.action_ref) {
                Some(action) => {
                    self.parameters(place.1, "action_params", action.param_schema.as_ref(), &rule.action_params)
                }
                None => self.absent(place, "action_ref", ("action", &rule.action_ref), ""),
            }
        }
    }

    /// Others may read the same key of `meta`, so nothing here keeps the pack from being loaded.
    fn daemon_starters(&mut self) {
        let pack = &self.content.pack;
        let Some(listed) = pack.meta.get(Pack::DAEMON_STARTERS) else { return };
        let is_known = |entry: &Value| pack.actions.iter().any(|action| *entry == *action.r#ref);
        let wrong: Vec<&Value> = match listed.as_array() {
            Some(entries) => entries.iter().filter(|entry| !is_known(entry)).collect(),
            None => vec![listed],
        };
        let report = Report::new(self.content.path.join(folder::MANIFEST));
        for wrong in wrong {
            let message = format!("{} lists actions of this pack by ref, and {wrong} is none", Pack::DAEMON_STARTERS);
            report.warning(1, "metadata", message);
        }
        self.problems.extend(report.into_problems());
    }

    fn parameters(&mut self, rule: &str, field: &str, schema: Option<&Value>, given: &Value) {
        let (Some(schema), Some(given)) = (schema, given.as_object()) else {
            return;
        };
        let mut complete: JsonMap = given.clone();
        schema::apply_defaults(schema, &mut complete);
        for wrong in schema::validate(schema, &complete, Values::Templates) {
            self.error(ComponentKind::Rule, rule, field, wrong.to_string());
        }
    }

    /// Something that is referred to was not found.
    fn absent(
        &mut self,
        (kind, component): (ComponentKind, &str),
        field: &str,
        (what, name): (&str, &str),
        advice: &str,
    ) {
        let pack = name.split('.').next().unwrap_or(name);
        let report = self.report(kind, component);
        let line = self.line(kind, component, field);
        match self.world.absence(name) {
            Absence::Unknown => {
                report.error(line, field, format!("unknown {what} {name:?}{advice}"));
            }
            Absence::PackBroken => {
                report.warning(line, field, format!("{what} {name:?}: the pack {pack} has errors"));
            }
            Absence::PackMissing => {
                report.warning(line, field, format!("{what} {name:?}: the pack {pack} is not loaded"));
            }
        }
        self.problems.extend(report.into_problems());
    }

    fn error(&mut self, kind: ComponentKind, component: &str, field: &str, message: String) {
        let report = self.report(kind, component);
        report.error(self.line(kind, component, field), field, message);
        self.problems.extend(report.into_problems());
    }

    fn report(&self, kind: ComponentKind, component: &str) -> Report {
        Report::new(self.content.file_of(kind, component).unwrap_or(&self.content.path))
    }

    fn line(&self, kind: ComponentKind, component: &str, field: &str) -> u32 {
        self.content.source(kind, component).map_or(1, |source| source.line_of(field))
    }
}

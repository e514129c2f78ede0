//! Loading and removing packs, and telling everybody.

use std::collections::BTreeSet;
use std::sync::Arc;

use attune_bus::Bus;
use attune_model::clock::Clock;
use attune_model::execution_config::ExecutionConfig;
use attune_model::message::{PackDeleted, PackRegistered, RuleCreated, RuleDisabled, RuleEnabled};
use attune_model::rows::{Rule, Runtime};
use attune_store::{HubStore, NewPack, PackChanges, PackRemoval, RuleChange};
use serde::Deserialize as _;

use crate::HubError;
use crate::outbox::Outbox;

/// Puts packs into storage and takes them out of it, and tells everybody. It needs no hub that runs.
#[derive(Debug, Clone)]
pub struct PackRegistry {
    store: Arc<dyn HubStore>,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
}

impl PackRegistry {
    /// A registry on `store` that tells everybody on `bus`.
    pub fn new(store: Arc<dyn HubStore>, bus: Arc<dyn Bus>, clock: Arc<dyn Clock>) -> Self {
        Self { store, bus, clock }
    }

    /// Makes storage equal to `pack`, and publishes `PackRegistered` and what became of the rules. Packs that others need,
    /// the core runtimes first of all, are to be registered before them.
    pub async fn register(&self, pack: &NewPack) -> Result<PackChanges, HubError> {
        let operation = || format!("store pack {}", pack.r#ref);
        let changes = self.store.upsert_pack(pack).await.map_err(HubError::store(operation()))?;
        let runtimes = self.store.runtimes().await.map_err(HubError::store("read the runtimes"))?;
        for skipped in &changes.skipped {
            let (kind, component, reason) = (skipped.kind, &skipped.r#ref, &skipped.reason);
            tracing::warn!(pack = pack.r#ref, kind, component, reason, "component left out");
        }
        let mut outbox = Outbox::new(self.clock.now());
        outbox.add(&PackRegistered {
            pack_id: changes.pack.id,
            pack_ref: changes.pack.r#ref.clone(),
            version: changes.pack.version.clone(),
            runtime_names: runtime_names(pack, &runtimes),
        });
        announce_rules(&mut outbox, &changes.rules);
        outbox.send(&*self.bus).await;
        Ok(changes)
    }

    /// Removes a pack, and publishes what became of the rules and `PackDeleted`. None when it does not exist.
    pub async fn remove(&self, pack_ref: &str) -> Result<Option<PackRemoval>, HubError> {
        let operation = format!("remove pack {pack_ref}");
        let Some(removal) = self.store.delete_pack(pack_ref).await.map_err(HubError::store(operation))? else {
            return Ok(None);
        };
        let mut outbox = Outbox::new(self.clock.now());
        announce_rules(&mut outbox, &removal.rules);
        outbox.add(&PackDeleted { pack_id: removal.pack.id, pack_ref: removal.pack.r#ref.clone() });
        outbox.send(&*self.bus).await;
        Ok(Some(removal))
    }
}

/// Lower-cased names of the runtimes of the pack's actions that have an environment or dependencies.
fn runtime_names(pack: &NewPack, runtimes: &[Runtime]) -> Vec<String> {
    let used: BTreeSet<&str> = pack.actions.iter().filter_map(|action| action.runtime_ref.as_deref()).collect();
    let has_environment = |runtime: &&Runtime| {
        ExecutionConfig::deserialize(&runtime.execution_config)
            .is_ok_and(|config| config.environment.is_some() || config.dependencies.is_some())
    };
    let names = runtimes.iter().filter(|runtime| used.contains(runtime.r#ref.as_str())).filter(has_environment);
    names.map(|runtime| runtime.name.to_lowercase()).collect()
}

fn announce_rules(outbox: &mut Outbox, changes: &[RuleChange]) {
    for change in changes {
        match (&change.before, &change.after) {
            (None, Some(rule)) => created(outbox, rule),
            (Some(rule), None) if rule.enabled => disabled(outbox, rule),
            (Some(before), Some(after)) => changed(outbox, before, after),
            (Some(_) | None, None) => {}
        }
    }
}

/// What a sensor sees of a rule is its trigger, its settings and whether it counts; other changes are not announced.
fn changed(outbox: &mut Outbox, before: &Rule, after: &Rule) {
    let counts = |rule: &Rule| rule.enabled && rule.trigger.is_some();
    let moved = before.trigger != after.trigger;
    if counts(before) && (!counts(after) || moved) {
        disabled(outbox, before);
    }
    let same = counts(before) && !moved && before.trigger_params == after.trigger_params;
    if counts(after) && !same {
        outbox.add(&RuleEnabled {
            rule_id: after.id,
            rule_ref: after.r#ref.clone(),
            trigger_ref: after.trigger_ref.clone(),
            trigger_params: Some(after.trigger_params.clone()),
        });
    }
}

fn created(outbox: &mut Outbox, rule: &Rule) {
    outbox.add(&RuleCreated {
        rule_id: rule.id,
        rule_ref: rule.r#ref.clone(),
        trigger_id: rule.trigger,
        trigger_ref: rule.trigger_ref.clone(),
        action_id: rule.action,
        action_ref: rule.action_ref.clone(),
        trigger_params: Some(rule.trigger_params.clone()),
        enabled: rule.enabled,
    });
}

fn disabled(outbox: &mut Outbox, rule: &Rule) {
    outbox.add(&RuleDisabled { rule_id: rule.id, rule_ref: rule.r#ref.clone(), trigger_ref: rule.trigger_ref.clone() });
}

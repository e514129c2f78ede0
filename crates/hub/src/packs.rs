//! Loading and removing packs, and telling everybody.

use std::collections::BTreeSet;

use attune_model::execution_config::ExecutionConfig;
use attune_model::message::{PackDeleted, PackRegistered, RuleCreated, RuleDisabled, RuleEnabled};
use attune_model::rows::{Rule, Runtime};
use attune_store::{NewPack, PackChanges, PackRemoval, RuleChange};
use serde::Deserialize as _;

use crate::HubError;
use crate::core::Core;
use crate::outbox::Outbox;

/// Makes storage equal to `pack` and publishes `PackRegistered` and what became of the rules.
pub(crate) async fn register(core: &Core, pack: &NewPack) -> Result<PackChanges, HubError> {
    let operation = || format!("store pack {}", pack.r#ref);
    let changes = core.store.upsert_pack(pack).await.map_err(HubError::store(operation()))?;
    let runtimes = core.store.runtimes().await.map_err(HubError::store("read the runtimes"))?;
    for skipped in &changes.skipped {
        let (kind, component, reason) = (skipped.kind, &skipped.r#ref, &skipped.reason);
        tracing::warn!(pack = pack.r#ref, kind, component, reason, "component left out");
    }
    let mut outbox = core.outbox();
    outbox.add(&PackRegistered {
        pack_id: changes.pack.id,
        pack_ref: changes.pack.r#ref.clone(),
        version: changes.pack.version.clone(),
        runtime_names: runtime_names(pack, &runtimes),
    });
    announce_rules(&mut outbox, &changes.rules);
    outbox.send(&*core.bus).await;
    Ok(changes)
}

/// Removes a pack and publishes what became of the rules and `PackDeleted`. None when there is no such pack.
pub(crate) async fn remove(core: &Core, pack_ref: &str) -> Result<Option<PackRemoval>, HubError> {
    let operation = format!("remove pack {pack_ref}");
    let Some(removal) = core.store.delete_pack(pack_ref).await.map_err(HubError::store(operation))? else {
        return Ok(None);
    };
    let mut outbox = core.outbox();
    announce_rules(&mut outbox, &removal.rules);
    outbox.add(&PackDeleted { pack_id: removal.pack.id, pack_ref: removal.pack.r#ref.clone() });
    outbox.send(&*core.bus).await;
    Ok(Some(removal))
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

//! Packs. The stored pack is made equal to the files in one unit of work; what is equal is not written.

use std::collections::{BTreeMap, HashSet};

use attune_model::PackId;
use attune_model::rows::Rule;
use attune_store::{
    NewAction, NewPack, NewRule, NewRuntime, PackChanges, PackRemoval, RuleChange, Skipped, StoreError,
};
use sqlx::{AssertSqlSafe, Row as _};

use super::all_rules;
use super::components::{
    action_columns, pack_columns, rule_columns, runtime_columns, trigger_columns, version_columns,
};
use super::upsert::{Column, upsert as put};
use crate::error::During as _;
use crate::pool::{Query, Unit};
use crate::rows;

/// The tables of components, in an order in which they can be emptied.
const TABLES: [&str; 5] = ["rule", "sensor", "action", "\"trigger\"", "runtime"];

/// Taken by whoever changes packs, until the end of the unit of work.
const ONE_LOAD: &str = "SELECT pg_advisory_xact_lock(hashtextextended('attune packs', 0))";

/// One pack being stored.
pub(super) struct Load<'a> {
    pub(super) unit: &'a mut Unit,
    pub(super) pack: &'a NewPack,
    pub(super) id: i64,
    pub(super) skipped: Vec<Skipped>,
    pub(super) operation: &'a str,
}

pub(super) async fn upsert(unit: &mut Unit, pack: &NewPack, operation: &str) -> Result<PackChanges, StoreError> {
    let during = || operation.to_owned();
    // Two hubs that load packs at once would see half of each other.
    unit.execute(sqlx::query(ONE_LOAD)).await.during(during)?;
    let before = all_rules(unit, operation).await?;
    let id = put(unit, "pack", "ref", &pack_columns(pack), operation).await?;
    let mut load = Load { unit, pack, id, skipped: Vec::new(), operation };
    load.components().await?;
    let skipped = load.skipped;
    link_rules(unit, operation).await?;
    let after = all_rules(unit, operation).await?;
    let query = sqlx::query("SELECT to_json(pack.*) FROM pack WHERE id = $1").bind(id);
    let pack = unit.first(query, rows::pack, during).await?.ok_or(sqlx::Error::RowNotFound).during(during)?;
    Ok(PackChanges { pack, rules: changes(before, after), skipped })
}

pub(super) async fn delete(
    unit: &mut Unit,
    pack_ref: &str,
    operation: &str,
) -> Result<Option<PackRemoval>, StoreError> {
    let during = || operation.to_owned();
    unit.execute(sqlx::query(ONE_LOAD)).await.during(during)?;
    let query = sqlx::query("SELECT to_json(pack.*) FROM pack WHERE ref = $1").bind(pack_ref);
    let Some(pack) = unit.first(query, rows::pack, during).await? else { return Ok(None) };
    let before = all_rules(unit, operation).await?;
    refuse_lost_runtimes(unit, pack.id, None, operation).await?;
    for statement in [
        "DELETE FROM key WHERE owner_pack = $1",
        r#"UPDATE "trigger" SET sensor = NULL, sensor_ref = NULL
           WHERE sensor IN (SELECT id FROM sensor WHERE pack = $1) AND pack IS DISTINCT FROM $1"#,
        "DELETE FROM pack WHERE id = $1",
    ] {
        unit.execute(sqlx::query(statement).bind(pack.id.0)).await.during(during)?;
    }
    let after = all_rules(unit, operation).await?;
    Ok(Some(PackRemoval { pack, rules: changes(before, after) }))
}

impl Load<'_> {
    /// Everything that may be referred to is stored first; what vanished is removed when nothing refers to it any more.
    async fn components(&mut self) -> Result<(), StoreError> {
        for runtime in &self.pack.runtimes {
            self.runtime(runtime).await?;
        }
        for trigger in &self.pack.triggers {
            self.put("\"trigger\"", &trigger.r#ref, trigger_columns(trigger)).await?;
        }
        let mut actions = Vec::new();
        for action in &self.pack.actions {
            if self.action(action).await? {
                actions.push(action.r#ref.clone());
            }
        }
        let sensors = self.sensors().await?;
        let runtimes: Vec<String> = self.pack.runtimes.iter().map(|runtime| runtime.r#ref.clone()).collect();
        let triggers: Vec<String> = self.pack.triggers.iter().map(|trigger| trigger.r#ref.clone()).collect();
        refuse_lost_runtimes(self.unit, PackId(self.id), Some(&runtimes), self.operation).await?;
        for (table, kept) in TABLES[1..].iter().zip([&sensors, &actions, &triggers, &runtimes]) {
            self.remove_others(table, kept).await?;
        }
        // Last, so that a rule does not find what has just vanished.
        let mut rules = Vec::new();
        for rule in &self.pack.rules {
            if self.rule(rule).await? {
                rules.push(rule.r#ref.clone());
            }
        }
        self.remove_others(TABLES[0], &rules).await
    }

    /// Stores a component with the columns that all of them have.
    pub(super) async fn put(
        &mut self,
        table: &'static str,
        r#ref: &str,
        columns: Vec<Column>,
    ) -> Result<i64, StoreError> {
        let sql = format!("SELECT pack_ref FROM {table} WHERE ref = $1 AND pack IS NOT NULL AND pack <> $2");
        let during = || self.operation.to_owned();
        let query = sqlx::query(AssertSqlSafe(sql)).bind(r#ref).bind(self.id);
        if let Some(row) = self.unit.optional(query).await.during(during)? {
            let kind = table.trim_matches('"');
            let owner: Option<String> = row.try_get(0).during(during)?;
            let owner = owner.unwrap_or_default();
            return Err(StoreError::Conflict(format!("{kind} {ref} belongs to pack {owner}")));
        }
        let mut all: Vec<Column> =
            vec![("ref", r#ref.into()), ("pack", self.id.into()), ("pack_ref", (&self.pack.r#ref).into())];
        if table != "runtime" {
            all.push(("is_adhoc", false.into()));
        }
        all.extend(columns);
        put(self.unit, table, "ref", &all, self.operation).await
    }

    async fn runtime(&mut self, runtime: &NewRuntime) -> Result<(), StoreError> {
        let id = self.put("runtime", &runtime.r#ref, runtime_columns(runtime)).await?;
        for version in &runtime.versions {
            let columns = version_columns(version, id, &runtime.r#ref);
            put(self.unit, "runtime_version", "runtime, version", &columns, self.operation).await?;
        }
        let kept: Vec<String> = runtime.versions.iter().map(|version| version.version.clone()).collect();
        let query =
            sqlx::query("DELETE FROM runtime_version WHERE runtime = $1 AND version <> ALL ($2)").bind(id).bind(kept);
        self.unit.execute(query).await.during(|| self.operation.to_owned()).map(drop)
    }

    /// False when it was skipped.
    async fn action(&mut self, action: &NewAction) -> Result<bool, StoreError> {
        let runtime = match &action.runtime_ref {
            None => None,
            Some(runtime) => match self.find_kept("runtime", runtime).await? {
                Some(id) => Some(id),
                None => {
                    return Ok(self.skip("action", &action.r#ref, format!("runtime {runtime} does not exist")));
                }
            },
        };
        self.put("action", &action.r#ref, action_columns(action, runtime)).await?;
        Ok(true)
    }

    /// False when it was skipped.
    async fn rule(&mut self, rule: &NewRule) -> Result<bool, StoreError> {
        let Some(trigger) = self.find("\"trigger\"", &rule.trigger_ref).await? else {
            return Ok(self.skip("rule", &rule.r#ref, format!("trigger {} does not exist", rule.trigger_ref)));
        };
        let Some(action) = self.find("action", &rule.action_ref).await? else {
            return Ok(self.skip("rule", &rule.r#ref, format!("action {} does not exist", rule.action_ref)));
        };
        self.put("rule", &rule.r#ref, rule_columns(rule, trigger, action)).await?;
        Ok(true)
    }

    async fn find(&mut self, table: &'static str, r#ref: &str) -> Result<Option<i64>, StoreError> {
        let query = sqlx::query(AssertSqlSafe(format!("SELECT id FROM {table} WHERE ref = $1"))).bind(r#ref);
        self.id_of(query).await
    }

    /// [`Self::find`] for what may still be a row of this pack that is about to be removed.
    pub(super) async fn find_kept(&mut self, table: &'static str, r#ref: &str) -> Result<Option<i64>, StoreError> {
        let stays: HashSet<&str> = match table {
            "runtime" => self.pack.runtimes.iter().map(|runtime| runtime.r#ref.as_str()).collect(),
            _ => self.pack.triggers.iter().map(|trigger| trigger.r#ref.as_str()).collect(),
        };
        let adhoc = if table == "runtime" { "false" } else { "is_adhoc" };
        let sql = format!("SELECT id FROM {table} WHERE ref = $1 AND (pack IS DISTINCT FROM $2 OR {adhoc} OR $3)");
        let query = sqlx::query(AssertSqlSafe(sql)).bind(r#ref).bind(self.id).bind(stays.contains(r#ref));
        self.id_of(query).await
    }

    async fn id_of(&mut self, query: Query<'_>) -> Result<Option<i64>, StoreError> {
        let during = || self.operation.to_owned();
        let row = self.unit.optional(query).await.during(during)?;
        row.map(|row| row.try_get(0).during(during)).transpose()
    }

    pub(super) fn skip(&mut self, kind: &'static str, r#ref: &str, reason: String) -> bool {
        self.skipped.push(Skipped { kind, r#ref: r#ref.to_owned(), reason });
        false
    }

    /// What people made by hand in this pack stays.
    async fn remove_others(&mut self, table: &'static str, kept: &[String]) -> Result<(), StoreError> {
        let adhoc = if table == "runtime" { "" } else { "AND NOT is_adhoc" };
        let sql = format!("DELETE FROM {table} WHERE pack = $1 {adhoc} AND ref <> ALL ($2)");
        let query = sqlx::query(AssertSqlSafe(sql)).bind(self.id).bind(kept);
        self.unit.execute(query).await.during(|| self.operation.to_owned()).map(drop)
    }
}

/// A runtime that somebody else uses cannot go: foreign sensors would vanish with it and foreign actions could not be
/// run. `kept` are the runtimes that stay; none when the whole pack goes, with what people made by hand in it.
async fn refuse_lost_runtimes(
    unit: &mut Unit,
    pack: PackId,
    kept: Option<&[String]>,
    operation: &str,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        r"
        SELECT runtime.ref, taker.kind, taker.ref
        FROM (SELECT 'action' AS kind, ref, runtime, pack, is_adhoc FROM action
              UNION ALL SELECT 'sensor', ref, runtime, pack, is_adhoc FROM sensor) AS taker
        JOIN runtime ON runtime.id = taker.runtime
        WHERE runtime.pack = $1 AND runtime.ref <> ALL ($2)
          AND (taker.pack IS DISTINCT FROM $1 OR (taker.is_adhoc AND $3))
        ORDER BY runtime.ref, taker.ref LIMIT 1
        ",
    )
    .bind(pack.0)
    .bind(kept.unwrap_or_default())
    .bind(kept.is_some());
    let during = || operation.to_owned();
    let Some(row) = unit.optional(query).await.during(during)? else { return Ok(()) };
    let text = |column: usize| row.try_get::<&str, _>(column).during(during);
    let (runtime, kind, taker) = (text(0)?, text(1)?, text(2)?);
    Err(StoreError::Conflict(format!("runtime {runtime} cannot be removed: {kind} {taker} uses it")))
}

/// Rules whose trigger or action was not there and is now.
async fn link_rules(unit: &mut Unit, operation: &str) -> Result<(), StoreError> {
    for statement in [
        r#"UPDATE rule SET "trigger" = found.id FROM "trigger" AS found
           WHERE rule."trigger" IS NULL AND found.ref = rule.trigger_ref"#,
        r"UPDATE rule SET action = found.id FROM action AS found
          WHERE rule.action IS NULL AND found.ref = rule.action_ref",
    ] {
        unit.execute(sqlx::query(statement)).await.during(|| operation.to_owned())?;
    }
    Ok(())
}

/// What differs in more than `updated`, by ref.
fn changes(before: Vec<Rule>, after: Vec<Rule>) -> Vec<RuleChange> {
    let mut pairs: BTreeMap<String, RuleChange> = BTreeMap::new();
    for rule in before {
        pairs.insert(rule.r#ref.clone(), RuleChange { before: Some(rule), after: None });
    }
    for rule in after {
        let pair = pairs.entry(rule.r#ref.clone());
        pair.or_insert(RuleChange { before: None, after: None }).after = Some(rule);
    }
    pairs.into_values().filter(differs).collect()
}

fn differs(change: &RuleChange) -> bool {
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => *before != Rule { updated: before.updated, ..after.clone() },
        _ => true,
    }
}

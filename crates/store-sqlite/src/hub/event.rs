//! Events and what they lead to. Event, enforcements and executions are stored together or not at all.

use attune_model::rows::{Event, Trigger};
use attune_model::{EnforcementId, EventId, IdentityId};
use attune_store::{
    Decide, Enforced, EventSource, Intake, NewEnforcement, NewEvent, NewExecution, RuleTarget, StoreError,
};
use sqlx::sqlite::SqliteConnection;

use super::execution;
use crate::columns::{Columns, json, micros};
use crate::error::During;
use crate::worker::put_secret;
use crate::{now, rows};

pub(super) async fn take(
    unit: &mut SqliteConnection,
    source: EventSource<'_>,
    decide: &Decide<'_>,
    operation: &str,
) -> Result<Intake, StoreError> {
    let (event, trigger) = match source {
        EventSource::New(new) => {
            let Some(trigger) = trigger_of(unit, None, &new.trigger_ref, operation).await? else {
                return Ok(Intake::UnknownTrigger);
            };
            let event = insert(unit, new, &trigger, operation).await?;
            let lost = new.rule.is_some() && event.rule.is_none();
            (event, Some(trigger).filter(|_| !lost))
        }
        EventSource::Stored(id) => {
            let Some(event) = stored(unit, id, operation).await? else {
                return Ok(Intake::UnknownEvent);
            };
            let trigger = trigger_of(unit, event.trigger.map(|id| id.0), &event.trigger_ref, operation).await?;
            // The one rule that the event was meant for was removed since.
            let lost = event.rule_ref.is_some() && event.rule.is_none();
            (event, trigger.filter(|_| !lost))
        }
    };
    let targets = match trigger {
        Some(trigger) if trigger.enabled => reached(unit, &event, &trigger, operation).await?,
        _ => Vec::new(),
    };
    let mut enforced = Vec::new();
    for new in decide(&event, &targets) {
        enforced.extend(enforce(unit, &event, new, operation).await?);
    }
    Ok(Intake::Taken { event: Box::new(event), enforced })
}

async fn trigger_of(
    unit: &mut SqliteConnection,
    id: Option<i64>,
    r#ref: &str,
    operation: &str,
) -> Result<Option<Trigger>, StoreError> {
    let row = sqlx::query(r#"SELECT * FROM "trigger" WHERE id = ?1 OR (?1 IS NULL AND ref = ?2)"#)
        .bind(id)
        .bind(r#ref)
        .fetch_optional(unit)
        .await
        .during(|| operation.to_owned())?;
    row.map(|row| rows::trigger(&row)).transpose()
}

async fn stored(unit: &mut SqliteConnection, id: EventId, operation: &str) -> Result<Option<Event>, StoreError> {
    let row = sqlx::query("SELECT * FROM event WHERE id = ?1")
        .bind(id.0)
        .fetch_optional(unit)
        .await
        .during(|| operation.to_owned())?;
    row.map(|row| rows::event(&row)).transpose()
}

/// A rule that does not exist or has another trigger is not written, neither its id nor its ref.
async fn insert(
    unit: &mut SqliteConnection,
    new: &NewEvent,
    trigger: &Trigger,
    operation: &str,
) -> Result<Event, StoreError> {
    let row = sqlx::query(
        r#"
        INSERT INTO event ("trigger", trigger_ref, config, payload, source, source_ref, rule, rule_ref, created)
        VALUES (?1, ?2, ?3, ?4, (SELECT id FROM sensor WHERE ref = ?5), ?5,
                (SELECT id FROM rule WHERE id = ?6 AND "trigger" = ?1),
                (SELECT ref FROM rule WHERE id = ?6 AND "trigger" = ?1), ?7)
        RETURNING *
        "#,
    )
    .bind(trigger.id.0)
    .bind(&trigger.r#ref)
    .bind(new.config.as_ref().map(json))
    .bind(new.payload.as_ref().map(json))
    .bind(&new.source_ref)
    .bind(new.rule.map(|id| id.0))
    .bind(micros(now()))
    .fetch_one(unit)
    .await
    .during(|| operation.to_owned())?;
    rows::event(&row)
}

/// The enabled rules of the trigger in row order, or the one rule that the event is meant for.
async fn reached(
    unit: &mut SqliteConnection,
    event: &Event,
    trigger: &Trigger,
    operation: &str,
) -> Result<Vec<RuleTarget>, StoreError> {
    let during = || operation.to_owned();
    let found =
        sqlx::query(r#"SELECT * FROM rule WHERE "trigger" = ?1 AND enabled AND (?2 IS NULL OR id = ?2) ORDER BY id"#)
            .bind(trigger.id.0)
            .bind(event.rule.map(|id| id.0))
            .fetch_all(&mut *unit)
            .await
            .during(during)?;
    let mut targets = Vec::with_capacity(found.len());
    for row in &found {
        let rule = rows::rule(row)?;
        let pack = sqlx::query("SELECT * FROM pack WHERE id = ?1")
            .bind(rule.pack.0)
            .fetch_one(&mut *unit)
            .await
            .during(during)?;
        let action = sqlx::query("SELECT * FROM action WHERE id = ?1")
            .bind(rule.action.map(|id| id.0))
            .fetch_optional(&mut *unit)
            .await
            .during(during)?;
        targets.push(RuleTarget {
            rule,
            pack: rows::pack(&pack)?,
            action: action.map(|row| rows::action(&row)).transpose()?,
            owner: Columns::new("rule", row).get::<Option<i64>>("owner_identity")?.map(IdentityId),
        });
    }
    Ok(targets)
}

/// None when this rule has an enforcement for this event already.
async fn enforce(
    unit: &mut SqliteConnection,
    event: &Event,
    new: NewEnforcement,
    operation: &str,
) -> Result<Option<Enforced>, StoreError> {
    let during = || operation.to_owned();
    let now = micros(now());
    let inserted: Option<i64> = sqlx::query_scalar(
        r"
        INSERT INTO enforcement (rule, rule_ref, trigger_ref, config, event, status, payload, conditions, created,
                                 resolved_at)
        VALUES (?1, ?2, ?3, ?4, ?5, iif(?6, 'processed', 'disabled'), ?7, ?8, ?9, iif(?6, ?9, NULL))
        ON CONFLICT (rule, event) DO NOTHING
        RETURNING id
        ",
    )
    .bind(new.rule.0)
    .bind(&new.rule_ref)
    .bind(&event.trigger_ref)
    .bind(json(&new.config))
    .bind(event.id.0)
    .bind(new.execution.is_some())
    .bind(json(&new.payload))
    .bind(json(&new.conditions))
    .bind(now)
    .fetch_optional(&mut *unit)
    .await
    .during(during)?;
    let Some(id) = inserted.map(EnforcementId) else {
        return Ok(None);
    };
    for secret in &new.secrets {
        put_secret(unit, "enforcement_config", id.0, secret).await.during(during)?;
    }
    let execution = match new.execution {
        Some(execution) => {
            let execution = NewExecution { config: new.config, secrets: new.secrets, ..execution };
            Some(execution::insert(unit, &execution, Some(id), operation).await?)
        }
        None => None,
    };
    Ok(Some(Enforced { id, rule: new.rule, rule_ref: new.rule_ref, payload: new.payload, execution }))
}

//! Events and what they lead to. Event, enforcements and executions are stored together or not at all.

use attune_model::rows::{Event, Trigger};
use attune_model::{EnforcementId, EventId, IdentityId};
use attune_store::{
    Decide, Enforced, EventSource, Intake, NewEnforcement, NewEvent, NewExecution, RuleTarget, StoreError,
};
use sqlx::Row as _;

use super::execution;
use crate::columns::{document, json};
use crate::error::During as _;
use crate::pool::Unit;
use crate::rows;

pub(super) async fn take(
    unit: &mut Unit,
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
    unit: &mut Unit,
    id: Option<i64>,
    r#ref: &str,
    operation: &str,
) -> Result<Option<Trigger>, StoreError> {
    let query = sqlx::query(r#"SELECT to_json("trigger".*) FROM "trigger" WHERE id = $1 OR ($1 IS NULL AND ref = $2)"#)
        .bind(id)
        .bind(r#ref);
    unit.first(query, rows::trigger, || operation.to_owned()).await
}

async fn stored(unit: &mut Unit, id: EventId, operation: &str) -> Result<Option<Event>, StoreError> {
    let query = sqlx::query("SELECT to_json(event.*) FROM event WHERE id = $1").bind(id.0);
    unit.first(query, rows::event, || operation.to_owned()).await
}

/// A rule that does not exist or has another trigger is not written, neither its id nor its ref.
async fn insert(unit: &mut Unit, new: &NewEvent, trigger: &Trigger, operation: &str) -> Result<Event, StoreError> {
    let query = sqlx::query(
        r#"
        INSERT INTO event ("trigger", trigger_ref, config, payload, source, source_ref, rule, rule_ref)
        VALUES ($1, $2, $3::jsonb, $4::jsonb, (SELECT id FROM sensor WHERE ref = $5), $5,
                (SELECT id FROM rule WHERE id = $6 AND "trigger" = $1),
                (SELECT ref FROM rule WHERE id = $6 AND "trigger" = $1))
        RETURNING to_json(event.*)
        "#,
    )
    .bind(trigger.id.0)
    .bind(&trigger.r#ref)
    .bind(new.config.as_ref().map(json))
    .bind(new.payload.as_ref().map(json))
    .bind(&new.source_ref)
    .bind(new.rule.map(|id| id.0));
    let event = unit.first(query, rows::event, || operation.to_owned()).await?;
    event.ok_or(sqlx::Error::RowNotFound).during(|| operation.to_owned())
}

/// The enabled rules of the trigger in row order, or the one rule that the event is meant for.
async fn reached(
    unit: &mut Unit,
    event: &Event,
    trigger: &Trigger,
    operation: &str,
) -> Result<Vec<RuleTarget>, StoreError> {
    let during = || operation.to_owned();
    let query = sqlx::query(
        r#"
        SELECT to_json(rule.*) AS rule, to_json(pack.*) AS pack, to_json(action.*) AS action, rule.owner_identity
        FROM rule JOIN pack ON pack.id = rule.pack LEFT JOIN action ON action.id = rule.action
        WHERE rule."trigger" = $1 AND rule.enabled AND ($2 IS NULL OR rule.id = $2)
        ORDER BY rule.id
        "#,
    )
    .bind(trigger.id.0)
    .bind(event.rule.map(|id| id.0));
    let mut targets = Vec::new();
    for row in unit.all(query).await.during(during)? {
        let part = |column| document(&row, column).during(during);
        let whole = |column| part(column)?.ok_or(sqlx::Error::RowNotFound).during(during);
        targets.push(RuleTarget {
            rule: rows::rule(whole("rule")?)?,
            pack: rows::pack(whole("pack")?)?,
            action: part("action")?.map(rows::action).transpose()?,
            owner: row.try_get::<Option<i64>, _>("owner_identity").during(during)?.map(IdentityId),
        });
    }
    Ok(targets)
}

/// None when this rule has an enforcement for this event already.
async fn enforce(
    unit: &mut Unit,
    event: &Event,
    new: NewEnforcement,
    operation: &str,
) -> Result<Option<Enforced>, StoreError> {
    let during = || operation.to_owned();
    let query = sqlx::query(
        r"
        INSERT INTO enforcement (rule, rule_ref, trigger_ref, config, event, status, payload, conditions, resolved_at)
        VALUES ($1, $2, $3, $4::jsonb, $5,
                CASE WHEN $6 THEN 'processed' ELSE 'disabled' END::enforcement_status_enum, $7::jsonb, $8::jsonb,
                CASE WHEN $6 THEN now() END)
        ON CONFLICT DO NOTHING
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
    .bind(json(&new.conditions));
    let Some(row) = unit.optional(query).await.during(during)? else {
        return Ok(None);
    };
    let id = row.try_get(0).map(EnforcementId).during(during)?;
    execution::put_secrets(unit, "enforcement_config", id.0, &new.secrets).await.during(during)?;
    let execution = match new.execution {
        Some(execution) => {
            let execution = NewExecution { config: new.config, secrets: new.secrets, ..execution };
            Some(execution::insert(unit, &execution, Some(id), operation).await?)
        }
        None => None,
    };
    Ok(Some(Enforced { id, rule: new.rule, rule_ref: new.rule_ref, payload: new.payload, execution }))
}

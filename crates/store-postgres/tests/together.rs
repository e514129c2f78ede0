//! Claims, ends and what tokens are made of: they share a statement, and do not share each other's trouble.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use attune_model::status::{ExecutionStatus, WorkerRole};
use attune_model::{ExecutionId, IdentityId};
use attune_store::{Claim, Fence, StoreError, TokenSubject};
use attune_store_postgres::PostgresStore;
use attune_testkit::database::TestDatabase;
use attune_testkit::store_contract::seed::{World, worker};
use futures_util::future::{join, join_all};
use serde_json::json;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

async fn store_on(database: &TestDatabase) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::connect(&database.config()).await.unwrap())
}

async fn scheduled(world: &World, count: usize) -> Vec<ExecutionId> {
    let mut executions = Vec::new();
    for _ in 0..count {
        executions.push(world.scheduled().await.id);
    }
    executions
}

async fn claim_all(world: &World, executions: &[ExecutionId]) -> Vec<Fence> {
    let claims = executions.iter().map(|&execution| world.store.claim_execution(execution, world.worker.id, None));
    let fence = |claim| match claim {
        Ok(Claim::Claimed(claimed)) => claimed.fence,
        other => panic!("{other:?}"),
    };
    join_all(claims).await.into_iter().map(fence).collect()
}

/// The transactions in which these rows were written last.
async fn writers(database: &TestDatabase) -> i64 {
    database.number("SELECT count(DISTINCT xmin::text) FROM execution").await
}

/// Somebody who holds the row of an execution until the connection is closed.
async fn hold(database: &TestDatabase, execution: ExecutionId) -> PgConnection {
    let mut holder = database.connection().await;
    sqlx::raw_sql("BEGIN").execute(&mut holder).await.unwrap();
    let held = sqlx::query("SELECT id FROM execution WHERE id = $1 FOR UPDATE").bind(execution.0);
    held.fetch_one(&mut holder).await.unwrap();
    holder
}

#[tokio::test]
async fn what_comes_at_once_is_claimed_and_ended_by_one_statement_each() {
    let database = TestDatabase::new().await;
    let world = World::of(store_on(&database).await as _).await;
    let executions = scheduled(&world, 12).await;
    let fences = claim_all(&world, &executions).await;
    assert_eq!(writers(&database).await, 1, "transactions that claimed");
    assert_eq!(fences.iter().map(|fence| fence.execution).collect::<Vec<_>>(), executions);

    let ends = fences.iter().enumerate().map(async |(at, fence)| {
        let status = if at % 2 == 0 { ExecutionStatus::Completed } else { ExecutionStatus::Failed };
        let ended = world.store.finish_execution(fence, status, &json!({"at": at}), &[]).await.unwrap();
        assert_eq!(ended, Some(status));
    });
    join_all(ends).await;
    assert_eq!(writers(&database).await, 1, "transactions that ended");
    for (at, execution) in executions.into_iter().enumerate() {
        let row = world.row(execution).await;
        assert_eq!(row.result, Some(json!({"at": at})), "to each its own result");
        assert_eq!(row.status, [ExecutionStatus::Completed, ExecutionStatus::Failed][at % 2]);
    }
}

#[tokio::test]
async fn a_row_that_somebody_holds_holds_up_no_other() {
    let database = TestDatabase::new().await;
    let world = World::of(store_on(&database).await as _).await;
    let executions = scheduled(&world, 4).await;
    let (held, free) = executions.split_first().unwrap();

    let holder = hold(&database, *held).await;
    let mut waiting = Box::pin(world.store.claim_execution(*held, world.worker.id, None));
    let others = tokio::select! {
        biased;
        claim = &mut waiting => panic!("somebody holds it: {claim:?}"),
        others = claim_all(&world, free) => others,
    };
    holder.close().await.unwrap();
    let Claim::Claimed(claimed) = waiting.await.unwrap() else { panic!("it is free now") };

    let holder = hold(&database, *held).await;
    let (status, result) = (ExecutionStatus::Completed, json!({}));
    let mut waiting = Box::pin(world.store.finish_execution(&claimed.fence, status, &result, &[]));
    let ends = join_all(others.iter().map(|fence| world.store.finish_execution(fence, status, &result, &[])));
    let ended = tokio::select! {
        biased;
        ended = &mut waiting => panic!("somebody holds it: {ended:?}"),
        ended = ends => ended,
    };
    assert!(ended.into_iter().all(|ended| ended.unwrap() == Some(status)));
    holder.close().await.unwrap();
    assert_eq!(waiting.await.unwrap(), Some(status));
}

#[tokio::test]
async fn each_gets_the_answer_that_is_true_of_its_own_row() {
    let database = TestDatabase::new().await;
    let world = World::of(store_on(&database).await as _).await;
    let other = world.store.register_worker(&worker("other", WorkerRole::Action)).await.unwrap();
    let [ours, twice, elsewhere, cancelled] = scheduled(&world, 4).await.try_into().unwrap();
    let gone = ExecutionId(i64::MAX);
    world.schedule(world.requested().await.id, other.id).await;
    database.execute(&format!("UPDATE execution SET worker = {} WHERE id = {elsewhere}", other.id)).await;
    database.execute(&format!("UPDATE execution SET status = 'canceling' WHERE id = {cancelled}")).await;
    let asked = [ours, twice, twice, elsewhere, cancelled, gone];
    let claims = asked.map(|execution| world.store.claim_execution(execution, world.worker.id, None));
    // A worker of another name asks at the same time.
    let (claims, theirs) = join(join_all(claims), world.store.claim_execution(elsewhere, other.id, None)).await;
    let claims: Vec<Claim> = claims.into_iter().map(Result::unwrap).collect();
    let seen: Vec<String> = claims
        .iter()
        .map(|claim| match claim {
            Claim::Claimed(claimed) => format!("claimed {}", claimed.execution.id),
            Claim::Cancelled(execution) => format!("cancelled {}", execution.id),
            Claim::NotOurs { status } => format!("not ours: {status:?}"),
        })
        .collect();
    assert_eq!(seen[0], format!("claimed {ours}"));
    let running = format!("not ours: {:?}", Some(ExecutionStatus::Running));
    let mut pair = [seen[1].clone(), seen[2].clone()];
    pair.sort();
    assert_eq!(pair, [format!("claimed {twice}"), running], "of two claims of one execution one is granted");
    assert!(seen[3].starts_with("not ours: Some("), "{}", seen[3]);
    assert_eq!(seen[4], format!("cancelled {cancelled}"));
    assert_eq!(seen[5], "not ours: None");
    assert!(matches!(theirs.unwrap(), Claim::Claimed(_)));
}

#[tokio::test]
async fn an_end_that_the_server_refuses_is_refused_alone() {
    let database = TestDatabase::new().await;
    let world = World::of(store_on(&database).await as _).await;
    let executions = scheduled(&world, 3).await;
    let fences = claim_all(&world, &executions).await;
    let stale = Fence { started_at: fences[2].started_at - chrono::TimeDelta::seconds(1), ..fences[2] };
    database.execute("ALTER TABLE execution ADD CHECK (NOT coalesce(result, '{}') ? 'never')").await;
    let ends = [(fences[0], json!({"never": 1})), (fences[1], json!({"fine": true})), (stale, json!({}))];
    let end =
        async |(fence, result)| world.store.finish_execution(&fence, ExecutionStatus::Completed, &result, &[]).await;
    let [bad, good, old] = join_all(ends.map(end)).await.try_into().unwrap();
    bad.unwrap_err();
    assert_eq!(good.unwrap(), Some(ExecutionStatus::Completed));
    assert_eq!(old.unwrap(), None, "a fence of an earlier claim");
    assert_eq!(world.row(executions[1]).await.result, Some(json!({"fine": true})));
    assert_eq!(world.row(executions[2]).await.status, ExecutionStatus::Running);
}

/// Sensors `demo.s<n>`, of which each has `n % 3` triggers and every second one a login, and what their tokens are made of.
async fn sensors(database: &TestDatabase, world: &World, count: usize) -> Vec<(String, Option<TokenSubject>)> {
    let (mut sensors, mut script) = (Vec::new(), Vec::new());
    for n in 0..count {
        let sensor_ref = format!("demo.s{n}");
        script.push(format!(
            "INSERT INTO sensor (ref, label, entrypoint, runtime, runtime_ref, enabled)
             SELECT '{sensor_ref}', label, entrypoint, runtime, runtime_ref, enabled
             FROM sensor WHERE ref = 'demo.clock';"
        ));
        let mut trigger_refs = Vec::new();
        // A language may sort them the other way round.
        for name in ["b_a", "b-b"].iter().take(n % 3) {
            let trigger_ref = sensor_ref.clone() + name;
            script.push(format!(
                r#"INSERT INTO "trigger" (ref, label, sensor)
                   SELECT '{trigger_ref}', label, id FROM sensor WHERE ref = '{sensor_ref}';"#
            ));
            trigger_refs.push(trigger_ref);
        }
        trigger_refs.sort();
        let identity: Option<IdentityId> = match n % 2 {
            0 => None,
            _ => Some(world.store.identity(&TokenSubject::login(&sensor_ref)).await.unwrap()),
        };
        sensors.push((sensor_ref, Some(TokenSubject { trigger_refs, identity })));
    }
    database.execute(&script.concat()).await;
    sensors
}

#[tokio::test]
async fn each_token_is_made_of_what_is_true_of_its_own_sensor() {
    let database = TestDatabase::new().await;
    let world = World::of(store_on(&database).await as _).await;
    // More than one statement takes.
    let mut wanted = sensors(&database, &world, 70).await;
    wanted.insert(9, ("demo.none".to_owned(), None));
    wanted.insert(12, (String::new(), None));
    wanted.push(wanted[3].clone());
    let asked = async |sensor_ref: String| {
        let subject = world.store.token_subject(&sensor_ref).await.unwrap();
        (sensor_ref, subject)
    };
    let found = join_all(wanted.iter().map(|(sensor_ref, _)| asked(sensor_ref.clone()))).await;
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn a_ref_that_the_server_refuses_is_refused_alone() {
    let database = TestDatabase::new().await;
    let world = World::of(store_on(&database).await as _).await;
    let refs = ["demo.clock", "demo.\0", "demo.none"];
    let subjects = join_all(refs.map(|sensor_ref| world.store.token_subject(sensor_ref))).await;
    let [clock, refused, none] = subjects.try_into().unwrap();
    assert_eq!(clock.unwrap().unwrap().trigger_refs, ["demo.tick", "demo.tock"]);
    let error = refused.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
    assert_eq!(none.unwrap(), None);
}

#[tokio::test]
async fn those_who_ask_together_are_told_together_that_the_server_is_gone() {
    let database = TestDatabase::new().await;
    let store = store_on(&database).await;
    let world = World::of(Arc::clone(&store) as _).await;
    store.close().await;
    for subject in join_all((0..3).map(|_| world.store.token_subject("demo.clock"))).await {
        let error = subject.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    }
}

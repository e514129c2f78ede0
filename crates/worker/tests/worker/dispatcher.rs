//! Whole workers: SQLite, the in-process bus, real children.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use attune_model::message::{MessageType, PackDeleted, PackRegistered};
use attune_model::status::{ExecutionStatus, WorkerStatus};
use attune_model::{ExecutionId, PackId};
use attune_store::PageRequest;
use attune_testkit::eventually;
use serde_json::{Value, json};

use crate::support;
use crate::support::rig::{Backend, Rig};
use crate::support::{is_alive, text};

/// An action that waits for the file `go` and leaves the file `started`.
fn waiting() -> (&'static str, String) {
    ("wait", "touch \"$OUT/started\"; while [ ! -e \"$OUT/go\" ]; do sleep 0.01; done; echo done".to_owned())
}

/// Rigs whose actions find their folder in `OUT`.
async fn rig(on: Backend, actions: &[(&str, String)]) -> (Rig, attune_worker::WorkerConfig) {
    let rig = Rig::new(on, actions).await;
    let mut config = rig.config();
    config.executor.passed_environment.push(("OUT".into(), rig.place.path(".").into()));
    (rig, config)
}

async fn worker_status(rig: &Rig) -> WorkerStatus {
    let page = rig.store.workers(PageRequest { page: 1, page_size: 10 }).await.unwrap();
    page.items[0].status
}

async fn an_execution_is_claimed_run_stored_and_announced_in_that_order(on: Backend) {
    let (mut rig, config) = rig(on, &[("ok", "echo fine".to_owned()), ("bad", "echo no >&2; exit 3".to_owned())]).await;
    let life = rig.live_with(config).await;
    for (action, status, word) in
        [("ok", ExecutionStatus::Completed, "Completed"), ("bad", ExecutionStatus::Failed, "Failed")]
    {
        let id = rig.submit(life.id, action).await;
        let told = rig.told(id).await;
        let row = rig.row(id).await;
        assert_eq!(row.status, status);
        assert!(row.started_at.is_some());
        let kinds: Vec<(MessageType, Value, Value)> = told
            .iter()
            .map(|message| {
                let payload = &message.payload;
                (message.message_type, payload["previous_status"].clone(), payload["new_status"].clone())
            })
            .collect();
        assert_eq!(
            kinds,
            [
                (MessageType::ExecutionStatusChanged, json!("scheduled"), json!("running")),
                (MessageType::ExecutionStatusChanged, json!(status), json!(status)),
                (MessageType::ExecutionCompleted, Value::Null, Value::Null),
            ]
        );
        let completed = &told[2].payload;
        assert_eq!(completed["status"], word);
        assert_eq!(completed["action_id"], row.action.unwrap().0);
        assert_eq!(Some(&completed["result"]), row.result.as_ref());
        assert!(told.iter().all(|message| message.headers.source_service.as_deref() == Some("worker")));
    }
    life.finish().await;
}

async fn the_row_says_what_the_worker_can_and_whether_it_works(on: Backend) {
    let (rig, mut config) = rig(on, &[waiting()]).await;
    config.capabilities.clone_from(json!({"agent_mode": true, "worker_version": "mine"}).as_object().unwrap());
    let life = rig.live_with(config).await;
    let page = rig.store.workers(PageRequest { page: 1, page_size: 10 }).await.unwrap();
    let row = &page.items[0];
    assert_eq!((row.id, row.status, row.host.as_deref()), (life.id, WorkerStatus::Active, Some("here")));
    assert_eq!(row.capabilities["max_concurrent_executions"], 4);
    assert_eq!((&row.capabilities["agent_mode"], &row.capabilities["worker_version"]), (&json!(true), &json!("mine")));
    let first = row.last_heartbeat;
    eventually("a heartbeat restores the status that somebody took", async || {
        rig.store.set_worker_status(life.id, WorkerStatus::Inactive).await.unwrap();
        let page = rig.store.workers(PageRequest { page: 1, page_size: 10 }).await.unwrap();
        (page.items[0].status == WorkerStatus::Active && page.items[0].last_heartbeat > first).then_some(())
    })
    .await;
    life.finish().await;
    assert_eq!(worker_status(&rig).await, WorkerStatus::Inactive);
}

async fn a_dispatch_that_comes_again_and_again_runs_once(on: Backend) {
    let (mut rig, config) = rig(on, &[("count", "echo run >> \"$OUT/runs\"".to_owned())]).await;
    let life = rig.live_with(config).await;
    let execution = rig.scheduled(life.id, "count").await;
    for _ in 0..5 {
        rig.dispatch(&execution).await;
    }
    rig.told(execution.id).await;
    rig.dispatch(&execution).await;
    let other = rig.submit(life.id, "count").await;
    rig.told(other).await;
    assert_eq!(fs::read_to_string(rig.place.path("runs")).unwrap(), "run\nrun\n");
    life.finish().await;
}

async fn a_cancel_that_overtakes_its_dispatch_is_obeyed(on: Backend) {
    let (mut rig, config) = rig(on, &[waiting(), ("mark", "touch \"$OUT/marked\"".to_owned())]).await;
    let life = rig.live_with(config).await;
    let execution = rig.scheduled(life.id, "mark").await;
    let bystander = rig.submit(life.id, "wait").await;
    rig.file("started").await;
    rig.send_cancel(life.id, execution.id).await;
    // Cancels are taken in order: when this one has shown, the other was taken.
    rig.send_cancel(life.id, bystander).await;
    rig.told(bystander).await;
    rig.dispatch(&execution).await;
    let told = rig.told(execution.id).await;
    let row = rig.row(execution.id).await;
    assert_eq!(row.status, ExecutionStatus::Cancelled);
    assert_eq!(text(row.result.as_ref().unwrap(), "error"), "Execution cancelled by user");
    assert_eq!(told.last().unwrap().payload["status"], "Cancelled");
    assert!(!rig.place.path("marked").exists());
    life.finish().await;
}

async fn a_running_execution_is_cancelled_with_everything_it_started(on: Backend) {
    let action = ("tree", "sleep 600 & echo $! > \"$OUT/pid\"; mv \"$OUT/pid\" \"$OUT/started\"; wait".to_owned());
    let (mut rig, config) = rig(on, &[action]).await;
    let life = rig.live_with(config).await;
    let id = rig.submit(life.id, "tree").await;
    let pid = fs::read_to_string(rig.file("started").await).unwrap();
    rig.store.cancel_execution(id, &json!({})).await.unwrap();
    rig.send_cancel(life.id, id).await;
    let told = rig.told(id).await;
    let row = rig.row(id).await;
    assert_eq!(row.status, ExecutionStatus::Cancelled);
    assert_eq!(row.result.unwrap()["cancelled"], true);
    assert_eq!(told.last().unwrap().payload["status"], "Cancelled");
    eventually("the grandchild is gone", async || (!is_alive(&pid)).then_some(())).await;
    life.finish().await;
}

async fn an_execution_that_waits_for_a_slot_can_be_cancelled_and_no_more_run_than_there_are_slots(on: Backend) {
    let (mut rig, mut config) = rig(on, &[waiting(), ("mark", "touch \"$OUT/marked\"".to_owned())]).await;
    config.max_concurrent_tasks = 2;
    let life = rig.live_with(config).await;
    let first = rig.submit(life.id, "wait").await;
    let other = rig.submit(life.id, "wait").await;
    rig.file("started").await;
    eventually("both run", async || {
        (rig.row(first).await.status == ExecutionStatus::Running
            && rig.row(other).await.status == ExecutionStatus::Running)
            .then_some(())
    })
    .await;
    let second = rig.submit(life.id, "mark").await;
    let third = rig.submit(life.id, "mark").await;
    rig.store.cancel_execution(second, &json!({"error": "Cancelled by user before execution started"})).await.unwrap();
    rig.send_cancel(life.id, third).await;
    assert_eq!(rig.row(third).await.status, ExecutionStatus::Scheduled, "both slots are taken");
    // Cancels are taken in order: when this one has shown, the other was taken.
    rig.send_cancel(life.id, other).await;
    rig.told(other).await;
    rig.told(third).await;
    fs::write(rig.place.path("go"), "").unwrap();
    rig.told(first).await;
    assert_eq!(rig.row(third).await.status, ExecutionStatus::Cancelled);
    let second = rig.row(second).await;
    assert_eq!(text(second.result.as_ref().unwrap(), "error"), "Cancelled by user before execution started");
    assert!(!rig.place.path("marked").exists());
    life.finish().await;
}

async fn a_cancel_is_obeyed_while_an_environment_is_built(on: Backend) {
    let (mut rig, config) = rig(on, &[("slow", "echo never".to_owned())]).await;
    let create = "touch \"$1/building\"; sleep 600";
    let environment = json!({
        "env_type": "virtualenv",
        "create_command": ["/bin/sh", "-c", create, "sh", rig.place.path(".")],
    });
    let with_environment = support::rig::runtime(
        "shell",
        json!({"interpreter": {"binary": "/bin/sh", "file_extension": ".sh"}, "environment": environment}),
    );
    let pack = attune_store::NewPack {
        r#ref: "demo".to_owned(),
        label: "Demo".to_owned(),
        version: "1.0.1".to_owned(),
        conf_schema: json!({}),
        config: json!({}),
        meta: json!({}),
        runtimes: vec![with_environment],
        actions: vec![support::rig::new_action("slow")],
        ..attune_store::NewPack::default()
    };
    rig.store.upsert_pack(&pack).await.unwrap();
    let life = rig.live_with(config).await;
    let id = rig.submit(life.id, "slow").await;
    rig.file("building").await;
    rig.send_cancel(life.id, id).await;
    rig.told(id).await;
    let row = rig.row(id).await;
    assert_eq!(row.status, ExecutionStatus::Cancelled, "{:?}", row.result);
    life.finish().await;
}

async fn output_can_be_watched_and_ends_as_versions_of_the_actions_logs(on: Backend) {
    let code =
        "echo out; echo err >&2; touch \"$OUT/started\"; while [ ! -e \"$OUT/go\" ]; do sleep 0.01; done; echo more";
    let (mut rig, config) = rig(on, &[("talk", code.to_owned()), ("quiet", "exit 0".to_owned())]).await;
    let life = rig.live_with(config).await;
    let id = rig.submit(life.id, "talk").await;
    rig.file("started").await;
    let log = rig.place.path(&format!("artifacts/execution_{id}/stdout.log"));
    eventually("the live log", async || (fs::read(&log).ok()? == b"out\n").then_some(())).await;
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o664);
    assert_eq!(log.parent().unwrap().metadata().unwrap().permissions().mode() & 0o7777, 0o2775);
    fs::write(rig.place.path("go"), "").unwrap();
    rig.told(id).await;
    let row = rig.row(id).await;
    let stderr_log = rig.place.path("artifacts/demo/talk/stderr/log/v1.txt");
    assert_eq!(text(row.result.as_ref().unwrap(), "stderr_log"), stderr_log.to_str().unwrap());
    assert_eq!(fs::read(&stderr_log).unwrap(), b"err\n");
    assert_eq!(fs::read(rig.place.path("artifacts/demo/talk/stdout/log/v1.txt")).unwrap(), b"out\nmore\n");
    assert!(!log.parent().unwrap().exists(), "nothing stays behind");
    let again = rig.submit(life.id, "talk").await;
    rig.told(again).await;
    assert!(rig.place.path("artifacts/demo/talk/stdout/log/v2.txt").exists());
    let quiet = rig.submit(life.id, "quiet").await;
    rig.told(quiet).await;
    assert!(!rig.place.path("artifacts/demo/quiet").exists(), "no output, no log");
    life.finish().await;
}

async fn messages_that_make_no_sense_harm_nothing(on: Backend) {
    let (mut rig, config) = rig(on, &[("ok", "echo fine".to_owned())]).await;
    let life = rig.live_with(config).await;
    let mut execution = rig.scheduled(life.id, "ok").await;
    execution.id = ExecutionId(999_999);
    rig.dispatch(&execution).await;
    let registered = PackRegistered {
        pack_id: PackId(1),
        pack_ref: "demo".to_owned(),
        version: "1.0.0".to_owned(),
        runtime_names: vec!["shell".to_owned()],
    };
    rig.publish(&registered).await;
    let mut wrong = attune_bus::Outgoing::new(&registered, "test", chrono::Utc::now()).unwrap();
    wrong.envelope.payload = json!({"pack_id": "seven"});
    let mut wrong_dispatch = wrong.clone();
    wrong_dispatch.exchange = attune_model::message::Exchange::Executions;
    wrong_dispatch.routing_key = format!("execution.dispatch.worker.{}", life.id);
    let mut wrong_cancel = wrong_dispatch.clone();
    wrong_cancel.routing_key = format!("execution.cancel.worker.{}", life.id);
    rig.bus.publish(&[wrong, wrong_dispatch, wrong_cancel]).await.unwrap();
    let id = rig.submit(life.id, "ok").await;
    rig.told(id).await;
    assert_eq!(rig.row(id).await.status, ExecutionStatus::Completed);
    life.finish().await;
}

/// The queue belongs to this worker alone: what comes there is about a row of its own.
async fn the_row_of_a_dispatch_that_cannot_be_read_is_found(on: Backend) {
    let (mut rig, config) = rig(on, &[("ok", "echo fine".to_owned())]).await;
    let life = rig.live_with(config).await;
    let execution = rig.scheduled(life.id, "ok").await;
    let registered = PackDeleted { pack_id: PackId(1), pack_ref: "demo".to_owned() };
    let mut wrong = attune_bus::Outgoing::new(&registered, "test", chrono::Utc::now()).unwrap();
    wrong.exchange = attune_model::message::Exchange::Executions;
    wrong.routing_key = format!("execution.dispatch.worker.{}", life.id);
    rig.bus.publish(&[wrong]).await.unwrap();
    rig.told(execution.id).await;
    assert_eq!(rig.row(execution.id).await.status, ExecutionStatus::Completed);
    life.finish().await;
}

async fn a_deleted_pack_loses_its_environments(on: Backend) {
    let (rig, config) = rig(on, &[waiting()]).await;
    let life = rig.live_with(config).await;
    let (own, other) = (rig.place.path("envs/demo/python"), rig.place.path("envs/other/python"));
    fs::create_dir_all(&own).unwrap();
    fs::create_dir_all(&other).unwrap();
    rig.publish(&PackDeleted { pack_id: PackId(1), pack_ref: "demo".to_owned() }).await;
    eventually("the environments are gone", async || (!rig.place.path("envs/demo").exists()).then_some(())).await;
    assert!(other.exists());
    life.finish().await;
}

async fn secrets_are_in_no_row_no_log_and_no_message(on: Backend) {
    let code = "read -r line; echo \"$line\"; echo \"$line\" >&2; env; exit 1";
    let (mut rig, config) = rig(on, &[("leak", code.to_owned())]).await;
    let key = support::key();
    rig.store
        .put_key(&attune_store::NewKey {
            r#ref: "system.password".to_owned(),
            owner: attune_store::KeyOwner::System,
            name: "password".to_owned(),
            encrypted_value: support::sealed(&json!("hunter22")),
            encryption_key_hash: key.hash().to_owned(),
        })
        .await
        .unwrap();
    let life = rig.live_with(config).await;
    let id = rig.submit(life.id, "leak").await;
    let told = serde_json::to_string(&rig.told(id).await).unwrap();
    let row = rig.row(id).await;
    assert_eq!(row.status, ExecutionStatus::Failed);
    let stored = serde_json::to_string(&row).unwrap();
    let logs = fs::read_to_string(rig.place.path("artifacts/demo/leak/stdout/log/v1.txt")).unwrap()
        + &fs::read_to_string(rig.place.path("artifacts/demo/leak/stderr/log/v1.txt")).unwrap();
    assert!(logs.contains("\"password\":\"[redacted]\""), "it had the secret: {logs}");
    for (what, kept) in [("row", stored), ("messages", told), ("logs", logs)] {
        assert!(!kept.contains("hunter22"), "{what}: {kept}");
        assert!(!kept.contains(support::KEY), "{what}: {kept}");
    }
    life.finish().await;
}

attune_testkit::tests_on_each! {
    embedded: Backend::Embedded, servers: Backend::Servers => [
        an_execution_is_claimed_run_stored_and_announced_in_that_order,
        the_row_says_what_the_worker_can_and_whether_it_works,
        a_dispatch_that_comes_again_and_again_runs_once,
        a_cancel_that_overtakes_its_dispatch_is_obeyed,
        a_running_execution_is_cancelled_with_everything_it_started,
        an_execution_that_waits_for_a_slot_can_be_cancelled_and_no_more_run_than_there_are_slots,
        a_cancel_is_obeyed_while_an_environment_is_built,
        output_can_be_watched_and_ends_as_versions_of_the_actions_logs,
        messages_that_make_no_sense_harm_nothing,
        the_row_of_a_dispatch_that_cannot_be_read_is_found,
        a_deleted_pack_loses_its_environments,
        secrets_are_in_no_row_no_log_and_no_message,
    ]
}

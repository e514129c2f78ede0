//! The agent's own row.

use attune_model::status::{WorkerRole, WorkerStatus, WorkerType};
use attune_model::{RuntimeId, RuntimeVersionId};
use attune_store::{DetectedRuntime, StoreError};
use serde_json::json;

use super::Lab;
use super::seed::{World, object, runtime, worker};

/// A restart under the same name keeps id and type, so that queues keep their names.
pub async fn a_worker_that_comes_back_keeps_its_row(lab: &dyn Lab) {
    let store = lab.store();
    let first = store.register_worker(&worker("runner", WorkerRole::Action)).await.unwrap();
    assert_eq!(first.worker_type, WorkerType::Local);
    assert_eq!(first.status, WorkerStatus::Active);
    store.set_worker_status(first.id, WorkerStatus::Inactive).await.unwrap();

    let mut again = worker("runner", WorkerRole::Action);
    again.worker_type = WorkerType::Container;
    again.host = Some("there".to_owned());
    again.capabilities = object(&json!({"z": 1, "a": 2}));
    let second = store.register_worker(&again).await.unwrap();
    assert_eq!(second.id, first.id);
    assert_eq!(second.worker_type, WorkerType::Local, "written on insert only");
    assert_eq!(second.host.as_deref(), Some("there"));
    assert_eq!(second.status, WorkerStatus::Active);
    assert_eq!(second.capabilities, again.capabilities);
    assert!(second.last_heartbeat >= first.last_heartbeat);
}

/// A cordon is an operator's word and survives a restart.
pub async fn a_worker_that_comes_back_stays_cordoned(lab: &dyn Lab) {
    let store = lab.store();
    assert!(!store.register_worker(&worker("runner", WorkerRole::Action)).await.unwrap().cordoned);
    lab.execute("UPDATE worker SET cordoned = TRUE, cordon_reason = 'repair' WHERE name = 'runner'").await;
    assert!(store.register_worker(&worker("runner", WorkerRole::Action)).await.unwrap().cordoned);
    assert_eq!(lab.number("SELECT count(*) FROM worker WHERE cordon_reason = 'repair'").await, 1);
}

/// Names are unique over both roles; the row of the other one stays untouched.
pub async fn a_name_of_the_other_role_is_a_conflict(lab: &dyn Lab) {
    let store = lab.store();
    let first = store.register_worker(&worker("shared", WorkerRole::Action)).await.unwrap();
    store.set_worker_status(first.id, WorkerStatus::Inactive).await.unwrap();
    let error = store.register_worker(&worker("shared", WorkerRole::Sensor)).await.unwrap_err();
    assert!(matches!(&error, StoreError::Conflict(text) if text.contains("shared")), "{error}");
    assert_eq!(lab.number("SELECT count(*) FROM worker WHERE status = 'inactive'").await, 1);
}

/// Leases and staleness are measured with the store's clock, so heartbeats are written with it.
pub async fn a_heartbeat_carries_the_status_and_the_time_of_the_store(lab: &dyn Lab) {
    let store = lab.store();
    let row = store.register_worker(&worker("runner", WorkerRole::Action)).await.unwrap();
    store.set_worker_status(row.id, WorkerStatus::Inactive).await.unwrap();
    let before = store.now().await.unwrap();
    assert!(store.heartbeat(row.id, WorkerStatus::Active).await.unwrap());
    let after = store.now().await.unwrap();
    let candidate = store.action_workers().await.unwrap().remove(0).worker;
    assert_eq!(candidate.status, WorkerStatus::Active);
    let heartbeat = candidate.last_heartbeat.unwrap();
    assert!(before <= heartbeat && heartbeat <= after, "{before} {heartbeat} {after}");
}

/// A worker whose row is gone was declared dead.
pub async fn a_heartbeat_of_a_removed_worker_says_so(lab: &dyn Lab) {
    let store = lab.store();
    let row = store.register_worker(&worker("runner", WorkerRole::Action)).await.unwrap();
    lab.execute("DELETE FROM worker").await;
    assert!(!store.heartbeat(row.id, WorkerStatus::Active).await.unwrap());
}

/// Neither changes what the other, or the heartbeat, has written.
pub async fn status_and_capabilities_are_written_alone(lab: &dyn Lab) {
    let store = lab.store();
    let row = store.register_worker(&worker("runner", WorkerRole::Action)).await.unwrap();
    let other = store.register_worker(&worker("other", WorkerRole::Action)).await.unwrap();
    store.set_worker_status(row.id, WorkerStatus::Inactive).await.unwrap();
    store.set_capabilities(row.id, &object(&json!({"labels": {"zone": "a"}}))).await.unwrap();
    let found: Vec<_> = store.action_workers().await.unwrap().into_iter().map(|candidate| candidate.worker).collect();
    assert_eq!(found[0], other);
    assert_eq!(found[1].status, WorkerStatus::Inactive);
    assert_eq!(found[1].last_heartbeat, row.last_heartbeat);
    assert_eq!(found[1].capabilities, object(&json!({"labels": {"zone": "a"}})));
}

/// What the installation can run.
pub async fn runtimes_come_by_ref_and_versions_by_runtime(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut pack = super::seed::empty("alpha");
    pack.runtimes = vec![runtime("alpha.node", "Node.js", &["22", "20"])];
    world.store.upsert_pack(&pack).await.unwrap();
    let runtimes = world.store.runtimes().await.unwrap();
    let refs: Vec<&str> = runtimes.iter().map(|runtime| runtime.r#ref.as_str()).collect();
    assert_eq!(refs, ["alpha.node", "demo.python"]);
    assert_eq!(runtimes[0].name, "Node.js");
    assert_eq!(runtimes[0].aliases, ["node.js"]);
    let versions = world.store.runtime_versions().await.unwrap();
    let texts: Vec<(&str, &str)> =
        versions.iter().map(|version| (version.runtime_ref.as_str(), version.version.as_str())).collect();
    assert_eq!(texts, [("demo.python", "3.11"), ("demo.python", "3.12.1"), ("alpha.node", "22"), ("alpha.node", "20")]);
    assert!(versions.iter().all(|version| version.available));
    assert_eq!(versions.iter().filter(|version| version.is_default).count(), 2);
}

/// Two agents on one image find the same; the first one wins and the other one is told.
pub async fn a_detected_runtime_is_added_once(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let template = world.store.runtimes().await.unwrap().remove(0);
    lab.execute("UPDATE runtime SET installation = '{\"apt\":\"ruby\"}'").await;
    let detected = DetectedRuntime {
        r#ref: "auto.ruby".to_owned(),
        template: Some(template.id),
        pack: template.pack,
        pack_ref: template.pack_ref,
        description: "Auto-detected ruby runtime at /usr/bin/ruby".to_owned(),
        name: "Ruby".to_owned(),
        aliases: vec!["ruby".to_owned(), "rb".to_owned()],
        distributions: json!({"verification": {"commands": []}}),
        execution_config: json!({"interpreter": {"binary": "/usr/bin/ruby"}}),
        detection_config: json!({"detected_path": "/usr/bin/ruby", "detected_name": "ruby"}),
    };
    assert!(world.store.add_detected_runtime(&detected).await.unwrap());
    let other = DetectedRuntime { name: "Other".to_owned(), ..detected.clone() };
    assert!(!world.store.add_detected_runtime(&other).await.unwrap());
    let gone = RuntimeId(4711);
    let minimal =
        DetectedRuntime { r#ref: "auto.perl".to_owned(), template: Some(gone), pack: None, pack_ref: None, ..detected };
    assert!(world.store.add_detected_runtime(&minimal).await.unwrap());

    let found = world.store.runtimes().await.unwrap();
    let ruby = found.iter().find(|runtime| runtime.r#ref == "auto.ruby").unwrap();
    assert_eq!((ruby.name.as_str(), &ruby.aliases[..]), ("Ruby", &["ruby".to_owned(), "rb".to_owned()][..]));
    assert_eq!((ruby.pack, ruby.pack_ref.as_deref()), (template.pack, Some("demo")));
    assert_eq!(ruby.execution_config["interpreter"]["binary"], "/usr/bin/ruby");
    assert_eq!(lab.number("SELECT count(*) FROM runtime WHERE auto_detected AND pack IS NULL").await, 1);
    assert_eq!(lab.number("SELECT count(*) FROM runtime WHERE auto_detected AND installation IS NOT NULL").await, 1);
}

/// The flag is everybody's; it says what the agent found that looked last.
pub async fn verified_versions_are_marked_and_dated(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let versions = world.store.runtime_versions().await.unwrap();
    let (first, second) = (versions[0].id, versions[1].id);
    world.store.set_verified_versions(&[]).await.unwrap();
    world.store.set_verified_versions(&[(first, false), (RuntimeVersionId(4711), true)]).await.unwrap();
    let available: Vec<bool> =
        world.store.runtime_versions().await.unwrap().iter().map(|version| version.available).collect();
    assert_eq!(available, [false, true]);
    assert_eq!(lab.number("SELECT count(*) FROM runtime_version WHERE verified_at IS NOT NULL").await, 1);
    world.store.set_verified_versions(&[(first, true), (second, true)]).await.unwrap();
    assert!(world.store.runtime_versions().await.unwrap().iter().all(|version| version.available));
    assert_eq!(lab.number("SELECT count(*) FROM runtime_version WHERE verified_at IS NOT NULL").await, 2);
}

//! What a worker says it can run, and the runtimes that actions get when they name none.

use attune_model::PackId;
use attune_model::message::PackRegistered;
use attune_model::status::ExecutionStatus;
use attune_store::{NewPack, NewRuntime, NewRuntimeVersion, PageRequest};
use attune_testkit::eventually;
use serde_json::{Value, json};

use crate::support;
use crate::support::rig::{Backend, Rig, new_action, runtime};

/// Shell files; versions that exist here and one that does not.
fn versioned(versions: &[(&str, &str)]) -> NewRuntime {
    let version = |(version, binary): &(&str, &str)| NewRuntimeVersion {
        version: (*version).to_owned(),
        execution_config: json!({"interpreter": {"binary": binary, "file_extension": ".sh"}}),
        distributions: json!({"verification": {"commands": [
            {"binary": binary, "args": ["-c", "echo version"], "exit_code": 0, "pattern": "version"},
        ]}}),
        is_default: false,
        meta: json!({}),
    };
    NewRuntime {
        distributions: json!({"verification": {"always_available": true}}),
        versions: versions.iter().map(version).collect(),
        ..runtime("shell", json!({"interpreter": {"binary": "/bin/sh", "file_extension": ".sh"}}))
    }
}

fn pack(runtime: NewRuntime) -> NewPack {
    NewPack {
        r#ref: "demo".to_owned(),
        label: "Demo".to_owned(),
        version: "1.0.1".to_owned(),
        conf_schema: json!({}),
        config: json!({}),
        meta: json!({}),
        runtimes: vec![runtime],
        actions: vec![new_action("ok")],
        ..NewPack::default()
    }
}

async fn capabilities(rig: &Rig) -> Value {
    let first = PageRequest { page: 1, page_size: 1 };
    let workers = rig.store.workers(first).await.unwrap();
    Value::Object(workers.items[0].capabilities.clone())
}

async fn runtimes_and_versions_prove_themselves_at_the_start_and_when_a_pack_comes(on: Backend) {
    let mut rig = Rig::new(on, &[("ok", "echo fine".to_owned())]).await;
    let here = versioned(&[("1.0", "/bin/sh"), ("2.0", "/no/such/shell")]);
    rig.store.upsert_pack(&pack(here)).await.unwrap();
    let life = rig.live().await;
    let said = capabilities(&rig).await;
    assert_eq!(said["runtimes"], json!(["shell"]));
    assert_eq!(said["runtime_versions"], json!({"shell": ["1.0"]}));

    let more = versioned(&[("1.0", "/bin/sh"), ("3.0", "/bin/sh")]);
    rig.store.upsert_pack(&pack(more)).await.unwrap();
    let mut registered = PackRegistered {
        pack_id: PackId(1),
        pack_ref: "demo".to_owned(),
        version: "1.0.2".to_owned(),
        runtime_names: vec!["python".to_owned()],
    };
    rig.publish(&registered).await;
    registered.runtime_names = vec!["shell".to_owned()];
    rig.publish(&registered).await;
    eventually("the new version is said", async || {
        let said = capabilities(&rig).await;
        (said["runtime_versions"] == json!({"shell": ["3.0", "1.0"]})).then_some(())
    })
    .await;

    let id = rig.submit(life.id, "ok").await;
    rig.told(id).await;
    assert_eq!(rig.row(id).await.status, ExecutionStatus::Completed);
    life.finish().await;
}

async fn an_action_without_a_runtime_gets_the_one_for_its_file_even_when_that_came_later(on: Backend) {
    let mut rig = Rig::new(on, &[("ok", "echo fine".to_owned())]).await;
    let other = NewRuntime {
        r#ref: "demo.lua".to_owned(),
        ..runtime("lua", json!({"interpreter": {"binary": "lua", "file_extension": ".lua"}}))
    };
    rig.store.upsert_pack(&pack(other)).await.unwrap();
    let life = rig.live().await;
    let early = rig.submit(life.id, "ok").await;
    rig.told(early).await;
    let result = rig.row(early).await.result.unwrap();
    assert!(support::text(&result, "error").contains("Runtime not found: no runtime for action: demo.ok"), "{result}");

    rig.store.upsert_pack(&pack(versioned(&[]))).await.unwrap();
    rig.publish(&PackRegistered {
        pack_id: PackId(1),
        pack_ref: "demo".to_owned(),
        version: "1.0.2".to_owned(),
        runtime_names: Vec::new(),
    })
    .await;
    eventually("the new runtime is used", async || {
        let id = rig.submit(life.id, "ok").await;
        (rig.ended(id).await.status == ExecutionStatus::Completed).then_some(())
    })
    .await;
    life.finish().await;
}

attune_testkit::tests_on_each! {
    embedded: Backend::Embedded, servers: Backend::Servers => [
        runtimes_and_versions_prove_themselves_at_the_start_and_when_a_pack_comes,
        an_action_without_a_runtime_gets_the_one_for_its_file_even_when_that_came_later,
    ]
}

//! What a worker does for packs before somebody waits for it: environments, versions, rows of detected runtimes.

use std::fs;

use attune_model::PackId;
use attune_model::capabilities::DetectedInterpreter;
use attune_model::message::PackRegistered;
use attune_model::status::PackEnvironmentStatus;
use attune_store::{EnvironmentOutcome, EnvironmentTarget, NewPack, NewRuntime, NewRuntimeVersion};
use attune_testkit::{SmallDisk, eventually};
use serde_json::{Value, json};

use crate::support::rig::{Backend, Rig, new_action, runtime};

/// SHA-256 of `one` and a line feed.
const CHECKSUM: &str = "2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806";

/// Files for `/bin/sh`, in an environment whose interpreter is a link; each build leaves a line in `builds`.
fn config(rig: &Rig) -> Value {
    let builds = rig.place.path("builds");
    let create = format!("mkdir -p \"$0/bin\" && ln -s /bin/sh \"$0/bin/sh\" && echo \"$0\" >> {}", builds.display());
    json!({
        "interpreter": {"binary": "/bin/sh", "file_extension": ".sh"},
        "environment": {
            "env_type": "test",
            "create_command": ["/bin/sh", "-c", create, "{env_dir}"],
            "interpreter_path": "{env_dir}/bin/sh",
        },
        "dependencies": {"manifest_file": "needs.txt", "install_command": ["/bin/sh", "-c", "echo installed", "{manifest_path}"]},
    })
}

async fn load(rig: &Rig, versions: &[&str]) {
    load_with(rig, &config(rig), versions).await;
}

/// Action `ok` on a runtime with this configuration.
async fn load_with(rig: &Rig, config: &Value, versions: &[&str]) {
    let version = |version: &&str| NewRuntimeVersion {
        version: (*version).to_owned(),
        execution_config: config.clone(),
        distributions: json!({"verification": {"commands": [{"binary": if *version == "9" { "/no/sh" } else { "/bin/sh" },
            "args": ["-c", "true"]}]}}),
        ..NewRuntimeVersion::default()
    };
    let shell = NewRuntime {
        distributions: json!({"verification": {"always_available": true}}),
        versions: versions.iter().map(version).collect(),
        ..runtime("shell", config.clone())
    };
    let mut action = new_action("ok");
    action.runtime_ref = Some("demo.shell".to_owned());
    let pack = NewPack {
        r#ref: "demo".to_owned(),
        label: "Demo".to_owned(),
        version: "1.0.1".to_owned(),
        runtimes: vec![shell],
        actions: vec![action],
        ..NewPack::default()
    };
    fs::write(rig.place.path("packs/demo/needs.txt"), "one\n").unwrap();
    rig.store.upsert_pack(&pack).await.unwrap();
}

async fn register(rig: &Rig) {
    rig.publish(&PackRegistered {
        pack_id: PackId(1),
        pack_ref: "demo".to_owned(),
        version: "1.0.1".to_owned(),
        runtime_names: vec!["Shell".to_owned()],
    })
    .await;
}

fn marker(rig: &Rig, label: &str) -> Option<String> {
    fs::read_to_string(rig.place.path("envs/demo").join(label).join(".attune_deps_installed")).ok()
}

async fn a_pack_that_comes_gets_its_environments_before_anybody_needs_them(on: Backend) {
    let rig = Rig::new(on, &[("ok", "echo fine".to_owned())]).await;
    load(&rig, &[]).await;
    let life = rig.live().await;
    load(&rig, &["1", "9"]).await;
    register(&rig).await;
    for label in ["shell", "shell-1"] {
        eventually(label, async || marker(&rig, label)).await;
        assert_eq!(marker(&rig, label).unwrap(), CHECKSUM);
    }
    // Only what this host has: nothing for version 9, and everybody can read that.
    let versions = eventually("versions are verified", async || {
        let versions = rig.store.runtime_versions().await.unwrap();
        versions.iter().any(|version| !version.available).then_some(versions)
    })
    .await;
    let available: Vec<(&str, bool)> = versions.iter().map(|row| (row.version.as_str(), row.available)).collect();
    assert_eq!(available, [("1", true), ("9", false)]);
    assert!(!rig.place.path("envs/demo/shell-9").exists());

    // The same again builds nothing; another manifest builds all.
    let builds = || fs::read_to_string(rig.place.path("builds")).unwrap().lines().count();
    assert_eq!(builds(), 2);
    fs::write(rig.place.path("packs/demo/needs.txt"), "two\n").unwrap();
    register(&rig).await;
    for label in ["shell", "shell-1"] {
        eventually(label, async || marker(&rig, label).filter(|marker| marker != CHECKSUM)).await;
    }
    assert_eq!(builds(), 4);
    life.finish().await;
}

async fn an_environment_that_another_worker_builds_is_waited_for(on: Backend) {
    let rig = Rig::new(on, &[("ok", "echo \"$0\"".to_owned())]).await;
    load(&rig, &[]).await;
    // Says itself what it can run, so that it builds nothing before somebody asks.
    let mut config = rig.config();
    config.executor.advertised.tier = attune_runtime::advertise::Tier::Detected;
    config.executor.advertised.runtimes = vec!["shell".to_owned()];
    let other = rig.live_with(config.clone()).await;
    let other_id = other.id;
    other.finish().await;
    // Somebody on another machine has the claim.
    let (pack, actions) = rig.store.packs_with_actions(Some("demo")).await.unwrap().remove(0);
    let target = EnvironmentTarget {
        pack: pack.id,
        pack_ref: "demo".to_owned(),
        runtime: actions[0].runtime.unwrap(),
        runtime_ref: "demo.shell".to_owned(),
        version: None,
        env_path: rig.place.path("envs/demo/shell").display().to_string(),
        manifest_checksum: Some(CHECKSUM.to_owned()),
    };
    let row = rig.store.upsert_environment(&target).await.unwrap();
    let claim = rig.store.claim_environment(row.id, other_id, std::time::Duration::from_mins(5)).await;
    assert!(claim.unwrap());
    "second".clone_into(&mut config.name);
    let life = rig.live_with(config).await;
    let id = rig.submit(life.id, "ok").await;
    eventually("it is started", async || {
        (rig.row(id).await.status == attune_model::status::ExecutionStatus::Running).then_some(())
    })
    .await;
    // The winner is done.
    let place = rig.place.path("envs/demo/shell");
    fs::create_dir_all(place.join("bin")).unwrap();
    std::os::unix::fs::symlink("/bin/sh", place.join("bin/sh")).unwrap();
    fs::write(place.join(".attune_deps_installed"), CHECKSUM).unwrap();
    let done = EnvironmentOutcome::Ready { manifest_checksum: Some(CHECKSUM.to_owned()), log: String::new() };
    assert!(rig.store.finish_environment(row.id, other_id, &done).await.unwrap());
    let ended = rig.ended(id).await;
    assert_eq!(ended.status, attune_model::status::ExecutionStatus::Completed, "{ended:?}");
    let row = rig.store.environment(row.id).await.unwrap().unwrap();
    assert_eq!((row.status, row.claimed_by), (PackEnvironmentStatus::Ready, None));
    life.finish().await;
}

async fn detected_runtimes_that_nobody_knows_get_rows_of_their_own(on: Backend) {
    let rig = Rig::new(on, &[("ok", "echo fine".to_owned())]).await;
    let mut config = rig.config();
    config.registers_runtimes = true;
    let found = |name: &str| DetectedInterpreter {
        name: name.to_owned(),
        path: format!("/usr/bin/{name}"),
        version: Some("1.2.3".to_owned()),
    };
    config.executor.advertised.detected_interpreters = vec![found("shell"), found("perl")];
    let first = rig.live_with(config.clone()).await;
    let mut second = config;
    "second".clone_into(&mut second.name);
    let second = rig.live_with(second).await;
    let runtimes = rig.store.runtimes().await.unwrap();
    let refs: Vec<&str> = runtimes.iter().map(|runtime| runtime.r#ref.as_str()).collect();
    assert_eq!(refs, ["auto.perl", "demo.shell"], "the pack's shell is known by its alias");
    assert_eq!(runtimes[0].aliases, ["perl", "perl5"]);
    first.finish().await;
    second.finish().await;
}

async fn a_full_disk_for_environments_fails_what_needs_one_until_there_is_room(on: Backend) {
    let mut rig = Rig::new(on, &[("ok", "echo fine".to_owned())]).await;
    let Some(disk) = SmallDisk::mount(&rig.place.path("envs")) else { return };
    let mut config = config(&rig);
    let create = "mkdir -p \"$0/bin\" && ln -s /bin/sh \"$0/bin/sh\" && head -c 100000 /dev/zero > \"$0/data\"";
    config["environment"]["create_command"] = json!(["/bin/sh", "-c", create, "{env_dir}"]);
    load_with(&rig, &config, &[]).await;
    disk.fill();
    let life = rig.live().await;
    let id = rig.submit(life.id, "ok").await;
    let told = rig.told(id).await;
    let payload = &told.last().unwrap().payload;
    assert_eq!(payload["status"], "Failed", "{payload}");
    let error = payload["result"]["error"].as_str().unwrap();
    assert!(error.contains("No space left on device"), "the cause is named: {error}");
    disk.free();
    let id = rig.submit(life.id, "ok").await;
    let told = rig.told(id).await;
    assert_eq!(told.last().unwrap().payload["status"], "Completed", "{told:?}");
    assert_eq!(fs::metadata(rig.place.path("envs/demo/shell/data")).unwrap().len(), 100_000);
    life.finish().await;
}

attune_testkit::tests_on_each! {
    embedded: Backend::Embedded, servers: Backend::Servers => [
        a_pack_that_comes_gets_its_environments_before_anybody_needs_them,
        an_environment_that_another_worker_builds_is_waited_for,
        detected_runtimes_that_nobody_knows_get_rows_of_their_own,
        a_full_disk_for_environments_fails_what_needs_one_until_there_is_room,
    ]
}

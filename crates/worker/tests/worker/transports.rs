//! Files and packs that travel through the API of a real hub.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use attune_hub::{Folders, Hub, HubConfig};
use attune_lifecycle::{Stop, Tasks};
use attune_model::clock::SystemClock;
use attune_model::measure::Measure;
use attune_model::message::{PackDeleted, PackRegistered};
use attune_model::status::{ExecutionStatus, OwnerType, RetentionPolicy};
use attune_model::{ExecutionId, PackId, Secret};
use attune_security::{SealingKey, TokenKey};
use attune_store::{LogArtifact, NewPack, NewRuntime};
use attune_testkit::{Proxy, eventually};
use attune_worker::{Transport, Transports, WorkerConfig};
use serde_json::json;

use crate::support;
use crate::support::flaky::{Flaky, Lost};
use crate::support::rig::{Backend, Life, Rig, new_action, runtime};
use crate::support::text;

const JWT_SECRET: &str = "signing secret of the tests";

/// A hub that shares no folder with the worker.
struct Api {
    folders: Folders,
    url: String,
    stop: Stop,
    tasks: Tasks,
}

impl Api {
    /// The folders of the hub are below `api`; the packs of the rig move there.
    async fn new(rig: &Rig) -> Self {
        let folders = Folders {
            packs_dir: rig.place.path("api/packs"),
            artifacts_dir: rig.place.path("api/artifacts"),
            upload_limit_bytes: 1_000_000,
        };
        fs::create_dir_all(rig.place.path("api")).unwrap();
        fs::rename(rig.place.path("packs"), &folders.packs_dir).unwrap();
        fs::create_dir(rig.place.path("packs")).unwrap();
        let secret = |text: &str| Secret::new(text.to_owned());
        let (tokens, sealing) =
            (TokenKey::new(&secret(JWT_SECRET)).unwrap(), SealingKey::new(&secret(support::KEY)).unwrap());
        let mut config = HubConfig::new("127.0.0.1:0".parse().unwrap(), tokens, sealing);
        config.folders = Some(folders.clone());
        let store = rig.store.clone();
        let hub = Hub::build(config, store, rig.bus.clone(), Arc::new(SystemClock)).await.unwrap();
        let (stop, tasks, url) = (Stop::new(), Tasks::default(), format!("http://{}", hub.local_addr()));
        hub.spawn(&stop, &tasks);
        Self { folders, url, stop, tasks }
    }

    fn config(&self, rig: &Rig) -> WorkerConfig {
        let mut config = rig.config();
        config.executor.jwt_secret = Some(Secret::new(JWT_SECRET.to_owned()));
        config.transports =
            Transports { artifacts: Transport::Auto, packs: Transport::Auto, api_url: self.url.clone(), ca_file: None };
        config
    }

    fn file(&self, name: &str, code: &str) -> PathBuf {
        let path = self.folders.packs_dir.join("demo/actions").join(name);
        fs::write(&path, code).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    async fn end(self) {
        self.stop.soft().cancel();
        self.tasks.drained().await;
    }
}

/// What an action registers.
fn report(execution: ExecutionId) -> LogArtifact {
    LogArtifact {
        r#ref: "demo.report".to_owned(),
        scope: OwnerType::Action,
        owner: "demo.say".to_owned(),
        name: "report".to_owned(),
        description: String::new(),
        retention_policy: RetentionPolicy::Versions,
        retention_limit: 10,
        execution: Some(execution),
        meta: json!({}),
        created_by: "demo.say",
    }
}

fn registered() -> PackRegistered {
    PackRegistered {
        pack_id: PackId(1),
        pack_ref: "demo".to_owned(),
        version: "1.0.1".to_owned(),
        runtime_names: Vec::new(),
    }
}

async fn outcome(rig: &mut Rig, id: ExecutionId) -> String {
    rig.told(id).await;
    let row = rig.row(id).await;
    assert_eq!(row.status, ExecutionStatus::Completed, "{row:?}");
    text(row.result.as_ref().unwrap(), "stdout").to_owned()
}

async fn packs_come_at_the_start_change_as_a_whole_and_go(on: Backend) {
    let mut rig = Rig::new(on, &[("say", "echo one; cat \"$0.extra\" 2>&1 || true".to_owned())]).await;
    let api = Api::new(&rig).await;
    let extra = api.file("say.sh.extra", "extra");
    // A killed life was fetching another one.
    let rest = rig.place.path("packs/.other.1.1.new");
    fs::create_dir(&rest).unwrap();
    fs::File::open(&rest).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let life = rig.live_with(api.config(&rig)).await;
    let id = rig.submit(life.id, "say").await;
    assert_eq!(outcome(&mut rig, id).await, "one\nextra");

    api.file("say.sh", "echo two; ls \"$0.extra\" 2>/dev/null || true");
    fs::remove_file(extra).unwrap();
    rig.publish(&registered()).await;
    let local = rig.place.path("packs/demo/actions/say.sh.extra");
    eventually("what vanished is gone", async || (!local.exists()).then_some(())).await;
    let id = rig.submit(life.id, "say").await;
    assert_eq!(outcome(&mut rig, id).await, "two\n");

    // One that is missing is fetched by whoever needs it.
    fs::remove_dir_all(rig.place.path("packs/demo")).unwrap();
    let id = rig.submit(life.id, "say").await;
    assert_eq!(outcome(&mut rig, id).await, "two\n");

    rig.publish(&PackDeleted { pack_id: PackId(1), pack_ref: "demo".to_owned() }).await;
    // First its name goes, then what had it.
    let packs = rig.place.path("packs");
    eventually("nothing to be left", async || fs::read_dir(&packs).unwrap().next().is_none().then_some(())).await;
    life.finish().await;
    api.end().await;
}

async fn logs_and_registered_files_reach_the_api_complete_and_once(on: Backend) {
    let code = "mkdir -p \"$ATTUNE_ARTIFACTS_DIR/demo/report\"; printf report > \"$ATTUNE_ARTIFACTS_DIR/demo/report/v1.txt\"\n\
                i=0; while [ $i -lt 2000 ]; do echo \"line $i\"; i=$((i+1)); done; printf trouble >&2";
    let mut rig = Rig::new(on, &[("say", code.to_owned())]).await;
    let api = Api::new(&rig).await;
    let life = rig.live_with(api.config(&rig)).await;
    let row = rig.scheduled(life.id, "say").await;
    let report = report(row.id);
    // One file is written, one is not.
    let (written, missing) =
        (rig.store.add_log_version(&report).await.unwrap(), rig.store.add_log_version(&report).await.unwrap());
    rig.dispatch(&row).await;
    outcome(&mut rig, row.id).await;

    let artifacts = &api.folders.artifacts_dir;
    let expected = (0..2000).map(|line| format!("line {line}")).collect::<Vec<_>>().join("\n") + "\n";
    assert_eq!(fs::read_to_string(artifacts.join("demo/say/stdout/log/v1.txt")).unwrap(), expected);
    assert_eq!(fs::read_to_string(artifacts.join("demo/say/stderr/log/v1.txt")).unwrap(), "trouble");
    assert_eq!(fs::read_to_string(artifacts.join(&written.file_path)).unwrap(), "report");
    assert!(!artifacts.join(&missing.file_path).exists());
    let mode = artifacts.join("demo/say/stdout/log/v1.txt").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o664);
    // Nothing stays behind here.
    assert!(!rig.place.path(&format!("artifacts/execution_{}", row.id)).exists());
    assert!(!rig.place.path("artifacts/demo/report/v1.txt").exists());
    let left = rig.store.file_logs(&[], &[row.id]).await.unwrap();
    assert_eq!(left.registered, [], "every version has a size, or is gone");
    life.finish().await;
    api.end().await;
}

async fn an_api_that_is_away_costs_no_result_and_its_logs_follow(on: Backend) {
    let mut rig = Rig::new(on, &[("say", "echo precious".to_owned())]).await;
    let api = Api::new(&rig).await;
    let mut config = without_api(&api, &rig);
    let life = rig.live_with(config.clone()).await;
    let id = rig.submit(life.id, "say").await;
    assert_eq!(outcome(&mut rig, id).await, "precious\n");
    assert!(rig.place.path(&format!("artifacts/execution_{id}/stdout.log")).exists(), "the log waits");
    life.finish().await;

    config.transports.api_url.clone_from(&api.url);
    let life = rig.live_with(config).await;
    let filed = api.folders.artifacts_dir.join("demo/say/stdout/log/v1.txt");
    eventually("the log follows", async || filed.exists().then_some(())).await;
    assert_eq!(fs::read_to_string(filed).unwrap(), "precious\n");
    life.finish().await;
    api.end().await;
}

/// Settings with packs in a folder, and an API that nobody has started.
fn without_api(api: &Api, rig: &Rig) -> WorkerConfig {
    let mut config = api.config(rig);
    config.transports.packs = Transport::Folder;
    config.executor.packs = attune_worker::PackFolders::base(api.folders.packs_dir.clone());
    "http://127.0.0.1:1".clone_into(&mut config.transports.api_url);
    config
}

async fn files_that_could_not_be_sent_follow_in_the_next_life(on: Backend) {
    // Nothing else is left of it than what it registered.
    let code =
        "mkdir -p \"$ATTUNE_ARTIFACTS_DIR/demo/report\"; printf report > \"$ATTUNE_ARTIFACTS_DIR/demo/report/v1.txt\"";
    let mut rig = Rig::new(on, &[("say", code.to_owned())]).await;
    let api = Api::new(&rig).await;
    let mut config = without_api(&api, &rig);
    let life = rig.live_with(config.clone()).await;
    let row = rig.scheduled(life.id, "say").await;
    let version = rig.store.add_log_version(&report(row.id)).await.unwrap();
    rig.dispatch(&row).await;
    rig.told(row.id).await;
    life.finish().await;
    assert!(rig.place.path("artifacts").join(&version.file_path).exists(), "it waits");

    config.transports.api_url.clone_from(&api.url);
    let life = rig.live_with(config).await;
    let sized = async || rig.store.file_logs(&[], &[row.id]).await.unwrap().registered.is_empty().then_some(());
    eventually("the size is known", sized).await;
    assert_eq!(fs::read_to_string(api.folders.artifacts_dir.join(&version.file_path)).unwrap(), "report");
    assert!(!rig.place.path("artifacts").join(&version.file_path).exists());
    let folder = rig.place.path(&format!("artifacts/execution_{}", row.id));
    eventually("nothing is left", async || (!folder.exists()).then_some(())).await;
    life.finish().await;
    api.end().await;
}

async fn logs_that_were_entered_before_the_worker_had_to_go_keep_their_versions(on: Backend) {
    let rig = Rig::new(on, &[("say", "echo precious; echo trouble >&2".to_owned())]).await;
    let api = Api::new(&rig).await;
    let mut config = without_api(&api, &rig);
    let store = Flaky::new(rig.store.clone(), &[], &[Lost::Call; 10_000]);
    let life = rig.live_on(config.clone(), Arc::new(store)).await;
    let id = rig.submit(life.id, "say").await;
    let entered = async || Some(rig.store.log_versions(id).await.unwrap()).filter(|versions| versions.len() == 2);
    let versions = eventually("the logs have versions", entered).await;
    life.end().await;

    config.transports.api_url.clone_from(&api.url);
    let life = rig.live_with(config).await;
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    let folder = rig.place.path(&format!("artifacts/execution_{id}"));
    eventually("nothing is left", async || (!folder.exists()).then_some(())).await;
    assert_eq!(rig.store.log_versions(id).await.unwrap(), versions);
    for (artifact_ref, version) in versions {
        let text = if artifact_ref.ends_with(".stdout.log") { "precious\n" } else { "trouble\n" };
        assert_eq!(fs::read_to_string(api.folders.artifacts_dir.join(version.file_path)).unwrap(), text);
    }
    life.finish().await;
    api.end().await;
}

async fn a_file_that_the_api_does_not_take_keeps_back_no_other(on: Backend) {
    // The hub takes a million bytes.
    let code = "mkdir -p \"$ATTUNE_ARTIFACTS_DIR/demo/report\"; head -c 1000001 /dev/zero > \"$ATTUNE_ARTIFACTS_DIR/demo/report/v1.txt\"";
    let mut rig = Rig::new(on, &[("say", "echo precious".to_owned()), ("zeros", code.to_owned())]).await;
    let api = Api::new(&rig).await;
    let mut config = without_api(&api, &rig);
    let life = rig.live_with(config.clone()).await;
    let row = rig.scheduled(life.id, "zeros").await;
    rig.store.add_log_version(&report(row.id)).await.unwrap();
    rig.dispatch(&row).await;
    rig.told(row.id).await;
    let later = rig.submit(life.id, "say").await;
    outcome(&mut rig, later).await;
    life.finish().await;

    config.transports.api_url.clone_from(&api.url);
    let life = rig.live_with(config).await;
    let filed = api.folders.artifacts_dir.join("demo/say/stdout/log/v1.txt");
    eventually("the log follows", async || filed.exists().then_some(())).await;
    let left = rig.store.file_logs(&[], &[row.id]).await.unwrap();
    assert_eq!(left.registered, [], "no version promises what nobody can read");
    life.finish().await;
    api.end().await;
}

/// A worker with two logs, of which the first has expired while the API was away.
async fn with_an_expired_log(rig: &mut Rig, api: &Api) -> (Life, Proxy, WorkerConfig) {
    rig.sql("UPDATE action SET log_retention_policy = 'versions', log_retention_limit = 1").await;
    let way = Proxy::start(api.url.trim_start_matches("http://"));
    let mut config = api.config(rig);
    config.transports.api_url = format!("http://{}", way.authority());
    let life = rig.live_with(config.clone()).await;
    let first = rig.submit(life.id, "say").await;
    outcome(rig, first).await;
    assert!(log(api, 1).exists());
    way.refuse();
    way.cut();
    let second = rig.submit(life.id, "say").await;
    outcome(rig, second).await;
    (life, way, config)
}

fn log(api: &Api, version: u32) -> PathBuf {
    api.folders.artifacts_dir.join(format!("demo/say/stdout/log/v{version}.txt"))
}

async fn one_comes_and_the_other_goes(api: &Api) {
    eventually("one comes, one goes", async || (log(api, 2).exists() && !log(api, 1).exists()).then_some(())).await;
}

async fn expired_logs_that_the_api_did_not_remove_are_removed_later(on: Backend) {
    let mut rig = Rig::new(on, &[("say", "echo precious".to_owned())]).await;
    let api = Api::new(&rig).await;
    let (life, way, _) = with_an_expired_log(&mut rig, &api).await;
    way.resume();
    one_comes_and_the_other_goes(&api).await;
    life.finish().await;
    api.end().await;
}

async fn expired_logs_that_the_api_did_not_remove_are_removed_in_the_next_life(on: Backend) {
    let mut rig = Rig::new(on, &[("say", "echo precious".to_owned())]).await;
    let api = Api::new(&rig).await;
    let (life, way, config) = with_an_expired_log(&mut rig, &api).await;
    let list = rig.place.path(&format!("spool/{}/expired", life.id));
    life.end().await;
    way.resume();
    let life = rig.live_with(config).await;
    one_comes_and_the_other_goes(&api).await;
    eventually("nothing is owed", async || (!list.exists()).then_some(())).await;
    life.finish().await;
    api.end().await;
}

/// It is neither offered again nor lost.
async fn a_file_that_the_api_never_takes_is_put_aside(on: Backend) {
    // The hub takes a million bytes.
    let code = "mkdir -p \"$ATTUNE_ARTIFACTS_DIR/demo/report\"; head -c 1000001 /dev/zero > \"$ATTUNE_ARTIFACTS_DIR/demo/report/v1.txt\"; head -c 1000002 /dev/zero";
    let mut rig = Rig::new(on, &[("zeros", code.to_owned())]).await;
    let api = Api::new(&rig).await;
    let life = rig.live_with(api.config(&rig)).await;
    let row = rig.scheduled(life.id, "zeros").await;
    let version = rig.store.add_log_version(&report(row.id)).await.unwrap();
    rig.dispatch(&row).await;
    rig.told(row.id).await;
    let folder = rig.place.path(&format!("artifacts/execution_{}", row.id));
    eventually("nothing is to be sent", async || (!folder.exists()).then_some(())).await;
    assert!(!rig.place.path("artifacts").join(&version.file_path).exists());
    assert_eq!(rig.store.log_versions(row.id).await.unwrap(), []);
    assert_eq!(rig.measured.times(Measure::FileRefused), 2);
    let aside = rig.place.path(&format!("spool/{}/refused", life.id));
    let mut kept: Vec<(String, u64)> = fs::read_dir(aside)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect();
    kept.sort_by_key(|(_, length)| *length);
    let lengths: Vec<u64> = kept.iter().map(|(_, length)| *length).collect();
    assert_eq!(lengths, [1_000_001, 1_000_002]);
    assert!(kept[0].0.ends_with("-v1.txt") && kept[1].0.ends_with("-stdout.log"), "{kept:?}");
    life.finish().await;
    api.end().await;
}

/// Without its manifest it would be another one, and be built again.
async fn an_environment_waits_for_the_files_of_its_pack(on: Backend) {
    let mut rig = Rig::new(on, &[("say", "echo fine".to_owned())]).await;
    let builds = rig.place.path("builds");
    let create = format!("mkdir -p \"$0/bin\" && ln -s /bin/sh \"$0/bin/sh\" && echo built >> {}", builds.display());
    let shell = NewRuntime {
        distributions: json!({"verification": {"always_available": true}}),
        ..runtime(
            "shell",
            json!({
                "interpreter": {"binary": "/bin/sh", "file_extension": ".sh"},
                "environment": {"env_type": "test", "create_command": ["/bin/sh", "-c", create, "{env_dir}"],
                    "interpreter_path": "{env_dir}/bin/sh"},
                "dependencies": {"manifest_file": "needs.txt", "install_command": ["/bin/sh", "-c", "true"]},
            }),
        )
    };
    let mut action = new_action("say");
    action.runtime_ref = Some("demo.shell".to_owned());
    let (runtimes, actions) = (vec![shell], vec![action]);
    let (r#ref, label, version) = ("demo".to_owned(), "Demo".to_owned(), "1.0.1".to_owned());
    rig.store.upsert_pack(&NewPack { r#ref, label, version, runtimes, actions, ..NewPack::default() }).await.unwrap();
    fs::write(rig.place.path("packs/demo/needs.txt"), "one").unwrap();
    let api = Api::new(&rig).await;
    let way = Proxy::start(api.url.trim_start_matches("http://"));
    way.black_hole_both();
    let mut config = api.config(&rig);
    config.transports.api_url = format!("http://{}", way.authority());
    let life = rig.live_with(config).await;
    eventually("the pack is asked for", async || (way.connections() > 0).then_some(())).await;
    way.resume();
    let id = rig.submit(life.id, "say").await;
    assert_eq!(outcome(&mut rig, id).await, "fine\n");
    assert_eq!(fs::read_to_string(builds).unwrap(), "built\n");
    life.finish().await;
    api.end().await;
}

async fn a_mark_that_comes_after_the_start_keeps_the_worker_from_packs_that_are_shared(on: Backend) {
    let rig = Rig::new(on, &[("say", "echo one".to_owned())]).await;
    let api = Api::new(&rig).await;
    let life = rig.live_with(api.config(&rig)).await;
    let local = rig.file("packs/demo/actions/say.sh").await;
    fs::write(rig.place.path("packs/.attune-packs-sentinel"), "").unwrap();
    // Whatever comes after the first message shows that it was worked on.
    for (pack_id, pack_ref) in [(PackId(1), "demo"), (PackId(2), "other")] {
        let environments = rig.place.path("envs").join(pack_ref);
        fs::create_dir_all(&environments).unwrap();
        rig.publish(&PackDeleted { pack_id, pack_ref: pack_ref.to_owned() }).await;
        eventually("the environments go", async || (!environments.exists()).then_some(())).await;
    }
    assert!(local.exists());
    life.finish().await;
    api.end().await;
}

async fn the_mark_of_the_api_makes_a_folder_shared(on: Backend) {
    let mut rig = Rig::new(on, &[("say", "echo shared".to_owned())]).await;
    for (folder, mark) in [("packs", ".attune-packs-sentinel"), ("artifacts", ".attune-api-sentinel")] {
        fs::create_dir_all(rig.place.path(folder)).unwrap();
        fs::write(rig.place.path(folder).join(mark), "whatever").unwrap();
    }
    let mut config = rig.config();
    config.transports.artifacts = Transport::Auto;
    config.transports.packs = Transport::Auto;
    // Nobody listens there.
    "http://127.0.0.1:1".clone_into(&mut config.transports.api_url);
    let life = rig.live_with(config).await;
    let id = rig.submit(life.id, "say").await;
    assert_eq!(outcome(&mut rig, id).await, "shared\n");
    assert_eq!(fs::read_to_string(rig.place.path("artifacts/demo/say/stdout/log/v1.txt")).unwrap(), "shared\n");
    life.finish().await;
}

attune_testkit::tests_on_each! {
    embedded: Backend::Embedded, servers: Backend::Servers => [
        packs_come_at_the_start_change_as_a_whole_and_go,
        logs_and_registered_files_reach_the_api_complete_and_once,
        an_api_that_is_away_costs_no_result_and_its_logs_follow,
        files_that_could_not_be_sent_follow_in_the_next_life,
        logs_that_were_entered_before_the_worker_had_to_go_keep_their_versions,
        a_file_that_the_api_does_not_take_keeps_back_no_other,
        expired_logs_that_the_api_did_not_remove_are_removed_later,
        expired_logs_that_the_api_did_not_remove_are_removed_in_the_next_life,
        a_file_that_the_api_never_takes_is_put_aside,
        an_environment_waits_for_the_files_of_its_pack,
        a_mark_that_comes_after_the_start_keeps_the_worker_from_packs_that_are_shared,
        the_mark_of_the_api_makes_a_folder_shared,
    ]
}

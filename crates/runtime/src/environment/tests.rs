//! Builds by small shell commands; the real tools are in `tests/real_environments.rs`.

mod images;
mod volumes;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::pin::pin;

use attune_model::RuntimeId;
use attune_model::status::PackEnvironmentStatus;
use attune_testkit::eventually;
use serde_json::{Value, json};

use super::*;
use crate::plan::{Code, Kind};
use crate::tests_support::{Events, TableOfOne, program};

/// A pack with a manifest, and a place for environments.
struct World {
    dir: tempfile::TempDir,
    events: Arc<Events>,
}

/// Makes `bin/run` and says so in the pack.
const CREATE: &str =
    "mkdir -p {env_dir}/bin && cp {pack_dir}/tool {env_dir}/bin/run && echo create >> {pack_dir}/calls";
const INSTALL: &str = "cat {manifest_path} > {env_dir}/installed && echo install {interpreter} >> {pack_dir}/calls";

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap(), events: Arc::default() };
        program(&world.pack("tool"), "");
        fs::write(world.pack("manifest"), "first").unwrap();
        world
    }

    fn pack(&self, name: &str) -> PathBuf {
        self.dir.path().join("packs/demo").join(name)
    }

    fn env_dir(&self) -> PathBuf {
        self.dir.path().join("envs/demo/tool")
    }

    fn chosen(&self, create: &str, install: &str) -> Chosen {
        self.chosen_by(&json!({
            "interpreter": {"binary": "sh"},
            "environment": {
                "env_type": "tool",
                "create_command": ["sh", "-c", create],
                "interpreter_path": "{env_dir}/bin/run",
            },
            "dependencies": {"manifest_file": "manifest", "install_command": ["sh", "-c", install]},
        }))
    }

    fn chosen_by(&self, config: &Value) -> Chosen {
        Chosen {
            kind: Kind::Action,
            owner_ref: "demo.thing".into(),
            pack_ref: "demo".into(),
            runtime: RuntimeId(1),
            runtime_ref: "core.tool".into(),
            runtime_name: "tool".into(),
            version: None,
            config: serde_json::from_value(config.clone()).unwrap(),
            code: Code::File(self.pack("actions/x")),
            pack_dir: self.pack(""),
            env_dir: self.env_dir(),
            label: "tool".into(),
            interpreter: Some("/bin/sh".into()),
            interpreter_version: None,
        }
    }

    fn environments(&self) -> Environments {
        let path = ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into());
        Environments::new(Arc::new(Host::new(vec![path])), self.events.clone())
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.pack("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// The environments for other images than the one that the shared environment fits.
    fn own(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.env_dir().parent().unwrap()).unwrap().flatten().map(|entry| entry.path());
        let is_own = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("tool.for-");
        entries.filter(is_own).collect()
    }

    /// Builds and publishes lie beside the environment; nothing else is counted.
    fn builds(&self) -> usize {
        let entries = fs::read_dir(self.env_dir().parent().unwrap()).unwrap().flatten();
        entries.filter(|entry| entry.file_type().unwrap().is_dir()).count()
    }
}

async fn ensure(environments: &Environments, chosen: &Chosen) -> Result<Environment, EnvironmentError> {
    environments.ensure(chosen, None, std::future::pending()).await
}

fn folder_of(environment: &Environment) -> PathBuf {
    let Environment::Ready { folder, .. } = environment else { panic!("{environment:?}") };
    folder.clone()
}

fn ready(world: &World) -> Environment {
    ready_at(&world.env_dir())
}

fn ready_at(env_dir: &Path) -> Environment {
    let folder = generation::current(env_dir).unwrap_or_else(|| env_dir.to_owned());
    Environment::Ready { interpreter: Some(folder.join("bin/run")), folder, in_use: InUse::default() }
}

#[tokio::test]
async fn an_environment_is_built_once_and_then_only_looked_at() {
    let world = World::new();
    let (environments, chosen) = (world.environments(), world.chosen(CREATE, INSTALL));
    for _ in 0..3 {
        assert_eq!(ensure(&environments, &chosen).await.unwrap(), ready(&world));
    }
    assert_eq!(ensure(&world.environments(), &chosen).await.unwrap(), ready(&world));
    let inside = fs::canonicalize(world.env_dir().join("bin/run")).unwrap();
    assert_eq!(world.calls(), ["create".to_owned(), format!("install {}", inside.display())]);
    let marker = fs::read_to_string(world.env_dir().join(".attune_deps_installed")).unwrap();
    assert_eq!(marker, "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e", "SHA-256 of \"first\"");
    let parent = fs::metadata(world.env_dir().parent().unwrap()).unwrap();
    assert_eq!(parent.permissions().mode() & 0o7777, 0o2775);
    let events = [
        "started tool: environment creation (sh -c mkdir -p {env_dir}/bin && cp {pack…)",
        "started tool: dependency installation (sh -c cat {manifest_path} > {env_dir}/in…)",
        "finished tool",
    ];
    assert_eq!(world.events.take(), events);
}

#[tokio::test]
async fn a_changed_manifest_makes_a_fresh_environment_beside_the_one_in_use() {
    let world = World::new();
    let (environments, chosen) = (world.environments(), world.chosen(CREATE, INSTALL));
    ensure(&environments, &chosen).await.unwrap();
    let in_use = fs::canonicalize(world.env_dir()).unwrap();
    fs::write(world.pack("manifest"), "second").unwrap();
    ensure(&environments, &chosen).await.unwrap();
    assert_eq!(fs::read_to_string(world.env_dir().join("installed")).unwrap(), "second");
    assert_eq!(fs::read_to_string(in_use.join("installed")).unwrap(), "first");
}

#[tokio::test]
async fn a_pack_without_manifest_gets_its_environment_too() {
    let world = World::new();
    fs::remove_file(world.pack("manifest")).unwrap();
    ensure(&world.environments(), &world.chosen(CREATE, INSTALL)).await.unwrap();
    assert_eq!(world.calls(), ["create"]);
}

#[tokio::test]
async fn a_runtime_without_environments_needs_none() {
    let world = World::new();
    for config in [json!({}), json!({"environment": {"env_type": "none", "create_command": ["false"]}})] {
        let ensured = ensure(&world.environments(), &world.chosen_by(&config)).await.unwrap();
        assert_eq!(ensured, Environment::NotNeeded);
    }
}

#[tokio::test]
async fn many_users_of_two_processes_build_once() {
    let world = World::new();
    let chosen = world.chosen(CREATE, INSTALL);
    // Two objects share nothing but the file system, like two processes.
    let (one, two) = (world.environments(), world.environments());
    let all = tokio::join!(ensure(&one, &chosen), ensure(&two, &chosen), ensure(&one, &chosen), ensure(&two, &chosen));
    for ensured in [all.0, all.1, all.2, all.3] {
        assert_eq!(ensured.unwrap(), ready(&world));
    }
    assert_eq!(world.calls().len(), 2, "one create and one install");
}

#[tokio::test]
async fn a_build_that_dies_half_way_is_never_seen_and_does_not_block_the_next() {
    let world = World::new();
    let environments = world.environments();
    let endless = world.chosen(&format!("{CREATE}; exec sleep 600"), INSTALL);
    {
        let mut build = pin!(ensure(&environments, &endless));
        let half_way = eventually("the create command is half-way", async || (!world.calls().is_empty()).then_some(()));
        tokio::select! {
            ended = &mut build => panic!("{ended:?}"),
            () = half_way => {}
        }
    }
    assert!(!world.env_dir().exists());
    let chosen = world.chosen(CREATE, INSTALL);
    assert_eq!(ensure(&world.environments(), &chosen).await.unwrap(), ready(&world));
}

#[tokio::test]
async fn a_half_built_folder_of_another_builder_is_replaced() {
    let world = World::new();
    fs::create_dir_all(world.env_dir().join("bin")).unwrap();
    let chosen = world.chosen(CREATE, INSTALL);
    assert_eq!(ensure(&world.environments(), &chosen).await.unwrap(), ready(&world));
    // Complete but for the marker.
    fs::remove_file(world.env_dir().join(inspect::MARKER)).unwrap();
    ensure(&world.environments(), &chosen).await.unwrap();
    assert_eq!(world.calls().len(), 4);
}

#[tokio::test]
async fn an_environment_without_its_interpreter_is_built_again() {
    let world = World::new();
    let chosen = world.chosen(CREATE, INSTALL);
    let environments = world.environments();
    ensure(&environments, &chosen).await.unwrap();
    let inside = world.env_dir().join("bin/run");
    fs::remove_file(&inside).unwrap();
    assert_eq!(ensure(&environments, &chosen).await.unwrap(), ready(&world));
    let inside = fs::canonicalize(inside).unwrap();
    fs::remove_file(&inside).unwrap();
    symlink("run-3", &inside).unwrap();
    assert_eq!(ensure(&environments, &chosen).await.unwrap(), ready(&world));
    assert_eq!(world.calls().iter().filter(|call| *call == "create").count(), 3);
}

/// Each of these environments serves an image with another Python, for another libc, …
#[tokio::test]
async fn an_environment_of_another_image_stays_intact_and_this_image_gets_its_own() {
    for kind in ["a Python at another path", "copied from a Python at another path", "another libc"] {
        let world = World::new();
        let chosen = world.chosen(CREATE, INSTALL);
        ensure(&world.environments(), &chosen).await.unwrap();
        let shared = fs::read_link(world.env_dir()).unwrap();
        let inside = world.env_dir().join("bin/run");
        match kind {
            "a Python at another path" => {
                fs::remove_file(&inside).unwrap();
                symlink("run-3", &inside).unwrap();
                symlink("/nowhere/python3", inside.with_file_name("run-3")).unwrap();
            }
            "another libc" => fs::write(&inside, "#!/nowhere/musl-python\n").unwrap(),
            _ => fs::write(world.env_dir().join("pyvenv.cfg"), "home = /nowhere\nversion = 3.12.1\n").unwrap(),
        }
        for _ in 0..2 {
            let ensured = ensure(&world.environments(), &chosen).await.unwrap();
            let own = world.own();
            assert_eq!((own.len(), ensured), (1, ready_at(&own[0])), "{kind}");
        }
        assert_eq!(fs::read_link(world.env_dir()).unwrap(), shared, "{kind}");
        assert_eq!(world.calls().len(), 4, "{kind}: built twice, and never in turns");
    }
}

#[tokio::test]
async fn a_failed_command_is_quoted_logged_and_leaves_nothing() {
    let world = World::new();
    let chosen = world.chosen(CREATE, "echo working; echo no such package >&2; exit 7");
    let failed = ensure(&world.environments(), &chosen).await.unwrap_err();
    let text = failed.to_string();
    assert!(text.starts_with("dependency installation failed (exit 7): no such package (log: "), "{text}");
    let EnvironmentError::Failed { log, .. } = failed else { panic!("{failed:?}") };
    assert!(fs::read_to_string(log).unwrap().contains("working\n"));
    assert!(!world.env_dir().exists());
    assert_eq!(world.builds(), 0);
    assert!(world.events.take().last().unwrap().starts_with("finished tool: dependency installation failed"));
}

#[tokio::test]
async fn whoever_waited_for_a_failing_build_does_not_repeat_it() {
    let world = World::new();
    let environments = world.environments();
    let chosen = world.chosen("echo create >> {pack_dir}/calls; exit 1", INSTALL);
    let (one, two) = tokio::join!(ensure(&environments, &chosen), ensure(&environments, &chosen));
    assert!(matches!(one, Err(EnvironmentError::Failed { .. })), "{one:?}");
    assert!(matches!(two, Err(EnvironmentError::FailedMeanwhile { .. })), "{two:?}");
    assert_eq!(world.calls().len(), 1);
    ensure(&environments, &chosen).await.unwrap_err();
    assert_eq!(world.calls().len(), 2, "a later user tries again");
}

#[tokio::test]
async fn a_command_has_a_time_limit() {
    let world = World::new();
    let limits = Limits { command: Duration::from_millis(50), ..Limits::default() };
    let environments = world.environments().with_limits(limits);
    let failed = ensure(&environments, &world.chosen("exec sleep 600", INSTALL)).await.unwrap_err();
    assert!(matches!(failed, EnvironmentError::Failed { step: Step::Create, .. }), "{failed}");
}

#[tokio::test]
async fn what_a_build_needs_is_named_when_it_is_missing() {
    let world = World::new();
    let error = async |create: Value| {
        let chosen = world.chosen_by(&json!({
            "interpreter": {"binary": "sh"},
            "environment": {"env_type": "tool", "create_command": create, "interpreter_path": "{env_dir}/bin/run"},
        }));
        ensure(&world.environments(), &chosen).await.unwrap_err().to_string()
    };
    assert_eq!(error(json!([])).await, "core.tool has an environment but no create_command");
    let absent = error(json!(["no-such-builder", "x"])).await;
    assert!(absent.contains("no-such-builder is not in this image"), "{absent}");
    let nothing = error(json!(["true"])).await;
    assert!(nothing.starts_with("environment creation ended well, but there is no "), "{nothing}");
}

#[tokio::test]
async fn the_row_is_claimed_while_building_and_ready_afterwards() {
    let world = World::new();
    let table = TableOfOne::default();
    let others = Coordination { store: &table, worker: WorkerId(1), pack: PackId(3) };
    let chosen = world.chosen(CREATE, INSTALL);
    world.environments().ensure(&chosen, Some(others), std::future::pending()).await.unwrap();
    assert_eq!(table.history(), ["pending", "installing by 1", "ready"]);
    let row = table.row();
    assert_eq!(row.manifest_checksum, fs::read_to_string(world.env_dir().join(inspect::MARKER)).ok());
}

#[tokio::test]
async fn a_cancelled_build_gives_its_claim_back() {
    let world = World::new();
    let table = TableOfOne::default();
    let others = Coordination { store: &table, worker: WorkerId(1), pack: PackId(3) };
    let chosen = world.chosen(&format!("{CREATE}; exec sleep 600"), INSTALL);
    let half_way = eventually("the build is half-way", async || (!world.calls().is_empty()).then_some(()));
    let cancelled = world.environments().ensure(&chosen, Some(others), half_way).await.unwrap_err();
    assert!(matches!(cancelled, EnvironmentError::Cancelled { .. }), "{cancelled}");
    assert_eq!(table.row().status, PackEnvironmentStatus::Failed);
    assert_eq!(table.row().claimed_by, None);
}

#[tokio::test]
async fn the_builder_on_another_machine_is_waited_for() {
    let world = World::new();
    let table = TableOfOne::claimed_by(WorkerId(2));
    let others = Coordination { store: &table, worker: WorkerId(1), pack: PackId(3) };
    let chosen = world.chosen(CREATE, INSTALL);
    let environments = world.environments();
    let elsewhere = async {
        eventually("the first look at the row", async || (table.looks() > 0).then_some(())).await;
        // The other machine builds into the shared volume without our locks.
        let folder = world.env_dir();
        program(&folder.join("bin/run"), "");
        let checksum = "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e".to_owned();
        fs::write(folder.join(inspect::MARKER), &checksum).unwrap();
        let outcome = EnvironmentOutcome::Ready { manifest_checksum: Some(checksum), log: String::new() };
        assert!(table.finish_environment(PackEnvironmentId(1), WorkerId(2), &outcome).await.unwrap());
    };
    let (ensured, ()) = tokio::join!(environments.ensure(&chosen, Some(others), std::future::pending()), elsewhere);
    assert_eq!(ensured.unwrap(), ready(&world));
    assert!(world.calls().is_empty(), "nothing was built here");
}

#[tokio::test]
async fn a_claim_of_an_earlier_life_is_taken_over_at_once() {
    let world = World::new();
    let table = TableOfOne::claimed_by(WorkerId(1));
    let others = Coordination { store: &table, worker: WorkerId(1), pack: PackId(3) };
    let chosen = world.chosen(CREATE, INSTALL);
    world.environments().ensure(&chosen, Some(others), std::future::pending()).await.unwrap();
    assert_eq!(table.row().status, PackEnvironmentStatus::Ready);
}

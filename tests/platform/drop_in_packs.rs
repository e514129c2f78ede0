//! Packs that come and go while the worker of the platform's place works, and the environments that it shares with others.

use std::fs;
use std::process::Command;

use attune_testkit::eventually;
use attune_testkit::wheel::{WHEEL, WHEEL_FILE};
use serde_json::json;

use crate::executor::Executor;
use crate::support::Installation;

const REQUIREMENTS: &str = "# nothing is needed\n";

const WHERE: &str = "import sys\nprint(sys.prefix)\n";

/// An installation whose pack `snake` has a Python action and a manifest.
async fn with_a_python_pack(requirements: &str, code: &str) -> Installation {
    let installation = Installation::bare().await;
    let source = installation.path("source/snake");
    fs::create_dir_all(source.join("actions")).unwrap();
    for (name, text) in [
        ("pack.yaml", "ref: snake\nlabel: Snake\nversion: 1.0.0\n"),
        ("requirements.txt", requirements),
        (
            "actions/where.yaml",
            "ref: snake.where\nlabel: Where\nenabled: true\nrunner_type: python\nentry_point: where.py\noutput_format: text\n",
        ),
        ("actions/where.py", code),
    ] {
        fs::write(source.join(name), text).unwrap();
    }
    installation.load(installation.path("source").to_str().unwrap());
    for mark in ["packs/.attune-packs-sentinel", "artifacts/.attune-api-sentinel"] {
        fs::write(installation.path(mark), "{}").unwrap();
    }
    installation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registered_pack_gets_the_environment_that_all_workers_share_and_a_deleted_one_loses_it() {
    let platform = Executor::on(with_a_python_pack(REQUIREMENTS, WHERE).await).await;
    let pack = platform.json("SELECT id FROM pack WHERE ref = 'snake'").await;
    let payload = json!({"pack_id": pack, "pack_ref": "snake", "version": "1.0.0", "runtime_names": ["python"]});
    platform.say("PackRegistered", "attune.events", "pack.registered", &payload);
    let row = "SELECT row_to_json(pack_environment) FROM pack_environment WHERE env_key LIKE 'base:%'";
    let ready = "SELECT count(*) FROM pack_environment WHERE env_key LIKE 'base:%' AND status = 'ready'";
    platform.installation.wait_for("the environment", ready, |count| count == 1).await;
    let row = platform.json(row).await;
    let runtime = platform.json("SELECT id FROM runtime WHERE ref = 'core.python'").await;
    let folder = platform.installation.path("envs/snake/python");
    let checksum = platform.json(&format!("SELECT to_json(encode(sha256('{REQUIREMENTS}'), 'hex'))")).await;
    for (column, expected) in [
        ("env_key", json!(format!("base:{pack}:{runtime}"))),
        ("pack_ref", json!("snake")),
        ("runtime_ref", json!("core.python")),
        ("env_path", json!(folder.to_str().unwrap())),
        ("manifest_checksum", checksum.clone()),
        ("claimed_by_worker", json!(null)),
        ("install_error", json!(null)),
    ] {
        assert_eq!(row[column], expected, "{column}: {row}");
    }
    assert!(row["installed_at"].is_string() && row["last_verified"].is_string(), "{row}");
    let marker = fs::read_to_string(folder.join(".attune_deps_installed")).unwrap();
    assert_eq!(json!(marker), checksum, "no end of line");
    let beside: Vec<_> = fs::read_dir(platform.installation.path("packs/snake")).unwrap().flatten().collect();
    assert_eq!(beside.len(), 3, "nothing is made in the pack: {beside:?}");

    let id = platform.schedule_of("snake.where", &[]).await;
    platform.dispatch(id).await;
    let (_, execution) = platform.ended(id).await;
    let inside = execution["result"]["stdout"].as_str().unwrap_or_else(|| panic!("{execution}")).trim_end();
    // Of the version that fits best, if one was found here: then that environment has a row of its own.
    let paths = "SELECT env_path FROM pack_environment WHERE status = 'ready'";
    let paths = platform.installation.database.texts(paths).await.unwrap();
    let inside = fs::canonicalize(inside).unwrap();
    assert!(paths.iter().any(|path| fs::canonicalize(path).unwrap() == inside), "{inside:?} {paths:?}");

    let payload = json!({"pack_id": pack, "pack_ref": "snake"});
    platform.say("PackDeleted", "attune.events", "pack.deleted", &payload);
    let gone = platform.installation.path("envs/snake");
    eventually("the environments go", async || (!gone.exists()).then_some(())).await;
    platform.worker.stop();
}

/// Another worker builds it already, and then dies: nobody builds beside it, and one that is not renewed is taken over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_is_built_by_whoever_has_the_claim() {
    let platform = Executor::on(with_a_python_pack(REQUIREMENTS, WHERE).await).await;
    let folder = platform.installation.path("envs/snake/python");
    // Without versions there is one environment.
    platform.sql("DELETE FROM runtime_version").await;
    platform
        .sql(&format!(
            "INSERT INTO worker (id, name, worker_type, worker_role, status) VALUES (4711, 'other', 'local', 'action', 'active');
             INSERT INTO pack_environment (pack, pack_ref, runtime, runtime_ref, env_path, manifest_checksum, status,
                                           claimed_by_worker, claim_expires_at)
             SELECT pack.id, pack.ref, runtime.id, runtime.ref, '{}', encode(sha256('{REQUIREMENTS}'), 'hex'), 'installing',
                    4711, now() + interval '1 hour'
             FROM pack, runtime WHERE pack.ref = 'snake' AND runtime.ref = 'core.python'",
            folder.display()
        ))
        .await;
    let id = platform.schedule_of("snake.where", &[]).await;
    platform.dispatch(id).await;
    let running = "SELECT count(*) FROM execution WHERE status = 'running'";
    platform.installation.wait_for("the execution waits", running, |count| count == 1).await;
    let claim = "SELECT json_build_array(status, claimed_by_worker) FROM pack_environment";
    assert_eq!(platform.json(claim).await, json!(["installing", 4711]));
    assert!(!folder.exists(), "it is the other's to build");
    platform.sql("UPDATE pack_environment SET claim_expires_at = now() - interval '1 second'").await;
    let (_, execution) = platform.ended(id).await;
    assert_eq!(execution["status"], "completed", "{execution}");
    assert_eq!(platform.json(claim).await, json!(["ready", null]));
    assert!(folder.exists());
    platform.worker.stop();
}

/// What pip is told by variables: those of the worker, where it is told to hand them on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packages_come_from_a_folder_of_the_site_where_there_is_no_network() {
    let installation = with_a_python_pack("thing\n", "import thing\nprint(thing.ANSWER)\n").await;
    let wheels = installation.path("wheels");
    fs::create_dir(&wheels).unwrap();
    assert!(Command::new("python3").args(["-c", WHEEL]).arg(wheels.join(WHEEL_FILE)).status().unwrap().success());
    let settings = [
        ("ATTUNE__WORKER__PASS_ENV", "PIP_*"),
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", wheels.to_str().unwrap()),
        // Nobody listens there, so that nothing comes from anywhere else.
        ("https_proxy", "http://127.0.0.1:1"),
    ];
    let platform = Executor::on_with(installation, &settings).await;
    let id = platform.schedule_of("snake.where", &[]).await;
    platform.dispatch(id).await;
    let (_, execution) = platform.ended(id).await;
    assert_eq!(execution["result"]["stdout"], "42\n", "{execution}");
    platform.worker.stop();
}

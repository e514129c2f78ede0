//! Code of every kind on the platform's rows: text instead of a file, programs, folders, limits of output, and runtimes that
//! are named or not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use attune_testkit::eventually;
use serde_json::{Value, json};

use crate::executor::{Action, Executor};

const PLAIN: &str = "output_format: text\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_programs_and_files_are_run_as_the_platform_runs_them() {
    let platform = Executor::new(&[
        Action { name: "file", manifest: PLAIN, code: "pwd" },
        Action { name: "text", manifest: PLAIN, code: "" },
        Action { name: "program", manifest: PLAIN, code: "pwd; cat" },
        Action { name: "unnamed", manifest: PLAIN, code: "pwd" },
        Action { name: "foreign", manifest: PLAIN, code: "" },
    ])
    .await;
    let actions = platform.installation.path("packs/drop/actions");
    fs::remove_file(actions.join("text.sh")).unwrap();
    fs::write(actions.join("tool"), "#!/bin/sh\npwd; cat\n").unwrap();
    fs::set_permissions(actions.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    platform
        .sql(
            "UPDATE action SET entrypoint = 'echo \"$PARAM_A_B $a_b $(env | grep -c PARAM_)\"; pwd' WHERE ref = 'drop.text';
             UPDATE action SET entrypoint = 'tool', runtime = (SELECT id FROM runtime WHERE ref = 'core.native')
                WHERE ref = 'drop.program';
             UPDATE action SET runtime = NULL WHERE ref = 'drop.unnamed';
             INSERT INTO runtime (ref, name, aliases, distributions, execution_config)
                VALUES ('drop.cobol', 'Cobol', '{cobol}', '{}', '{\"interpreter\": {\"binary\": \"cobol\", \"file_extension\": \".cob\"}}');
             UPDATE action SET runtime = (SELECT id FROM runtime WHERE ref = 'drop.cobol') WHERE ref = 'drop.foreign'",
        )
        .await;
    let pack = platform.installation.path("packs/drop").display().to_string();
    let here = platform.installation.folder.path().display().to_string();
    let config = [("config", r#"'{"a.b": "it''s"}'"#)];
    for (action, stdout) in [
        ("file", format!("{pack}\n")),
        ("text", format!("it's it's 0\n{pack}\n")),
        // Programs stay where the worker is.
        ("program", format!("{here}\n{{\"a.b\":\"it's\"}}\n")),
        ("unnamed", format!("{pack}\n")),
    ] {
        let (_, row) = platform.run(action, &config).await;
        assert_eq!((&row["status"], &row["result"]["stdout"]), (&json!("completed"), &json!(stdout)), "{row}");
    }
    let (_, row) = platform.run("foreign", &[]).await;
    let error = row["result"]["error"].as_str().unwrap();
    assert_eq!(row["status"], "failed");
    assert!(error.starts_with("Action execution failed: Internal error: "), "{error}");
    assert!(error.to_lowercase().contains("cobol") && row["result"]["exit_code"].is_null(), "{row}");
    platform.worker.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_beyond_its_limit_is_cut_in_the_row_and_in_the_log_and_that_is_told() {
    let installation = Executor::prepared(&[
        Action { name: "exact", manifest: PLAIN, code: "head -c 1000 /dev/zero | tr '\\0' x" },
        Action {
            name: "more",
            manifest: PLAIN,
            code: "head -c 1001 /dev/zero | tr '\\0' x; head -c 2000 /dev/zero | tr '\\0' y >&2",
        },
    ])
    .await;
    for mark in ["packs/.attune-packs-sentinel", "artifacts/.attune-api-sentinel"] {
        fs::write(installation.path(mark), "{}").unwrap();
    }
    let limits = [("ATTUNE__WORKER__MAX_STDOUT_BYTES", "1128"), ("ATTUNE__WORKER__MAX_STDERR_BYTES", "1128")];
    let platform = Executor::on_with(installation, &limits).await;
    let (_, row) = platform.run("exact", &[]).await;
    let result = row["result"].as_object().unwrap();
    assert_eq!(result["stdout"], "x".repeat(1000));
    assert!(!result.contains_key("stdout_truncated") && !result.contains_key("stdout_bytes_truncated"), "{row}");
    let (_, row) = platform.run("more", &[]).await;
    let result = &row["result"];
    let notice = "\n\n[OUTPUT TRUNCATED: stdout exceeded size limit]\n";
    assert_eq!(result["stdout"], format!("{}{notice}", "x".repeat(1000)));
    for (key, value) in [
        ("stdout_truncated", json!(true)),
        ("stdout_bytes_truncated", json!(1)),
        ("stderr_truncated", json!(true)),
        ("stderr_bytes_truncated", json!(1000)),
    ] {
        assert_eq!(result[key], value, "{key}");
    }
    let longest = "SELECT max(size_bytes) FROM artifact_version";
    assert!(platform.installation.database.number(longest).await <= 1128);
    platform.worker.stop();
}

/// The API streams this file while the action runs, and finds the version afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_action_says_can_be_watched_and_ends_as_a_version_that_its_manifest_keeps() {
    let code = "echo begun; while [ ! -e \"$ATTUNE_ARTIFACTS_DIR/go\" ]; do sleep 0.01; done; echo done";
    let platform = Executor::new(&[Action { name: "talk", manifest: PLAIN, code }]).await;
    platform.sql("UPDATE action SET log_retention_policy = 'versions', log_retention_limit = 1").await;
    let artifacts = platform.installation.path("artifacts");
    let id = platform.schedule("talk", &[]).await;
    platform.dispatch(id).await;
    let live = artifacts.join(format!("execution_{id}/stdout.log"));
    eventually("the live log", async || fs::read_to_string(&live).ok().filter(|text| text == "begun\n")).await;
    fs::write(artifacts.join("go"), "").unwrap();
    platform.ended(id).await;
    let log = |number: u32| artifacts.join(format!("drop/talk/stdout/log/v{number}.txt"));
    assert_eq!(fs::read_to_string(log(1)).unwrap(), "begun\ndone\n");
    let again = platform.schedule("talk", &[]).await;
    platform.dispatch(again).await;
    platform.ended(again).await;
    assert_eq!(fs::read_to_string(log(2)).unwrap(), "begun\ndone\n");
    assert!(!log(1).exists(), "one version is kept, and the file goes with the other");
    let rows = "SELECT json_agg(json_build_array(artifact.ref, artifact.scope, artifact.owner, artifact.visibility,
        artifact.retention_policy, artifact.retention_limit, version, execution, created_by, meta, file_path, version.size_bytes))
        FROM artifact JOIN artifact_version AS version ON version.artifact = artifact.id";
    let rows: Value = platform.json(rows).await;
    let expected = json!([[
        "drop.talk.stdout.log", "action", "drop.talk", "private", "versions", 1, 2, again, "worker",
        {"stream": "stdout", "execution_id": again}, "drop/talk/stdout/log/v2.txt", 11
    ]]);
    assert_eq!(rows, expected);
    platform.worker.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_that_runs_as_another_user_can_read_its_parameter_file() {
    if attune_process::effective_user() != 0 {
        return attune_testkit::lacking("root", "run the tests as root");
    }
    let code = "id -u; cat \"$ATTUNE_PARAMETER_FILE\"";
    let manifest = "parameter_delivery: file\nparameter_format: json\noutput_format: text\n";
    let installation = Executor::prepared(&[Action { name: "file", manifest, code }]).await;
    for (name, mode) in [(".", 0o755), ("tmp", 0o1777)] {
        fs::set_permissions(installation.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let platform = Executor::on_with(installation, &[("ATTUNE__WORKER__RUN_AS", "65534:65534")]).await;
    let (_, row) = platform.run("file", &[("config", r#"'{"a": 1}'"#)]).await;
    assert_eq!((&row["status"], &row["result"]["stdout"]), (&json!("completed"), &json!("65534\n{\"a\":1}")), "{row}");
    platform.worker.stop();
}

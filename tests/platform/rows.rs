//! Rows that others read, as the programs leave them in PostgreSQL.

use serde_json::{Value, json};

use crate::support::Installation;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_registered_is_what_schedulers_read() {
    let installation = Installation::bare().await;
    let worker = installation.start_with("worker", &["worker", "--name", "worker-1"], |command| {
        command.env("ATTUNE_WORKER_RUNTIMES", "Shell, ruby,native");
        command.env("ATTUNE__WORKER__LABELS__REGION", "eu");
        command.env("ATTUNE__WORKER__TAINTS", r#"[{"key": "gpu", "value": "yes", "effect": "no_schedule"}]"#);
        command.env("ATTUNE__WORKER__CAPABILITIES__TEAM", "blue");
        command.env("ATTUNE__WORKER__HOST", "node-1");
        command.env("ATTUNE__WORKER__MAX_CONCURRENT_TASKS", "7");
    });
    let row = "SELECT row_to_json(of) FROM (SELECT name, worker_type, worker_role, runtime, host, port, status,
        capabilities, last_heartbeat <= now() AS fresh FROM worker) AS of";
    let active = "SELECT count(*) FROM worker WHERE status = 'active' AND capabilities ? 'runtime_versions'";
    installation.wait_for("the worker is registered", active, |count| count == 1).await;
    let rows = installation.database.texts(row).await.unwrap();
    let mut row: Value = serde_json::from_str(&rows[0]).unwrap();
    // What differs from machine to machine is checked for its form and then named.
    let capabilities = row["capabilities"].as_object_mut().unwrap();
    for key in ["worker_version", "agent_binary_version"] {
        assert_eq!(capabilities[key], env!("CARGO_PKG_VERSION"), "{key}");
        capabilities[key] = "<version>".into();
    }
    // The shell is everywhere, Ruby may be missing here.
    let interpreters = capabilities["detected_interpreters"].as_array_mut().unwrap();
    interpreters.retain(|interpreter| interpreter["name"] == "shell");
    let shell = interpreters[0].as_object_mut().unwrap();
    for (key, begins) in [("path", "/"), ("version", "")] {
        assert!(shell[key].as_str().is_some_and(|text| text.starts_with(begins) && !text.is_empty()), "{shell:?}");
        shell[key] = format!("<{key}>").into();
    }
    let versions = capabilities["runtime_versions"].as_object_mut().unwrap();
    versions.retain(|name, _| name == "shell");
    let shell = versions["shell"].as_array_mut().unwrap();
    assert!(!shell.is_empty() && shell.iter().all(Value::is_string), "{shell:?}");
    *shell = vec![json!("<version>")];
    worker.stop();
    let actual = serde_json::to_string_pretty(&row).unwrap() + "\n";
    assert_eq!(actual, include_str!("golden/registration.json"), "what is registered has changed:\n{actual}");
}

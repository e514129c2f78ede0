//! Every message and every shape of a result, byte for byte beside what is expected. The files were held against the
//! platform's contract by hand; a change of them is a change of what others read.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use attune_model::message::Envelope;
use attune_model::status::{OutputFormat, ParameterFormat};
use attune_store::PageRequest;
use attune_testkit::eventually;
use attune_worker::Executor;
use serde_json::{Map, Value, json};

use crate::support;
use crate::support::golden::{assert_golden, named};
use crate::support::rig::{Backend, Rig};
use crate::support::{Place, action, claimed, conclude, native, run, shell, undisturbed};

#[tokio::test]
async fn messages_are_what_the_platform_reads() {
    let wait = "touch \"$OUT/started\"; while [ ! -e \"$OUT/go\" ]; do sleep 0.01; done";
    let actions = [("good", "echo fine"), ("bad", "exit 3"), ("wait", wait), ("slow", "sleep 600")];
    let mut rig = Rig::new(Backend::Embedded, &actions.map(|(name, code)| (name, code.to_owned()))).await;
    let mut config = rig.config();
    config.executor.passed_environment.push(("OUT".into(), rig.place.path(".").into()));
    let (mut life, mut told) = (rig.live_with(config.clone()).await, Map::new());
    for (name, _) in actions {
        if name == "slow" {
            life.finish().await;
            config.executor.time_limit = Duration::from_secs(1);
            life = rig.live_with(config.clone()).await;
        }
        let id = rig.submit(life.id, name).await;
        if name == "wait" {
            rig.file("started").await;
            rig.send_cancel(life.id, id).await;
        }
        let messages: Vec<Envelope> = rig.told(id).await;
        let messages: Vec<Value> =
            messages.into_iter().map(|message| named(serde_json::to_value(message).unwrap(), id.0)).collect();
        // The first is the same for all.
        let from = usize::from(name != "good");
        told.insert(name.to_owned(), messages[from..].into());
    }
    life.finish().await;
    assert_golden(&Value::Object(told), include_str!("golden/messages.json"));
}

#[tokio::test]
async fn results_have_the_shapes_that_the_platform_reads() {
    let place = Place::new();
    let mut config = place.config();
    (config.max_stdout_bytes, config.max_stderr_bytes) = (128 + 8, 128 + 4);
    let executor = support::executor(config);
    let mut results = Map::new();
    for (name, code, format) in [
        ("completed silently", "exit 0", OutputFormat::Text),
        ("completed with text", "echo fine; echo ok >&2", OutputFormat::Text),
        ("completed with truncated output", "echo 0123456789; echo 0123456789 >&2", OutputFormat::Text),
        ("failed with output", "echo partly; echo no luck; exit 3", OutputFormat::Text),
        ("failed with standard error", "echo oh >&2; exit 4", OutputFormat::Json),
        ("failed by a signal", "kill -9 $$", OutputFormat::Text),
    ] {
        place.file("run.sh", code);
        let mut action = action("run.sh");
        action.output_format = format;
        let (_, result) = run(&executor, &claimed(action, shell(), json!({}))).await;
        results.insert(name.to_owned(), named(result, 7));
    }
    let executor = place.executor();
    for (name, format, code) in [
        ("data from json", OutputFormat::Json, "printf '{\"a\":\\n1}'"),
        ("data from the last line", OutputFormat::Json, "echo log line; echo '[1,null]'"),
        ("data from jsonl", OutputFormat::Jsonl, "echo 1; echo log line; echo '{\"b\":2}'"),
        ("data from yaml", OutputFormat::Yaml, "printf 'a: [x, 1]\\n'"),
        ("data from yaml that is a text", OutputFormat::Yaml, "echo just text"),
        ("no data", OutputFormat::Json, "echo no json"),
        (
            "queue_ack is lifted",
            OutputFormat::Json,
            "echo '{\"queue_ack\":{\"items\":[{\"id\":1,\"status\":\"completed\"}]}}'",
        ),
        ("__inquiry is not lifted", OutputFormat::Json, "echo '{\"__inquiry\":{\"prompt\":\"sure?\"}}'"),
    ] {
        place.file("run.sh", code);
        let mut action = action("run.sh");
        action.output_format = format;
        let (_, result) = run(&executor, &claimed(action, shell(), json!({}))).await;
        results.insert(name.to_owned(), named(result, 7));
    }
    special(&place, &executor, &mut results).await;
    assert_golden(&Value::Object(results), include_str!("golden/results.json"));
}

/// Ends that are not the child's own.
async fn special(place: &Place, executor: &Executor, results: &mut Map<String, Value>) {
    place.file("tool", "#!/bin/sh\necho ' no luck ' >&2; exit 5");
    let (_, result) = run(executor, &claimed(action("tool"), native(), json!({}))).await;
    results.insert("failed natively".to_owned(), named(result, 7));
    place.file("slow.sh", "echo begun; sleep 600");
    let mut slow = action("slow.sh");
    slow.timeout_seconds = Some(1);
    let (_, result) = run(executor, &claimed(slow, shell(), json!({}))).await;
    results.insert("timed out".to_owned(), named(result, 7));
    let mut early = claimed(action("run.sh"), shell(), json!({}));
    early.action = None;
    results.insert("failed early".to_owned(), run(executor, &early).await.1);
    let started = place.path("started");
    place.file("slow.sh", &format!("echo begun; touch {}; while true; do sleep 0.01; done", started.display()));
    let (control, slow) = (undisturbed(), claimed(action("slow.sh"), shell(), json!({})));
    let cancel = async {
        eventually("the child runs", async || started.exists().then_some(())).await;
        control.cancel.cancel();
    };
    let (conclusion, ()) = tokio::join!(conclude(executor, &slow, &control), cancel);
    results.insert("cancelled".to_owned(), named(conclusion.document(None), 7));
    let stderr_log = conclusion.document(Some("/opt/attune/artifacts/demo/act/stderr/log/v1.txt"));
    results.insert("cancelled with a log".to_owned(), named(stderr_log, 7));
    let cancelled = conclude(executor, &slow, &control).await;
    results.insert("cancelled early".to_owned(), cancelled.document(None));
}

/// The rows that the captured streams leave, as others find them.
async fn log_artifacts_are_what_the_platform_reads(on: Backend) {
    let mut rig = Rig::new(on, &[("talk", "echo out; echo err >&2".to_owned())]).await;
    let life = rig.live().await;
    let id = rig.submit(life.id, "talk").await;
    rig.told(id).await;
    life.finish().await;
    let mut rows = Map::new();
    for stream in ["stdout", "stderr"] {
        let name = format!("demo.talk.{stream}.log");
        let artifact = rig.store.artifact_of_ref(&name).await.unwrap().unwrap();
        let page = rig.store.versions(artifact.id, PageRequest { page: 1, page_size: 10 }).await.unwrap();
        assert_eq!(page.items.len(), 1);
        let version = &page.items[0];
        assert_eq!((version.artifact, version.execution), (artifact.id, Some(id)));
        let file = rig.place.path("artifacts").join(version.file_path.as_ref().unwrap());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o664);
        for folder in file.ancestors().skip(1).take(4) {
            assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o7777, 0o2775, "{}", folder.display());
        }
        let (mut artifact, mut version) =
            (serde_json::to_value(&artifact).unwrap(), serde_json::to_value(version).unwrap());
        for (row, keys) in [(&mut artifact, &["id"][..]), (&mut version, &["id", "artifact", "execution"])] {
            for key in keys {
                assert!(row.as_object_mut().unwrap().shift_remove(*key).is_some_and(|value| value.is_i64()), "{key}");
            }
        }
        rows.insert(name, json!({"artifact": named(artifact, id.0), "version": named(version, id.0)}));
    }
    assert_golden(&Value::Object(rows), include_str!("golden/logs.json"));
}

attune_testkit::tests_on_each! {
    embedded: Backend::Embedded, servers: Backend::Servers => [log_artifacts_are_what_the_platform_reads]
}

#[tokio::test]
async fn parameters_are_encoded_byte_for_byte() {
    let place = Place::new();
    place.file("cat.sh", "cat");
    let parameters = json!({
        "message": "Hello, 'World'!",
        "lines": "one\ntwo",
        "count": 42, "rate": 0.5, "enabled": true, "nothing": null, "unicode": "ü",
        "list": [1, "a", null],
        "empty": {}, "headers": {"Content-Type": "application/json", "deep": {"x": 1}},
    });
    let mut all = String::new();
    for format in [ParameterFormat::Json, ParameterFormat::Dotenv, ParameterFormat::Yaml] {
        for config in [parameters.clone(), json!({})] {
            let mut action = action("cat.sh");
            action.parameter_format = format;
            let (_, result) = run(&place.executor(), &claimed(action, shell(), config)).await;
            writeln!(all, "=== {format}\n{}", result["stdout"].as_str().unwrap_or_default()).unwrap();
        }
    }
    assert_eq!(all, include_str!("golden/parameters.txt"), "\n{all}");
    assert!(fs::exists(place.path("packs")).unwrap());
}

//! The worker in the place of the platform's own: what others on PostgreSQL and RabbitMQ see of it, held against the
//! platform's contract. Nothing of the hub runs.

use std::fs;
use std::time::{Duration, Instant};

use attune_testkit::eventually;
use serde_json::{Map, Value, json};

use crate::executor::{Action, Executor};
use crate::support::{Installation, processes_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_and_consumers_are_where_the_executor_looks_for_them() {
    let platform = Executor::new(&[]).await;
    let (broker, id) = (&platform.installation.broker, platform.id);
    let dead = json!({"x-dead-letter-exchange": "attune.dlx"});
    let timed = json!({"x-dead-letter-exchange": "attune.dlx", "x-message-ttl": 300_000});
    let dispatches = vec![("attune.executions", format!("execution.dispatch.worker.{id}"))];
    let cancels = vec![("attune.executions", format!("execution.cancel.worker.{id}"))];
    let packs = ["pack.deleted", "pack.registered"].map(|key| ("attune.events", key.to_owned())).into();
    for (queue, arguments, bindings) in
        [("executions", timed, dispatches), ("cancel", dead.clone(), cancels), ("packs", dead, packs)]
    {
        let name = format!("worker.{id}.{queue}");
        let made = broker.queue(&name).unwrap();
        let mut declared = made["arguments"].clone();
        // Newer brokers tell the kind of queue that is the default.
        declared.as_object_mut().unwrap().remove("x-queue-type");
        assert_eq!(declared, arguments, "{name}");
        let kind = ["durable", "exclusive", "auto_delete"].map(|key| made[key] == true);
        assert_eq!(kind, [true, false, false], "{name}");
        let mut bound = broker.bindings(&name);
        bound.sort();
        let bindings: Vec<(String, String)> = bindings.into_iter().map(|(from, key)| (from.to_owned(), key)).collect();
        assert_eq!(bound, bindings, "{name}");
    }
    let expected = [("cancel", "-cancel"), ("executions", ""), ("packs", "-packs")]
        .map(|(queue, tag)| json!([format!("worker.{id}.{queue}"), format!("worker-{id}{tag}"), true, false]));
    // The management notices what is there every few seconds.
    let consumers = async || {
        let consumers = broker.management().get(&format!("/api/consumers/{}", broker.vhost()));
        let of = |of: &Value| json!([of["queue"]["name"], of["consumer_tag"], of["ack_required"], of["exclusive"]]);
        let mut consumers: Vec<Value> = consumers.as_array().unwrap().iter().map(of).collect();
        consumers.sort_by_key(Value::to_string);
        (consumers == expected).then_some(())
    };
    eventually("three consumers", consumers).await;
    platform.worker.stop();
}

/// Times, ids and what differs from machine to machine are checked for their form and then named.
fn named(value: &mut Value, names: &[(&str, &str)]) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match (key.as_str(), &*value) {
                    ("message_id" | "correlation_id", Value::String(text)) if text.len() == 36 => {
                        *value = "<uuid>".into()
                    }
                    ("duration_ms" | "execution_id", Value::Number(number)) if number.is_u64() => {
                        *value = format!("<{key}>").into();
                    }
                    ("timestamp", Value::Number(number)) if number.is_u64() => *value = "<seconds>".into(),
                    _ => named(value, names),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| named(item, names)),
        Value::String(text) => {
            let is_time = chrono::DateTime::parse_from_rfc3339(text).is_ok();
            *text = if is_time { "<time>".to_owned() } else { replaced(text, names) };
        }
        _ => {}
    }
}

fn replaced(text: &str, names: &[(&str, &str)]) -> String {
    names.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Databases have an order of their own for keys, brokers for properties.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<(String, Value)> = map.into_iter().collect();
            keys.sort_by(|(left, _), (right, _)| left.cmp(right));
            Value::Object(keys.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_messages_of_every_end_are_those_of_the_platform() {
    let platform = Executor::new(&[
        Action { name: "good", manifest: "output_format: text\n", code: "echo fine; echo noted >&2" },
        Action {
            name: "data",
            manifest: "output_format: json\n",
            code: r#"echo log; echo '{"queue_ack": {"items": []}}'"#,
        },
        Action { name: "bad", manifest: "output_format: text\n", code: "echo partly; echo oh >&2; exit 3" },
        Action { name: "slow", manifest: "output_format: text\n", code: "echo begun; sleep 600" },
        Action { name: "lost", manifest: "output_format: text\n", code: "exit 0" },
    ])
    .await;
    fs::remove_file(platform.installation.path("packs/drop/actions/lost.sh")).unwrap();
    platform
        .sql("UPDATE action SET runtime = (SELECT id FROM runtime WHERE ref = 'core.native') WHERE ref = 'drop.lost'")
        .await;
    let folder = platform.installation.folder.path().to_str().unwrap().to_owned();
    let mut ends = Map::new();
    let task = r#"'{"timeout_seconds": 1}'"#;
    for (action, columns) in
        [("good", vec![]), ("data", vec![]), ("bad", vec![]), ("slow", vec![("workflow_task", task)]), ("lost", vec![])]
    {
        let (said, row) = platform.run(action, &columns).await;
        let started = row["started_at"].is_string();
        let row = json!({"status": row["status"], "started": started, "result": row["result"]});
        let mut end = sorted(json!({"said": said, "row": row}));
        named(&mut end, &[(&folder, "<folder>")]);
        ends.insert(action.to_owned(), end);
    }
    platform.worker.stop();
    let actual = serde_json::to_string_pretty(&ends).unwrap() + "\n";
    assert_eq!(actual, include_str!("golden/ends.json"), "what others see has changed:\n{actual}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_known_by_its_name_keeps_what_is_not_the_workers() {
    let installation = Installation::bare().await;
    let name = installation.database.name().to_owned();
    let insert = format!(
        "INSERT INTO worker (id, name, worker_type, worker_role, status, capabilities, meta, cordoned, cordon_reason, cordoned_at)
         VALUES (42, '{name}', 'remote', 'action', 'inactive', '{{\"old\": true}}', '{{\"note\": 1}}', true, 'repair', now())"
    );
    installation.database.execute(&insert).await;
    let platform = Executor::on(installation).await;
    assert_eq!(platform.id, 42);
    let row = "SELECT json_build_array(worker_type, meta, cordoned, cordon_reason, cordoned_at IS NOT NULL,
               status, capabilities ? 'old', last_heartbeat > now() - interval '1 minute') FROM worker";
    let kept = json!(["remote", {"note": 1}, true, "repair", true]);
    let mut expected = kept.as_array().unwrap().clone();
    expected.extend([json!("active"), json!(false), json!(true)]);
    assert_eq!(platform.json(row).await, Value::Array(expected));
    // Somebody else finds it silent: the next heartbeat says that it is not. A start writes one too.
    platform.worker.stop();
    let mut expected = kept.as_array().unwrap().clone();
    expected.extend([json!("inactive"), json!(false), json!(true)]);
    assert_eq!(
        platform.installation.database.texts(row).await.map(|rows| serde_json::from_str(&rows[0]).unwrap()),
        Some(Value::Array(expected))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_ends_the_whole_group_after_a_grace_of_five_seconds() {
    let platform = Executor::new(&[Action {
        name: "stubborn",
        manifest: "output_format: text\n",
        code: "trap '' TERM; (trap '' TERM; exec sleep 4711) & touch \"$ATTUNE_ARTIFACTS_DIR/begun\"; sleep 4711; sleep 4711",
    }])
    .await;
    let id = platform.schedule("stubborn", &[]).await;
    platform.dispatch(id).await;
    let begun = platform.installation.path("artifacts/begun");
    eventually("it begins", async || begun.exists().then_some(())).await;
    platform.sql(&format!("UPDATE execution SET status = 'canceling' WHERE id = {id}")).await;
    let asked = Instant::now();
    let payload = json!({"execution_id": id, "worker_id": platform.id});
    let key = format!("execution.cancel.worker.{}", platform.id);
    platform.say("ExecutionCancelRequested", "attune.executions", &key, &payload);
    let (said, row) = platform.ended(id).await;
    let took = asked.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(20), "{took:?}");
    assert_eq!(row["status"], "cancelled");
    let result = &row["result"];
    assert_eq!(
        (&result["cancelled"], &result["error"]),
        (&json!(true), &json!("Execution cancelled by user")),
        "{result}"
    );
    let last = &said.last().unwrap()["body"]["payload"];
    assert_eq!(last["status"], "Cancelled");
    let folder = platform.installation.path("packs/drop");
    assert_eq!(processes_with(folder.to_str().unwrap()), Vec::<u32>::new());
    platform.worker.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_an_action_registered_get_their_size_and_versions_without_a_file_go() {
    let code = "mkdir -p \"$ATTUNE_ARTIFACTS_DIR/drop/report\"; while [ ! -e \"$ATTUNE_ARTIFACTS_DIR/go\" ]; do sleep 0.01; done
        printf 12345 > \"$ATTUNE_ARTIFACTS_DIR/drop/report/v1.txt\"";
    let platform = Executor::new(&[Action { name: "report", manifest: "output_format: text\n", code }]).await;
    let id = platform.schedule("report", &[]).await;
    platform.dispatch(id).await;
    let paths = ["drop/report/v1.txt", "drop/report/v2.txt"];
    platform.register(id, "drop.report", "drop.report", &paths).await;
    fs::write(platform.installation.path("artifacts/go"), "").unwrap();
    platform.ended(id).await;
    let sizes = "SELECT json_build_array(artifact.size_bytes, json_agg(json_build_array(version, version.size_bytes)))
        FROM artifact JOIN artifact_version AS version ON version.artifact = artifact.id
        WHERE artifact.ref = 'drop.report' GROUP BY artifact.id";
    // Sizes come with the row's end or shortly after it.
    let expected = json!([5, [[1, 5]]]);
    eventually("the sizes", async || (platform.json(sizes).await == expected).then_some(())).await;
    platform.worker.stop();
}

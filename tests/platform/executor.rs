//! The platform's executor as a worker sees it: rows by SQL, messages as bytes, and nothing of ours that could be wrong in the
//! same way on both sides.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;

use attune_bus::{Bus as _, QueueLifetime, QueueSpec};
use attune_bus_amqp::{AmqpBus, AmqpConfig};
use attune_model::Secret;
use attune_model::message::Exchange;
use attune_testkit::eventually;
use serde_json::{Value, json};

use crate::health::becomes;
use crate::support::{Installation, Program};

/// Where everything is that workers say.
const HEARD: &str = "test.heard";

/// An action of pack `drop`: what stands in its file, and its manifest without what all have.
pub(crate) struct Action {
    pub(crate) name: &'static str,
    pub(crate) manifest: &'static str,
    pub(crate) code: &'static str,
}

/// One worker, started as an operator does, and the platform around it.
pub(crate) struct Executor {
    /// Goes first: its log is in the folder of the installation.
    pub(crate) worker: Program,
    pub(crate) installation: Installation,
    /// The worker's row.
    pub(crate) id: i64,
    heard: Mutex<Vec<Value>>,
}

impl Executor {
    /// With shell actions, and folders that the API shares.
    pub(crate) async fn new(actions: &[Action]) -> Self {
        let installation = Self::prepared(actions).await;
        // Its marks.
        for mark in ["packs/.attune-packs-sentinel", "artifacts/.attune-api-sentinel"] {
            fs::write(installation.path(mark), "{}").unwrap();
        }
        Self::on(installation).await
    }

    /// What a worker finds: the actions are loaded.
    pub(crate) async fn prepared(actions: &[Action]) -> Installation {
        let installation = Installation::bare().await;
        let source = installation.path("source/drop");
        fs::create_dir_all(source.join("actions")).unwrap();
        fs::write(source.join("pack.yaml"), "ref: drop\nlabel: Drop\nversion: 1.0.0\n").unwrap();
        for Action { name, manifest, code } in actions {
            let file = source.join(format!("actions/{name}.sh"));
            let manifest = format!(
                "ref: drop.{name}\nlabel: {name}\nenabled: true\nrunner_type: shell\nentry_point: {name}.sh\n{manifest}"
            );
            fs::write(source.join(format!("actions/{name}.yaml")), manifest).unwrap();
            fs::write(&file, format!("#!/bin/sh\n{code}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        installation.load(installation.path("source").to_str().unwrap());
        installation
    }

    /// On an installation that is ready for it.
    pub(crate) async fn on(installation: Installation) -> Self {
        Self::on_with(installation, &[]).await
    }

    /// … with these settings of the worker.
    pub(crate) async fn on_with(installation: Installation, settings: &[(&str, &str)]) -> Self {
        let bus = AmqpBus::connect(&AmqpConfig::new(Secret::new(installation.broker.url()), "test")).await.unwrap();
        let keys = ["execution.status.changed", "execution.completed"];
        let queue = QueueSpec {
            name: HEARD.to_owned(),
            bindings: keys.map(|key| (Exchange::Executions, key.to_owned())).into(),
            message_ttl_ms: None,
            dead_letters: false,
            lifetime: QueueLifetime::Permanent,
        };
        bus.declare(&queue).await.unwrap();
        bus.close().await;
        let name = installation.database.name();
        let worker = installation.start_with("worker", &["worker", "--name", name], |command| {
            command.envs(settings.iter().copied());
        });
        becomes(&installation, 0, "ready").await;
        let id = installation.database.number("SELECT id FROM worker").await;
        Self { worker, installation, id, heard: Mutex::default() }
    }

    /// Runs a statement.
    pub(crate) async fn sql(&self, sql: &str) {
        self.installation.database.execute(sql).await;
    }

    /// The JSON that a query yields.
    pub(crate) async fn json(&self, sql: &str) -> Value {
        let rows = self.installation.database.texts(sql).await.unwrap();
        serde_json::from_str(rows.first().unwrap_or_else(|| panic!("no row: {sql}"))).unwrap()
    }

    /// A row that is `scheduled` for the worker, with some columns more; its id.
    pub(crate) async fn schedule(&self, action: &str, columns: &[(&str, &str)]) -> i64 {
        self.schedule_of(&format!("drop.{action}"), columns).await
    }

    /// … of an action of any pack.
    pub(crate) async fn schedule_of(&self, action_ref: &str, columns: &[(&str, &str)]) -> i64 {
        let (mut names, mut values) = (vec!["executor"], vec!["1"]);
        for (name, value) in columns {
            names.push(name);
            values.push(value);
        }
        let (worker, names, values) = (self.id, names.join(", "), values.join(", "));
        self.sql(&format!(
            "INSERT INTO execution (action, action_ref, status, worker, {names})
             SELECT id, ref, 'scheduled', {worker}, {values} FROM action WHERE ref = '{action_ref}'"
        ))
        .await;
        self.installation.database.number("SELECT max(id) FROM execution").await
    }

    /// The executor's message about it.
    pub(crate) async fn dispatch(&self, id: i64) {
        let sql = format!(
            "SELECT json_build_object('action_ref', action_ref, 'config', config,
            'scheduled_attempt_updated_at', updated) FROM execution WHERE id = {id}"
        );
        let mut payload = self.json(&sql).await;
        (payload["execution_id"], payload["worker_id"]) = (id.into(), self.id.into());
        let key = format!("execution.dispatch.worker.{}", self.id);
        self.say("ExecutionRequested", "attune.executions", &key, &payload);
    }

    /// Any message.
    pub(crate) fn say(&self, message_type: &str, exchange: &str, key: &str, payload: &Value) {
        let message = json!({
            "message_id": "7f0e2a52-6a0f-4c77-a9a0-0d8a9ff0ef01",
            "correlation_id": "7f0e2a52-6a0f-4c77-a9a0-0d8a9ff0ef01",
            "message_type": message_type, "version": "1.0", "timestamp": "2026-01-02T03:04:05.678901234Z",
            "headers": {"retry_count": 0, "source_service": "executor"}, "payload": payload,
        });
        self.installation.broker.publish_raw(exchange, key, &message.to_string());
    }

    /// Schedules, tells, and waits for the end: everything that was said about it, and the row.
    pub(crate) async fn run(&self, action: &str, columns: &[(&str, &str)]) -> (Vec<Value>, Value) {
        let id = self.schedule(action, columns).await;
        self.dispatch(id).await;
        self.ended(id).await
    }

    /// What the API does for an action: versions of an artifact with the paths of files that the action then writes.
    pub(crate) async fn register(&self, id: i64, artifact: &str, owner: &str, paths: &[&str]) {
        let paths = paths.join("', '");
        self.sql(&format!(
            "WITH made AS (
                INSERT INTO artifact (ref, scope, owner, type, visibility, retention_policy, retention_limit)
                VALUES ('{artifact}', 'action', '{owner}', 'file_text', 'private', 'versions', 10) RETURNING id
             )
             INSERT INTO artifact_version (artifact, version, execution, content_type, file_path)
             SELECT id, version, {id}, 'text/plain', path
             FROM made, unnest(ARRAY['{paths}']) WITH ORDINALITY AS given (path, version)"
        ))
        .await;
    }

    /// Waits for the end of an execution.
    pub(crate) async fn ended(&self, id: i64) -> (Vec<Value>, Value) {
        let said = eventually("the end is announced", async || {
            let said = self.heard_of(id);
            said.iter().any(|message| message["routing_key"] == "execution.completed").then_some(said)
        })
        .await;
        (said, self.json(&format!("SELECT row_to_json(execution) FROM execution WHERE id = {id}")).await)
    }

    /// What was said about an execution so far, in order, with the properties of the messages.
    fn heard_of(&self, id: i64) -> Vec<Value> {
        let broker = &self.installation.broker;
        let wanted = json!({"count": 1000, "ackmode": "ack_requeue_false", "encoding": "auto"});
        let new = broker.management().post(&format!("/api/queues/{}/{HEARD}/get", broker.vhost()), &wanted);
        let mut heard = self.heard.lock().unwrap();
        heard.extend(new.as_array().unwrap().iter().map(|message| {
            let body: Value = serde_json::from_str(message["payload"].as_str().unwrap()).unwrap();
            json!({
                "exchange": message["exchange"], "routing_key": message["routing_key"],
                "properties": message["properties"], "body": body,
            })
        }));
        heard.iter().filter(|message| message["body"]["payload"]["execution_id"] == id).cloned().collect()
    }
}

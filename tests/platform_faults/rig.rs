//! An installation with a hub, a pack whose actions leave marks, and somebody who reads all messages.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use attune_model::{IdentityId, Secret};
use attune_security::{TokenKey, sign_access_token};
use attune_testkit::database::TestDatabase;
use attune_testkit::{TestBroker, eventually, eventually_blocking};
use chrono::Utc;
use serde_json::{Value, json};

use crate::http::post;
use crate::spy::Spy;
use crate::support::{Installation, JWT_SECRET, Program, processes_of, processes_with};

/// Leaves a mark, waits for the gate if there is one, and says more than nothing.
const ACTION: &str = r#"#!/bin/sh
if [ -n "${STUBBORN:-}" ]; then trap '' TERM; fi
echo "$ATTUNE_EXEC_ID" >> "$MARKS"
while [ -n "${GATE:-}" ] && [ ! -e "$GATE" ]; do sleep 0.05; done
if [ -n "${TOKEN:-}" ]; then echo "$ATTUNE_API_TOKEN" > "$TOKEN"; fi
echo done
"#;

const PACK: &str = "ref: faults\nlabel: Faults\nversion: 1.0.0\n";

/// Writes its parameters, which it finds in a file.
const MANIFEST: &str = "ref: faults.mark\nlabel: Mark\nenabled: true\nrunner_type: shell\nentry_point: mark.sh\n\
                        parameter_delivery: file\nparameter_format: json\noutput_format: text\n";

/// Statuses that are ends.
const TERMINAL: &str = "'completed', 'failed', 'cancelled', 'timeout', 'abandoned'";

pub(crate) struct Rig {
    pub(crate) installation: Arc<Installation>,
    pub(crate) spy: Spy,
    token: String,
}

impl Rig {
    /// On the servers that all tests share.
    pub(crate) async fn new() -> Self {
        Self::on(TestDatabase::new().await, TestBroker::new()).await
    }

    pub(crate) async fn on(database: TestDatabase, broker: TestBroker) -> Self {
        let installation = Arc::new(Installation::on(database, broker));
        let source = installation.path("source/faults");
        fs::create_dir_all(source.join("actions")).unwrap();
        fs::write(source.join("pack.yaml"), PACK).unwrap();
        fs::write(source.join("actions/mark.yaml"), MANIFEST).unwrap();
        fs::write(source.join("actions/mark.sh"), ACTION).unwrap();
        fs::set_permissions(source.join("actions/mark.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        installation.load(installation.path("source").to_str().unwrap());
        fs::write(installation.path("marks"), "").unwrap();
        let spy = Spy::start(&installation).await;
        let key = TokenKey::new(&Secret::new(JWT_SECRET.to_owned())).unwrap();
        let token = sign_access_token(&key, IdentityId(1), "test", Utc::now(), Duration::from_hours(1)).unwrap();
        Self { installation, spy, token: token.expose().clone() }
    }

    /// A hub that listens; it looks for the lost every second.
    pub(crate) async fn hub(&self) -> Program {
        self.hub_with(&[]).await
    }

    /// … with these settings.
    pub(crate) async fn hub_with(&self, settings: &[(&str, &str)]) -> Program {
        let hub = self.installation.start_with("hub", &["hub"], |command| {
            command.env("ATTUNE__EXECUTOR__TIMEOUT_CHECK_INTERVAL", "1").envs(settings.iter().copied());
        });
        let address = self.installation.hub_address();
        eventually("the hub to listen", async || TcpStream::connect(address).ok()).await;
        hub
    }

    /// The one worker; it gives a sign of life every second.
    pub(crate) async fn worker(&self) -> Program {
        self.worker_with(&[]).await
    }

    /// … with these settings.
    pub(crate) async fn worker_with(&self, settings: &[(&str, &str)]) -> Program {
        let worker = self.installation.start_with("worker", &["worker", "--name", "worker-1"], |command| {
            command.env("ATTUNE__WORKER__HEARTBEAT_INTERVAL", "1").envs(settings.iter().copied());
        });
        self.active().await;
        worker
    }

    /// Waits until the worker's row says that it works.
    pub(crate) async fn active(&self) {
        let active = "SELECT count(*) FROM worker WHERE status = 'active'";
        self.installation.wait_for("the worker to be active", active, |count| count == 1).await;
    }

    /// The worker's id.
    pub(crate) async fn worker_id(&self) -> i64 {
        self.installation.database.number("SELECT id FROM worker").await
    }

    /// Asks for executions that end by themselves.
    pub(crate) fn ask(&self, count: usize) -> Vec<i64> {
        (0..count).map(|_| self.ask_with(&json!({}))).collect()
    }

    /// Asks for executions that wait for [`Rig::open`].
    pub(crate) fn ask_gated(&self, count: usize) -> Vec<i64> {
        (0..count).map(|_| self.ask_with(&json!({ "GATE": self.gate() }))).collect()
    }

    /// Asks for one with these variables; again for as long as the hub says that it cannot just now.
    pub(crate) fn ask_with(&self, variables: &Value) -> i64 {
        let (status, answer) = eventually_blocking("the hub to take a request", || {
            Some(self.request(variables)).filter(|(status, _)| *status != 503)
        });
        assert_eq!(status, 201, "{answer}");
        answer["data"]["id"].as_i64().unwrap()
    }

    /// Asks for one; none while the hub says that it cannot.
    pub(crate) fn try_ask(&self) -> Option<i64> {
        let (status, answer) = self.request(&json!({}));
        assert!(matches!(status, 201 | 500 | 503), "{status} {answer}");
        answer["data"]["id"].as_i64()
    }

    fn request(&self, variables: &Value) -> (u16, Value) {
        let mut variables = variables.clone();
        variables["MARKS"] = self.installation.path("marks").to_str().unwrap().into();
        let body = json!({
            "action_ref": "faults.mark", "parameters": {"a": 1}, "env_vars": variables, "permission_set_refs": ["test"],
        });
        self.post("/api/v1/executions/execute", &body)
    }

    /// Cancels an execution: the answer's status code.
    pub(crate) fn cancel(&self, id: i64) -> u16 {
        self.post(&format!("/api/v1/executions/{id}/cancel"), &json!({})).0
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        post(self.installation.hub_address(), path, &self.token, body)
    }

    /// Where the gate is.
    pub(crate) fn gate(&self) -> String {
        self.installation.path("gate").to_str().unwrap().to_owned()
    }

    /// Lets executions go on that wait.
    pub(crate) fn open(&self) {
        fs::write(self.gate(), "").unwrap();
    }

    /// How often each execution has begun.
    pub(crate) fn marks(&self) -> BTreeMap<i64, usize> {
        let mut marks = BTreeMap::new();
        for line in fs::read_to_string(self.installation.path("marks")).unwrap().lines() {
            *marks.entry(line.parse().unwrap()).or_default() += 1;
        }
        marks
    }

    /// Waits until all of these have begun.
    pub(crate) async fn begun(&self, ids: &[i64]) {
        let all = async || ids.iter().all(|id| self.marks().contains_key(id)).then_some(());
        eventually("executions to begin", all).await;
    }

    /// Waits until all of these have this status.
    pub(crate) async fn until(&self, ids: &[i64], status: &str) {
        let sql = format!("SELECT count(*) FROM execution WHERE status = '{status}' AND id IN ({})", list(ids));
        let wanted = i64::try_from(ids.len()).unwrap();
        let what = format!("executions {ids:?} to be {status}");
        self.installation.wait_for(&what, &sql, |count| count == wanted).await;
    }

    /// Waits until all of these have ended and that was announced, and checks what is promised of every execution: the
    /// row was written first, message and row agree, nothing has begun twice, no process is left.
    pub(crate) async fn ended(&self, ids: &[i64]) {
        let sql = format!("SELECT count(*) FROM execution WHERE status IN ({TERMINAL}) AND id IN ({})", list(ids));
        let wanted = i64::try_from(ids.len()).unwrap();
        let what = format!("executions {ids:?} to end");
        self.installation.wait_for(&what, &sql, |count| count == wanted).await;
        for id in ids {
            let what = format!("the end of execution {id} to be announced");
            eventually(&what, async || (!self.spy.ends_of(*id).is_empty()).then_some(())).await;
            for end in self.spy.ends_of(*id) {
                assert_eq!(end.status, end.row, "{end:?}");
            }
            let what = format!("no process of execution {id}");
            eventually(&what, async || self.processes(*id).is_empty().then_some(())).await;
        }
        assert!(self.marks().values().all(|count| *count == 1), "{:?}", self.marks());
    }

    /// Waits until all of these have completed, each having run once.
    pub(crate) async fn completed(&self, ids: &[i64]) {
        self.ended(ids).await;
        self.until(ids, "completed").await;
        let marks = self.marks();
        assert!(ids.iter().all(|id| marks.get(id) == Some(&1)), "{marks:?}");
    }

    /// Asserts that these did not run.
    pub(crate) fn never_begun(&self, ids: &[i64]) {
        let marks = self.marks();
        assert!(!ids.iter().any(|id| marks.contains_key(id)), "{marks:?}");
    }

    /// The result of an execution.
    pub(crate) async fn result(&self, id: i64) -> Value {
        let sql = format!("SELECT result FROM execution WHERE id = {id}");
        serde_json::from_str(&self.installation.database.texts(&sql).await.unwrap()[0]).unwrap()
    }

    /// Processes of an execution, whatever became of their parents.
    fn processes(&self, id: i64) -> Vec<u32> {
        let variable = format!("ATTUNE_EXEC_ID={id}\0");
        let is_of = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&variable)
        };
        processes_of(&self.installation).into_iter().filter(is_of).collect()
    }

    /// Processes of actions.
    pub(crate) fn actions(&self) -> Vec<u32> {
        processes_with(self.installation.path("packs/faults").to_str().unwrap())
    }

    /// Waits until no action runs any more.
    pub(crate) async fn no_action(&self) {
        eventually("no process of an action", async || self.actions().is_empty().then_some(())).await;
    }
}

fn list(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

//! The demo pack: its sensors tell the API what happens and end when they are asked to, its actions answer as declared.

use std::ffi::OsString;
use std::path::Path;

use attune_process::{Input, Keep, Outcome, Report, Sink, Stream, start};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::api::Api;
use crate::child::{command, dotenv, packs, program, run, shells};

fn script(interpreter: &str, path: &str) -> Vec<OsString> {
    vec![program(interpreter).into(), packs().join("demo").join(path).into()]
}

/// A sensor as its host starts it.
struct Sensor {
    lines: mpsc::UnboundedReceiver<String>,
    stop: oneshot::Sender<()>,
    end: JoinHandle<Report>,
}

struct Lines {
    sender: mpsc::UnboundedSender<String>,
    rest: Vec<u8>,
}

impl Sink for Lines {
    fn write(&mut self, chunk: &[u8]) {
        self.rest.extend_from_slice(chunk);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            drop(self.sender.send(String::from_utf8(line).unwrap().trim_end().to_owned()));
        }
    }
}

impl Sensor {
    fn start(argv: &[OsString], api: &Api, artifacts: &Path, triggers: &Value) -> Self {
        let lib = packs().join("demo/lib");
        let triggers = triggers.to_string();
        let env = [
            ("ATTUNE_API_URL", api.url.as_str()),
            ("ATTUNE_API_TOKEN", "token-1"),
            ("ATTUNE_SENSOR_REF", "demo.sensor"),
            ("ATTUNE_SENSOR_TRIGGERS", &triggers),
            ("ATTUNE_ARTIFACTS_DIR", artifacts.to_str().unwrap()),
            ("PYTHONPATH", lib.to_str().unwrap()),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ];
        let (sender, lines) = mpsc::unbounded_channel();
        let mut command = command(argv, &env, Input::Null);
        command.stdout = Stream::keep(Keep::Nothing).to(Lines { sender, rest: Vec::new() });
        let child = start(command).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let supervise = child.supervise(None, async {
            drop(stopped.await);
        });
        #[expect(clippy::disallowed_methods, reason = "a test ends its task itself")]
        let end = tokio::spawn(supervise);
        Self { lines, stop, end }
    }

    async fn line(&mut self) -> String {
        self.lines.recv().await.expect("the sensor ended")
    }

    async fn stop(self) -> Outcome {
        self.stop.send(()).unwrap();
        self.end.await.unwrap().outcome
    }
}

#[tokio::test]
async fn the_file_watcher_tells_what_happens_to_files_and_ends_when_asked() {
    let artifacts = tempfile::tempdir().unwrap();
    let folder = artifacts.path().join("watched");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("old"), "there before").unwrap();
    let mut api = Api::answering("201 Created").await;
    let rules = json!([{"config": {"folder": "watched"}, "id": 7, "ref": "demo.r"}]);
    let mut sensor = Sensor::start(&script("python3", "sensors/file_watcher.py"), &api, artifacts.path(), &rules);
    assert!(sensor.line().await.contains("watching"));

    let file = folder.join("note");
    std::fs::write(&file, "one").unwrap();
    let asked = api.next().await;
    assert_eq!(asked.what, "POST /api/v1/events");
    assert_eq!(asked.authorization.as_deref(), Some("Bearer token-1"));
    let expected = |change: &str, size: Option<u64>| {
        let mut payload = json!({"path": file.to_str().unwrap(), "name": "note", "change": change});
        if let Some(size) = size {
            payload["size"] = size.into();
        }
        json!({"trigger_ref": "demo.file_changed", "payload": payload, "trigger_instance_id": "rule_7"})
    };
    assert_eq!(asked.body, expected("created", Some(3)));
    std::fs::write(&file, "longer").unwrap();
    assert_eq!(api.next().await.body, expected("modified", Some(6)));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(api.next().await.body, expected("deleted", None));
    assert_eq!(sensor.stop().await, Outcome::Cancelled { exit_code: Some(0) });
}

#[tokio::test]
async fn the_webhook_receiver_hands_on_what_is_posted_and_ends_when_asked() {
    let artifacts = tempfile::tempdir().unwrap();
    let mut api = Api::answering("201 Created").await;
    let rules = json!([
        {"config": {"path": "/"}, "id": 1, "ref": "demo.a"},
        {"config": {"path": "/other"}, "id": 2, "ref": "demo.b"},
    ]);
    let mut sensor = Sensor::start(&script("node", "sensors/webhook_receiver.js"), &api, artifacts.path(), &rules);
    assert!(sensor.line().await.contains("listening on http://127.0.0.1:"));

    let stir = script("python3", "actions/stir.py");
    let env = [("ATTUNE_ARTIFACTS_DIR", artifacts.path().to_str().unwrap())];
    let parameters = json!({"note": "two words", "folder": "demo/watched"}).to_string() + "\n";
    let ran = run(&stir, &env, &parameters).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let result: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(result["webhook"], r#"202 {"events":1}"#);
    assert_eq!(std::fs::read_to_string(result["file"].as_str().unwrap()).unwrap(), "two words\n");

    let asked = api.next().await;
    assert_eq!(asked.authorization.as_deref(), Some("Bearer token-1"));
    assert_eq!(asked.body["trigger_ref"], "demo.webhook");
    assert_eq!(asked.body["trigger_instance_id"], "rule_1");
    assert_eq!(asked.body["payload"]["method"], "POST");
    assert_eq!(
        asked.body["payload"]["body"],
        json!({"source": "demo.stir", "note": "two words", "words": ["two", "words"]})
    );
    assert_eq!(sensor.stop().await, Outcome::Cancelled { exit_code: Some(0) });
}

#[tokio::test]
async fn a_sensor_whose_token_is_refused_ends_so_that_it_gets_a_new_one() {
    let artifacts = tempfile::tempdir().unwrap();
    let api = Api::answering("401 Unauthorized").await;
    let rules = json!([{"config": {}, "id": 1, "ref": "demo.a"}]);
    let mut watcher = Sensor::start(&script("python3", "sensors/file_watcher.py"), &api, artifacts.path(), &rules);
    watcher.line().await;
    let mut receiver = Sensor::start(&script("node", "sensors/webhook_receiver.js"), &api, artifacts.path(), &rules);
    receiver.line().await;
    let env = [("ATTUNE_ARTIFACTS_DIR", artifacts.path().to_str().unwrap())];
    let parameters = json!({"note": "x", "folder": "demo/watched"}).to_string() + "\n";
    run(&script("python3", "actions/stir.py"), &env, &parameters).await;
    for sensor in [watcher, receiver] {
        let report = sensor.end.await.unwrap();
        let stderr = String::from_utf8_lossy(&report.stderr.bytes);
        assert_eq!(report.outcome, Outcome::Exited(1), "{stderr}");
        assert!(stderr.contains("the token is not accepted any more"), "{stderr}");
    }
}

#[tokio::test]
async fn stir_works_before_the_receiver_does() {
    let artifacts = tempfile::tempdir().unwrap();
    let env = [("ATTUNE_ARTIFACTS_DIR", artifacts.path().to_str().unwrap())];
    let parameters = json!({"note": "x", "folder": "w"}).to_string() + "\n";
    let ran = run(&script("python3", "actions/stir.py"), &env, &parameters).await;
    let result: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(result["webhook"], "not asked: the receiver is not running yet");
}

#[tokio::test]
async fn the_shell_actions_work_in_every_shell() {
    for shell in shells() {
        let argv = |name: &str| {
            let mut argv = shell.clone();
            argv.push(packs().join("demo/actions").join(name).into());
            argv
        };
        let stdin = dotenv(&[("message", "Hello there"), ("count", "3")]);
        let ran = run(&argv("greet.sh"), &[("ATTUNE_EXEC_ID", "9")], &stdin).await;
        assert_eq!(ran.stdout, "Hello there, number 3, from execution 9\n", "{shell:?}");
        let yaml = "value:\n  a: 1\n";
        assert_eq!(run(&argv("mirror.sh"), &[], yaml).await.stdout, yaml);
    }
}

#[tokio::test]
async fn the_native_action_is_executed_itself_and_answers_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("parameters");
    std::fs::write(&file, dotenv(&[("method", "POST"), ("path", "/it's")]).trim_end()).unwrap();
    let argv = [packs().join("demo/actions/tally").into_os_string()];
    let env = [("ATTUNE_PARAMETER_FILE", file.to_str().unwrap())];
    let ran = run(&argv, &env, "").await;
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], json!({"parameter": "method", "characters": 4}), "{}", ran.stderr);
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn describe_file_reads_its_parameters_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (file, parameters) = (folder.path().join("text"), folder.path().join("parameters"));
    std::fs::write(&file, "first\nsecond\n").unwrap();
    let path = file.to_str().unwrap();
    std::fs::write(&parameters, json!({"path": path, "change": "created", "size": 13}).to_string()).unwrap();
    let env = [("ATTUNE_PARAMETER_FILE", parameters.to_str().unwrap())];
    let ran = run(&script("node", "actions/describe_file.js"), &env, "").await;
    let last = ran.stdout.lines().last().unwrap_or_default();
    let result: Value = serde_json::from_str(last).unwrap();
    assert_eq!(result, json!({"path": path, "lines": 2, "first_line": "first"}), "{}", ran.stderr);
}

#[tokio::test]
async fn receive_sums_up_in_yaml_whatever_the_note_says() {
    for note in ["plain", "yes", "a: b", "quote \" and\nline", "ünï ✓"] {
        let parameters = json!({"body": {"note": note, "words": note.split(' ').collect::<Vec<_>>()}});
        let ran = run(&script("python3", "actions/receive.py"), &[], &(parameters.to_string() + "\n")).await;
        let result = attune_yaml::parse(&ran.stdout).unwrap().to_json();
        assert_eq!(result["note"], note, "{}", ran.stderr);
        assert_eq!(result["with_token"], false);
    }
}

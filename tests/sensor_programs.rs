//! `timer-sensor` and `http-request` as programs: what they read, what they send, how they end.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the program under test is started the way an agent starts it")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use attune_testkit::eventually_blocking;
use serde_json::{Value, json};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_attune-agents");
const PATIENCE: Duration = Duration::from_secs(30);

/// An API that gives every request the same status; what is posted can be received.
fn api(status: &'static str) -> (SocketAddr, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, posted) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(&stream, status, &sender);
        }
    });
    (address, posted)
}

fn answer(mut stream: &TcpStream, status: &str, posted: &Sender<Value>) {
    let mut reader = BufReader::new(stream);
    let mut asked = String::new();
    reader.read_line(&mut asked).unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    if let Ok(value) = serde_json::from_slice(&body) {
        // Nobody may be listening any more.
        drop(posted.send(value));
    }
    let rule = json!({"id": 7, "ref": "demo.tick", "trigger_ref": "core.intervaltimer", "enabled": true,
                      "trigger_params": {"interval": 1}});
    let rules = if asked.contains("/core.intervaltimer/rules") { vec![rule] } else { Vec::new() };
    let text = json!({"items": rules, "pagination": {"has_next": false}}).to_string();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len());
    drop(stream.write_all(answer.as_bytes()));
}

/// The timer sensor by its own name, with one rule.
fn timer_sensor(folder: &TempDir, address: SocketAddr) -> Child {
    let program = folder.path().join("attune-core-timer-sensor");
    symlink(BINARY, &program).unwrap();
    Command::new(program)
        .env_clear()
        .env("ATTUNE_API_URL", format!("http://{address}"))
        .env("ATTUNE_API_TOKEN", "hunter2")
        .env("ATTUNE_SENSOR_REF", "core.timer_sensor")
        .env("ATTUNE_SENSOR_TRIGGERS", r#"[{"config":{"interval":1},"id":7,"ref":"demo.tick"}]"#)
        .env("ATTUNE_SENSOR_TRIGGER_REFS", r#"["core.intervaltimer"]"#)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(child: Child, signal: &str) -> Output {
    Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn the_timer_sensor_ends_with_0_when_it_is_asked_to_and_logs_json_on_standard_output() {
    for signal in ["-TERM", "-INT"] {
        let folder = TempDir::new().unwrap();
        let (address, _posted) = api("404 Not Found");
        let mut child = timer_sensor(&folder, address);
        // The first line shows that it runs, with its handlers installed.
        let mut first = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut first).unwrap();
        let line: Value = serde_json::from_str(&first).unwrap();
        assert_eq!((&line["message"], &line["rule.ref"]), (&json!("timer started"), &json!("demo.tick")));
        let output = end(child, signal);
        assert_eq!((output.status.code(), output.status.signal()), (Some(0), None), "{signal}");
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn an_event_of_the_timer_sensor_is_bound_to_its_rule() {
    let folder = TempDir::new().unwrap();
    let (address, posted) = api("201 Created");
    let child = timer_sensor(&folder, address);
    let event = posted.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        (&event["trigger_ref"], &event["trigger_instance_id"]),
        (&json!("core.intervaltimer"), &json!("rule_7"))
    );
    assert_eq!(
        (&event["payload"]["rule_ref"], &event["payload"]["interval_seconds"]),
        (&json!("demo.tick"), &json!(1))
    );
    let output = end(child, "-TERM");
    assert_eq!(output.status.code(), Some(0));
    assert!(!String::from_utf8(output.stdout).unwrap().contains("hunter2"));
}

#[test]
fn a_refused_token_ends_the_timer_sensor_with_69_and_the_reason_on_standard_error() {
    let folder = TempDir::new().unwrap();
    let (address, _posted) = api("401 Unauthorized");
    let output = timer_sensor(&folder, address).wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    assert!(stderr.contains("token") && stderr.contains("401") && !stderr.contains("hunter2"), "{stderr}");
}

#[test]
fn the_timer_sensor_without_its_environment_names_what_is_missing() {
    let output = Command::new(BINARY).arg("timer-sensor").env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8(output.stderr).unwrap().contains("ATTUNE_API_URL"));
}

fn http_request(parameters: &str) -> Output {
    let mut child = Command::new(BINARY)
        .arg("http-request")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(parameters.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn http_request_prints_one_object_for_any_answer_and_fails_only_without_one() {
    let (address, posted) = api("418 I'm a teapot");
    let parameters = json!({"url": format!("http://{address}/tea"), "method": "POST", "body": {"cups": 2}});
    let output = http_request(&parameters.to_string());
    assert_eq!(output.status.code(), Some(0));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["status_code"], &answer["success"]), (&json!(418), &json!(false)));
    assert_eq!(posted.recv_timeout(PATIENCE).unwrap(), json!({"cups": 2}));

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = http_request(&json!({"url": format!("http://{nobody}/")}).to_string());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(stderr.contains(&format!("GET http://{nobody}/: failed to connect")), "{stderr}");
    assert_eq!(http_request("nonsense").status.code(), Some(64));
}

#[test]
fn sensors_do_not_outlive_a_host_that_is_killed() {
    let folder = TempDir::new().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("watch/pack.yaml", "ref: watch\nlabel: Watch\nname: Watch\nversion: 1.0.0\n");
    write("watch/triggers/seen.yaml", "ref: watch.seen\nlabel: Seen\n");
    write("watch/actions/say.yaml", "ref: watch.say\nlabel: Say\nrunner_type: shell\nentry_point: say.sh\n");
    write("watch/actions/say.sh", "echo said\n");
    write("watch/rules/say.yaml", "ref: watch.say\nlabel: Say\ntrigger_ref: watch.seen\naction_ref: watch.say\n");
    write(
        "watch/sensors/look.yaml",
        "ref: watch.look\nlabel: Look\nrunner_type: shell\nentry_point: look.sh\ntrigger_types: [watch.seen]\n",
    );
    write("watch/sensors/look.sh", "exec sleep 1000\n");
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/core");
    let mut dev = Command::new(BINARY)
        .args(["dev", "--json", "--data", "data", "watch"])
        .arg(core)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(dev.stdout.take().unwrap()).lines();
    let sensor = lines
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .find(|line| line["kind"] == "sensor" && line["status"] == "running")
        .unwrap();
    let process = Path::new("/proc").join(sensor["pid"].to_string());
    assert!(process.exists(), "{sensor}");
    dev.kill().unwrap();
    dev.wait().unwrap();
    eventually_blocking("the end of the sensor", || is_gone(&process).then_some(()));
}

/// Gone, or a zombie whose new parent does not look after it.
fn is_gone(process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z') || rest.is_empty())
}

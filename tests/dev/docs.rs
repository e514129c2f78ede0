//! What `docs/writing-packs.md` shows is a pack that works, in every language it shows.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::support::{Dev, write};
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../docs/writing-packs.md");

/// The code blocks of one language, in the order of the page.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let found: Vec<&str> = PAGE.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!found.is_empty(), "no {language} on the page");
    found
}

fn block_with(language: &str, part: &str) -> &'static str {
    blocks(language)
        .into_iter()
        .find(|block| block.contains(part))
        .unwrap_or_else(|| panic!("no {language} with {part}"))
}

/// The pack of the page below `folder/mypack`, its action and its sensor in the given languages.
fn pack(folder: &Path, action: (&str, &str), sensor: (&str, &str)) {
    let pack = folder.join("mypack");
    let (action_runner, action_code) = action;
    let (sensor_runner, sensor_code) = sensor;
    write(&pack.join("pack.yaml"), block_with("yaml", "conf_schema"));
    write(&pack.join("triggers/greeted.yaml"), block_with("yaml", "output:     {"));
    write(&pack.join("rules/answer.yaml"), block_with("yaml", "action_params"));
    let greet = block_with("yaml", "entry_point: greet.py").replace("runner_type: python ", action_runner);
    write(&pack.join("actions/greet.yaml"), &greet);
    write(&pack.join("actions/greet.py"), action_code);
    let doorbell = block_with("yaml", "entry_point: doorbell.py").replace("runner_type: python\n", sensor_runner);
    write(&pack.join("sensors/doorbell.yaml"), &doorbell);
    write(&pack.join("sensors/doorbell.py"), sensor_code);
}

fn python_action() -> (&'static str, &'static str) {
    ("runner_type: python ", block_with("python", "greeting {params"))
}

fn python_sensor() -> (&'static str, &'static str) {
    ("runner_type: python\n", block_with("python", "def emit"))
}

fn run(folder: &Path) -> Value {
    let ran = Command::new(env!("CARGO_BIN_EXE_attune-agents"))
        .args(["run", "mypack.greet", "--packs", ".", "--param", "who=Ada", "--json"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    serde_json::from_slice(&ran.stdout).unwrap()
}

#[test]
fn the_actions_of_the_page_greet_in_every_language() {
    let node = ("runner_type: node ", block_with("js", "process.stdin"));
    for (action, said) in [(python_action(), json!(["hello Ada"])), (node, json!("hello Ada"))] {
        let folder = tempfile::tempdir().unwrap();
        pack(folder.path(), action, python_sensor());
        assert_eq!(run(folder.path())["data"]["said"], said);
    }
    let folder = tempfile::tempdir().unwrap();
    let shell = "runner_type: shell\nparameter_format: dotenv\noutput_format: text\n";
    pack(folder.path(), (shell, block_with("sh", "read -r line")), python_sensor());
    let yaml = folder.path().join("mypack/actions/greet.yaml");
    let text = fs::read_to_string(&yaml).unwrap();
    let kept: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("parameter_format: json") && !line.starts_with("output_format: json"))
        .collect();
    write(&yaml, &kept.join("\n"));
    assert_eq!(run(folder.path())["stdout"], "hello Ada\n");
}

#[test]
fn the_sensors_of_the_page_lead_to_greetings_in_every_language() {
    let node = ("runner_type: node\n", block_with("js", "async function emit"));
    let shell = ("runner_type: shell\n", block_with("sh", "http-request"));
    for sensor in [python_sensor(), node, shell] {
        let folder = tempfile::tempdir().unwrap();
        pack(folder.path(), python_action(), sensor);
        let core = concat!(env!("CARGO_MANIFEST_DIR"), "/packs/core");
        let mut dev = Dev::start(folder.path(), &[core, "mypack"]);
        let line = dev.wait("a greeting", |line| line["kind"] == "execution" && line["status"] != "running");
        assert_eq!(line["status"], "completed", "{line:#}");
        assert_eq!(line["rule"], "mypack.answer", "{line:#}");
        assert_eq!(line["result"]["data"]["said"][0], "hello good morning, Ada", "{line:#}");
        dev.stop_and_expect(0);
    }
}

/// An answer of the API to a person.
fn get(address: &str, token: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).unwrap();
    let request = format!(
        "GET /api/v1{path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_artifacts_of_the_page_can_be_downloaded_by_people() {
    let python = ("runner_type: python ", block_with("python", "versions/file"));
    let node = ("runner_type: node ", block_with("js", "new FormData"));
    for action in [python, node] {
        let folder = tempfile::tempdir().unwrap();
        pack(folder.path(), action, python_sensor());
        let yaml = folder.path().join("mypack/actions/greet.yaml");
        let granted = "default_execution_permission_set_refs: [standard]\n";
        write(&yaml, &(fs::read_to_string(&yaml).unwrap() + granted));
        let core = concat!(env!("CARGO_MANIFEST_DIR"), "/packs/core");
        let mut dev = Dev::start(folder.path(), &[core, "mypack"]);
        let ready = dev.wait("ready", |line| line["kind"] == "ready" && line["status"] == "ready");
        let line = dev.wait("a report", |line| line["kind"] == "execution" && line["status"] != "running");
        assert_eq!(line["status"], "completed", "{line:#}");
        let artifact = &line["result"]["data"]["artifact"];
        let token = fs::read_to_string(folder.path().join("data/token")).unwrap();
        let answer = get(ready["address"].as_str().unwrap(), token.trim(), &format!("/artifacts/{artifact}/download"));
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("who,times\nAda,2\n"), "{answer}");
        assert!(answer.to_lowercase().contains("content-type: text/csv"), "{answer}");
        let of =
            get(ready["address"].as_str().unwrap(), token.trim(), &format!("/executions/{}/artifacts", line["id"]));
        assert!(of.contains("mypack.report"), "{of}");
        dev.stop_and_expect(0);
    }
}

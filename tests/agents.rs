//! The start of the two agents: detection, configuration, logs.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the program under test is started the way a user starts it")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_attune-agents");

fn agent(folder: &TempDir, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_clear().current_dir(folder.path()).envs(variables.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The least that an agent needs.
const LEAST: &[(&str, &str)] = &[
    // Nobody listens there.
    ("ATTUNE__DATABASE__URL", "postgresql://attune:hunter2@127.0.0.1:9/attune"),
    ("ATTUNE__MESSAGE_QUEUE__URL", "amqp://attune:hunter2@127.0.0.1:9"),
    ("ATTUNE__STARTUP_TIMEOUT", "0"),
    ("ATTUNE__SECURITY__JWT_SECRET", "hunter2"),
    ("ATTUNE_WORKER_RUNTIMES", "native"),
];

#[test]
fn detect_only_reports_what_is_in_path_and_touches_no_configuration() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.yaml"), "worker: [broken").unwrap();
    let ruby = folder.path().join("ruby");
    fs::write(&ruby, "#!/bin/sh\necho 'ruby 3.3.1 (2024-04-23)'\n").unwrap();
    fs::set_permissions(&ruby, fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().to_str().unwrap();
    for (role, variable) in [("worker", "ATTUNE_WORKER_RUNTIMES"), ("sensor", "ATTUNE_SENSOR_RUNTIMES")] {
        let output = agent(&folder, &[("PATH", path)], &[role, "--detect-only"]);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
        let report = text(&output.stdout);
        assert!(report.starts_with("=== Attune Agent Runtime Detection Report ===\n\nDetected "), "{report}");
        assert!(report.contains(&format!("\n  ✓ ruby       {path}/ruby (3.3.1)\n")), "{report}");
        let last = report.trim_end().lines().last().unwrap();
        assert!(last.starts_with(&format!("{variable}=")) && last.contains("ruby"), "{report}");

        let output = agent(&folder, &[("PATH", path)], &[role, "--detect-only", "--json"]);
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["variable"], variable);
        let runtimes = json["runtimes"].as_array().unwrap();
        assert!(runtimes.iter().any(|found| found["name"] == "ruby" && found["version"] == "3.3.1"), "{json:#}");
    }
    let detect = agent(&folder, &[("PATH", path)], &["detect", "--agent", "sensor"]);
    assert!(text(&detect.stdout).contains("ATTUNE_SENSOR_RUNTIMES="));
}

#[test]
fn an_override_is_shown_together_with_what_detection_would_find() {
    let folder = TempDir::new().unwrap();
    let output = agent(&folder, &[("ATTUNE_SENSOR_RUNTIMES", "native")], &["sensor", "--detect-only"]);
    let report = text(&output.stdout);
    assert!(report.starts_with("NOTE: ATTUNE_SENSOR_RUNTIMES is set"), "{report}");
    assert!(report.contains("In force instead: native\n"), "{report}");
}

#[test]
fn an_invalid_configuration_is_78_with_every_problem_and_no_secret() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.yaml"), "worker:\n  max_concurrent_tasks: none\n").unwrap();
    let variables = [
        ("ATTUNE__SECURITY__ENCRYPTION_KEY", "hunter2"),
        ("ATTUNE__WORKER__HEARTBEAT_INTREVAL", "10"),
        ("ATTUNE_WORKER_RUNTIMES", "native"),
    ];
    let output = agent(&folder, &variables, &["worker"]);
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(78), ""));
    let last = stderr.lines().position(|line| line == "error: the configuration is not valid, 3 problems:");
    let problems: Vec<&str> = stderr.lines().skip(last.unwrap() + 1).collect();
    assert_eq!(problems.len(), 3, "{stderr}");
    assert!(stderr.contains("config.yaml:2: worker.max_concurrent_tasks: must be a whole number"), "{stderr}");
    assert!(stderr.contains("did you mean ATTUNE__WORKER__HEARTBEAT_INTERVAL?"), "{stderr}");
    assert!(stderr.contains("config.yaml (the default) used"), "{stderr}");
    assert!(!stderr.contains("hunter2"), "{stderr}");
    assert!(!stderr.contains('\u{1b}'), "no colours without a terminal: {stderr}");
}

#[test]
fn with_json_every_line_of_standard_error_is_an_object() {
    let folder = TempDir::new().unwrap();
    let by_flag = agent(&folder, &[("ATTUNE_WORKER_RUNTIMES", "native")], &["worker", "--log-format", "json"]);
    let variables = [("ATTUNE_SENSOR_RUNTIMES", "native"), ("ATTUNE_LOG_FORMAT", "json")];
    let by_variable = agent(&folder, &variables, &["sensor"]);
    for output in [by_flag, by_variable] {
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(78), ""));
        let lines: Vec<Value> = text(&output.stderr).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = lines.last().unwrap();
        assert_eq!((&last["level"], &last["exit.code"]), (&Value::from("ERROR"), &Value::from(78)), "{last}");
        assert!(last["message"].as_str().unwrap().contains("message_queue.url: is required"), "{last}");
    }
}

#[test]
fn rust_log_is_stronger_than_the_level_of_the_configuration() {
    let folder = TempDir::new().unwrap();
    let with = |variables: &[(&str, &str)]| {
        let output = agent(&folder, &[LEAST, variables].concat(), &["worker"]);
        assert_eq!(output.status.code(), Some(69));
        text(&output.stderr).to_owned()
    };
    assert!(with(&[]).contains("runtimes offered: native"));
    let quiet = with(&[("ATTUNE__LOG__LEVEL", "error")]);
    assert!(!quiet.contains("runtimes offered"), "{quiet}");
    let loud = with(&[("ATTUNE__LOG__LEVEL", "error"), ("RUST_LOG", "info")]);
    assert!(loud.contains("runtimes offered: native"), "{loud}");
    let off = with(&[("RUST_LOG", "off")]);
    assert_eq!(off.lines().count(), 1, "{off}");
}

#[test]
fn unusable_settings_of_the_log_are_78() {
    let folder = TempDir::new().unwrap();
    for (name, value) in [("RUST_LOG", "info,[[["), ("ATTUNE_LOG_FORMAT", "xml")] {
        let output = agent(&folder, &[(name, value)], &["worker"]);
        assert_eq!(output.status.code(), Some(78));
        assert!(text(&output.stderr).starts_with(&format!("error: {name}: ")), "{}", text(&output.stderr));
    }
}

#[test]
fn servers_that_are_not_there_are_69() {
    let folder = TempDir::new().unwrap();
    for role in ["worker", "sensor"] {
        let output = agent(&folder, LEAST, &[role]);
        let stderr = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(69), ""), "{stderr}");
        assert!(stderr.lines().last().unwrap().contains("127.0.0.1:9"), "{stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}

#[test]
fn config_checks_what_an_agent_would_read() {
    let folder = TempDir::new().unwrap();
    let valid = agent(&folder, LEAST, &["config"]);
    assert_eq!(valid.status.code(), Some(0));
    assert!(text(&valid.stdout).ends_with("the configuration is valid\n"));
    let invalid = agent(&folder, &[], &["config", "--agent", "sensor"]);
    assert_eq!(invalid.status.code(), Some(78));
    assert!(text(&invalid.stderr).contains("message_queue.url: is required"));
}

#[test]
fn the_reference_page_is_printed_as_it_stands_in_docs() {
    let folder = TempDir::new().unwrap();
    let output = agent(&folder, &[], &["config", "--markdown"]);
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")).unwrap();
    assert!(text(&output.stdout) == page, "make it with: cargo run -- config --markdown > docs/configuration.md");
}

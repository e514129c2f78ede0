//! What reaches a child and what is seen of it, with real children.

use std::fs;
use std::time::Duration;

use attune_model::Secret;
use attune_model::status::{ExecutionStatus, OutputFormat, ParameterDelivery, ParameterFormat};
use attune_process::Sink;
use attune_security::TokenKey;
use attune_testkit::eventually;
use serde_json::{Value, json};

use crate::support;
use crate::support::{Place, action, claimed, conclude, run, runtime, shell, text, undisturbed};

const DELIVERIES: [ParameterDelivery; 2] = [ParameterDelivery::Stdin, ParameterDelivery::File];

fn encodings() -> [(ParameterFormat, &'static str); 3] {
    [
        (ParameterFormat::Json, r#"{"message":"It's","num":2,"o":{"k":true}}"#),
        (ParameterFormat::Dotenv, "message='It'\\''s'\nnum='2'\no.k='true'"),
        (ParameterFormat::Yaml, "message: \"It's\"\nnum: 2\no:\n  k: true\n"),
    ]
}

#[derive(Debug, Clone, Default)]
struct Seen(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Sink for Seen {
    fn write(&mut self, chunk: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(chunk);
    }
}

#[tokio::test]
async fn every_delivery_and_format_reaches_children_of_every_language_byte_for_byte() {
    let place = Place::new();
    place
        .file("cat.sh", "if [ -n \"$ATTUNE_PARAMETER_FILE\" ]; then cat \"$ATTUNE_PARAMETER_FILE\"; cat; else cat; fi");
    place.file(
        "cat.py",
        "import os, sys\npath = os.environ.get('ATTUNE_PARAMETER_FILE')\n\
         sys.stdout.write((open(path).read() if path else '') + sys.stdin.read())",
    );
    place.file(
        "cat.js",
        "const fs = require('fs'); const path = process.env.ATTUNE_PARAMETER_FILE;\n\
         process.stdout.write((path ? fs.readFileSync(path, 'utf8') : '') + fs.readFileSync(0, 'utf8'))",
    );
    let runtimes = [
        ("cat.sh", shell()),
        ("cat.py", runtime("python", json!({"interpreter": {"binary": "python3", "args": ["-u"]}}))),
        ("cat.js", runtime("node.js", json!({"interpreter": {"binary": "node"}}))),
    ];
    let executor = place.executor();
    for (entrypoint, runtime) in runtimes {
        for delivery in DELIVERIES {
            for (format, expected) in encodings() {
                let mut action = action(entrypoint);
                (action.parameter_delivery, action.parameter_format) = (delivery, format);
                let config = json!({"message": "It's", "num": 2, "o": {"k": true}});
                let (status, result) = run(&executor, &claimed(action, runtime.clone(), config)).await;
                assert_eq!(status, ExecutionStatus::Completed, "{result}");
                let expected = match delivery {
                    ParameterDelivery::Stdin => format!("{expected}\n"),
                    ParameterDelivery::File => expected.to_owned(),
                };
                assert_eq!(text(&result, "stdout"), expected, "{entrypoint} {delivery} {format}");
            }
        }
    }
    assert!(place.is_swept());
}

#[tokio::test]
async fn the_parameter_file_is_private_and_gone_afterwards() {
    let place = Place::new();
    place.file("stat.sh", "stat -c %a \"$ATTUNE_PARAMETER_FILE\"; echo \"$ATTUNE_PARAMETER_FILE\"");
    let mut action = action("stat.sh");
    action.parameter_delivery = ParameterDelivery::File;
    let (_, result) = run(&place.executor(), &claimed(action, shell(), json!({}))).await;
    let (mode, path) = text(&result, "stdout").split_once('\n').unwrap();
    assert_eq!(mode, "400");
    assert!(!fs::exists(path.trim()).unwrap(), "{path}");
}

#[tokio::test]
async fn defaults_fill_what_is_missing_and_secrets_win() {
    let place = Place::new();
    place.file("cat.sh", "cat");
    let mut action = action("cat.sh");
    action.param_schema = Some(json!({"a": {"default": 1}, "b": {"default": 2}, "c": {"default": 3}}));
    let mut claimed = claimed(action, shell(), json!({"b": null, "c": 30}));
    claimed.keys = vec![key_row("c", &json!("opened up"))];
    let (_, result) = run(&place.executor(), &claimed).await;
    // What a key holds is masked in everything that is kept.
    assert_eq!(text(&result, "stdout"), "{\"b\":2,\"c\":\"[redacted]\",\"a\":1}\n");
}

fn key_row(name: &str, value: &Value) -> attune_store::KeyRow {
    attune_store::KeyRow {
        name: name.to_owned(),
        owner_type: attune_model::status::OwnerType::System,
        encrypted: true,
        encryption_key_hash: None,
        value: support::sealed(value),
    }
}

#[tokio::test]
async fn the_environment_is_exactly_what_is_promised() {
    let place = Place::new();
    place.file("env.sh", "exec /usr/bin/env");
    let mut config = place.config();
    config.passed_environment.push(("ATTUNE__DATABASE__URL".into(), "postgres://hidden".into()));
    config.jwt_secret = Some(Secret::new("hidden signing secret".to_owned()));
    let executor = support::executor(config);
    let runtime = runtime(
        "shell",
        json!({"interpreter": {"binary": "/bin/sh"},
               "env_vars": {"LIB": "{pack_dir}/lib", "PATH": {"value": "/opt/bin", "operation": "prepend"}}}),
    );
    let mut claimed = claimed(action("env.sh"), runtime, json!({"context": {"user": "ann"}, "password": "x"}));
    claimed.execution.env_vars = Some(json!({"DEBUG": "1", "ATTUNE_EXEC_ID": "8"}));
    claimed.enforcement = Some(("demo.rule".to_owned(), "core.timer".to_owned()));
    claimed.keys = vec![key_row("api_key", &json!("very secret key"))];
    let (status, result) = run(&executor, &claimed).await;
    assert_eq!(status, ExecutionStatus::Completed, "{result}");
    let mut variables: Vec<&str> = text(&result, "stdout")
        .lines()
        .filter(|line| !line.starts_with("PWD=") && !line.starts_with("_=") && !line.starts_with("SHLVL="))
        .collect();
    variables.sort_unstable();
    let path = |name: &str| place.path(name).display().to_string();
    let mut expected = vec![
        "ATTUNE_ACTION=demo.act".to_owned(),
        "ATTUNE_AGENT_BIN=/opt/attune/attune-agents".to_owned(),
        "ATTUNE_API_URL=http://127.0.0.1:8080".to_owned(),
        format!("ATTUNE_ARTIFACTS_DIR={}", path("artifacts")),
        "ATTUNE_CONTEXT_USER=ann".to_owned(),
        "ATTUNE_EXEC_ID=7".to_owned(),
        "ATTUNE_PACK_REF=demo".to_owned(),
        "ATTUNE_PARAMETER_DELIVERY=stdin".to_owned(),
        "ATTUNE_PARAMETER_FORMAT=json".to_owned(),
        "ATTUNE_RULE=demo.rule".to_owned(),
        format!("ATTUNE_RUNTIME_ENVS_DIR={}", path("envs")),
        "ATTUNE_TRIGGER=core.timer".to_owned(),
        "ATTUNE_WORKER_RUNTIMES=shell,python".to_owned(),
        "DEBUG=1".to_owned(),
        format!("LIB={}/lib", path("packs/demo")),
        "PATH=/opt/bin:/usr/local/bin:/usr/bin:/bin".to_owned(),
    ];
    expected.sort_unstable();
    assert_eq!(variables, expected);
}

#[tokio::test]
async fn an_execution_with_permission_sets_gets_a_token_and_its_output_does_not_show_it() {
    let place = Place::new();
    place.file("token.sh", "printf %s \"$ATTUNE_API_TOKEN\" | wc -c; echo \"token: $ATTUNE_API_TOKEN\"");
    let mut config = place.config();
    config.jwt_secret = Some(Secret::new("signing secret".to_owned()));
    let executor = support::executor(config);
    let mut claimed = claimed(action("token.sh"), shell(), json!({}));
    let (_, without) = run(&executor, &claimed).await;
    assert_eq!(text(&without, "stdout"), "0\ntoken: \n");
    claimed.execution.permission_set_refs = vec!["standard".to_owned()];
    let (_, with) = run(&executor, &claimed).await;
    let (length, shown) = text(&with, "stdout").split_once('\n').unwrap();
    assert!(length.trim().parse::<usize>().unwrap() > 100, "{length}");
    assert_eq!(shown, "token: [redacted]\n");
}

/// As the platform's own worker does: a pack of Node without `package.json`, an image with Python but without `venv`.
#[tokio::test]
async fn an_environment_that_cannot_be_made_is_missed_only_where_something_is_to_be_installed() {
    let place = Place::new();
    place.file("run.sh", "echo fine");
    let mut shell = shell();
    shell.execution_config["environment"] = json!({
        "env_type": "test",
        "create_command": ["/bin/sh", "-c", "echo no luck >&2; exit 1"],
        "interpreter_path": "{env_dir}/bin/sh",
    });
    shell.execution_config["dependencies"] = json!({"manifest_file": "needs.txt", "install_command": ["/bin/true"]});
    let claimed = claimed(action("run.sh"), shell, json!({}));
    let (status, result) = run(&place.executor(), &claimed).await;
    assert_eq!((status, text(&result, "stdout")), (ExecutionStatus::Completed, "fine\n"), "{result}");
    fs::write(place.path("packs/demo/needs.txt"), "one\n").unwrap();
    let (status, result) = run(&place.executor(), &claimed).await;
    assert_eq!(status, ExecutionStatus::Failed, "{result}");
    assert!(text(&result, "error").contains("Setup error: environment creation failed (exit 1): no luck"), "{result}");
}

/// The build takes its time; the token is as good as that of an action that needs none.
#[tokio::test]
async fn a_tokens_life_begins_when_the_environment_is_built() {
    let place = Place::new();
    place.file("token.sh", "printf %s \"$ATTUNE_API_TOKEN\" > \"$ATTUNE_ARTIFACTS_DIR/token\"");
    fs::create_dir(place.path("artifacts")).unwrap();
    let mut config = place.config();
    config.jwt_secret = Some(Secret::new("signing secret".to_owned()));
    let mut shell = shell();
    shell.execution_config["environment"] =
        json!({"env_type": "test", "create_command": ["/bin/sh", "-c", "mkdir \"$0\"; sleep 1.1", "{env_dir}"]});
    let mut claimed = claimed(action("token.sh"), shell, json!({}));
    claimed.execution.permission_set_refs = vec!["standard".to_owned()];
    run(&support::executor(config), &claimed).await;
    let token = fs::read_to_string(place.path("artifacts/token")).unwrap();
    let key = TokenKey::new(&Secret::new("signing secret".to_owned())).unwrap();
    let claims = serde_json::to_value(key.verify(&token, claimed.fence.started_at).unwrap()).unwrap();
    let [issued, expires] = ["iat", "exp"].map(|key| claims[key].as_i64().unwrap());
    assert!(issued > claimed.fence.started_at.timestamp(), "{issued}");
    assert_eq!(expires - issued, 360, "the time limit and a minute");
}

#[tokio::test]
async fn declared_secret_output_is_sealed_and_known_secrets_are_masked() {
    let place = Place::new();
    place.file(
        "out.sh",
        "read -r line; echo \"saw $line\" >&2; echo '{\"token\":\"fresh-secret\",\"note\":\"key is hunter22\"}'",
    );
    let mut secret = action("out.sh");
    secret.output_format = OutputFormat::Json;
    secret.out_schema = Some(json!({"token": {"type": "string", "secret": true}}));
    let mut claimed = claimed(secret, shell(), json!({}));
    claimed.keys = vec![key_row("password", &json!("hunter22"))];
    let conclusion = conclude(&place.executor(), &claimed, &undisturbed()).await;
    let result = conclusion.document(None);
    assert_eq!(
        result["data"],
        json!({"token": {"$attune_secret": true, "redacted": true}, "note": "key is [redacted]"})
    );
    let [row] = conclusion.sealed() else { panic!("{conclusion:?}") };
    assert_eq!(row.json_path, "/data/token");
    assert_eq!(support::key().open(&row.encrypted_value, None).unwrap(), "fresh-secret");
    for hidden in ["hunter22", "fresh-secret"] {
        assert!(!format!("{conclusion:?}").contains(hidden), "{hidden}");
    }

    // Output that was to be data with secrets but is none is not kept readable either.
    place.file("out.sh", "echo fresh-secret; echo hunter22 >&2; exit 1");
    let (_, result) = run(&place.executor(), &claimed).await;
    assert_eq!(text(&result, "stdout"), "[withheld: this action declares secret output]");
    assert_eq!(text(&result, "error"), "[redacted]\n");
}

#[tokio::test]
async fn a_secret_parameter_reaches_the_child_and_one_that_cannot_be_opened_fails_the_execution() {
    let place = Place::new();
    place.file("len.sh", "read -r line; printf %s \"$line\" | wc -c; echo \"$line\"");
    let marker = json!({"token": {"$attune_secret": true, "redacted": true}});
    let mut claimed = claimed(action("len.sh"), shell(), marker);
    let value = |encrypted_value| attune_store::SecretValue {
        json_path: "/token".to_owned(),
        source_kind: "parameter_schema".to_owned(),
        source_ref: None,
        encrypted_value,
        encryption_key_hash: None,
    };
    claimed.secret_values = vec![value(support::sealed(&json!("hunter22")))];
    let (_, result) = run(&place.executor(), &claimed).await;
    let shown = "{\"token\":\"[redacted]\"}";
    assert_eq!(text(&result, "stdout"), format!("{}\n{shown}\n", r#"{"token":"hunter22"}"#.len()));
    claimed.secret_values = vec![value(json!("AAAA"))];
    let (status, result) = run(&place.executor(), &claimed).await;
    assert_eq!(status, ExecutionStatus::Failed);
    assert_eq!(
        result,
        json!({"succeeded": false, "error": "Action execution failed: Internal error: Setup error: parameter /token \
               cannot be decrypted: the encrypted value is malformed: it is shorter than a nonce"})
    );
}

#[tokio::test]
async fn inline_shell_code_sees_its_parameters_as_variables_that_are_not_exported() {
    let place = Place::new();
    let code = "echo \"$PARAM_API_URL $api_url\"; printenv | grep -c -i api_url; cat; exit 0";
    let mut inline = action(code);
    inline.is_adhoc = true;
    let (status, result) = run(&place.executor(), &claimed(inline, shell(), json!({"api.url": "it's"}))).await;
    assert_eq!(status, ExecutionStatus::Completed, "{result}");
    // ATTUNE_API_URL is the one that is exported.
    assert_eq!(text(&result, "stdout"), "it's it's\n1\n");
    assert!(place.is_swept());

    let mut failing = action("false; echo unreachable");
    failing.is_adhoc = true;
    let (status, result) = run(&place.executor(), &claimed(failing, shell(), json!({}))).await;
    assert_eq!((status, result.get("stdout")), (ExecutionStatus::Failed, None));
}

#[tokio::test]
async fn direct_inline_code_keeps_the_arguments_of_its_interpreter() {
    let place = Place::new();
    let direct = runtime(
        "shell",
        json!({"interpreter": {"binary": "/bin/sh", "args": ["-x"]}, "inline_execution": {"strategy": "direct"}}),
    );
    let mut inline = action("read -r line; echo \"$line\"");
    inline.is_adhoc = true;
    let (_, result) = run(&place.executor(), &claimed(inline, direct, json!({"a": 1}))).await;
    assert_eq!(text(&result, "stdout"), "{\"a\":1}\n");
}

#[tokio::test]
async fn output_is_seen_while_the_child_runs_and_without_its_secrets() {
    let place = Place::new();
    let go = place.path("go");
    place.file(
        "steps.sh",
        &format!("echo 'first hunter22'; while [ ! -e {} ]; do sleep 0.01; done; echo second", go.display()),
    );
    let mut claimed = claimed(action("steps.sh"), shell(), json!({}));
    claimed.keys = vec![key_row("password", &json!("hunter22"))];
    let seen = Seen::default();
    let sinks = attune_worker::Sinks { stdout: Some(Box::new(seen.clone())), stderr: None };
    let watch = async {
        eventually("the first line", async || seen.0.lock().unwrap().starts_with(b"first [redacted]").then_some(()))
            .await;
        fs::write(&go, "").unwrap();
    };
    let executor = place.executor();
    let (control, limit) = (undisturbed(), Duration::from_secs(20));
    let ran = tokio::time::timeout(limit, executor.run(&claimed, None, &control, sinks));
    let (conclusion, ()) = tokio::join!(ran, watch);
    assert_eq!(conclusion.unwrap().status(), ExecutionStatus::Completed);
    assert_eq!(*seen.0.lock().unwrap(), b"first [redacted]\nsecond\n");
}

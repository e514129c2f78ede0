//! One execution at a time, with real children.
#![expect(clippy::unwrap_used, unreachable_pub, reason = "tests")]

#[expect(dead_code, reason = "shared with other tests")]
mod support;

use std::fs;
use std::time::Duration;

use attune_model::Secret;
use attune_model::status::{ExecutionStatus, OutputFormat, ParameterDelivery, ParameterFormat};
use attune_process::Sink;
use attune_testkit::eventually;
use serde_json::{Value, json};
use support::{
    Place, action, claimed, conclude, is_alive, native, run, runtime, shell, text, undisturbed,
};

const DELIVERIES: [ParameterDelivery; 2] = [ParameterDelivery::Stdin, ParameterDelivery::File];

fn encodings() -> [(ParameterFormat, &'static str); 3] {
    [
        (
            ParameterFormat::Json,
            r#"{"message":"It's","num":2,"o":{"k":true}}"#,
        ),
        (
            ParameterFormat::Dotenv,
            "message='It'\\''s'\nnum='2'\no.k='true'",
        ),
        (
            ParameterFormat::Yaml,
            "message: \"It's\"\nnum: 2\no:\n  k: true\n",
        ),
    ]
}

#[tokio::test]
async fn every_delivery_and_format_reaches_children_of_every_language_byte_for_byte() {
    let place = Place::new();
    place.file("cat.sh", "if [ -n \"$ATTUNE_PARAMETER_FILE\" ]; then cat \"$ATTUNE_PARAMETER_FILE\"; cat; else cat; fi");
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
        (
            "cat.py",
            runtime(
                "python",
                json!({"interpreter": {"binary": "python3", "args": ["-u"]}}),
            ),
        ),
        (
            "cat.js",
            runtime("node.js", json!({"interpreter": {"binary": "node"}})),
        ),
    ];
    let executor = place.executor();
    for (entrypoint, runtime) in runtimes {
        for delivery in DELIVERIES {
            for (format, expected) in encodings() {
                let mut action = action(entrypoint);
                (action.parameter_delivery, action.parameter_format) = (delivery, format);
                let config = json!({"message": "It's", "num": 2, "o": {"k": true}});
                let (status, result) =
                    run(&executor, &claimed(action, runtime.clone(), config)).await;
                assert_eq!(status, ExecutionStatus::Completed, "{result}");
                let expected = match delivery {
                    ParameterDelivery::Stdin => format!("{expected}\n"),
                    ParameterDelivery::File => expected.to_owned(),
                };
                assert_eq!(
                    text(&result, "stdout"),
                    expected,
                    "{entrypoint} {delivery} {format}"
                );
            }
        }
    }
    assert!(place.is_swept());
}

#[tokio::test]
async fn the_parameter_file_is_private_and_gone_afterwards() {
    let place = Place::new();
    place.file(
        "stat.sh",
        "stat -c %a \"$ATTUNE_PARAMETER_FILE\"; echo \"$ATTUNE_PARAMETER_FILE\"",
    );
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
    action.param_schema =
        Some(json!({"a": {"default": 1}, "b": {"default": 2}, "c": {"default": 3}}));
    let mut claimed = claimed(action, shell(), json!({"b": null, "c": 30}));
    claimed.keys = vec![key_row("c", json!("opened up"))];
    let (_, result) = run(&place.executor(), &claimed).await;
    // What a key holds is masked in everything that is kept.
    assert_eq!(
        text(&result, "stdout"),
        "{\"b\":2,\"c\":\"[redacted]\",\"a\":1}\n"
    );
}

fn key_row(name: &str, value: Value) -> attune_store::KeyRow {
    attune_store::KeyRow {
        name: name.to_owned(),
        owner_type: attune_model::status::OwnerType::System,
        encrypted: true,
        encryption_key_hash: None,
        value: support::sealed(&value),
    }
}

#[tokio::test]
async fn the_environment_is_exactly_what_is_promised() {
    let place = Place::new();
    place.file("env.sh", "exec /usr/bin/env");
    let mut config = place.config();
    config
        .passed_environment
        .push(("ATTUNE__DATABASE__URL".into(), "postgres://hidden".into()));
    config.jwt_secret = Some(Secret::new("hidden signing secret".to_owned()));
    let executor = support::executor(config);
    let runtime = runtime(
        "shell",
        json!({"interpreter": {"binary": "/bin/sh"},
               "env_vars": {"LIB": "{pack_dir}/lib", "PATH": {"value": "/opt/bin", "operation": "prepend"}}}),
    );
    let mut claimed = claimed(
        action("env.sh"),
        runtime,
        json!({"context": {"user": "ann"}, "password": "x"}),
    );
    claimed.execution.env_vars = Some(json!({"DEBUG": "1", "ATTUNE_EXEC_ID": "8"}));
    claimed.enforcement = Some(("demo.rule".to_owned(), "core.timer".to_owned()));
    claimed.keys = vec![key_row("api_key", json!("very secret key"))];
    let (status, result) = run(&executor, &claimed).await;
    assert_eq!(status, ExecutionStatus::Completed, "{result}");
    let mut variables: Vec<&str> = text(&result, "stdout")
        .lines()
        .filter(|line| {
            !line.starts_with("PWD=") && !line.starts_with("_=") && !line.starts_with("SHLVL=")
        })
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
    place.file(
        "token.sh",
        "printf %s \"$ATTUNE_API_TOKEN\" | wc -c; echo \"token: $ATTUNE_API_TOKEN\"",
    );
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

#[tokio::test]
async fn exit_codes_and_standard_error_make_the_error() {
    let place = Place::new();
    let many = "for i in 1 2 3 4 5; do echo $i >&2; done; echo last >&2; exit 4";
    for (name, code, exit_code, error) in [
        ("quiet.sh", "exit 3", 3, "Command exited with code 3"),
        (
            "short.sh",
            "echo one >&2; echo two >&2; exit 1",
            1,
            "one\ntwo\n",
        ),
        ("many.sh", many, 4, "last"),
        ("signal.sh", "kill -9 $$", -1, "Command exited with code -1"),
    ] {
        place.file(name, code);
        let (status, result) = run(
            &place.executor(),
            &claimed(action(name), shell(), json!({})),
        )
        .await;
        assert_eq!(status, ExecutionStatus::Failed, "{name}");
        assert_eq!(
            (&result["succeeded"], &result["exit_code"]),
            (&json!(false), &json!(exit_code)),
            "{name}"
        );
        assert_eq!(text(&result, "error"), error, "{name}");
        assert!(result["duration_ms"].is_u64() && result.get("data").is_none());
    }
}

#[tokio::test]
async fn native_code_is_run_itself_with_everything_the_others_have() {
    let place = Place::new();
    place.file("tool", "#!/bin/sh\nread -r line; echo \"$line\"");
    let mut json_action = action("tool");
    json_action.output_format = OutputFormat::Json;
    let (status, result) = run(
        &place.executor(),
        &claimed(json_action, native(), json!({"a": 1})),
    )
    .await;
    assert_eq!(
        (status, &result["data"]),
        (ExecutionStatus::Completed, &json!({"a": 1}))
    );

    place.file("bad", "#!/bin/sh\necho ' no luck ' >&2; exit 5");
    let (_, result) = run(
        &place.executor(),
        &claimed(action("bad"), native(), json!({})),
    )
    .await;
    assert_eq!(
        text(&result, "error"),
        "Native binary exited with code 5: no luck"
    );

    place.file("slow", "#!/bin/sh\nsleep 600");
    let mut slow = claimed(action("slow"), native(), json!({}));
    slow.execution.workflow_task = Some(json!({"timeout_seconds": 0.2}));
    let (status, result) = run(&place.executor(), &slow).await;
    assert_eq!(
        (status, text(&result, "error")),
        (
            ExecutionStatus::Failed,
            "Execution timed out after 0.2 seconds"
        )
    );
}

#[tokio::test]
async fn a_time_limit_ends_the_whole_tree_and_says_so() {
    let place = Place::new();
    place.file("slow.sh", "sleep 600 & echo $!; trap 'exit 9' TERM; wait");
    let mut slow = action("slow.sh");
    slow.timeout_seconds = Some(1);
    let (status, result) = run(&place.executor(), &claimed(slow, shell(), json!({}))).await;
    assert_eq!(status, ExecutionStatus::Failed);
    assert_eq!(result["exit_code"], -1);
    assert_eq!(
        text(&result, "error"),
        "Execution timed out after 1 seconds"
    );
    let grandchild = text(&result, "stdout").to_owned();
    eventually("the grandchild is gone", async || {
        (!is_alive(&grandchild)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cancel_ends_the_child_and_keeps_its_code() {
    let place = Place::new();
    for (name, trap, exit_code) in [
        ("polite.sh", "trap 'exit 7' TERM", 7),
        ("default.sh", "true", -1),
    ] {
        let marker = place.path(name);
        place.file(
            name,
            &format!(
                "{trap}\ntouch {}\nwhile true; do sleep 0.01; done",
                marker.display()
            ),
        );
        let control = undisturbed();
        let executor = place.executor();
        let claimed = claimed(action(name), shell(), json!({}));
        let cancel = async {
            eventually("the child runs", async || marker.exists().then_some(())).await;
            control.cancel.cancel();
        };
        let (conclusion, ()) = tokio::join!(conclude(&executor, &claimed, &control), cancel);
        assert_eq!(conclusion.status(), ExecutionStatus::Cancelled);
        let result = conclusion.document(None);
        assert_eq!(result["cancelled"], true);
        assert_eq!(result["exit_code"], exit_code, "{name}");
        assert_eq!(text(&result, "error"), "Execution cancelled by user");
    }
}

#[tokio::test]
async fn what_is_cancelled_or_stopped_before_its_start_never_starts() {
    let place = Place::new();
    let marker = place.path("started");
    place.file("mark.sh", &format!("touch {}", marker.display()));
    let claimed = claimed(action("mark.sh"), shell(), json!({}));
    let control = undisturbed();
    control.cancel.cancel();
    let cancelled = conclude(&place.executor(), &claimed, &control).await;
    assert_eq!(cancelled.status(), ExecutionStatus::Cancelled);
    let control = undisturbed();
    control.hard.cancel();
    let stopped = conclude(&place.executor(), &claimed, &control).await;
    assert_eq!(stopped.status(), ExecutionStatus::Failed);
    assert_eq!(
        text(&stopped.document(None), "error"),
        "worker was stopped before the action started"
    );
    assert!(!marker.exists());
}

#[tokio::test]
async fn a_hard_stop_ends_even_a_stubborn_child_and_keeps_its_output() {
    let place = Place::new();
    let marker = place.path("running");
    place.file(
        "stubborn.sh",
        &format!(
            "trap '' TERM; echo $$; touch {}; while true; do sleep 0.01; done",
            marker.display()
        ),
    );
    let control = undisturbed();
    let executor = place.executor();
    let claimed = claimed(action("stubborn.sh"), shell(), json!({}));
    let stop = async {
        eventually("the child runs", async || marker.exists().then_some(())).await;
        control.hard.cancel();
    };
    let (conclusion, ()) = tokio::join!(conclude(&executor, &claimed, &control), stop);
    let result = conclusion.document(None);
    assert_eq!(conclusion.status(), ExecutionStatus::Failed);
    assert_eq!(
        text(&result, "error"),
        "worker was stopped while the action ran"
    );
    assert!(!is_alive(text(&result, "stdout")));
}

#[tokio::test]
async fn large_parameters_that_nobody_reads_hang_nothing() {
    let place = Place::new();
    let large = json!({"text": "x".repeat(1_000_000)});
    place.file("first.sh", "head -c 300000 /dev/zero | tr '\\0' y; wc -c");
    let (status, result) = run(
        &place.executor(),
        &claimed(action("first.sh"), shell(), large.clone()),
    )
    .await;
    assert_eq!(status, ExecutionStatus::Completed, "{}", result["error"]);
    let stdout = text(&result, "stdout");
    assert!(
        stdout.starts_with("yyyy") && stdout.trim_end().ends_with("1000012"),
        "{}",
        stdout.len()
    );

    place.file("never.sh", "exit 0");
    let (status, _) = run(
        &place.executor(),
        &claimed(action("never.sh"), shell(), large.clone()),
    )
    .await;
    assert_eq!(
        status,
        ExecutionStatus::Completed,
        "a quick success did not want its parameters"
    );

    place.file("late.sh", "sleep 0.6; exit 0");
    let (status, result) = run(
        &place.executor(),
        &claimed(action("late.sh"), shell(), large.clone()),
    )
    .await;
    assert_eq!(status, ExecutionStatus::Failed);
    assert!(
        text(&result, "error").starts_with("Failed to write parameters to stdin: "),
        "{result}"
    );

    place.file("fails.sh", "exec <&-; echo hidden >&2; sleep 0.05; exit 2");
    let (_, result) = run(
        &place.executor(),
        &claimed(action("fails.sh"), shell(), large),
    )
    .await;
    assert_eq!(result["exit_code"], 2);
    assert!(
        text(&result, "error").starts_with("Failed to write parameters to stdin: "),
        "{result}"
    );
}

#[tokio::test]
async fn a_descendant_that_keeps_the_output_open_does_not_hold_up_the_end() {
    let place = Place::new();
    place.file("daemon.sh", "setsid sleep 600 & echo $!; exit 0");
    let (status, result) = run(
        &place.executor(),
        &claimed(action("daemon.sh"), shell(), json!({})),
    )
    .await;
    assert_eq!(status, ExecutionStatus::Completed);
    let pid = text(&result, "stdout").trim().parse::<i32>().unwrap();
    assert!(pid > 0);
    // It left the group on purpose; the test does not leave it behind.
    place.file("kill.sh", &format!("kill -9 {pid}; exit 0"));
    run(
        &place.executor(),
        &claimed(action("kill.sh"), shell(), json!({})),
    )
    .await;
}

#[tokio::test]
async fn output_is_cut_at_the_limit_exactly_and_the_loss_is_told() {
    let place = Place::new();
    let mut config = place.config();
    (config.max_stdout_bytes, config.max_stderr_bytes) = (1128, 628);
    let executor = support::executor(config);
    for (count, cut) in [(1000, None), (1001, Some(1)), (5_000_000, Some(4_999_000))] {
        place.file(
            "flood.sh",
            &format!("head -c {count} /dev/zero | tr '\\0' y"),
        );
        let (status, result) =
            run(&executor, &claimed(action("flood.sh"), shell(), json!({}))).await;
        assert_eq!(status, ExecutionStatus::Completed);
        let kept = "y".repeat(1000);
        match cut {
            None => {
                assert_eq!(text(&result, "stdout"), kept);
                assert!(result.get("stdout_truncated").is_none());
            }
            Some(lost) => {
                let notice = "\n\n[OUTPUT TRUNCATED: stdout exceeded size limit]\n";
                assert_eq!(text(&result, "stdout"), kept + notice);
                assert_eq!(result["stdout_truncated"], true);
                assert_eq!(result["stdout_bytes_truncated"], lost);
            }
        }
        assert!(result.get("stderr_truncated").is_none());
    }
    place.file(
        "errors.sh",
        "head -c 501 /dev/zero | tr '\\0' e >&2; printf '\\377\\000' ",
    );
    let (status, result) = run(&executor, &claimed(action("errors.sh"), shell(), json!({}))).await;
    assert_eq!(
        status,
        ExecutionStatus::Completed,
        "binary output is no failure"
    );
    assert_eq!(text(&result, "stdout"), "\u{fffd}\u{fffd}");
    assert_eq!(
        (
            &result["stderr_truncated"],
            &result["stderr_bytes_truncated"]
        ),
        (&json!(true), &json!(1))
    );
}

#[tokio::test]
async fn output_becomes_data_by_its_format_and_only_after_success() {
    let place = Place::new();
    place.file(
        "out.sh",
        "echo log; echo '{\"queue_ack\":{\"items\":[]},\"n\":1}'",
    );
    let data = json!({"queue_ack": {"items": []}, "n": 1});
    for (format, expected) in [
        (OutputFormat::Json, Some(data.clone())),
        (OutputFormat::Jsonl, Some(json!([data.clone()]))),
        (OutputFormat::Text, None),
    ] {
        let mut action = action("out.sh");
        action.output_format = format;
        let (_, result) = run(&place.executor(), &claimed(action, shell(), json!({}))).await;
        assert_eq!(result.get("data"), expected.as_ref(), "{format}");
        assert_eq!(
            result.get("stdout").is_some(),
            expected.is_none(),
            "{format}"
        );
        assert_eq!(
            result.get("queue_ack"),
            expected.as_ref().and_then(|data| data.get("queue_ack")),
            "{format}"
        );
    }
    place.file("yaml.sh", "echo 'a: [1, two]'; exit ${CODE:-0}");
    let mut yaml = action("yaml.sh");
    yaml.output_format = OutputFormat::Yaml;
    let mut claimed = claimed(yaml, shell(), json!({}));
    assert_eq!(
        run(&place.executor(), &claimed).await.1["data"],
        json!({"a": [1, "two"]})
    );
    claimed.execution.env_vars = Some(json!({"CODE": "1"}));
    let (_, failed) = run(&place.executor(), &claimed).await;
    assert_eq!(
        (failed.get("data"), text(&failed, "stdout")),
        (None, "a: [1, two]\n")
    );
}

#[tokio::test]
async fn declared_secret_output_is_sealed_and_known_secrets_are_masked() {
    let place = Place::new();
    place.file("out.sh", "read -r line; echo \"saw $line\" >&2; echo '{\"token\":\"fresh-secret\",\"note\":\"key is hunter22\"}'");
    let mut secret = action("out.sh");
    secret.output_format = OutputFormat::Json;
    secret.out_schema = Some(json!({"token": {"type": "string", "secret": true}}));
    let mut claimed = claimed(secret, shell(), json!({}));
    claimed.keys = vec![key_row("password", json!("hunter22"))];
    let conclusion = conclude(&place.executor(), &claimed, &undisturbed()).await;
    let result = conclusion.document(None);
    assert_eq!(
        result["data"],
        json!({"token": {"$attune_secret": true, "redacted": true}, "note": "key is [redacted]"})
    );
    let [row] = conclusion.sealed() else {
        panic!("{conclusion:?}")
    };
    assert_eq!(row.json_path, "/data/token");
    assert_eq!(
        support::key().open(&row.encrypted_value, None).unwrap(),
        "fresh-secret"
    );
    for hidden in ["hunter22", "fresh-secret"] {
        assert!(!format!("{conclusion:?}").contains(hidden), "{hidden}");
    }

    // Output that was to be data with secrets but is none is not kept readable either.
    place.file("out.sh", "echo fresh-secret; echo hunter22 >&2; exit 1");
    let (_, result) = run(&place.executor(), &claimed).await;
    assert_eq!(
        text(&result, "stdout"),
        "[withheld: this action declares secret output]"
    );
    assert_eq!(text(&result, "error"), "[redacted]\n");
}

#[tokio::test]
async fn a_secret_parameter_reaches_the_child_and_one_that_cannot_be_opened_fails_the_execution() {
    let place = Place::new();
    place.file(
        "len.sh",
        "read -r line; printf %s \"$line\" | wc -c; echo \"$line\"",
    );
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
    assert_eq!(
        text(&result, "stdout"),
        format!("{}\n{shown}\n", r#"{"token":"hunter22"}"#.len())
    );
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
    let (status, result) = run(
        &place.executor(),
        &claimed(inline, shell(), json!({"api.url": "it's"})),
    )
    .await;
    assert_eq!(status, ExecutionStatus::Completed, "{result}");
    // ATTUNE_API_URL is the one that is exported.
    assert_eq!(text(&result, "stdout"), "it's it's\n1\n");
    assert!(place.is_swept());

    let mut failing = action("false; echo unreachable");
    failing.is_adhoc = true;
    let (status, result) = run(&place.executor(), &claimed(failing, shell(), json!({}))).await;
    assert_eq!(
        (status, result.get("stdout")),
        (ExecutionStatus::Failed, None)
    );
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
async fn what_cannot_start_says_why_without_an_exit_code() {
    let place = Place::new();
    place.file("run.sh", "exit 0");
    place.file("plain", "not a program");
    fs::set_permissions(
        place.path("packs/demo/actions/plain"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    let missing = runtime("lua", json!({"interpreter": {"binary": "lua-is-not-here"}}));
    let python = runtime("python", json!({"interpreter": {"binary": "python3"}}));
    let file = place.path("packs/demo/actions/gone.py");
    let no_code = format!(
        "Invalid action: No executable content found for action 'demo.act'. Expected file at: {}",
        file.display()
    );
    for (entrypoint, runtime, expected) in [
        ("gone.py", python.clone(), no_code.as_str()),
        (
            "run.sh",
            missing,
            "Setup error: Interpreter 'lua-is-not-here' is not available for action 'demo.act' on this worker",
        ),
        ("../../../secret.py", python, "Invalid action: "),
        ("plain", native(), "Invalid action: "),
    ] {
        let (status, result) = run(
            &place.executor(),
            &claimed(action(entrypoint), runtime, json!({})),
        )
        .await;
        assert_eq!(status, ExecutionStatus::Failed, "{entrypoint}");
        let error = text(&result, "error");
        let prefix = "Action execution failed: Internal error: ";
        assert!(
            error
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(expected)),
            "{entrypoint}: {error}"
        );
        assert!(result.get("exit_code").is_none() && !error.contains("timed out"));
    }
    let mut gone = claimed(action("run.sh"), shell(), json!({}));
    gone.action = None;
    let (status, _) = run(&place.executor(), &gone).await;
    assert_eq!(
        status,
        ExecutionStatus::Failed,
        "an action that is gone still ends its execution"
    );
    let mut nameless = claimed(action("run.sh"), shell(), json!({}));
    nameless.runtime = None;
    let (_, result) = run(&place.executor(), &nameless).await;
    assert!(
        text(&result, "error").contains("Runtime not found: no runtime for action: demo.act"),
        "{result}"
    );
}

#[derive(Debug, Clone, Default)]
struct Seen(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Sink for Seen {
    fn write(&mut self, chunk: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(chunk);
    }
}

#[tokio::test]
async fn output_is_seen_while_the_child_runs_and_without_its_secrets() {
    let place = Place::new();
    let go = place.path("go");
    place.file(
        "steps.sh",
        &format!(
            "echo 'first hunter22'; while [ ! -e {} ]; do sleep 0.01; done; echo second",
            go.display()
        ),
    );
    let mut claimed = claimed(action("steps.sh"), shell(), json!({}));
    claimed.keys = vec![key_row("password", json!("hunter22"))];
    let seen = Seen::default();
    let sinks = attune_worker::Sinks {
        stdout: Some(Box::new(seen.clone())),
        stderr: None,
    };
    let watch = async {
        eventually("the first line", async || {
            seen.0
                .lock()
                .unwrap()
                .starts_with(b"first [redacted]")
                .then_some(())
        })
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

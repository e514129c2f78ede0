//! How executions end, with real children.

use std::fs;

use attune_model::status::{ExecutionStatus, OutputFormat};
use attune_process::Policy;
use attune_runtime::advertise::Tier;
use attune_testkit::eventually;
use attune_worker::{Conclusion, ExecutorConfig};
use serde_json::json;

use crate::support;
use crate::support::{Place, action, claimed, conclude, is_alive, native, run, runtime, shell, text, undisturbed};

#[tokio::test]
async fn exit_codes_and_standard_error_make_the_error() {
    let place = Place::new();
    let many = "for i in 1 2 3 4 5; do echo $i >&2; done; echo last >&2; exit 4";
    for (name, code, exit_code, error) in [
        ("quiet.sh", "exit 3", 3, "Command exited with code 3"),
        ("short.sh", "echo one >&2; echo two >&2; exit 1", 1, "one\ntwo\n"),
        ("many.sh", many, 4, "last"),
        ("signal.sh", "kill -9 $$", -1, "Command exited with code -1"),
    ] {
        place.file(name, code);
        let (status, result) = run(&place.executor(), &claimed(action(name), shell(), json!({}))).await;
        assert_eq!(status, ExecutionStatus::Failed, "{name}");
        assert_eq!((&result["succeeded"], &result["exit_code"]), (&json!(false), &json!(exit_code)), "{name}");
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
    let (status, result) = run(&place.executor(), &claimed(json_action, native(), json!({"a": 1}))).await;
    assert_eq!((status, &result["data"]), (ExecutionStatus::Completed, &json!({"a": 1})));

    place.file("bad", "#!/bin/sh\necho ' no luck ' >&2; exit 5");
    let (_, result) = run(&place.executor(), &claimed(action("bad"), native(), json!({}))).await;
    assert_eq!(text(&result, "error"), "Native binary exited with code 5: no luck");

    place.file("slow", "#!/bin/sh\nsleep 600");
    let mut slow = claimed(action("slow"), native(), json!({}));
    slow.execution.workflow_task = Some(json!({"timeout_seconds": 0.2}));
    let (status, result) = run(&place.executor(), &slow).await;
    assert_eq!((status, text(&result, "error")), (ExecutionStatus::Failed, "Execution timed out after 0.2 seconds"));
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
    assert_eq!(text(&result, "error"), "Execution timed out after 1 seconds");
    let grandchild = text(&result, "stdout").to_owned();
    eventually("the grandchild is gone", async || (!is_alive(&grandchild)).then_some(())).await;
}

#[tokio::test]
async fn a_cancel_ends_the_child_and_keeps_its_code() {
    let place = Place::new();
    for (name, trap, exit_code) in [("polite.sh", "trap 'exit 7' TERM", 7), ("default.sh", "true", -1)] {
        let marker = place.path(name);
        place.file(name, &format!("{trap}\ntouch {}\nwhile true; do sleep 0.01; done", marker.display()));
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
    assert_eq!(text(&stopped.document(None), "error"), "worker was stopped before the action started");
    assert!(!marker.exists());
}

#[tokio::test]
async fn a_program_that_cannot_be_read_holds_up_no_other_and_ends_in_time_or_when_cancelled() {
    let place = Place::new();
    place.file("stuck", "#!/bin/sh\ntrue");
    place.file("other.sh", "echo fine");
    // As an agent has it: without a policy a child keeps copies of all descriptors until it is the program.
    let executor = support::executor(ExecutorConfig { policy: Some(Policy::default()), ..place.config() });
    let Some(held) = attune_testkit::Held::new(&place.path("packs/demo/actions/stuck")) else { return };
    let (control, mut limited) = (undisturbed(), claimed(action("stuck"), native(), json!({})));
    limited.execution.workflow_task = Some(json!({"timeout_seconds": 0.2}));
    let stuck = claimed(action("stuck"), native(), json!({}));
    let mut stuck = std::pin::pin!(conclude(&executor, &stuck, &control));
    let others = async {
        let (status, _) = run(&executor, &claimed(action("other.sh"), shell(), json!({}))).await;
        assert_eq!(status, ExecutionStatus::Completed);
        run(&executor, &limited).await
    };
    let (status, result) = tokio::select! {
        biased;
        _ = &mut stuck => panic!("the program was read"),
        ended = others => ended,
    };
    assert_eq!((status, text(&result, "error")), (ExecutionStatus::Failed, "Execution timed out after 0.2 seconds"));
    control.cancel.cancel();
    assert!(matches!(stuck.await, Conclusion::CancelledEarly));
    drop(held);
}

#[tokio::test]
async fn a_hard_stop_ends_even_a_stubborn_child_and_keeps_its_output() {
    let place = Place::new();
    let marker = place.path("running");
    place.file(
        "stubborn.sh",
        &format!("trap '' TERM; echo $$; touch {}; while true; do sleep 0.01; done", marker.display()),
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
    assert_eq!(text(&result, "error"), "worker was stopped while the action ran");
    assert!(!is_alive(text(&result, "stdout")));
}

#[tokio::test]
async fn large_parameters_that_nobody_reads_hang_nothing() {
    let place = Place::new();
    let large = json!({"text": "x".repeat(1_000_000)});
    place.file("first.sh", "head -c 300000 /dev/zero | tr '\\0' y; wc -c");
    let (status, result) = run(&place.executor(), &claimed(action("first.sh"), shell(), large.clone())).await;
    assert_eq!(status, ExecutionStatus::Completed, "{}", result["error"]);
    let stdout = text(&result, "stdout");
    assert!(stdout.starts_with("yyyy") && stdout.trim_end().ends_with("1000012"), "{}", stdout.len());

    place.file("never.sh", "exit 0");
    let (status, _) = run(&place.executor(), &claimed(action("never.sh"), shell(), large.clone())).await;
    assert_eq!(status, ExecutionStatus::Completed, "a quick success did not want its parameters");

    place.file("late.sh", "sleep 0.6; exit 0");
    let (status, result) = run(&place.executor(), &claimed(action("late.sh"), shell(), large.clone())).await;
    assert_eq!(status, ExecutionStatus::Failed);
    assert!(text(&result, "error").starts_with("Failed to write parameters to stdin: "), "{result}");

    place.file("fails.sh", "exec <&-; echo hidden >&2; sleep 0.05; exit 2");
    let (_, result) = run(&place.executor(), &claimed(action("fails.sh"), shell(), large)).await;
    assert_eq!(result["exit_code"], 2);
    assert!(text(&result, "error").starts_with("Failed to write parameters to stdin: "), "{result}");
}

#[tokio::test]
async fn a_descendant_that_keeps_the_output_open_does_not_hold_up_the_end() {
    let place = Place::new();
    place.file("daemon.sh", "setsid sleep 600 & echo $!; exit 0");
    let (status, result) = run(&place.executor(), &claimed(action("daemon.sh"), shell(), json!({}))).await;
    assert_eq!(status, ExecutionStatus::Completed);
    let pid = text(&result, "stdout").trim().parse::<i32>().unwrap();
    assert!(pid > 0);
    // It left the group on purpose; the test does not leave it behind.
    place.file("kill.sh", &format!("kill -9 {pid}; exit 0"));
    run(&place.executor(), &claimed(action("kill.sh"), shell(), json!({}))).await;
}

#[tokio::test]
async fn output_is_cut_at_the_limit_exactly_and_the_loss_is_told() {
    let place = Place::new();
    let mut config = place.config();
    (config.max_stdout_bytes, config.max_stderr_bytes) = (1128, 628);
    let executor = support::executor(config);
    for (count, cut) in [(1000, None), (1001, Some(1)), (5_000_000, Some(4_999_000))] {
        place.file("flood.sh", &format!("head -c {count} /dev/zero | tr '\\0' y"));
        let (status, result) = run(&executor, &claimed(action("flood.sh"), shell(), json!({}))).await;
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
    place.file("errors.sh", "head -c 501 /dev/zero | tr '\\0' e >&2; printf '\\377\\000' ");
    let (status, result) = run(&executor, &claimed(action("errors.sh"), shell(), json!({}))).await;
    assert_eq!(status, ExecutionStatus::Completed, "binary output is no failure");
    assert_eq!(text(&result, "stdout"), "\u{fffd}\u{fffd}");
    assert_eq!((&result["stderr_truncated"], &result["stderr_bytes_truncated"]), (&json!(true), &json!(1)));
}

#[tokio::test]
async fn output_becomes_data_by_its_format_and_only_after_success() {
    let place = Place::new();
    place.file("out.sh", "echo log; echo '{\"queue_ack\":{\"items\":[]},\"n\":1}'");
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
        assert_eq!(result.get("stdout").is_some(), expected.is_none(), "{format}");
        assert_eq!(result.get("queue_ack"), expected.as_ref().and_then(|data| data.get("queue_ack")), "{format}");
    }
    place.file("yaml.sh", "echo 'a: [1, two]'; exit ${CODE:-0}");
    let mut yaml = action("yaml.sh");
    yaml.output_format = OutputFormat::Yaml;
    let mut claimed = claimed(yaml, shell(), json!({}));
    assert_eq!(run(&place.executor(), &claimed).await.1["data"], json!({"a": [1, "two"]}));
    claimed.execution.env_vars = Some(json!({"CODE": "1"}));
    let (_, failed) = run(&place.executor(), &claimed).await;
    assert_eq!((failed.get("data"), text(&failed, "stdout")), (None, "a: [1, two]\n"));
}

#[tokio::test]
async fn what_cannot_start_says_why_without_an_exit_code() {
    let place = Place::new();
    place.file("run.sh", "exit 0");
    place.file("plain", "not a program");
    fs::set_permissions(place.path("packs/demo/actions/plain"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
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
        let (status, result) = run(&place.executor(), &claimed(action(entrypoint), runtime, json!({}))).await;
        assert_eq!(status, ExecutionStatus::Failed, "{entrypoint}");
        let error = text(&result, "error");
        let prefix = "Action execution failed: Internal error: ";
        assert!(error.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(expected)), "{entrypoint}: {error}");
        assert!(result.get("exit_code").is_none() && !error.contains("timed out"));
    }
    let mut gone = claimed(action("run.sh"), shell(), json!({}));
    gone.action = None;
    let (status, _) = run(&place.executor(), &gone).await;
    assert_eq!(status, ExecutionStatus::Failed, "an action that is gone still ends its execution");
    let mut nameless = claimed(action("run.sh"), shell(), json!({}));
    nameless.runtime = None;
    let (_, result) = run(&place.executor(), &nameless).await;
    assert!(text(&result, "error").contains("Runtime not found: no runtime for action: demo.act"), "{result}");
    let mut config = place.config();
    (config.advertised.tier, config.advertised.runtimes) = (Tier::Override, vec!["python".to_owned()]);
    let (_, result) = run(&support::executor(config), &claimed(action("run.sh"), shell(), json!({}))).await;
    let expected = "Runtime not found: Runtime 'shell' not found for action: demo.act (available: python)";
    assert!(text(&result, "error").ends_with(expected), "what the operator does not want here is not run: {result}");
}

//! The core pack's code does what its descriptions say, in every shell of this machine.

use std::ffi::OsString;

use serde_json::{Value, json};

use crate::api::Api;
use crate::child::{Ran, dotenv, packs, program, run, shells};

async fn action(shell: &[OsString], script: &str, env: &[(&str, &str)], stdin: &str) -> Ran {
    let mut argv = shell.to_vec();
    argv.push(packs().join("core/actions").join(script).into_os_string());
    run(&argv, env, stdin).await
}

/// Texts that a careless reader of `key='value'` lines gets wrong or executes.
const NASTY: [&str; 18] = [
    "plain",
    "",
    "It's a test",
    "'",
    "''",
    "\\",
    "\\'",
    "'\\''",
    "a'\\",
    "ends with a quote'",
    "two\nlines",
    "a quote'\nbefore a line break",
    "\n\nfirst lines are empty",
    "$(echo executed) `echo executed` ${HOME} $HOME",
    "message='forged'",
    "  blanks around  ",
    "tab\tand \"double\" quotes; # no comment",
    "ünïcödé ✓",
];

#[tokio::test]
async fn echo_prints_every_message_as_it_is() {
    for shell in shells() {
        for message in NASTY {
            let stdin = dotenv(&[("message", message), ("uppercase", "false"), ("other.key-1", message)]);
            let ran = action(&shell, "echo.sh", &[], &stdin).await;
            assert_eq!(ran.stdout, format!("{message}\n"), "{shell:?}: {}", ran.stderr);
            assert_eq!(ran.code, 0);
        }
    }
}

#[tokio::test]
async fn echo_can_shout_and_needs_no_parameters() {
    for shell in shells() {
        let stdin = dotenv(&[("message", "it's loud"), ("uppercase", "true")]);
        assert_eq!(action(&shell, "echo.sh", &[], &stdin).await.stdout, "IT'S LOUD\n");
        assert_eq!(action(&shell, "echo.sh", &[], "\n").await.stdout, "\n");
    }
}

#[tokio::test]
async fn a_value_without_an_end_is_refused() {
    for shell in shells() {
        let ran = action(&shell, "echo.sh", &[], "message='never ends\n").await;
        assert_ne!(ran.code, 0, "{shell:?}");
        assert_eq!(ran.stderr, "the value of the parameter message has no end\n");
    }
}

#[tokio::test]
async fn noop_succeeds_without_a_word() {
    for shell in shells() {
        let ran = action(&shell, "noop.sh", &[], &dotenv(&[("message", "x")])).await;
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
    }
}

#[tokio::test]
async fn sleep_says_its_message_afterwards_and_refuses_what_is_no_number() {
    for shell in shells() {
        let stdin = dotenv(&[("seconds", "0.01"), ("message", "done")]);
        assert_eq!(action(&shell, "sleep.sh", &[], &stdin).await.stdout, "done\n");
        for seconds in ["", "-1", "1; echo executed", "1.2.3", "."] {
            let ran = action(&shell, "sleep.sh", &[], &dotenv(&[("seconds", seconds)])).await;
            assert_eq!((ran.code, ran.stdout.as_str()), (64, ""), "{seconds}");
            assert!(ran.stderr.contains("must be a number"), "{}", ran.stderr);
        }
    }
}

#[tokio::test]
async fn http_request_prefers_the_agent_and_hands_it_everything() {
    let agent = packs().join("demo/actions/mirror.sh");
    for shell in shells() {
        let env = [("ATTUNE_AGENT_BIN", agent.to_str().expect("the repository's path is text"))];
        let ran = action(&shell, "http_request.sh", &env, "{\"url\":\"http://x\"}\n").await;
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "{\"url\":\"http://x\"}\n"));
    }
}

#[tokio::test]
async fn http_request_makes_the_request_in_python_where_there_is_no_agent() {
    let mut api = Api::answering("201 Created").await;
    let parameters = json!({
        "url": format!("{}/a?b=1", api.url), "method": "POST", "query_params": {"c": "d e"},
        "auth": {"token": "x"}, "body": {"n": 1},
    });
    let ran = action(&shells()[0], "http_request.sh", &[], &(parameters.to_string() + "\n")).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let asked = api.next().await;
    assert_eq!(asked.what, "POST /a?b=1&c=d+e");
    assert_eq!(asked.authorization.as_deref(), Some("Bearer x"));
    assert_eq!(asked.body, json!({"n": 1}));
    let result: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(result["status_code"], 201);
    assert_eq!(result["success"], true);
    assert_eq!(result["headers"]["content-type"], "application/json");
    assert_eq!(result["json"], json!({"data": {"id": 1}}));

    let refusing = Api::answering("404 Not Found").await;
    let parameters = json!({"url": refusing.url, "fail_on_error": true}).to_string() + "\n";
    let ran = action(&shells()[0], "http_request.sh", &[], &parameters).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("answered with status 404"), "{}", ran.stderr);

    let parameters = json!({"url": "http://127.0.0.1:1/", "timeout_seconds": 5}).to_string() + "\n";
    let ran = action(&shells()[0], "http_request.sh", &[], &parameters).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("http://127.0.0.1:1/"), "{}", ran.stderr);
}

#[tokio::test]
async fn http_request_without_agent_and_python_says_what_it_needs() {
    for shell in shells() {
        let ran = action(&shell, "http_request.sh", &[("PATH", "/nowhere")], "{}\n").await;
        assert_eq!(ran.code, 69);
        assert!(ran.stderr.contains("needs the agent binary"), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn the_timer_sensor_starts_the_agents_binary_or_says_what_is_missing() {
    let launcher = packs().join("core/sensors/attune-core-timer-sensor");
    for shell in shells() {
        let mut argv = shell.clone();
        argv.push(launcher.clone().into_os_string());
        let echo = program("echo");
        let ran = run(&argv, &[("ATTUNE_AGENT_BIN", echo.to_str().expect("a path of text"))], "").await;
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "timer-sensor\n"));

        // Its own folder on PATH must not make it start itself for ever.
        let own = launcher.parent().and_then(|folder| folder.to_str()).expect("a path of text");
        let ran = run(&argv, &[("PATH", own), ("ATTUNE_AGENT_BIN", "/nowhere/agent")], "").await;
        assert_eq!(ran.code, 127);
        assert!(ran.stderr.contains("/nowhere/agent"), "{}", ran.stderr);
    }
}

//! `attune-agents run`, the way a pack author uses it.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the program under test is started the way a user starts it")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use attune_testkit::eventually_blocking;

use serde_json::{Value, json};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_attune-agents");

/// A folder with pack `mine`: actions by name, schema lines and code.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(TempDir::new().unwrap());
        fs::create_dir_all(folder.path().join("packs/mine/actions")).unwrap();
        let manifest = "ref: mine\nlabel: Mine\nname: Mine\ndescription: Mine\nversion: 1.0.0\n";
        fs::write(folder.path().join("packs/mine/pack.yaml"), manifest).unwrap();
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn action(&self, name: &str, fields: &str, code: &str) -> &Self {
        let actions = self.path().join("packs/mine/actions");
        let description = format!(
            "ref: mine.{name}\nname: {name}\nlabel: {name}\ndescription: {name}\nenabled: true\n\
             runner_type: shell\nentry_point: {name}.sh\n{fields}"
        );
        fs::write(actions.join(format!("{name}.yaml")), description).unwrap();
        let file = actions.join(format!("{name}.sh"));
        fs::write(&file, code).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("run").args(arguments).current_dir(self.path()).stdin(Stdio::null());
        command.env("ATTUNE__SECURITY__ENCRYPTION_KEY", "a secret of the agent itself");
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        of(&self.command(arguments).output().unwrap())
    }

    fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let (code, stdout, stderr) = self.run(&[arguments, &["--json"]].concat());
        (code, serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout:?} {stderr}")))
    }
}

fn of(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

const PARAMETERS: &str = "parameter_format: json\nparameters:\n  text: {type: string}\n  count: {type: integer, default: 3}\n  \
                          free: {}\n  token: {type: string, secret: true}\n";

#[test]
fn output_goes_where_the_action_sends_it_and_one_line_says_how_it_ended() {
    let folder = Folder::new();
    folder.action("talk", "", "echo out; echo err >&2").action("fail", "", "echo why >&2; exit 7");
    let (code, stdout, stderr) = folder.run(&["mine.talk"]);
    assert_eq!((code, stdout.as_str()), (0, "out\n"));
    assert!(stderr.starts_with("err\nmine.talk completed in ") && stderr.ends_with(" ms\n"), "{stderr}");
    let (code, stdout, stderr) = folder.run(&["mine.fail"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("why\nmine.fail failed in ") && stderr.ends_with(" ms: exit code 7\n"), "{stderr}");
    assert!(!folder.path().join(".attune").exists(), "nothing is made that was not needed");
}

#[test]
fn with_json_standard_output_carries_the_result_and_nothing_else() {
    let folder = Folder::new();
    folder.action("data", "output_format: json\n", "echo log; echo '{\"n\":1}'").action(
        "fail",
        "",
        "echo why >&2; exit 7",
    );
    let (code, mut result) = folder.json(&["mine.data"]);
    assert!(result["duration_ms"].take().is_u64());
    assert_eq!((code, result), (0, json!({"succeeded": true, "exit_code": 0, "duration_ms": null, "data": {"n": 1}})));
    let (code, result) = folder.json(&["mine.fail"]);
    assert_eq!(
        (code, &result["succeeded"], &result["exit_code"], &result["error"]),
        (1, &json!(false), &json!(7), &json!("why\n"))
    );
}

#[test]
fn parameters_are_read_by_the_types_of_the_schema() {
    let folder = Folder::new();
    folder.action("cat", PARAMETERS, "cat");
    let cat = |arguments: &[&str]| {
        let (code, result) = folder.json(&[&["mine.cat"], arguments].concat());
        assert_eq!(code, 0, "{result}");
        serde_json::from_str::<Value>(result["stdout"].as_str().unwrap()).unwrap()
    };
    assert_eq!(cat(&[]), json!({"count": 3}));
    assert_eq!(
        cat(&["--param", "text=7", "--param", "count=8", "--param", "free=[1,\"a\"]", "--param", "other=x=y"]),
        json!({"text": "7", "count": 8, "free": [1, "a"], "other": "x=y"})
    );
    fs::write(folder.path().join("p.json"), r#"{"text": "from file", "free": null}"#).unwrap();
    assert_eq!(
        cat(&["--params", "@p.json", "--param=text=nearer"]),
        json!({"text": "nearer", "free": null, "count": 3})
    );
    assert_eq!(cat(&["--params", r#"{"count": 1}"#]), json!({"count": 1}));
}

#[test]
fn secrets_reach_the_action_and_nothing_that_is_kept_or_shown() {
    let folder = Folder::new();
    folder.action(
        "leak",
        PARAMETERS,
        "read -r line; echo \"$line\"; echo \"$line\" >&2; printf %s \"$line\" | wc -c; env",
    );
    let arguments = ["mine.leak", "--secret", "password=hunter22", "--param", "token=opensesame"];
    let length = r#"{"token":"opensesame","count":3,"password":"hunter22"}"#.len();
    for arguments in [arguments.to_vec(), [&arguments[..], &["--json"]].concat()] {
        let (code, stdout, stderr) = folder.run(&arguments);
        assert_eq!(code, 0);
        assert!(stdout.contains("[redacted]") && stderr.contains("[redacted]"), "{stdout}{stderr}");
        assert!(stdout.contains(&format!("{length}")), "it had them: {stdout}");
        for hidden in ["hunter22", "opensesame", "a secret of the agent itself"] {
            assert!(!stdout.contains(hidden) && !stderr.contains(hidden), "{hidden}: {stdout}{stderr}");
        }
    }
}

#[test]
fn variables_are_set_and_this_program_can_be_found_by_the_action() {
    let folder = Folder::new();
    folder.action("env", "", "echo \"$DEBUG $ATTUNE_ACTION\"; \"$ATTUNE_AGENT_BIN\" --version");
    let (_, stdout, _) = folder.run(&["mine.env", "--env", "DEBUG=yes", "--env", "ATTUNE_ACTION=other"]);
    assert_eq!(stdout, format!("yes mine.env\nattune-agents {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_time_limit_has_an_exit_code_of_its_own() {
    let folder = Folder::new();
    folder.action("slow", "", "sleep 600");
    let (code, result) = folder.json(&["mine.slow", "--timeout", "200ms"]);
    assert_eq!((code, &result["error"]), (124, &json!("Execution timed out after 0.2 seconds")));
}

fn signal(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

/// An action that has printed its first line.
fn started(folder: &Folder, name: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = folder.command(&[name]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, stdout)
}

#[test]
fn ctrl_c_cancels_the_action_which_may_say_goodbye() {
    let folder = Folder::new();
    folder.action("polite", "", "trap 'echo bye; exit 3' TERM; echo ready; while true; do sleep 0.01; done");
    let (mut child, mut stdout) = started(&folder, "mine.polite");
    signal(&child);
    let status = eventually_blocking("the end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    let (mut rest, mut stderr) = (String::new(), String::new());
    stdout.read_to_string(&mut rest).unwrap();
    let mut errors = child.stderr.take().unwrap();
    errors.read_to_string(&mut stderr).unwrap();
    assert_eq!(rest, "bye\n");
    assert!(stderr.contains("mine.polite cancelled in "), "{stderr}");
}

#[test]
fn a_second_ctrl_c_does_not_wait_for_a_stubborn_action() {
    let folder = Folder::new();
    let code = "trap '' TERM; echo ready; while true; do sleep 0.01; done";
    folder.action("stubborn", "", code);
    // The one that is asked once has its grace; the other, asked later but twice, must end before it.
    let (mut patient, _patient_stdout) = started(&folder, "mine.stubborn");
    let (mut child, _stdout) = started(&folder, "mine.stubborn");
    signal(&patient);
    let end_of = |child: &mut Child| {
        eventually_blocking("the end", || {
            // Two signals that arrive together are one, so it is sent until it is seen twice.
            signal(child);
            child.try_wait().unwrap()
        })
    };
    assert_eq!(end_of(&mut child).code(), Some(130));
    assert!(patient.try_wait().unwrap().is_none());
    assert_eq!(end_of(&mut patient).code(), Some(130));
}

#[test]
fn what_cannot_be_used_is_said_with_its_exit_code() {
    let folder = Folder::new();
    folder.action("cat", PARAMETERS, "cat").action(
        "need",
        "parameters:\n  who: {type: string, required: true}\n",
        "cat",
    );
    for (arguments, exit, part) in [
        (&[][..], 64, "action"),
        (&["noop"], 64, "\"noop\" is not an action: write pack.name"),
        (&["none.act"], 64, "no pack \"none\" in packs"),
        (&["mine.nothing"], 64, "it has"),
        (&["mine.cat", "--param", "count=many"], 64, "parameter count: must be integer, not a text"),
        (&["mine.cat", "--param", "novalue"], 64, "--param needs name=value"),
        (&["mine.cat", "--secret", "hunter22"], 64, "--secret needs name=value"),
        (&["mine.cat", "--params", "[1]"], 64, "--params needs a JSON object"),
        (&["mine.cat", "--params", "{"], 64, "--params is not JSON"),
        (&["mine.cat", "--params", "@missing.json"], 64, "missing.json cannot be read"),
        (&["mine.cat", "--timeout", "soon"], 64, "expected a duration such as 30, 500ms or 2m"),
        (&["mine.cat", "--nonsense"], 64, "--nonsense"),
        (&["mine.need"], 64, "parameter who: required, but missing"),
    ] {
        let (code, stdout, stderr) = folder.run(arguments);
        assert_eq!((code, stdout.as_str()), (exit, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(part), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("hunter22"), "{stderr}");
    }
}

#[test]
fn a_broken_file_is_named_and_a_secret_stands_for_a_parameter() {
    let folder = Folder::new();
    folder.action("need", "parameters:\n  who: {type: string, required: true}\n", "cat");
    let broken = folder.path().join("packs/mine/actions/broken.yaml");
    fs::write(broken, "ref: mine.broken\nlabel: [").unwrap();
    let (code, _, stderr) = folder.run(&["mine.broken"]);
    assert_eq!(code, 78);
    assert!(stderr.contains("broken.yaml:"), "{stderr}");
    let (code, _, stderr) = folder.run(&["mine.need", "--secret", "who=me"]);
    assert_eq!(code, 0, "a secret stands for a parameter: {stderr}");
}

#[test]
fn packs_are_found_where_they_are_said_to_be() {
    let folder = Folder::new();
    folder.action("where", "", "pwd -P");
    let elsewhere = TempDir::new().unwrap();
    let moved = elsewhere.path().canonicalize().unwrap().join("packs");
    fs::rename(folder.path().join("packs"), &moved).unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    for packs in [moved.clone(), moved.join("mine")] {
        let (code, stdout, stderr) =
            folder.run(&["mine.where", "--packs", "empty", "--packs", packs.to_str().unwrap()]);
        assert_eq!((code, stdout.trim_end()), (0, moved.join("mine").to_str().unwrap()), "{stderr}");
    }
}

#[test]
fn an_environment_is_built_once_and_says_so() {
    let folder = Folder::new();
    let runtimes = folder.path().join("packs/mine/runtimes");
    fs::create_dir(&runtimes).unwrap();
    let create = "mkdir -p {env_dir}/bin && ln -s /bin/sh {env_dir}/bin/sh";
    fs::write(
        runtimes.join("boxed.yaml"),
        format!(
            "ref: mine.boxed\nname: Boxed\nlabel: Boxed\ndescription: Boxed\nexecution_config:\n  \
             interpreter: {{binary: /bin/sh, file_extension: .sh}}\n  environment:\n    env_type: custom\n    \
             create_command: [/bin/sh, -c, '{create}']\n    interpreter_path: '{{env_dir}}/bin/sh'\n"
        ),
    )
    .unwrap();
    folder.action("boxed", "", "echo inside");
    let file = folder.path().join("packs/mine/actions/boxed.yaml");
    let description = fs::read_to_string(&file).unwrap().replace("runner_type: shell", "runner_type: mine.boxed");
    fs::write(&file, description).unwrap();
    let (code, stdout, stderr) = folder.run(&["mine.boxed"]);
    assert_eq!((code, stdout.as_str()), (0, "inside\n"), "{stderr}");
    assert!(stderr.contains("building environment mine/boxed: "), "{stderr}");
    assert!(folder.path().join(".attune/runtime_envs/mine/boxed/bin/sh").exists());
    let (code, _, stderr) = folder.run(&["mine.boxed", "--data", ".attune"]);
    assert_eq!(code, 0);
    assert!(!stderr.contains("building"), "{stderr}");
}

#[test]
fn a_program_that_the_kernel_refuses_is_named_in_the_result() {
    let folder = Folder::new();
    let foreign = format!("\u{7f}ELF\u{2}\u{1}\u{1}{}\u{2}\0\u{8}\0{}", "\0".repeat(9), "\0".repeat(44));
    for (name, code, said) in [
        ("unmarked", "echo no first line\n", "neither a program nor a script"),
        ("foreign", &*foreign, "is a program for mips"),
        ("nobody", "#!/no/such/interpreter\n", "/no/such/interpreter"),
    ] {
        folder.action(name, "", code);
        let description = folder.path().join(format!("packs/mine/actions/{name}.yaml"));
        let native = fs::read_to_string(&description).unwrap().replace("runner_type: shell", "runner_type: native");
        fs::write(&description, native).unwrap();
        let (exit, result) = folder.json(&[&format!("mine.{name}")]);
        let error = result["error"].as_str().unwrap();
        assert!(error.contains("Process error: ") && error.contains(said) && error.contains(name), "{error}");
        assert_eq!((exit, &result["exit_code"]), (1, &Value::Null), "{result}");
    }
}

#[test]
fn what_an_action_leaves_behind_is_ended_and_named_in_its_log() {
    let folder = Folder::new();
    // The daemon is in a session of its own and holds the output open.
    folder.action("daemon", "", "setsid sh -c 'touch here; exec sleep 1000' &\nwhile [ ! -e here ]; do sleep 0.01; done\nprintf 'no end of line' >&2\n");
    let (code, stdout, stderr) = folder.run(&["mine.daemon"]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    let remark = "no end of line\n[attune-agents: processes that the program left behind were ended: s";
    assert!(stderr.contains(remark), "{stderr}");
}

/// An action that the pack declares as a starter of daemons, whose daemon has its output as `redirected` says: the log, and the
/// daemon, which is there and is ended here.
fn declared_daemon(redirected: &str) -> (String, u32) {
    let folder = Folder::new();
    let (manifest, pid) = (folder.path().join("packs/mine/pack.yaml"), folder.path().join("pid"));
    let declared = "meta: &meta { daemon_starters: [mine.daemon] }\nmetadata: *meta\n";
    fs::write(&manifest, fs::read_to_string(&manifest).unwrap() + declared).unwrap();
    let code = "setsid sh -c 'echo $$ >PID.new; exec sleep 1000' REDIRECTED &\n\
                until [ \"$(cat \"/proc/$(cat PID.new)/comm\")\" = sleep ]; do sleep 0.01; done 2>/dev/null\n\
                mv PID.new PID\n";
    folder.action("daemon", "", &code.replace("PID", pid.to_str().unwrap()).replace("REDIRECTED", redirected));
    let (code, _, stderr) = folder.run(&["mine.daemon"]);
    assert_eq!(code, 0, "{stderr}");
    let daemon = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    assert_eq!(fs::read_to_string(format!("/proc/{daemon}/comm")).unwrap(), "sleep\n");
    attune_sys::kill(attune_sys::Pid::new(daemon).unwrap(), attune_sys::SIGKILL).unwrap();
    (stderr, daemon)
}

#[test]
fn a_daemon_that_the_pack_declares_is_left_alone() {
    let (log, _) = declared_daemon(">/dev/null 2>&1");
    assert!(!log.contains("left behind"), "{log}");
}

#[test]
fn a_daemon_that_keeps_the_output_of_its_action_is_named_in_its_log() {
    let (log, daemon) = declared_daemon("");
    let remark = format!("kept its output open, which was not read any further: sleep ({daemon})]\n");
    assert!(log.contains(&remark), "{log}");
}

#[test]
fn a_reader_that_goes_away_is_a_failure_and_hangs_nothing() {
    let folder = Folder::new();
    folder.action("flood", "", "head -c 1000000 /dev/zero | tr '\\0' y");
    let mut child = folder.command(&["mine.flood"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    let status = eventually_blocking("the end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(74));
}

//! The built binary: by which name it is called, what it prints where, and with which code it ends.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the program under test is started the way a user starts it")]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_attune-agents");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a run left behind.
#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The binary with an empty environment in an empty folder.
fn attune(arguments: &[&str]) -> Ran {
    let folder = TempDir::new().unwrap();
    run(Command::new(BINARY).args(arguments).env_clear().current_dir(folder.path()))
}

fn odd() -> OsString {
    OsString::from_vec(b"wor\xffker".to_vec())
}

fn link(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    symlink(BINARY, &path).unwrap();
    path
}

#[test]
fn links_choose_the_applet_by_their_file_name_from_anywhere_without_an_environment() {
    let folder = TempDir::new().unwrap();
    for program in ["attune-agent", "attune-sensor-agent"] {
        let ran = run(Command::new(link(folder.path(), program)).arg("--version").env_clear().current_dir("/"));
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, &*format!("{program} {VERSION}\n"), ""));
    }
}

#[test]
fn a_hard_link_does_the_same() {
    let folder = TempDir::new_in(Path::new(BINARY).parent().unwrap()).unwrap();
    let path = folder.path().join("attune-sensor-agent");
    fs::hard_link(BINARY, &path).unwrap();
    let ran = run(Command::new(path).arg("-V").env_clear().current_dir("/"));
    assert_eq!((ran.code, ran.stdout), (0, format!("attune-sensor-agent {VERSION}\n")));
}

#[test]
fn the_first_argument_chooses_when_the_file_name_does_not() {
    let folder = TempDir::new().unwrap();
    for name in ["attune-agents", "anything", "not-attune-agent", "attune-agent2"] {
        let ran = run(Command::new(link(folder.path(), name)).args(["sensor", "--version"]));
        assert_eq!((ran.code, ran.stdout), (0, format!("attune-sensor-agent {VERSION}\n")), "{name}");
    }
    for (arguments, expected) in [
        (["worker", "--version"], "attune-agent"),
        (["agent", "--version"], "attune-agent"),
        (["detect", "--version"], "attune-agents"),
    ] {
        let ran = attune(&arguments);
        assert_eq!((ran.code, ran.stdout, ran.stderr), (0, format!("{expected} {VERSION}\n"), String::new()));
    }
}

#[test]
fn a_name_that_is_not_utf_8_falls_back_to_the_first_argument() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(odd());
    symlink(BINARY, &path).unwrap();
    let ran = run(Command::new(&path).arg("--version"));
    assert_eq!((ran.code, ran.stdout), (0, format!("attune-agents {VERSION}\n")));
}

#[test]
fn an_empty_argv_is_a_usage_error() {
    let ran = run(Command::new(BINARY).arg0(""));
    assert_eq!((ran.code, ran.stdout.as_str()), (64, ""));
    assert!(ran.stderr.starts_with("error: no applet given\n"), "{}", ran.stderr);
}

#[test]
fn version_help_and_list_go_to_standard_output_alone() {
    let ran = attune(&["--version"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, &*format!("attune-agents {VERSION}\n"), ""));
    let help = attune(&["--help"]);
    let list = attune(&["--list"]);
    assert_eq!((help.code, help.stderr.as_str(), list.code, list.stderr.as_str()), (0, "", 0, ""));
    for line in ["worker attune-agent", "sensor attune-sensor-agent", "detect", "config"] {
        assert!(list.stdout.lines().any(|listed| listed == line), "{}", list.stdout);
    }
    for line in list.stdout.lines() {
        let name = line.split(' ').next().unwrap();
        assert!(
            help.stdout.contains(&format!("\n  {name} ")),
            "{name} is listed and not in the help:\n{}",
            help.stdout
        );
    }
}

#[test]
fn every_listed_applet_answers_help_and_version() {
    for line in attune(&["--list"]).stdout.lines() {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let program = words.next().unwrap_or("attune-agents");
        let version = attune(&[name, "--version"]);
        assert_eq!(
            (version.code, version.stdout, version.stderr),
            (0, format!("{program} {VERSION}\n"), String::new())
        );
        for flag in ["--help", "-h"] {
            let help = attune(&[name, flag]);
            assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{name} {flag}");
            assert!(help.stdout.starts_with(&format!("Usage: attune-agents {name}")), "{}", help.stdout);
            assert!(help.stdout.contains("\n  -h, --help        print this\n  -V, --version "), "{}", help.stdout);
        }
    }
}

#[test]
fn unusable_command_lines_end_with_64_and_say_what_was_probably_meant() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "error: no applet given\n"),
        (&["wroker"], "error: unknown applet `wroker`, did you mean `worker`?\n"),
        (&["attune-agent"], "error: unknown applet `attune-agent`, did you mean `worker`?\n"),
        (&["--hlep"], "error: unknown applet `--hlep`, did you mean `--help`?\n"),
        (&["zebra"], "error: unknown applet `zebra`\nRun `attune-agents --help` for more information.\n"),
        (&["worker", "--confg", "x"], "error: Unrecognized argument: --confg, did you mean `--config`?\n"),
        (&["worker", "--zebra"], "error: Unrecognized argument: --zebra\nRun `attune-agents worker --help`"),
        (&["worker", "extra"], "error: Unrecognized argument: extra\n"),
        (&["sensor", "--config"], "error: No value provided for option '--config'.\n"),
        (&["sensor", "--log-format", "xml"], "error: Error parsing option '--log-format' with value 'xml'"),
        (&["sensor", "--name", " "], "error: --name must not be empty\n"),
        (&["worker", "-c", ""], "error: --config must not be empty\n"),
        (&["config", "--config="], "error: --config must not be empty\n"),
        (&["worker", "--json"], "error: --json needs --detect-only\n"),
    ];
    for (arguments, expected) in cases {
        let ran = attune(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (64, ""), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.starts_with(expected), "{arguments:?}: {}", ran.stderr);
    }
}

/// Whoever starts the platform's programs knows that number.
#[test]
fn unusable_command_lines_of_the_platforms_programs_end_with_2() {
    let folder = TempDir::new().unwrap();
    for program in ["attune-agent", "attune-sensor-agent"] {
        let path = link(folder.path(), program);
        for (arguments, expected) in [
            (vec![OsStr::new("--zebra")], "error: Unrecognized argument: --zebra\nRun `attune-"),
            (vec![OsStr::new("extra")], "error: Unrecognized argument: extra\n"),
            (vec![OsStr::new("--name"), OsStr::new(" ")], "error: --name must not be empty\n"),
            (vec![&*odd()], "error: argument \"wor\\xFFker\" is not UTF-8\n"),
        ] {
            let ran = run(Command::new(&path).args(&arguments));
            assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{program} {arguments:?}: {}", ran.stderr);
            assert!(ran.stderr.starts_with(expected), "{program} {arguments:?}: {}", ran.stderr);
        }
    }
}

#[test]
fn arguments_that_are_not_utf_8_are_usage_errors() {
    let first = run(Command::new(BINARY).arg(odd()));
    assert_eq!((first.code, first.stdout.as_str()), (64, ""));
    assert!(first.stderr.starts_with("error: unknown applet \"wor\\xFFker\"\n"), "{}", first.stderr);
    let later = run(Command::new(BINARY).args([OsStr::new("worker"), OsStr::new("--name"), &odd()]));
    assert_eq!((later.code, later.stdout.as_str()), (64, ""));
    assert!(later.stderr.starts_with("error: argument \"wor\\xFFker\" is not UTF-8\n"), "{}", later.stderr);
}

#[test]
fn a_standard_output_that_takes_nothing_is_74() {
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let read_only = || Stdio::from(File::open("/dev/null").unwrap());
    for stdout in [full as fn() -> Stdio, read_only, broken_pipe] {
        let ran = run(Command::new(BINARY).arg("--help").stdout(stdout()));
        assert_eq!(ran.code, 74, "{}", ran.stderr);
        assert!(ran.stderr.starts_with("error: failed to write to standard output: "), "{}", ran.stderr);
    }
}

fn broken_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_closed_standard_output_is_74_where_something_should_be_printed() {
    let shell = |line: &str| run(Command::new("/bin/sh").args(["-c", line, "sh", BINARY]));
    let ran = shell(r#"exec "$1" --version >&-"#);
    assert_eq!((ran.code, ran.stderr.as_str()), (74, "error: failed to write to standard output: it is closed\n"));
    assert_eq!(shell(r#"exec "$1" --version >/dev/null"#).code, 0);
    assert_eq!(shell(r#"exec "$1" --version <>/dev/null >&0"#).code, 0, "opened for reading and writing");
    assert_eq!(shell(r#"exec "$1" zebra >&-"#).code, 64, "nothing was to be printed");
    assert_eq!(shell(r#"exec "$1" zebra 2>&-"#).code, 64, "nobody can be told");
}

#[test]
fn an_environment_that_is_not_utf_8_harms_nobody() {
    let folder = TempDir::new().unwrap();
    let with = |name: OsString, arguments: &[&str]| {
        run(Command::new(BINARY).args(arguments).env_clear().current_dir(folder.path()).env(name, odd()))
    };
    for name in ["PATH", "HOME", "RUST_LOG", "NO_COLOR", "ATTUNE_LOG_FORMAT", "ATTUNE_WORKER_RUNTIMES"] {
        let ran = with(name.into(), &["worker", "--detect-only"]);
        assert_eq!(ran.code, 0, "{name}: {}", ran.stderr);
    }
    assert_eq!(with(odd(), &["worker", "--detect-only"]).code, 0);
    let ran = with("ATTUNE__WORKER__NAME".into(), &["worker"]);
    assert_eq!(ran.code, 78);
    assert!(ran.stderr.contains("  ATTUNE__WORKER__NAME: is not UTF-8\n"), "{}", ran.stderr);
}

#[test]
fn options_may_carry_their_value_after_an_equals_sign() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.yaml"), "worker: {name: [1]}").unwrap();
    let ran = run(Command::new(BINARY).args(["worker", "--config=a.yaml"]).env_clear().current_dir(folder.path()));
    assert_eq!(ran.code, 78);
    assert!(ran.stderr.contains("a.yaml:1: worker.name: must be a text, not a list"), "{}", ran.stderr);
}

#[test]
fn a_pipe_that_is_read_gets_the_whole_help() {
    let mut child = Command::new(BINARY).arg("--help").stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(text.ends_with("of that program\n"), "{text}");
}

#[test]
fn the_hidden_applet_becomes_the_program_with_its_arguments_byte_by_byte() {
    let exec = |words: &[&OsStr]| {
        let output = Command::new(BINARY).arg("__exec").args(words).env_clear().output().unwrap();
        (output.status.code(), output.stdout)
    };
    let printf = [OsStr::new("--"), OsStr::new("/usr/bin/printf"), OsStr::new("%s|"), OsStr::new("--version"), &odd()];
    assert_eq!(exec(&printf), (Some(0), b"--version|wor\xffker|".to_vec()));
    assert_eq!(exec(&[OsStr::new("--"), OsStr::new("/nowhere/program")]).0, Some(127));
    assert_eq!(exec(&[OsStr::new("--"), OsStr::new("/etc/passwd")]).0, Some(126));
    assert_eq!(exec(&[OsStr::new("what")]).0, Some(125));
    assert!(!attune(&["--list"]).stdout.contains("__exec"));
    assert!(!attune(&["--help"]).stdout.contains("__exec"));
}

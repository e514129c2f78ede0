//! Why something did not start, and what the error says about it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::future::pending;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attune_process::{Command, Launcher, Limits, Outcome, Policy, StartError, start};
use attune_testkit::eventually;
use support::{child, runtime, state};

/// The error of all ways of starting: by itself, and set up first, by the child or by the launcher.
fn refused(command: Command) -> StartError {
    let set_ups = [Launcher::default(), support::launcher()].map(|launcher| {
        let mut set_up = Command::new(&command.program);
        set_up.args.clone_from(&command.args);
        set_up.env.clone_from(&command.env);
        set_up.cwd.clone_from(&command.cwd);
        (Policy { launcher, ..Policy::default() }, set_up)
    });
    let error = runtime().block_on(async { start(command).unwrap_err() });
    for (policy, set_up) in set_ups {
        assert_eq!(error, refused_with(policy, set_up));
    }
    let said = error.to_string();
    assert!(!said.ends_with('.') && !said.contains("  "), "{said}");
    error
}

/// The error of starting with a policy, whether it comes at once or with the report.
fn refused_with(policy: Policy, mut command: Command) -> StartError {
    command.policy = Some(policy);
    runtime().block_on(async {
        match start(command) {
            Err(error) => error,
            Ok(child) => {
                let report = child.supervise(None, pending()).await;
                let Outcome::NotStarted(error) = report.outcome else { panic!("{report:?}") };
                assert_eq!((report.notes, report.stderr.bytes), (Vec::new(), Vec::new()));
                Arc::into_inner(error).unwrap()
            }
        }
    })
}

fn file(folder: &Path, content: &[u8], mode: u32) -> PathBuf {
    let path = folder.join("program");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// The error of executing a file with this content, and the path of the file.
fn refused_file(content: &[u8], mode: u32) -> (StartError, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), content, mode);
    (refused(Command::new(&path)), path)
}

#[test]
fn a_missing_program_is_named() {
    let error = refused(Command::new("/does/not/exist"));
    assert!(matches!(error, StartError::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("/does/not/exist"));
}

#[test]
fn a_bare_name_is_refused_instead_of_searched() {
    let error = refused(Command::new("sh"));
    assert!(matches!(error, StartError::NotAPath { .. }), "{error:?}");
}

#[test]
fn a_file_without_the_executable_bit_and_a_folder_are_told_apart() {
    let (error, path) = refused_file(b"#!/bin/sh\n", 0o644);
    assert!(matches!(error, StartError::NotExecutable { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("chmod") && said.contains(path.to_str().unwrap()), "{said}");

    let error = refused(Command::new("/tmp"));
    assert!(error.to_string().contains("folder"), "{error}");
}

/// Whoever opens such a pipe waits for somebody who writes to it, and that would be the agent.
#[test]
fn a_pipe_in_the_place_of_a_program_or_of_an_interpreter_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let made = Command { args: vec!["--mode=755".into(), (&pipe).into()], ..Command::new("/usr/bin/mkfifo") };
    assert_eq!(support::ended(made).outcome, Outcome::Exited(0));
    let script = file(folder.path(), format!("#!{}\n", pipe.display()).as_bytes(), 0o755);
    for program in [&pipe, &script] {
        let error = refused(Command::new(program));
        let StartError::NotExecutable { program, reason } = &error else { panic!("{error:?}") };
        assert_eq!((program, reason.contains("pipe")), (&pipe, true), "{error}");
    }
}

#[test]
fn a_script_whose_interpreter_is_missing_names_the_interpreter() {
    let (error, _) = refused_file(b"#!/opt/none/python9 -u\n", 0o755);
    assert!(matches!(error, StartError::NoSuchInterpreter { .. }), "{error:?}");
    assert!(error.to_string().contains("/opt/none/python9"), "{error}");
}

#[test]
fn a_relative_interpreter_is_looked_up_where_the_child_begins() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), b"#!tools/interpreter\n", 0o755);
    let elsewhere = tempfile::tempdir().unwrap();
    for (has_it, cwd) in [(false, elsewhere.path()), (true, folder.path())] {
        let tools = folder.path().join("tools");
        if has_it {
            std::fs::create_dir(&tools).unwrap();
            std::os::unix::fs::symlink("/bin/true", tools.join("interpreter")).unwrap();
        }
        let by_the_launcher = Policy { launcher: support::launcher(), ..Policy::default() };
        for policy in [None, Some(Policy::default()), Some(by_the_launcher)] {
            let command = Command { cwd: Some(cwd.to_owned()), policy, ..Command::new(&path) };
            let started = runtime().block_on(async {
                match start(command) {
                    Ok(child) => Ok(child.supervise(None, pending()).await.outcome),
                    Err(error) => Err(error),
                }
            });
            if has_it {
                assert_eq!(started, Ok(Outcome::Exited(0)));
            } else {
                assert!(matches!(started, Err(StartError::NoSuchInterpreter { .. })), "{started:?}");
            }
        }
    }
}

#[test]
fn a_script_with_windows_line_ends_is_told_so() {
    let (error, _) = refused_file(b"#!/bin/sh\r\necho\r\n", 0o755);
    assert!(error.to_string().contains("carriage return"), "{error}");
}

#[test]
fn a_script_without_a_first_line_is_told_so() {
    let (error, _) = refused_file(b"echo hello\n", 0o755);
    assert!(matches!(error, StartError::NotExecutable { .. }), "{error:?}");
    assert!(error.to_string().contains("#!"), "{error}");
}

#[test]
fn a_program_for_another_processor_names_both() {
    let mut program = std::fs::read(support::TEST_CHILD).unwrap();
    let foreign: u16 = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    program[18..20].copy_from_slice(&foreign.to_ne_bytes());
    let (error, _) = refused_file(&program, 0o755);
    assert!(matches!(error, StartError::WrongArchitecture { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("aarch64") && said.contains("x86_64"), "{said}");
}

#[test]
fn a_program_for_another_processor_is_not_asked_for_its_loader() {
    let mut program = std::fs::read("/usr/bin/env").unwrap();
    let at = program.windows(4).position(|bytes| bytes == b"/ld-").expect("a program of shared libraries");
    program[at + 1..at + 3].copy_from_slice(b"no");
    let foreign: u16 = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    program[18..20].copy_from_slice(&foreign.to_ne_bytes());
    let (error, _) = refused_file(&program, 0o755);
    assert!(matches!(error, StartError::WrongArchitecture { .. }), "{error:?}");
}

#[test]
fn a_program_whose_loader_is_missing_names_the_loader() {
    // The helper itself may be a static program, which has no loader to miss.
    let mut program = std::fs::read("/usr/bin/env").unwrap();
    let at = program.windows(4).position(|bytes| bytes == b"/ld-").expect("a program of shared libraries");
    program[at + 1..at + 3].copy_from_slice(b"no");
    let (error, _) = refused_file(&program, 0o755);
    assert!(matches!(error, StartError::LoaderMissing { .. }), "{error:?}");
    assert!(error.to_string().contains("/no-"), "{error}");
}

#[test]
fn a_missing_working_directory_is_not_mistaken_for_a_missing_program() {
    let folder = tempfile::tempdir().unwrap();
    let a_file = file(folder.path(), b"", 0o644);
    for cwd in [Path::new("/no/such/folder"), &a_file] {
        let mut command = child(&["exit", "0"]);
        command.cwd = Some(cwd.to_owned());
        let error = refused(command);
        assert!(matches!(error, StartError::WorkingDirectory { .. }), "{error:?}");
        assert!(error.to_string().contains(cwd.to_str().unwrap()), "{error}");
    }
}

#[test]
fn one_variable_beyond_the_limit_is_named_without_its_value() {
    let mut command = child(&["exit", "0"]);
    let value = "v".repeat(32 * usize::try_from(attune_sys::page_size()).unwrap());
    command.env = vec![("SMALL".into(), "x".into()), ("HUGE".into(), value.into())];
    let error = refused(command);
    assert!(matches!(error, StartError::StringTooLong { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("HUGE") && !said.contains("vvv"), "{said}");
}

#[test]
fn the_longest_string_that_the_kernel_allows_is_allowed() {
    let mut command = child(&["exit", "0"]);
    let value = "v".repeat(32 * usize::try_from(attune_sys::page_size()).unwrap() - "V=".len() - 1);
    command.env = vec![("V".into(), value.into())];
    let outcome = support::ended(command).outcome;
    assert_eq!(outcome, Outcome::Exited(0));
}

#[test]
fn too_many_arguments_are_counted() {
    let mut command = child(&["exit", "0"]);
    let limit = usize::try_from(attune_sys::argument_bytes_limit().unwrap()).unwrap();
    command.args = vec!["a".repeat(100_000).into(); limit / 100_000 + 1];
    let error = refused(command);
    let StartError::ArgumentsTooLong { bytes, limit, .. } = error else { panic!("{error:?}") };
    assert!(bytes > limit, "{bytes} {limit}");
}

#[test]
fn two_mebibytes_of_arguments_are_too_many_and_128_kibibytes_of_environment_are_not() {
    let mut command = child(&["exit", "0"]);
    command.args.extend(vec!["a".repeat(64 * 1024).into(); 32]);
    let error = refused(command);
    assert!(matches!(error, StartError::ArgumentsTooLong { .. }), "{error:?}");
    assert!(error.to_string().contains("standard input or a file"), "{error}");

    let mut command = child(&["print-env"]);
    command.env = (0..128).map(|number| (format!("V{number}").into(), "e".repeat(1024).into())).collect();
    let report = support::ended(command);
    assert_eq!(report.outcome, Outcome::Exited(0));
    assert!(report.stdout.bytes.len() > 128 * 1024);
}

/// What the helper child is told when it tries to start something, under a limit that it sets itself first.
fn told(limits: &[&str], program: &str) -> String {
    let report = support::ended(child(&[limits, &["try-to-start", program]].concat()));
    both(&report.stdout.bytes)
}

/// Both ways of starting said the same; it is told once.
fn both(output: &[u8]) -> String {
    let lines: Vec<&str> = str::from_utf8(output).unwrap().lines().collect();
    let [plain, set_up] = lines[..] else { panic!("{lines:?}") };
    assert_eq!(plain, set_up);
    plain.to_owned()
}

#[test]
fn no_memory_no_processes_and_no_descriptors_are_told_apart() {
    let (_folder, program) = support::reachable();
    let program = program.to_str().unwrap();
    // Less than the helper has in use, so nothing more can be mapped. Where nothing is mapped to start a child, which is so with
    // a policy and with musl, the kernel finds out in the child, when there is no way back.
    let report = support::ended(child(&["limit", "memory", "1", "try-to-start", program]));
    let text = String::from_utf8(report.stdout.bytes).unwrap();
    let [plain, set_up] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert!(set_up.starts_with("Signalled"), "{text}");
    if cfg!(target_env = "musl") {
        assert_eq!(plain, set_up);
    } else {
        assert!(plain.starts_with("NoMemory") && plain.contains("memory limit"), "{text}");
    }
    // As many as the runtime of the helper needs.
    let text = told(&["limit", "files", "9"], program);
    assert!(text.starts_with("FileLimit") && text.contains("ulimit -n"), "{text}");
    if !support::is_root() {
        attune_testkit::lacking("root", "run the tests as root");
        return;
    }
    // The kernel lets root have as many as it likes. A user that nobody else is.
    let text = told_as_other(program, &["limit", "processes", "1"]);
    assert!(text.starts_with("ProcessLimit") && text.contains("pids limit"), "{text}");
}

fn told_as_other(program: &str, limits: &[&str]) -> String {
    let mut command = child(&[limits, &["try-to-start", program]].concat());
    command.program = program.into();
    command.policy = Some(as_nobody_else());
    both(&support::ended(command).stdout.bytes)
}

/// A user that nobody else is.
fn as_nobody_else() -> Policy {
    support::as_user(54_321)
}

#[test]
fn a_program_behind_a_closed_folder_is_a_matter_of_permission() {
    if !support::is_root() {
        attune_testkit::lacking("root", "run the tests as root");
        return;
    }
    let (_open, helper) = support::reachable();
    let closed = tempfile::tempdir().unwrap();
    let program = file(closed.path(), b"#!/bin/sh\n", 0o755);
    std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = child(&["try-to-start", program.to_str().unwrap()]);
    command.program = helper;
    command.policy = Some(as_nobody_else());
    let text = both(&support::ended(command).stdout.bytes);
    assert!(text.starts_with("Permission") && text.contains("search permission"), "{text}");
    // The agent may go there, the user of the policy may not.
    let error = refused_with(as_nobody_else(), Command::new(&program));
    assert!(matches!(error, StartError::Permission { .. }), "{error:?}");
}

#[test]
fn a_zero_byte_is_located() {
    let mut command = child(&["exit", "0"]);
    command.args.push("a\0b".into());
    let error = refused(command);
    assert!(matches!(error, StartError::ZeroByte { .. }), "{error:?}");
    assert!(error.to_string().contains("argument 3"), "{error}");
    let error = refused(Command::new("/bin/true\0"));
    assert!(error.to_string().contains("the path"), "{error}");
    let error = refused(Command { cwd: Some("/tmp\0".into()), ..child(&["exit", "0"]) });
    assert!(error.to_string().contains("the working directory"), "{error}");
    for variable in [("NAME\0", "hush"), ("NAME", "hush\0")] {
        let env = vec![("FIRST".into(), "1".into()), (variable.0.into(), variable.1.into())];
        let error = refused(Command { env, ..child(&["exit", "0"]) }).to_string();
        assert!(error.contains("the variable NAME") && !error.contains("hush"), "{error}");
    }
}

#[test]
fn a_program_that_stays_open_for_writing_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fresh");
    std::fs::copy(support::TEST_CHILD, &path).unwrap();
    let _busy = std::fs::File::options().append(true).open(&path).unwrap();
    let error = refused(Command::new(&path));
    assert!(matches!(error, StartError::TextFileBusy { .. }), "{error:?}");
}

#[test]
fn a_program_that_is_written_for_a_moment_longer_is_started_with_a_policy_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fresh");
    std::fs::copy(support::TEST_CHILD, &path).unwrap();
    let busy = std::fs::File::options().append(true).open(&path).unwrap();
    let report = runtime().block_on(async {
        let mut command = Command::new(&path);
        command.policy = Some(Policy { launcher: support::launcher(), ..Policy::default() });
        let child = start(command).unwrap();
        // It was refused and waits for the next attempt: nothing else in it sleeps.
        eventually("the child to wait", async || (state(child.pid()) == Some('S')).then_some(())).await;
        drop(busy);
        child.supervise(None, pending()).await
    });
    assert_eq!(report.outcome, Outcome::Exited(0), "{report:?}");
}

#[test]
fn a_limit_of_processes_that_the_policy_sets_is_named() {
    if !support::is_root() {
        attune_testkit::lacking("root", "run the tests as root");
        return;
    }
    let (_folder, program) = support::reachable();
    let mut command = Command::new(&program);
    command.args = vec!["wait-for-ever".into()];
    command.policy = Some(as_nobody_else());
    let runtime = runtime();
    let _inside = runtime.enter();
    let first = start(command).unwrap();
    let place = format!("/proc/{}", first.pid());
    let is_there = async || (std::fs::metadata(&place).ok()?.uid() == 54_321).then_some(());
    runtime.block_on(eventually("a process of that user", is_there));
    let limits = Limits { processes: Some(0), ..Limits::default() };
    let error = refused_with(Policy { limits, ..as_nobody_else() }, Command::new(program));
    assert!(matches!(error, StartError::ProcessLimit { .. }), "{error:?}");
}

//! What all tests of this crate need: the helper child, a runtime, looking at processes.
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "every test binary uses another part of it")]

pub mod attack;

use std::future::pending;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use attune_process::{Command, EXEC_APPLET, Keep, Launcher, Policy, Report, Stream, User, start};
use attune_testkit::eventually;

/// The path of the helper child.
pub const TEST_CHILD: &str = env!("CARGO_BIN_EXE_attune-test-child");

/// The helper child with these steps, of which all output is kept.
pub fn child(steps: &[&str]) -> Command {
    let mut command = Command::new(TEST_CHILD);
    command.args = steps.iter().map(Into::into).collect();
    let all = Keep::Head { limit_bytes: 64 * 1024 * 1024 };
    command.stdout = Stream::keep(all);
    command.stderr = Stream::keep(all);
    command
}

/// The helper child contains the applet, as the agent does.
pub fn launcher() -> Launcher {
    Launcher { program: TEST_CHILD.into(), args: vec![EXEC_APPLET.into()] }
}

/// A copy of the helper child that every user can reach and execute.
pub fn reachable() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("helper");
    std::fs::copy(TEST_CHILD, &program).unwrap();
    for path in [folder.path(), &program] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    (folder, program)
}

/// As another user, in a group of the same number.
pub fn as_user(uid: u32) -> Policy {
    Policy { user: Some(User { uid, gid: uid, groups: Vec::new() }), launcher: launcher(), ..Policy::default() }
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

/// Whether runs have control groups of their own here; where not, the machine lacks that.
pub fn has_control_groups() -> bool {
    let found = attune_process::surroundings();
    let has = found.iter().any(|(name, found)| name.contains("control groups") && found.starts_with("yes"));
    if !has {
        let remedy = "run as root with version 2 of the hierarchy mounted writable, Linux 5.14 or later";
        attune_testkit::lacking("control-groups", remedy);
    }
    has
}

/// A runtime as the agent has one.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Runs a child to its own end.
pub fn ended(command: Command) -> Report {
    runtime().block_on(async { start(command).unwrap().supervise(None, pending()).await })
}

/// Waits for the process id that a child writes to `path`.
pub async fn pid_in(path: &Path) -> u32 {
    let what = format!("a process id in {}", path.display());
    eventually(&what, async || std::fs::read_to_string(path).ok()?.parse().ok()).await
}

/// Waits until a child has written its id to `path`.
pub async fn written(path: &Path) {
    pid_in(path).await;
}

/// Waits until a process is gone, or dead and only waiting for its parent to notice.
pub async fn gone(pid: u32) {
    let what = format!("the end of process {pid}: {:?}", state(pid));
    eventually(&what, async || (!is_alive(pid)).then_some(())).await;
}

/// Whether a process runs, sleeps or is stopped.
pub fn is_alive(pid: u32) -> bool {
    !matches!(state(pid), None | Some('Z' | 'X'))
}

/// The state letter of a process.
pub fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The resident memory of this process.
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes * 1024
}

/// The memory that a process has for itself alone: pages of the file are not, also not the dirty ones of a program that was linked
/// a moment ago.
/// For root, as the agent and its init show nothing to their own user.
pub fn own_kibibytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("Anonymous:"));
    lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

/// A scratch folder and the path of a file in it that does not exist yet.
pub fn scratch() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    (folder, file)
}

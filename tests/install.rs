//! `attune-agents install`: what it leaves, what it says, and with which code it ends when the target is in no state to
//! take it.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the program under test is started the way a user starts it")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_attune-agents");
const VERSION: &str = env!("CARGO_PKG_VERSION");
const ARCH: &str = std::env::consts::ARCH;

fn attune(arguments: &[&str], folder: &Path) -> Output {
    Command::new(BINARY).args(arguments).arg(folder).env_clear().stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn an_installed_folder_answers_by_every_name_and_verifies() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("agent");
    let first = attune(&["install"], &folder);
    assert_eq!((first.status.code(), text(&first.stderr).as_str()), (Some(0), ""));
    assert!(text(&first.stdout).contains(": installed, "), "{first:?}");
    for (name, program) in [
        ("attune-agents", "attune-agents"),
        ("attune-agent", "attune-agent"),
        ("attune-sensor-agent", "attune-sensor-agent"),
        ("attune-core-timer-sensor", "attune-core-timer-sensor"),
        (&format!("attune-agent-{ARCH}"), "attune-agent"),
    ] {
        let asked = Command::new(folder.join(name)).arg("--version").env_clear().output().unwrap();
        let wanted = format!("{program} {VERSION}\n");
        assert_eq!((asked.status.code(), text(&asked.stdout)), (Some(0), wanted.clone()), "{name}");
        assert_eq!(fs::read_to_string(folder.join(format!("{name}.version"))).unwrap(), wanted, "{name}");
    }
    let again = attune(&["install", "--json"], &folder);
    let said: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((said["written"].as_bool(), said["version"].as_str()), (Some(false), Some(VERSION)));
    assert_eq!(attune(&["install", "--verify"], &folder).status.code(), Some(0));
    fs::remove_file(folder.join("attune-sensor-agent")).unwrap();
    let verified = attune(&["install", "--verify"], &folder);
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified.stdout).starts_with("attune-sensor-agent: it is missing\n"), "{verified:?}");
}

#[test]
fn an_installed_copy_can_install_the_next_folder() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    assert!(attune(&["install"], &one).status.success());
    let done = Command::new(one.join("attune-agents")).arg("install").arg(&two).env_clear().output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(attune(&["install", "--verify"], &two).status.code(), Some(0));
}

/// Runs `script` with `$1` = the binary and `$2` = an empty folder, where it may mount what it likes.
fn with_mounts(script: &str, folder: &Path) -> Output {
    // Without rights of its own it gets them from a user namespace.
    let own = if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        "-m"
    } else {
        "-rm"
    };
    let mut command = Command::new("unshare");
    command.args([own, "sh", "-ec", script, "sh", BINARY]).arg(folder).stdin(Stdio::null());
    command.output().unwrap()
}

#[test]
fn a_target_that_does_not_take_it_is_73_with_the_reason_and_stays_as_it_was() {
    let size = fs::metadata(BINARY).unwrap().len();
    let full = format!("mount -t tmpfs -o size={} tmpfs \"$2\"", size / 2);
    let no_room = format!("is full: there is no room for {size} bytes");
    let cases = [
        ("mount -t tmpfs -o ro tmpfs \"$2\"", "is read-only: mount the volume writable"),
        ("mount -t tmpfs -o noexec tmpfs \"$2\"", "it is mounted noexec"),
        (&full, &no_room),
    ];
    for (mount, reason) in cases {
        let dir = TempDir::new().unwrap();
        let script = format!("{mount}; code=0; \"$1\" install \"$2\" || code=$?; ls -A \"$2\"; exit $code");
        let done = with_mounts(&script, dir.path());
        assert_eq!(done.status.code(), Some(73), "{mount}: {done:?}");
        assert!(text(&done.stderr).starts_with("error: ") && text(&done.stderr).contains(reason), "{mount}: {done:?}");
        assert_eq!(text(&done.stdout), "", "{mount}: nothing is left behind");
    }
    // Nothing has to be written, and still nothing can be started.
    let dir = TempDir::new().unwrap();
    let script =
        "mount -t tmpfs tmpfs \"$2\"; \"$1\" install \"$2\" >&2; mount -o remount,noexec \"$2\"; \"$1\" install \"$2\"";
    let done = with_mounts(script, dir.path());
    assert_eq!(done.status.code(), Some(73), "{done:?}");
    assert!(text(&done.stderr).contains("it is mounted noexec"), "{done:?}");
    // An upgrade that does not fit leaves the version that is there.
    let dir = TempDir::new().unwrap();
    let room = fs::metadata(BINARY).unwrap().len() + 1_000_000;
    let script = format!(
        "mount -t tmpfs -o size={room} tmpfs \"$2\"; \"$1\" install \"$2\" >&2; cp \"$1\" /dev/shm/other.$$; \
         trap 'rm -f /dev/shm/other.$$' EXIT; printf x >>/dev/shm/other.$$; code=0; \
         /dev/shm/other.$$ install --from /dev/shm/other.$$ \"$2\" >&2 || code=$?; \"$1\" install --verify \"$2\"; exit $code"
    );
    let done = with_mounts(&script, dir.path());
    assert_eq!(done.status.code(), Some(73), "{done:?}");
    assert!(text(&done.stdout).contains("as this program installs it"), "{done:?}");
}

#[test]
fn files_that_are_not_the_binary_end_with_their_own_codes() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("agent");
    let page = dir.path().join("page");
    fs::write(&page, "<html>").unwrap();
    let page = page.to_str().unwrap();
    let other = if ARCH == "x86_64" { "aarch64" } else { "x86_64" };
    for (arguments, code, reason) in [
        (vec!["install", "--from", page], 65, "it is an HTML page"),
        (vec!["install", "--from", "/nowhere/file"], 66, "failed to read /nowhere/file"),
        (vec!["install", "--from", "/bin/sleep"], 65, "/bin/sleep is a program of another project"),
        (vec!["install", "--from", BINARY, "--arch", other], 65, "is wanted"),
        (vec!["install", "--verify", "--arch", other], 65, "is wanted"),
        (vec!["install", "--arch", "sparc"], 64, "--arch: \"sparc\" is none of"),
        (vec!["fetch", "--attempts", "1", "ftp://host/"], 64, "must begin with http"),
        (vec!["fetch", "--attempts", "1", "http://127.0.0.1:1/"], 69, "failed to connect"),
    ] {
        let done = attune(&arguments, &folder);
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {done:?}");
        assert!(text(&done.stderr).contains(reason), "{arguments:?}: {done:?}");
        assert!(!folder.exists(), "{arguments:?}: nothing was begun");
    }
}

#[test]
fn the_places_of_the_platforms_own_programs_answer_the_version_and_say_where_the_programs_are() {
    let dir = TempDir::new().unwrap();
    for name in ["attune", "attune-mcp"] {
        let path = dir.path().join(name);
        std::os::unix::fs::symlink(BINARY, &path).unwrap();
        let version = Command::new(&path).arg("--version").env_clear().output().unwrap();
        assert_eq!((version.status.code(), text(&version.stdout)), (Some(0), format!("{name} {VERSION}\n")));
        let used = Command::new(&path).args(["pack", "list", "--json"]).env_clear().output().unwrap();
        assert_eq!((used.status.code(), text(&used.stdout).as_str()), (Some(69), ""), "{used:?}");
        assert!(text(&used.stderr).contains("is part of the platform and not of attune-agents"), "{used:?}");
    }
    let list = Command::new(BINARY).arg("--list").env_clear().output().unwrap();
    assert!(!text(&list.stdout).contains("attune-mcp"), "they are not offered");
}

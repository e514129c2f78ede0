//! What the machine under the script has, and what it does not take.

use std::env::consts::ARCH;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use attune_testkit::answers::answer;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Answers, SHELLS, TOKEN, became, compiled, names, only, program, refused, script, text, wrapper};

/// What the script needs of every machine, beside a shell.
const BASE: [&str; 16] = [
    "cat", "chmod", "cut", "find", "grep", "head", "ln", "mkdir", "mktemp", "mv", "rm", "sed", "tail", "tr", "uname",
    "wc",
];

/// The script where `PATH` has nothing but what it always needs and `more`.
fn with_only(more: &[&str], folder: &Path, url: &str) -> Output {
    let dir = TempDir::new().unwrap();
    let bin = dir.path().join("bin");
    only(&bin, &[&BASE[..], more].concat());
    let shell = Command::new("sh").args(["-c", "command -v dash"]).output().unwrap();
    let mut command = Command::new(text(&shell.stdout).trim_end());
    command.arg(script()).arg("--version").stdin(Stdio::null()).env_clear().env("PATH", &bin);
    command.env("ATTUNE_AGENT_DIR", folder).env("ATTUNE_AGENT_URL", url).env("ATTUNE_AGENT_TOKEN", TOKEN);
    command.env("ATTUNE_AGENT_ATTEMPTS", "1").output().unwrap()
}

/// A server of `file` with its list, where the checksum is that of `listed`.
fn serving(file: &[u8], listed: &[u8]) -> Answers {
    let sum = attune_artefact::facts(&mut Cursor::new(listed)).unwrap().sha256;
    let list = json!({"architectures": [{"arch": ARCH, "size_bytes": file.len(), "sha256": sum}]});
    Answers::new(vec![answer("200 OK", "", list.to_string().as_bytes())], vec![answer("200 OK", "", file)])
}

#[test]
fn a_machine_that_cannot_download_or_verify_is_69_and_says_what_it_lacks() {
    let (dir, agent) = (TempDir::new().unwrap(), program("attune-agent 5.5.5"));
    let folder = dir.path().join("agent");
    let done = with_only(&[], &folder, "http://127.0.0.1:1/binary");
    refused(&done, 69, "there is no curl, wget, python3 or node here");
    assert!(!folder.exists(), "nothing was begun");
    let done = with_only(&["curl"], &folder, &serving(&agent, &agent).url());
    refused(&done, 69, "there is nothing here that computes SHA-256");
    assert_eq!(names(&folder), [] as [&str; 0]);
}

#[test]
fn whatever_computes_sha_256_is_good_for_it() {
    let (agent, other) = (program("attune-agent 5.5.5"), program("attune-agent 6.6.6"));
    for programs in [&["curl", "sha256sum"][..], &["curl", "busybox"], &["curl", "openssl"], &["python3"], &["node"]] {
        let folder = TempDir::new().unwrap();
        let done = with_only(programs, folder.path(), &serving(&agent, &other).url());
        refused(&done, 65, "and should be ");
        assert_eq!(names(folder.path()), [] as [&str; 0], "{programs:?}");
        became(&with_only(programs, folder.path(), &serving(&agent, &agent).url()), "attune-agent 5.5.5");
    }
}

/// The shell's own way to run such a file is to take it for a script.
#[test]
fn a_program_for_another_machine_is_no_agent_and_one_that_this_machine_cannot_start_is_73() {
    let other = if ARCH == "x86_64" { "aarch64" } else { "x86_64" };
    let mut agent = program("attune-agent 5.5.5");
    agent[18..20].copy_from_slice(if other == "x86_64" { &[62, 0] } else { &[183, 0] });
    for shell in SHELLS {
        for (asked, code, reason) in [
            (ARCH, 65, "what came is a program for another machine than"),
            (other, 73, "it is mounted noexec, or this machine is not"),
        ] {
            let server = Answers::of(vec![answer("200 OK", "", &agent)]);
            let folder = TempDir::new().unwrap();
            let mut command = wrapper(shell, &script(), folder.path(), &server.url(), "curl");
            refused(&command.env("ATTUNE_AGENT_ARCH", asked).output().unwrap(), code, reason);
            assert_eq!(names(folder.path()), [] as [&str; 0], "{shell:?}");
        }
    }
}

#[test]
fn a_folder_that_nothing_can_be_started_from_is_73() {
    let (agent, dir) = (program("attune-agent 5.5.5"), TempDir::new().unwrap());
    let server = serving(&agent, &agent);
    // Without rights of its own it gets them from a user namespace.
    let own = if fs::metadata("/proc/self").unwrap().uid() == 0 { "-m" } else { "-rm" };
    let mounted =
        "mount -t tmpfs -o noexec tmpfs \"$1\"; code=0; sh \"$2\" --version || code=$?; ls -A \"$1\"; exit $code";
    let mut command = Command::new("unshare");
    command.args([own, "sh", "-ec", mounted, "sh"]).arg(dir.path()).arg(script()).stdin(Stdio::null());
    command.env("ATTUNE_AGENT_DIR", dir.path()).env("ATTUNE_AGENT_URL", server.url()).env("ATTUNE_AGENT_ATTEMPTS", "1");
    let reason = format!("the agent cannot be started from {}: it is mounted noexec", dir.path().display());
    refused(&command.output().unwrap(), 73, &reason);
}

/// A program that ends like that is not kept.
fn refused_by_every_shell(agent: &[u8], code: i32, reason: &str) {
    for shell in SHELLS {
        let (server, folder) = (Answers::of(vec![answer("200 OK", "", agent)]), TempDir::new().unwrap());
        let done = wrapper(shell, &script(), folder.path(), &server.url(), "curl").output().unwrap();
        refused(&done, code, reason);
        assert_eq!(names(folder.path()), [] as [&str; 0], "{shell:?}");
    }
}

/// As an emulator ends that knows the machine and finds no loader.
#[test]
fn a_status_above_those_of_signals_is_no_signal() {
    let agent = compiled("int main(void) { return 255; }\n");
    refused_by_every_shell(&agent, 73, "it is mounted noexec, or this machine is not");
}

#[test]
fn what_a_signal_ends_at_once_is_not_blamed_on_the_folder() {
    let agent = compiled("#include <stdlib.h>\nint main(void) { abort(); }\n");
    refused_by_every_shell(&agent, 65, "what came is ended by signal 6");
}

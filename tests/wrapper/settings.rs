//! What the script is told by its environment, and what it refuses.

use std::env::consts::ARCH;
use std::fs;

use attune_testkit::answers::answer;
use tempfile::TempDir;

use crate::support::{Answers, SHELLS, TOKEN, became, names, program, refused, script, wrapper};

#[test]
fn settings_that_cannot_be_are_refused_before_anything_is_done() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("agent");
    for (name, value, code) in [
        ("ATTUNE_AGENT_URL", "ftp://host/file", 64),
        ("ATTUNE_AGENT_ATTEMPTS", "many", 64),
        ("ATTUNE_AGENT_DOWNLOADER", "telnet", 64),
        ("ATTUNE_AGENT_TOKEN", "two\nlines", 64),
        ("ATTUNE_AGENT_TOKEN", "with\"quote", 64),
        ("ATTUNE_AGENT_DIR", "/proc/nowhere", 73),
    ] {
        let mut command = wrapper(&["dash"], &script(), &folder, "http://127.0.0.1:1/binary", "curl");
        let done = command.env(name, value).output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{name}={value}: {done:?}");
        assert!(!folder.exists(), "{name}");
    }
    let mut https = wrapper(&["dash"], &script(), &folder, "https://host/binary", "busybox");
    assert_eq!(https.output().unwrap().status.code(), Some(69), "no token in an argument, not even then");
}

#[test]
fn the_token_may_stand_in_a_file_with_line_ends_of_any_kind() {
    let (dir, agent) = (TempDir::new().unwrap(), answer("200 OK", "", &program("attune-agent 5.5.5")));
    let file = dir.path().join("token");
    for shell in SHELLS {
        for (content, own, sent) in [
            ("in-a-file", "", "in-a-file"),
            ("in-a-file\n", "", "in-a-file"),
            ("in-a-file\r\n", "", "in-a-file"),
            ("in-a-file\n", TOKEN, TOKEN),
        ] {
            fs::write(&file, content).unwrap();
            let (server, folder) = (Answers::of(vec![agent.clone()]), TempDir::new().unwrap());
            let mut command = wrapper(shell, &script(), folder.path(), &server.url(), "curl");
            command.env("ATTUNE_AGENT_TOKEN_FILE", &file).env("ATTUNE_AGENT_TOKEN", own);
            became(&command.output().unwrap(), "attune-agent 5.5.5");
            for asked in server.asked() {
                assert_eq!(asked.token.as_deref(), Some(sent), "{shell:?} {content:?}");
            }
        }
        let folder = dir.path().join("agent");
        let mut command = wrapper(shell, &script(), &folder, "http://127.0.0.1:1/binary", "curl");
        command.env("ATTUNE_AGENT_TOKEN_FILE", dir.path().join("nowhere")).env_remove("ATTUNE_AGENT_TOKEN");
        refused(&command.output().unwrap(), 64, "/nowhere cannot be read");
        assert!(!folder.exists(), "{shell:?}");
    }
}

#[test]
fn the_architecture_is_asked_for_by_the_servers_name_and_an_unknown_one_is_tried_as_x86_64() {
    // Not even the header of a program: what is asked for is the subject.
    let page = answer("200 OK", "", b"<html>");
    for (told, asked_for, warned) in [
        (None, ARCH, false),
        (Some("x86_64"), "x86_64", false),
        (Some("amd64"), "x86_64", false),
        (Some("aarch64"), "aarch64", false),
        (Some("arm64"), "aarch64", false),
        (Some("riscv64"), "x86_64", true),
    ] {
        let (server, folder) = (Answers::of(vec![page.clone()]), TempDir::new().unwrap());
        let mut command = wrapper(&["dash"], &script(), folder.path(), &server.url(), "curl");
        let done = command.envs(told.map(|told| ("ATTUNE_AGENT_ARCH", told))).output().unwrap();
        refused(&done, 65, "you got an HTML page");
        let warning = "no agent is known for riscv64: trying the one for x86_64";
        assert_eq!(String::from_utf8_lossy(&done.stderr).contains(warning), warned, "{told:?}: {done:?}");
        let path = format!("/api/v1/agent/binary?arch={asked_for}&name=attune-agent");
        assert_eq!(server.asked()[1].path, path, "{told:?}");
        assert_eq!(names(folder.path()), [] as [&str; 0]);
    }
}

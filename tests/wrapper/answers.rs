//! What a server may answer, and what of it is run: nothing that is cut, damaged, something else, or could not be verified.

use std::env::consts::ARCH;
use std::io::Cursor;
use std::process::Output;

use attune_testkit::answers::{answer, cut};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Answers, DOWNLOADERS, Pauses, SHELLS, TOKEN, became, names, program, refused, script, text, wrapper,
};

/// What [`agent`] calls itself: one of the platform's own, which are one program each.
const VERSION: &str = "attune-agent 5.5.5";

fn agent() -> Vec<u8> {
    program(VERSION)
}

fn sha256(bytes: &[u8]) -> String {
    attune_artefact::facts(&mut Cursor::new(bytes)).unwrap().sha256
}

fn found(body: &[u8]) -> Vec<u8> {
    answer("200 OK", "", body)
}

/// The list of a server with these fields for this machine.
fn list(fields: &Value) -> Vec<u8> {
    let mut own = json!({"arch": ARCH, "available": true});
    own.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let other = json!({"arch": "another", "size_bytes": 1, "available": true, "sha256": "0".repeat(64)});
    found(json!({"architectures": [other, own], "version": "5.5.5"}).to_string().as_bytes())
}

/// A list as a hub has it for `file`.
fn list_of(file: &[u8]) -> Vec<u8> {
    list(&json!({"size_bytes": file.len(), "sha256": sha256(file), "version": "5.5.5"}))
}

/// One run with curl in dash, its folder, and the pauses that it makes.
fn run(server: &Answers, attempts: u32) -> (Output, TempDir, Vec<u32>) {
    let (folder, pauses) = (TempDir::new().unwrap(), Pauses::new());
    let mut command = wrapper(&["dash"], &script(), folder.path(), &server.url(), "curl");
    command.env("ATTUNE_AGENT_ATTEMPTS", attempts.to_string()).env("PATH", pauses.path());
    (command.output().unwrap(), folder, pauses.noted())
}

/// Of the platform's own agents each is a file of its own, and its list has no checksums.
#[test]
fn the_platforms_own_agent_is_taken_by_its_name_and_is_no_other_one() {
    let agent = agent();
    let with_size = list(&json!({"size_bytes": agent.len()}));
    let server = Answers::new(vec![with_size.clone()], vec![found(&agent)]);
    let (done, folder, _) = run(&server, 1);
    became(&done, VERSION);
    let said = text(&done.stderr);
    assert!(said.contains("tells no checksum: only the size and the ELF header were checked\n"), "{said}");
    assert_eq!(names(folder.path()), ["attune-agent"]);
    let path = format!("/api/v1/agent/binary?arch={ARCH}&name=attune-agent");
    assert_eq!(server.asked()[1].path, path);
    let again = wrapper(&["dash"], &script(), folder.path(), "http://127.0.0.1:1/binary", "curl").output().unwrap();
    became(&again, VERSION);

    // It has the agent of the worker only, whatever is asked for.
    let server = Answers::new(vec![with_size], vec![found(&agent)]);
    let (dir, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let sensor = dir.path().join("attune-sensor-agent-wrapper.sh");
    std::os::unix::fs::symlink(script(), &sensor).unwrap();
    let done = wrapper(&["dash"], &sensor, folder.path(), &server.url(), "curl").output().unwrap();
    refused(&done, 65, "the server gave \"attune-agent 5.5.5\" and not attune-sensor-agent");
    assert_eq!(names(folder.path()), [] as [&str; 0]);
}

#[test]
fn a_download_that_is_cut_off_is_tried_again_and_never_started() {
    let (agent, pauses) = (agent(), Pauses::new());
    let whole = found(&agent);
    for (downloader, token) in DOWNLOADERS.into_iter().flat_map(|downloader| [(downloader, TOKEN), (downloader, "")]) {
        let folder = TempDir::new().unwrap();
        let attempt = |server: &Answers, attempts| {
            let mut command = wrapper(&["sh"], &script(), folder.path(), &server.url(), downloader);
            command.env("ATTUNE_AGENT_TOKEN", token).env("ATTUNE_AGENT_ATTEMPTS", attempts);
            command.env("PATH", pauses.path()).output().unwrap()
        };
        let server = Answers::of(vec![cut(&whole)]);
        let reason = format!("no complete answer from {} (after 2 attempts)", server.url());
        refused(&attempt(&server, "2"), 69, &reason);
        assert_eq!(server.kinds(), ["list", "file", "list", "file"], "{downloader}");
        assert_eq!(names(folder.path()), [] as [&str; 0], "{downloader}");
        // The list as well.
        let list = list_of(&agent);
        let server = Answers::new(vec![cut(&list), list], vec![cut(&whole), whole.clone()]);
        became(&attempt(&server, "3"), VERSION);
        assert_eq!(server.kinds(), ["list", "list", "file", "list", "file"], "{downloader}");
        assert_eq!(pauses.noted(), [1, 1, 2], "{downloader}");
    }
}

/// Of a refusal and of a page that says what is wrong, the status counts.
#[test]
fn a_refusal_is_one_also_when_it_is_cut_off() {
    for downloader in DOWNLOADERS {
        let folder = TempDir::new().unwrap();
        let server = Answers::of(vec![cut(&answer("403 Forbidden", "", b"{\"error\":\"so it is, and for good\"}"))]);
        let mut command = wrapper(&["sh"], &script(), folder.path(), &server.url(), downloader);
        let done = command.env("ATTUNE_AGENT_ATTEMPTS", "2").output().unwrap();
        refused(&done, 78, "the server refuses with status 403");
    }
}

#[test]
fn what_fails_for_a_while_is_tried_again_and_what_is_not_the_agent_is_not_kept() {
    let sleep = std::fs::read("/bin/sleep").unwrap();
    let busy = answer("503 Service Unavailable", "", b"{\"error\":\"Not configured\"}\n");
    let server = Answers::of(vec![busy, found(b""), found(&sleep)]);
    let (done, folder, pauses) = run(&server, 3);
    refused(&done, 65, "and not attune-agent");
    for line in [
        "the server answers with status 503: {\"error\":\"Not configured\"}; trying again in 1 s (1 of 3)",
        "the answer is empty; trying again in 2 s (2 of 3)",
    ] {
        assert!(text(&done.stderr).contains(line), "{line}: {done:?}");
    }
    assert_eq!(pauses, [1, 2]);
    assert_eq!(names(folder.path()), [] as [&str; 0]);
}

#[test]
fn the_pauses_double_up_to_half_a_minute() {
    let server = Answers::of(vec![answer("502 Bad Gateway", "", b"")]);
    let (done, _, pauses) = run(&server, 9);
    refused(&done, 69, "the server answers with status 502 (after 9 attempts)");
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
}

#[test]
fn what_has_another_checksum_is_not_run_and_both_sums_are_said() {
    let (agent, other) = (agent(), program("attune-agent 6.6.6"));
    let sum = sha256(&agent);
    for shell in SHELLS {
        let list = list(&json!({"size_bytes": agent.len(), "sha256": sha256(&other)}));
        let (server, folder, pauses) =
            (Answers::new(vec![list], vec![found(&agent)]), TempDir::new().unwrap(), Pauses::new());
        let mut command = wrapper(shell, &script(), folder.path(), &server.url(), "curl");
        let done = command.env("ATTUNE_AGENT_ATTEMPTS", "2").env("PATH", pauses.path()).output().unwrap();
        refused(&done, 65, &format!("the checksum is {sum} and should be {} (after 2 attempts)", sha256(&other)));
        assert_eq!(names(folder.path()), [] as [&str; 0], "{shell:?}");
        // Of a volume that changes between the two requests, the next attempt gets both as they are now.
        let server = Answers::new(vec![list_of(&other), list_of(&agent)], vec![found(&agent)]);
        let mut command = wrapper(shell, &script(), folder.path(), &server.url(), "curl");
        let done = command.env("ATTUNE_AGENT_ATTEMPTS", "2").env("PATH", pauses.path()).output().unwrap();
        became(&done, VERSION);
        assert!(!text(&done.stderr).contains("checked"), "all of it was: {done:?}");
    }
}

#[test]
fn a_checksum_in_capitals_is_one() {
    let (agent, other) = (agent(), program("attune-agent 6.6.6"));
    for (file, code) in [(&agent, 0), (&other, 65)] {
        let list = list(&json!({"sha256": sha256(&agent).to_uppercase()}));
        let (done, ..) = run(&Answers::new(vec![list], vec![found(file)]), 1);
        assert_eq!(done.status.code(), Some(code), "{done:?}");
        assert!(!text(&done.stderr).contains("tells no checksum"), "{done:?}");
    }
}

#[test]
fn a_list_that_cannot_be_understood_is_a_failure_and_not_a_list_without_checksums() {
    let agent = agent();
    let (size, sum) = (agent.len(), sha256(&agent));
    let cases = [
        (list(&json!({"sha256": Value::Null})), "a checksum that is no SHA-256"),
        (list(&json!({"sha256": ""})), "a checksum that is no SHA-256"),
        (list(&json!({"sha256": sum[1..]})), "a checksum that is no SHA-256"),
        (list(&json!({"sha256": format!("x{}", &sum[1..])})), "a checksum that is no SHA-256"),
        (list(&json!({"sha256": format!("sha256:{sum}")})), "a checksum that is no SHA-256"),
        (list(&json!({"size_bytes": "many", "sha256": sum})), "a size that is no number"),
        (list(&json!({"size_bytes": Value::Null, "sha256": sum})), "a size that is no number"),
        (list(&json!({"size_bytes": size + 1, "sha256": sum})), "the download was cut off"),
        (found(b"{\"architectures\":[]}"), "does not tell of"),
        (found(b"<html>The one page that there is</html>"), "does not tell of"),
        (found(b""), "does not tell of"),
    ];
    for (list, reason) in cases {
        let server = Answers::new(vec![list], vec![found(&agent)]);
        let (done, folder, pauses) = run(&server, 2);
        refused(&done, 65, reason);
        assert_eq!((pauses, names(folder.path())), (vec![1], Vec::new()), "{reason}");
    }
}

#[test]
fn only_a_server_that_has_no_list_may_do_without_one() {
    let agent = agent();
    for status in ["500 Internal Server Error", "503 Service Unavailable", "302 Found", "429 Too Many Requests"] {
        let server = Answers::new(vec![answer(status, "", b"{}"), list_of(&agent)], vec![found(&agent)]);
        let (done, ..) = run(&server, 2);
        became(&done, VERSION);
        let (code, _) = status.split_once(' ').unwrap();
        let said = format!("the server answers with status {code} for {}", server.url().replace("binary", "info"));
        assert!(text(&done.stderr).contains(&said), "{said}: {done:?}");
        assert_eq!(server.kinds(), ["list", "list", "file"], "{status}");
        let (done, folder, _) = run(&Answers::new(vec![answer(status, "", b"{}")], vec![found(&agent)]), 2);
        refused(&done, 69, &format!("the server answers with status {code} for "));
        assert_eq!(names(folder.path()), [] as [&str; 0]);
    }
    let (done, ..) = run(&Answers::new(vec![answer("401 Unauthorized", "", b"{}")], vec![found(&agent)]), 100);
    refused(&done, 78, "the server refuses with status 401 for ");
    // What is run without, is run with a word about it.
    for downloader in DOWNLOADERS {
        let (server, folder) = (Answers::of(vec![found(&agent)]), TempDir::new().unwrap());
        let done = wrapper(&["sh"], &script(), folder.path(), &server.url(), downloader).output().unwrap();
        became(&done, VERSION);
        let said = "the server tells no checksum: only the ELF header was checked\n";
        assert!(text(&done.stderr).contains(said), "{downloader}: {done:?}");
    }
    // As the platform's list does where it looks for another name than it serves.
    let (done, ..) =
        run(&Answers::new(vec![list(&json!({"size_bytes": 0, "available": false}))], vec![found(&agent)]), 1);
    became(&done, VERSION);
    assert!(text(&done.stderr).contains("the server tells no checksum: only the ELF header was checked\n"), "{done:?}");
}

//! `scripts/attune-agent-wrapper.sh` with every shell and downloader of this machine, against a real hub.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the script under test is started the way a container starts it")]

mod answers;
mod machine;
mod settings;
mod support;

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use attune_testkit::answers::answer;
use support::{Answers, DOWNLOADERS, SHELLS, Server, TOKEN, became, executable, names, refused, script, text, wrapper};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_attune-agents");
const WORKER: &str = concat!("attune-agent ", env!("CARGO_PKG_VERSION"));
const SENSOR: &str = concat!("attune-sensor-agent ", env!("CARGO_PKG_VERSION"));

/// What a download leaves in the folder.
const INSTALLED: [&str; 3] = ["attune-agent", "attune-agents", "attune-sensor-agent"];

#[test]
fn every_downloader_and_every_shell_gets_the_agent_and_becomes_it() {
    let server = Server::start();
    let facts_of = |path: &Path| attune_artefact::facts(&mut fs::File::open(path).unwrap()).unwrap();
    let wanted = facts_of(&server.file());
    for (shell, downloader) in SHELLS.into_iter().flat_map(|shell| DOWNLOADERS.map(|downloader| (shell, downloader))) {
        let dir = TempDir::new().unwrap();
        let folder = dir.path().join("deep/agent");
        let done = wrapper(shell, &script(), &folder, &server.url(), downloader).output().unwrap();
        became(&done, WORKER);
        assert_eq!(names(&folder), INSTALLED, "{shell:?} {downloader}");
        assert_eq!(facts_of(&folder.join("attune-agent")), wanted, "{shell:?} {downloader}");
        // Once it is there, nobody is asked.
        let again = wrapper(shell, &script(), &folder, "http://127.0.0.1:1/binary", downloader).output().unwrap();
        became(&again, WORKER);
    }
}

/// Whatever this machine has beside it: small images have nothing else.
#[test]
fn nothing_but_busybox_is_enough() {
    let (server, dir) = (Server::start(), TempDir::new().unwrap());
    let (bin, folder) = (dir.path().join("bin"), dir.path().join("agent"));
    fs::create_dir(&bin).unwrap();
    let found = Command::new("sh").args(["-c", "command -v busybox && busybox --list"]).output().unwrap();
    let found = text(&found.stdout);
    let (busybox, names_of_it) = found.split_once('\n').unwrap();
    for name in names_of_it.lines() {
        symlink(busybox, bin.join(name)).unwrap();
    }
    let mut command = Command::new(bin.join("ash"));
    command.arg(script()).arg("--version").stdin(Stdio::null()).env_clear().env("PATH", bin);
    command.env("ATTUNE_AGENT_DIR", &folder).env("ATTUNE_AGENT_URL", server.url());
    let done = command.env("ATTUNE_AGENT_TOKEN", TOKEN).env("ATTUNE_AGENT_ATTEMPTS", "1").output().unwrap();
    became(&done, WORKER);
    assert_eq!(names(&folder), INSTALLED);
}

#[test]
fn its_own_name_chooses_the_agent_and_two_at_once_do_not_disturb_each_other() {
    let (server, dir) = (Server::start(), TempDir::new().unwrap());
    let sensor = dir.path().join("attune-sensor-agent-wrapper.sh");
    symlink(script(), &sensor).unwrap();
    let folder = dir.path().join("agent");
    let start = |script: &Path, downloader| -> Child {
        let mut command = wrapper(&["sh"], script, &folder, &server.url(), downloader);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both = [start(&script(), "curl"), start(&sensor, "python3")];
    let [worker, sensor] = both.map(|child| child.wait_with_output().unwrap());
    became(&worker, WORKER);
    became(&sensor, SENSOR);
    assert_eq!(names(&folder), INSTALLED);
}

#[test]
fn a_token_that_is_refused_ends_it_at_once_and_says_so() {
    let (server, dir) = (Server::start(), TempDir::new().unwrap());
    for downloader in DOWNLOADERS {
        let folder = dir.path().join("agent");
        let mut command = wrapper(&["sh"], &script(), &folder, &server.url(), downloader);
        command.env("ATTUNE_AGENT_TOKEN", "another").env("ATTUNE_AGENT_ATTEMPTS", "100");
        let done = command.output().unwrap();
        assert_eq!(done.status.code(), Some(78), "{downloader}: {done:?}");
        // What comes with this one status, wget throws away.
        let said = if downloader == "wget" { "" } else { ": {\"error\":\"Invalid token\"" };
        let reason = format!("the server refuses with status 401{said}");
        assert!(text(&done.stderr).contains(&reason), "{downloader}: {done:?}");
        assert_eq!(names(&folder), [] as [&str; 0], "{downloader}");
    }
}

#[test]
fn no_command_line_ever_holds_the_token_and_a_web_page_is_not_taken_for_the_agent() {
    let dir = TempDir::new().unwrap();
    for (downloader, program) in DOWNLOADERS.into_iter().zip(["curl", "wget", "busybox", "python", "node"]) {
        let folder = dir.path().join("agent");
        let server = Answers::of(vec![answer("200 OK", "", b"\n<!DOCTYPE html><html>Log in</html>")]);
        let done = wrapper(&["sh"], &script(), &folder, &server.url(), downloader).output().unwrap();
        refused(&done, 65, "you got an HTML page: check the URL");
        assert_eq!(names(&folder), [] as [&str; 0], "{downloader}");
        for asked in server.asked() {
            assert_eq!(asked.token.as_deref(), Some(TOKEN), "{downloader}");
            assert!(asked.command_lines.contains(program), "{downloader} runs while the request waits");
            assert!(!asked.command_lines.contains(TOKEN), "{downloader}: {}", asked.command_lines);
        }
    }
}

/// Where a file of the user follows redirections, curl and wget would take the token with them.
#[test]
fn no_server_sends_the_token_on_to_another_one() {
    let (dir, home) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::write(home.path().join(".curlrc"), "location\n").unwrap();
    fs::write(home.path().join(".wgetrc"), "max_redirect = 20\n").unwrap();
    for downloader in DOWNLOADERS {
        let other = Answers::of(vec![answer("200 OK", "", b"<html>")]);
        let location = format!("Location: {}\r\n", other.url());
        let redirection = answer("302 Found", &location, b"");
        let server = Answers::new(vec![redirection.clone()], vec![redirection]);
        let mut command = wrapper(&["sh"], &script(), &dir.path().join("agent"), &server.url(), downloader);
        let done = command.env("HOME", home.path()).output().unwrap();
        refused(&done, 69, "the server answers with status 302");
        assert!(!server.asked().is_empty(), "{downloader}");
        let asked = other.asked();
        assert!(asked.is_empty(), "{downloader}: {asked:?}");
    }
}

#[test]
fn a_server_that_asks_for_no_token_is_asked_without_one() {
    let dir = TempDir::new().unwrap();
    for downloader in DOWNLOADERS {
        let folder = dir.path().join("agent");
        let server = Answers::of(vec![answer("200 OK", "", b"<html>")]);
        let mut command = wrapper(&["sh"], &script(), &folder, &server.url(), downloader);
        let done = command.env_remove("ATTUNE_AGENT_TOKEN").output().unwrap();
        assert_eq!(done.status.code(), Some(65), "{downloader}: {done:?}");
        let asked = server.asked();
        assert!(asked.len() == 2 && asked.iter().all(|asked| asked.token.is_none()), "{downloader}: {asked:?}");
    }
}

/// What it sets for itself would reach all user code by way of the agent.
#[test]
fn the_agent_gets_locale_and_mask_as_the_container_has_them() {
    let dir = TempDir::new().unwrap();
    let agent = dir.path().join("attune-agent");
    executable(&agent, "#!/bin/sh\numask\necho \"${LC_ALL-none} $LANG\"\n");
    for shell in SHELLS {
        for (locale, wanted) in [(None, "0027\nnone C.UTF-8\n"), (Some("POSIX"), "0027\nPOSIX C.UTF-8\n")] {
            let mut command = Command::new("sh");
            command.args(["-c", "umask 027; exec \"$@\"", "sh"]).args(shell).arg(script());
            command.env("ATTUNE_AGENT_DIR", dir.path()).env("LANG", "C.UTF-8").env_remove("LC_ALL");
            let done = command.envs(locale.map(|locale| ("LC_ALL", locale))).output().unwrap();
            assert_eq!((done.status.code(), text(&done.stdout).as_str()), (Some(0), wanted), "{shell:?}: {done:?}");
        }
    }
}

/// A shell that waits for a program in the foreground does not see the signal before that ends, and process 1 of a container is
/// killed meanwhile.
#[test]
fn a_stop_during_a_download_ends_it_and_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    for (index, downloader) in DOWNLOADERS.into_iter().enumerate() {
        let folder = dir.path().join("agent");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}/api/v1/agent/binary", listener.local_addr().unwrap());
        let mut agent = wrapper(SHELLS[index % SHELLS.len()], &script(), &folder, &url, downloader).spawn().unwrap();
        // It has asked, and gets no answer.
        let (mut stream, _) = listener.accept().unwrap();
        assert_ne!(stream.read(&mut [0; 4096]).unwrap(), 0);
        let told = Command::new("kill").args(["-TERM", &agent.id().to_string()]).status().unwrap();
        assert!(told.success());
        assert_eq!(agent.wait().unwrap().code(), Some(143), "{downloader}");
        assert_eq!(names(&folder), [] as [&str; 0], "{downloader}");
        // The downloader is gone as well.
        while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
    }
}

#[test]
fn what_killed_downloads_left_is_removed_and_what_another_is_doing_is_not() {
    let (server, dir) = (Server::start(), TempDir::new().unwrap());
    let folder = dir.path().join("agent");
    let an_hour_ago = SystemTime::now() - Duration::from_hours(1);
    let begin = |name: &str, at| {
        let work = folder.join(name);
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("new"), "half").unwrap();
        fs::File::open(work.join("new")).unwrap().set_modified(at).unwrap();
        fs::File::open(&work).unwrap().set_modified(an_hour_ago).unwrap();
    };
    begin(".attune-fetch.left", an_hour_ago);
    begin(".attune-fetch.running", SystemTime::now());
    let done = wrapper(&["sh"], &script(), &folder, &server.url(), "curl").output().unwrap();
    became(&done, WORKER);
    let wanted = [&[".attune-fetch.running"], &INSTALLED[..]].concat();
    assert_eq!(names(&folder), wanted);
    // Also by one that finds the agent.
    begin(".attune-fetch.left", an_hour_ago);
    became(&wrapper(&["sh"], &script(), &folder, &server.url(), "curl").output().unwrap(), WORKER);
    assert_eq!(names(&folder), wanted);
}

#[test]
fn the_script_is_good_for_every_posix_shell() {
    let checked = Command::new("shellcheck").args(["--shell=sh", "--severity=info"]).arg(script()).output().unwrap();
    assert!(checked.status.success(), "{}", text(&checked.stdout));
}

//! `attune-agents doctor` on an installation that is right, and on what can be wrong with one.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use serde_json::Value;

use crate::support::{BINARY, Installation};

/// Variables to change, and the exit code, subject, severity and part of the finding that follow.
type Case<'a> = (&'a [(&'a str, &'a str)], i32, &'a str, &'a str, &'a str);

/// Exit code and findings: what each is about, how bad, and what was found with what to do.
fn doctor(installation: &Installation, arguments: &[&str], changed: &[(&str, &str)]) -> (i32, Vec<[String; 3]>) {
    examined(installation.command(&[&["doctor", "--json"], arguments].concat()).envs(changed.iter().copied()))
}

fn examined(command: &mut Command) -> (i32, Vec<[String; 3]>) {
    let output = command.output().unwrap();
    let code = output.status.code().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(answer["exit_code"], code);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = answer["findings"].as_array().unwrap().iter().map(|finding| {
        let said = format!("{} -> {}", text(&finding["found"]), text(&finding["remedy"]));
        [text(&finding["about"]), text(&finding["severity"]), said]
    });
    (code, findings.collect())
}

/// Asserts that one of the findings is about this, as bad as this, and says this.
fn assert_found(findings: &[[String; 3]], about: &str, severity: &str, part: &str) {
    let is_it = |[what, how, said]: &[String; 3]| what == about && how == severity && said.contains(part);
    assert!(findings.iter().any(is_it), "{about} {severity} {part}: {findings:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_that_is_right_is_found_right() {
    let installation = Installation::bare().await;
    let hub = installation.start("hub", &["hub"]);
    installation.wait_for("the hub's schema", "SELECT count(*) FROM runtime", |count| count >= 0).await;
    attune_testkit::eventually("the hub to answer", async || {
        std::net::TcpStream::connect(installation.hub_address()).ok()
    })
    .await;
    for role in ["worker", "sensor"] {
        let (code, findings) = doctor(&installation, &[role], &[]);
        // As root on a machine of its own the tests may trace, which is worth a warning.
        let worst = i32::from(findings.iter().any(|[.., said]| said.contains("SYS_PTRACE")));
        assert_eq!(code, worst, "{findings:#?}");
        assert!(findings.iter().all(|[about, how, _]| how == "ok" || about == "capabilities"), "{findings:#?}");
        for (about, part) in [
            ("architecture", std::env::consts::ARCH),
            ("kernel", "Linux"),
            ("libc of image", ""),
            ("user", ""),
            ("/proc", "mounted"),
            ("seccomp", ""),
            ("open files", "at most"),
            ("limits", ""),
            ("children", ""),
            ("program", BINARY),
            ("runtimes", "shell"),
            ("packs", "mode"),
            ("artifacts", "mode"),
            ("temporary", "mode"),
            ("environments", "0 built"),
            ("certificates", ""),
            ("name", "is 127.0.0.1"),
            ("database", "answers"),
            ("schema", "has what is needed"),
            ("clock", " ms "),
            ("broker", "answers"),
            ("queues", "bound to both exchanges"),
            ("API", "answers with status"),
        ] {
            assert_found(&findings, about, "ok", part);
        }
    }
    hub.stop();
    installation.database.execute("ALTER TABLE worker DROP COLUMN cordoned").await;
    let (code, findings) = doctor(&installation, &["worker"], &[]);
    assert_found(&findings, "schema", "problem", "cordoned");
    assert_eq!(code, 78, "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_thing_that_is_wrong_is_named_with_its_remedy_and_the_worst_is_the_exit_code() {
    let installation = Installation::bare().await;
    let nowhere = installation.database.url().replace(installation.database.name(), "no_such_database");
    let restricted = installation.broker.restricted_url("^worker$");
    let cases: [Case<'_>; 9] = [
        (&[("ATTUNE__DATABASE__URL", &nowhere)], 69, "database", "problem", "no database no_such_database -> start it"),
        (&[("ATTUNE__DATABASE__SCHEMA", "nothing")], 69, "database", "problem", "no schema nothing"),
        (&[("ATTUNE__MESSAGE_QUEUE__URL", "amqp://127.0.0.1:1")], 69, "broker", "problem", "message_queue.url"),
        (
            &[("ATTUNE__MESSAGE_QUEUE__URL", "amqp://no-such-host.invalid")],
            69,
            "name",
            "problem",
            "no-such-host.invalid",
        ),
        // Nothing ends for want of the API.
        (
            &[("ATTUNE_API_URL", "http://no-api.invalid"), ("ATTUNE__DATABASE__URL", &nowhere)],
            69,
            "name",
            "warning",
            "no-api.invalid has no address",
        ),
        (&[("ATTUNE__MESSAGE_QUEUE__URL", &restricted)], 69, "queues", "problem", "rights to configure"),
        (&[("ATTUNE__DATABASE__URL", "mysql://x")], 78, "configuration", "problem", "ATTUNE__DATABASE__URL"),
        (&[("ATTUNE_WORKER_RUNTIMES", " ")], 69, "runtimes", "warning", "ATTUNE_WORKER_RUNTIMES"),
        (&[("ATTUNE__PACKS_BASE_DIR", "/etc/passwd")], 78, "packs", "problem", "is no folder"),
    ];
    for (changed, code, about, severity, part) in cases {
        // Whatever else is wrong is less bad than a database that is not there.
        let away = ("ATTUNE_API_URL", "http://127.0.0.1:1");
        let database = [("ATTUNE__DATABASE__URL", nowhere.as_str())];
        let begin: &[_] = if code == 69 && about == "runtimes" { &database } else { &[] };
        let (seen, findings) = doctor(&installation, &["worker"], &[begin, &[away], changed].concat());
        assert_found(&findings, about, severity, part);
        assert_eq!(seen, code, "{findings:#?}");
    }
    let kept = installation.path("artifacts/_spool/7/refused");
    fs::create_dir_all(&kept).unwrap();
    fs::write(kept.join("5-v1.txt"), "four").unwrap();
    fs::write(installation.path("artifacts/_spool/7/5.unreadable"), "no").unwrap();
    let (_, findings) = doctor(&installation, &["worker"], &[("ATTUNE_API_URL", "http://127.0.0.1:1")]);
    assert_found(&findings, "kept files", "warning", "1 files of executions that the API never takes (4 bytes)");
    assert_found(&findings, "kept files", "warning", "1 results that a worker could not read again (2 bytes)");
    let short = doctor(&installation, &["worker", "--short"], &[("ATTUNE__PACKS_BASE_DIR", "/etc/passwd")]).1;
    assert!(short.iter().all(|[_, severity, _]| severity != "ok"), "{short:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_are_held_against_mounts_and_environments_against_the_image() {
    let installation = Installation::bare().await;
    let foreign = installation.path("envs/pack/python/bin");
    fs::create_dir_all(&foreign).unwrap();
    symlink("/another/image/bin/python3.7", foreign.join("python3")).unwrap();
    let (_, findings) = doctor(&installation, &[], &[]);
    assert_found(
        &findings,
        "environments",
        "ok",
        "python3.7, which does not exist here; it gets one of its own when it is needed",
    );
    let named = |findings: &[[String; 3]], part: &str| findings.iter().any(|[.., said]| said.contains(part));
    let (_, findings) = doctor(&installation, &[], &[("ATTUNE_WORKER_RUNTIMES", "shell")]);
    assert_found(&findings, "environments", "ok", "1 of them by other images");
    assert!(!named(&findings, "python3.7"), "nothing to an image without Python");

    let own = if attune_process::effective_user() == 0 { "-m" } else { "-rm" };
    let unshared = |script| examined(&mut in_folder(&installation, &["unshare", own, "sh", "-c", script, BINARY]));
    let (_, findings) = unshared(
        "mount -t tmpfs -o noexec tmpfs packs && mount -t tmpfs -o ro tmpfs artifacts && exec \"$0\" doctor --json",
    );
    assert_found(&findings, "packs", "warning", "is mounted noexec");
    assert_found(&findings, "artifacts", "warning", "is mounted read-only");

    let (_, findings) = unshared("mount -t tmpfs -o noexec tmpfs envs && exec \"$0\" doctor --json");
    assert_found(&findings, "environments", "warning", "is mounted noexec");
    let (_, findings) = unshared("mount -t tmpfs -o ro tmpfs envs && exec \"$0\" doctor --json");
    assert_found(&findings, "environments", "warning", "is mounted read-only");
    assert_found(&findings, "environments", "warning", "environments cannot be built here; complete ones are used");
    let (_, findings) =
        unshared("mount --bind envs envs && mount -o remount,bind,ro envs && exec \"$0\" doctor --json");
    assert_found(&findings, "environments", "warning", "python3.7, which does not exist here -> let this user write");
    // Its own lies beside it, and those of further images are nothing to this one.
    for (name, leads_to) in [("python.for-0", "/bin/sh"), ("python.for-1", "/another/image/bin/python3.8")] {
        let own = installation.path("envs/pack").join(name).join("bin");
        fs::create_dir_all(&own).unwrap();
        symlink(leads_to, own.join("python3")).unwrap();
    }
    let broken = installation.path("envs/pack/python-3.9/bin");
    fs::create_dir_all(&broken).unwrap();
    symlink("nowhere", broken.join("python3")).unwrap();
    let (_, findings) = doctor(&installation, &[], &[]);
    assert_found(&findings, "environments", "ok", "4 built in");
    assert_found(&findings, "environments", "ok", "2 of them by other images");
    assert_found(&findings, "environments", "ok", "; it is built anew when it is needed");
    assert!(!named(&findings, "python3.7") && !named(&findings, "python3.8"), "{findings:#?}");

    let (code, findings) = unshared("mount -t tmpfs tmpfs /proc && exec \"$0\" doctor --json");
    assert_found(&findings, "/proc", "problem", "cannot be read -> mount /proc");
    assert_eq!(code, 71, "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_are_held_against_the_rights_of_the_user() {
    let installation = Installation::bare().await;
    let mode = |name: &str, mode| fs::set_permissions(installation.path(name), Permissions::from_mode(mode)).unwrap();
    for (name, bits) in [(".", 0o755), ("packs", 0o700), ("artifacts", 0o755)] {
        mode(name, bits);
    }
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", BINARY, "doctor", "--json"];
    let is_root = attune_process::effective_user() == 0;
    if !is_root {
        mode("packs", 0o300);
        mode("artifacts", 0o555);
    }
    let (_, findings) = examined(&mut in_folder(&installation, if is_root { &nobody } else { &nobody[4..] }));
    assert_found(&findings, "packs", "warning", "cannot be read");
    assert_found(&findings, "packs", "warning", "mode 0");
    assert_found(&findings, "artifacts", "warning", "cannot be written by this user");
    mode("packs", 0o700);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_container_keeps_from_its_processes_is_named() {
    let installation = Installation::bare().await;
    let (_, findings) =
        examined(&mut in_folder(&installation, &["sh", "-c", "ulimit -n 100 && exec \"$0\" doctor --json", BINARY]));
    assert_found(&findings, "open files", "warning", "at most 100: each child needs up to five");
    if attune_process::effective_user() != 0 {
        return attune_testkit::lacking("root", "run as root, which may become another user");
    }
    // One that no image knows, and without a home.
    let unknown = "setpriv --reuid=54321 --regid=54321 --clear-groups \"$0\" doctor --json; exit $?";
    let as_unknown = |begin: &str, namespaces: &[&str]| {
        let script = format!("unset HOME; {begin} {unknown}");
        let line = [&["unshare", "--mount"], namespaces, &["sh", "-c", &script, BINARY]].concat();
        examined(&mut in_folder(&installation, &line)).1
    };
    let findings = as_unknown("", &[]);
    assert_found(&findings, "user", "warning", "54321, without an entry in /etc/passwd and without HOME");
    assert_found(&findings, "/proc", "ok", "shows all processes");
    // The shell is process 1 there, and root's.
    let findings = as_unknown("mount -t proc -o hidepid=2 proc /proc &&", &["--pid", "--fork"]);
    assert_found(&findings, "/proc", "warning", "hides processes of other users (hidepid)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_far_from_the_database_s_is_named() {
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    assert!(std::path::Path::new(&library).exists(), "{library} is not there: run scripts/setup");
    let installation = Installation::bare().await;
    for (by, part) in [("+1h", "ahead of the database's: tokens"), ("-1h", "behind the database's: tokens")] {
        let changed = [("LD_PRELOAD", library.as_str()), ("FAKETIME", by), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let (_, findings) = doctor(&installation, &["worker"], &changed);
        assert_found(&findings, "clock", "warning", part);
    }
}

/// A program with the variables of the installation, started in its folder.
fn in_folder(installation: &Installation, line: &[&str]) -> Command {
    let usual = installation.command(&[]);
    let mut command = Command::new(line[0]);
    command.args(&line[1..]).current_dir(installation.folder.path()).env_clear();
    command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_start_fails_says_what_else_is_wrong() {
    let installation = Installation::bare().await;
    for role in ["worker", "sensor"] {
        let output = installation
            .command(&[role])
            .env("ATTUNE__DATABASE__SCHEMA", "nothing")
            .env("ATTUNE__STARTUP_TIMEOUT", "1s")
            .env("ATTUNE__PACKS_BASE_DIR", "/no/such/folder")
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(69), "{log}");
        assert!(log.contains("doctor: packs: /no/such/folder cannot be used"), "{log}");
        assert!(log.contains("doctor: database: ") && !log.contains("doctor: kernel"), "{log}");
    }
}

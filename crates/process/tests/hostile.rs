//! A child that looks for what it was not given: the environment, the memory and the descriptors of the agent, and its files.
//!
//! The agent is the helper child with a secret in its environment and one in a file that it holds open. Root is root as in a
//! container: without the privilege to trace. In real containers: `containers.rs`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use attune_process::{Command, Outcome};
use support::attack::Attack;
use support::{child, ended, is_root, reachable};

/// No other test has the same, whose agent may be open to everybody.
fn in_environment() -> String {
    format!("hush-environment-{}", std::process::id())
}

const IN_FILE: &str = "hush-file";

/// What container engines leave to root.
const USUAL: &str = "-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,+setpcap,\
                     +net_bind_service,+sys_chroot,+kill,+audit_write";

/// An agent as `agent_uid` (none: as the tests) that runs the attack as `uid`.
fn agent(program: &Path, agent_uid: Option<u32>, steps: &[&str]) -> Command {
    let mut command = child(&[]);
    let mut words: Vec<String> = Vec::new();
    if is_root() {
        command.program =
            ["/usr/bin/setpriv", "/bin/setpriv"].into_iter().find(|path| Path::new(path).exists()).unwrap().into();
        words.extend([format!("--bounding-set={USUAL}"), "--inh-caps=-all".to_owned()]);
        let user =
            agent_uid.map(|uid| [format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".to_owned()]);
        words.extend(user.into_iter().flatten());
        words.push(program.to_str().unwrap().to_owned());
    } else {
        command.program = program.into();
    }
    words.extend(steps.iter().map(|step| (*step).to_owned()));
    command.args = words.into_iter().map(Into::into).collect();
    command.env = vec![("SECRET".into(), in_environment().into())];
    command
}

/// `prepare` is what the agent does first.
fn attack(agent_uid: Option<u32>, uid: u32, prepare: &[&str]) -> Attack {
    let (folder, program) = reachable();
    let file = folder.path().join("secret");
    std::fs::write(&file, IN_FILE).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    if let Some(owner) = agent_uid.filter(|_| is_root()) {
        std::os::unix::fs::chown(&file, Some(owner), Some(owner)).unwrap();
    }
    let path = file.to_str().unwrap();
    let uid = uid.to_string();
    let steps = [&["open", path], prepare, &["run-attack", "2", &uid, path]].concat();
    let report = ended(agent(&program, agent_uid, &steps));
    assert_eq!(report.outcome, Outcome::Exited(0), "{:?}", String::from_utf8_lossy(&report.stderr.bytes));
    Attack::new(&report.stdout.bytes)
}

/// The proof that the attack works where nothing is done against it.
#[test]
fn without_precautions_the_attack_succeeds() {
    let own = if is_root() { 0 } else { own_uid() };
    let attack = attack(None, own, &[]);
    for attempt in ["environment", "memory", "trace"] {
        assert!(attack.line(attempt).contains(": found "), "{}", attack.text);
    }
    assert!(attack.line("environment").contains(&in_environment()), "{}", attack.text);
    assert!(attack.line("memory").contains(&in_environment()), "{}", attack.text);
    assert!(attack.line("descriptors").contains(IN_FILE), "{}", attack.text);
}

#[test]
fn code_that_runs_as_the_same_user_finds_nothing_but_the_files_of_that_user() {
    let own = if is_root() { 0 } else { own_uid() };
    attack(None, own, &["prepare"]).assert_nothing_leaks(&[&in_environment(), IN_FILE], &["file"]);
    if !is_root() {
        attune_testkit::lacking("root", "run the tests as root");
        return;
    }
    attack(Some(1000), 1000, &["prepare"]).assert_nothing_leaks(&[&in_environment(), IN_FILE], &["file"]);
}

#[test]
fn code_that_runs_as_another_user_finds_nothing_at_all() {
    if !is_root() {
        attune_testkit::lacking("root", "run the tests as root");
        return;
    }
    let attack = attack(None, 1000, &["prepare"]);
    attack.assert_nothing_leaks(&[&in_environment(), IN_FILE], &[]);
    assert!(attack.line("file").contains(": refused, "), "{}", attack.text);
}

fn own_uid() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid()
}

//! Installs into real folders: the same twice, many at once, over running programs, and everything that can be in the way.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "programs are started to see which file they run")]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use attune_artefact::{
    Facts, InstallError, LINKS, MARKER_PREFIX, Machine, NotAProgram, Order, Outcome, agent_for, facts, install, verify,
};
use tempfile::TempDir;

/// A file of an installation, and what is done to it.
type Harm<'a> = (&'a str, &'a dyn Fn(&Path));

fn own() -> Machine {
    Machine::own().unwrap()
}

/// A file that begins like a program for `machine`.
fn program(folder: &Path, machine: Machine, version: &str) -> PathBuf {
    let mut bytes = vec![b'x'; 300_000];
    bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
    bytes[18..20].copy_from_slice(&[if machine == Machine::X86_64 { 62 } else { 183 }, 0]);
    bytes.extend_from_slice(format!("{MARKER_PREFIX}{version};").as_bytes());
    let path = folder.join(format!("program-{machine}-{version}"));
    fs::write(&path, bytes).unwrap();
    path
}

fn facts_of(path: &Path) -> Facts {
    facts(&mut File::open(path).unwrap()).unwrap()
}

fn order<'a>(folder: &'a Path, source: &'a Path) -> Order<'a> {
    Order { folder, source, machine: own(), sha256: None }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn inodes(folder: &Path) -> Vec<u64> {
    names(folder).iter().map(|name| fs::symlink_metadata(folder.join(name)).unwrap().ino()).collect()
}

#[test]
fn a_folder_gets_the_file_its_links_its_checksum_and_its_versions() {
    let dir = TempDir::new().unwrap();
    let (folder, source) = (dir.path().join("deep/agent"), program(dir.path(), own(), "1.2.3"));
    let done = install(&order(&folder, &source)).unwrap();
    assert_eq!((done.outcome, &done.path), (Outcome::Written, &folder.join("attune-agents")));
    assert_eq!(done.facts, facts_of(&source));
    assert_eq!(fs::read(&done.path).unwrap(), fs::read(&source).unwrap());
    assert_eq!(fs::metadata(&done.path).unwrap().permissions().mode() & 0o7777, 0o555);
    for name in LINKS.into_iter().chain([&*agent_for(own())]) {
        assert_eq!(fs::read_link(folder.join(name)).unwrap(), Path::new("attune-agents"), "{name}");
    }
    for (name, text) in [
        ("attune-agent.version", "attune-agent 1.2.3\n"),
        ("attune-sensor-agent.version", "attune-sensor-agent 1.2.3\n"),
        ("attune-core-timer-sensor.version", "attune-core-timer-sensor 1.2.3\n"),
        ("attune-agents.version", "attune-agents 1.2.3\n"),
        (&format!("{}.version", agent_for(own())), "attune-agent 1.2.3\n"),
    ] {
        assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), text, "{name}");
    }
    let checked = Command::new("sha256sum").args(["-c", "attune-agents.sha256"]).current_dir(&folder).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(names(&folder).len(), 11, "{:?}", names(&folder));
    assert_eq!(verify(&folder, &done.facts, own()), []);
}

#[test]
fn a_second_install_changes_nothing_and_one_of_another_version_everything() {
    let dir = TempDir::new().unwrap();
    let (folder, source) = (dir.path().join("agent"), program(dir.path(), own(), "1.0.0"));
    let first = install(&order(&folder, &source)).unwrap();
    let before = inodes(&folder);
    assert_eq!(install(&order(&folder, &source)).unwrap().outcome, Outcome::Unchanged);
    assert_eq!(before, inodes(&folder), "not one file was written again");
    let newer = program(dir.path(), own(), "1.0.1");
    let second = install(&order(&folder, &newer)).unwrap();
    assert_eq!(second.outcome, Outcome::Written);
    assert_eq!(verify(&folder, &second.facts, own()), []);
    assert!(!verify(&folder, &first.facts, own()).is_empty());
}

#[test]
fn what_is_wrong_with_a_folder_is_named_and_mended() {
    let dir = TempDir::new().unwrap();
    let (folder, source) = (dir.path().join("agent"), program(dir.path(), own(), "1.0.0"));
    let wanted = install(&order(&folder, &source)).unwrap().facts;
    let replace = |path: &Path, text: &str| {
        fs::remove_file(path).unwrap();
        fs::write(path, text).unwrap();
    };
    let harms: [Harm<'_>; 7] = [
        ("attune-agents", &|path| fs::remove_file(path).unwrap()),
        ("attune-agents", &|path| replace(path, "<html>")),
        ("attune-agents", &|path| fs::set_permissions(path, Permissions::from_mode(0o444)).unwrap()),
        ("attune-agents", &|path| fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap()),
        ("attune-sensor-agent", &|path| fs::remove_file(path).unwrap()),
        ("attune-agent", &|path| {
            fs::remove_file(path).unwrap();
            symlink("nowhere", path).unwrap();
        }),
        ("attune-agent.version", &|path| replace(path, "attune-agent 0.0.1\n")),
    ];
    for (name, harm) in harms {
        harm(&folder.join(name));
        let findings = verify(&folder, &wanted, own());
        assert!(findings.iter().any(|finding| finding.name == name), "{name}: {findings:?}");
        install(&order(&folder, &source)).unwrap();
        assert_eq!(verify(&folder, &wanted, own()), [], "{name}");
    }
    // What `cp` out of an image leaves: whole files under the names of the links.
    fs::remove_file(folder.join("attune-agent")).unwrap();
    fs::copy(&source, folder.join("attune-agent")).unwrap();
    fs::set_permissions(folder.join("attune-agent"), Permissions::from_mode(0o755)).unwrap();
    assert_eq!(verify(&folder, &wanted, own()), []);
}

#[test]
fn many_installs_at_once_leave_one_whole_version_and_readers_never_see_half_a_file() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("agent");
    let sources = ["1.0.0", "2.0.0"].map(|version| program(dir.path(), own(), version));
    let whole = sources.each_ref().map(|source| facts_of(source));
    install(&order(&folder, &sources[0])).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let seen = facts_of(&folder.join("attune-sensor-agent"));
                    assert!(whole.contains(&seen), "{seen:?}");
                }
            });
        }
        let writers: Vec<_> = (0..6)
            .map(|index| {
                let (folder, source) = (&folder, &sources[index % 2]);
                scope.spawn(move || (0..10).for_each(|_| drop(install(&order(folder, source)).unwrap())))
            })
            .collect();
        let failed = writers.into_iter().filter_map(|writer| writer.join().err()).count();
        done.store(true, Ordering::Relaxed);
        assert_eq!(failed, 0);
    });
    let last = facts_of(&folder.join("attune-agents"));
    assert_eq!(verify(&folder, &last, own()), [], "file, checksum and versions are of one install");
    assert_eq!(names(&folder).len(), 11, "nothing is left behind: {:?}", names(&folder));
}

#[test]
fn a_running_program_keeps_its_file() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("agent");
    // What comes after the end of a program does not concern it.
    let sleep = dir.path().join("sleep");
    let marker = format!("{MARKER_PREFIX}1.0.0;");
    fs::write(&sleep, [fs::read("/bin/sleep").unwrap(), marker.into_bytes()].concat()).unwrap();
    install(&order(&folder, &sleep)).unwrap();
    let mut running = Command::new(folder.join("attune-agent")).arg("600").stdin(Stdio::null()).spawn().unwrap();
    let before = fs::metadata(folder.join("attune-agents")).unwrap().ino();
    install(&order(&folder, &program(dir.path(), own(), "2.0.0"))).unwrap();
    assert_ne!(fs::metadata(folder.join("attune-agents")).unwrap().ino(), before);
    assert!(running.try_wait().unwrap().is_none(), "it goes on");
    let runs = fs::metadata(format!("/proc/{}/exe", running.id())).unwrap();
    assert_eq!(runs.ino(), before, "with the file it was started from");
    running.kill().unwrap();
    running.wait().unwrap();
}

#[test]
fn another_architecture_is_only_put_aside_for_handing_out() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("agent");
    let other = Machine::ALL.into_iter().find(|machine| *machine != own()).unwrap();
    let source = program(dir.path(), other, "1.0.0");
    match install(&order(&folder, &source)) {
        Err(InstallError::WrongMachine { found, wanted, .. }) => assert_eq!((found, wanted), (other, own())),
        done => panic!("{done:?}"),
    }
    assert!(!folder.exists(), "nothing was begun");
    install(&Order { machine: other, ..order(&folder, &source) }).unwrap();
    let name = agent_for(other);
    assert_eq!(names(&folder), [name.clone(), format!("{name}.sha256"), format!("{name}.version")]);
    assert_eq!(verify(&folder, &facts_of(&source), other), []);
    let newer = facts_of(&program(dir.path(), other, "1.0.1"));
    let found: Vec<String> = verify(&folder, &newer, other).into_iter().map(|finding| finding.name).collect();
    assert_eq!(found, [name.clone(), format!("{name}.sha256"), format!("{name}.version")]);
}

#[test]
fn what_is_no_program_or_not_the_right_one_is_not_installed() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("agent");
    let page = dir.path().join("page");
    fs::write(&page, "<!DOCTYPE html>").unwrap();
    let refused = install(&order(&folder, &page)).unwrap_err();
    assert!(matches!(refused, InstallError::NotAProgram { why: NotAProgram::Html, .. }), "{refused}");
    let refused = install(&order(&folder, Path::new("/bin/sleep"))).unwrap_err();
    assert!(matches!(refused, InstallError::Stranger(_)), "{refused}");
    assert!(!folder.exists(), "nothing was begun");
    let source = program(dir.path(), own(), "1.0.0");
    let refused = install(&Order { sha256: Some("00"), ..order(&folder, &source) }).unwrap_err();
    assert!(matches!(refused, InstallError::Checksum { .. }), "{refused}");
    let upper = facts_of(&source).sha256.to_uppercase();
    install(&Order { sha256: Some(&upper), ..order(&folder, &source) }).unwrap();
    let refused = install(&order(&folder, &dir.path().join("gone"))).unwrap_err();
    assert!(matches!(refused, InstallError::Source { .. }), "{refused}");
}

#[test]
fn leftovers_of_installs_that_were_killed_are_removed() {
    let dir = TempDir::new().unwrap();
    let (folder, source) = (dir.path().join("agent"), program(dir.path(), own(), "1.0.0"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(".attune-new-1-2-3"), "half").unwrap();
    fs::write(folder.join("somebody-elses"), "file").unwrap();
    install(&order(&folder, &source)).unwrap();
    assert!(!folder.join(".attune-new-1-2-3").exists());
    assert!(folder.join("somebody-elses").exists());
}

#[test]
fn a_folder_in_the_place_of_a_name_is_said_and_kept() {
    let dir = TempDir::new().unwrap();
    let (folder, source) = (dir.path().join("agent"), program(dir.path(), own(), "1.0.0"));
    fs::create_dir_all(folder.join("attune-agents/keep")).unwrap();
    let refused = install(&order(&folder, &source)).unwrap_err().to_string();
    assert!(refused.contains("attune-agents is a folder"), "{refused}");
    assert_eq!(names(&folder), ["attune-agents"]);
}

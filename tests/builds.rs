//! Environments that an agent builds with real interpreters and their package managers: its end in the middle of it, and
//! packages that come from a folder because there is no network.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the program under test is started the way a user starts it")]

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use attune_testkit::eventually_blocking;
use attune_testkit::wheel::{WHEEL, WHEEL_FILE};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_attune-agents");

/// A pack with one action in Python that needs the package.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let pack = folder.path().join("packs/mine");
    fs::create_dir_all(pack.join("actions")).unwrap();
    let manifest = "ref: mine\nlabel: Mine\nname: Mine\ndescription: Mine\nversion: 1.0.0\n";
    fs::write(pack.join("pack.yaml"), manifest).unwrap();
    let action = "ref: mine.answer\nname: answer\nlabel: Answer\ndescription: Answer\nenabled: true\n\
                  runner_type: python\nentry_point: answer.py\n";
    fs::write(pack.join("actions/answer.yaml"), action).unwrap();
    fs::write(pack.join("actions/answer.py"), "import thing\nprint(thing.ANSWER)\n").unwrap();
    let wheel = pack.join(WHEEL_FILE);
    assert!(Command::new("python3").args(["-c", WHEEL]).arg(wheel).status().unwrap().success());
    folder
}

fn agent(folder: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["run", "mine.answer", "--data", "data"]).current_dir(folder).stdin(Stdio::null());
    command
}

/// Every process whose command line speaks of `folder`.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let lines =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(folder)).collect()
}

fn builds(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("data/runtime_envs/mine")).unwrap().flatten();
    entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()).collect()
}

/// pip asks an index that takes the call and says nothing, so the build is under way for as long as the test likes.
#[test]
fn a_build_ends_with_the_agent_that_is_killed_and_the_next_agent_builds_anew() {
    let folder = folder();
    let requirements = folder.path().join("packs/mine/requirements.txt");
    let index = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = index.local_addr().unwrap();
    fs::write(&requirements, format!("--index-url http://{address}/\nthing\n")).unwrap();

    let mut killed = agent(folder.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (mut pip, _): (TcpStream, _) = index.accept().unwrap();
    let half = builds(folder.path());
    assert_eq!(half.len(), 1, "{half:?}");
    assert!(!processes_of(&half[0]).is_empty(), "the build is seen by its folder");
    killed.kill().unwrap();
    killed.wait().unwrap();
    // The connection ends with the last process that has it; the limit turns a build that goes on into a failure.
    pip.set_read_timeout(Some(attune_testkit::PATIENCE)).unwrap();
    pip.read_to_end(&mut Vec::new()).unwrap();
    eventually_blocking("no process of the build", || processes_of(&half[0]).is_empty().then_some(()));

    drop((pip, index));
    fs::write(&requirements, "--no-index\n./thing-1.0-py3-none-any.whl\n").unwrap();
    let ended = agent(folder.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "42\n", "{}", String::from_utf8_lossy(&ended.stderr));
    let link = fs::read_dir(folder.path().join("data/runtime_envs/mine")).unwrap().flatten();
    let link = link.map(|entry| entry.path()).find(|path| path.is_symlink()).unwrap();
    assert_ne!(
        fs::canonicalize(link).unwrap(),
        fs::canonicalize(&half[0]).unwrap_or_default(),
        "not the half-built one"
    );
}

#[test]
fn packages_come_from_a_folder_of_the_pack_where_there_is_no_network() {
    let folder = folder();
    let pack = folder.path().join("packs/mine");
    fs::create_dir(pack.join("wheels")).unwrap();
    fs::rename(pack.join(WHEEL_FILE), pack.join("wheels").join(WHEEL_FILE)).unwrap();
    fs::write(pack.join("requirements.txt"), "--no-index\n--find-links wheels\nthing\n").unwrap();
    // Nobody listens there, so that nothing comes from anywhere else.
    let ended = agent(folder.path()).env("https_proxy", "http://127.0.0.1:1").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "42\n", "{}", String::from_utf8_lossy(&ended.stderr));
}

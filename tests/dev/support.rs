//! A `dev` process and its lines.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// A line may take this long on a busy machine; environments are built meanwhile.
const PATIENCE: Duration = Duration::from_mins(1);

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_attune-agents");

fn command(program: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).args(["dev", "--json"]).args(arguments);
    if !arguments.contains(&"--data") {
        command.args(["--data", "data"]);
    }
    command.env_remove("ATTUNE_SENSOR_RUNTIMES").env_remove("ATTUNE_WORKER_RUNTIMES").stdin(Stdio::null());
    command
}

/// Runs `dev` to its end.
pub(crate) fn run_dev(folder: &Path, arguments: &[&str]) -> Output {
    command(BINARY.as_ref(), folder, arguments).output().unwrap()
}

/// A running `dev`; killed when dropped.
#[derive(Debug)]
pub(crate) struct Dev {
    child: Child,
    lines: Option<Receiver<String>>,
    seen: Vec<String>,
}

impl Dev {
    /// Starts it in `folder` with its data in `folder/data`.
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, |_| {})
    }

    /// … with a changed command.
    pub(crate) fn start_with(folder: &Path, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(BINARY.as_ref(), folder, arguments);
        change(&mut command);
        Self::spawn(command)
    }

    /// … from another file.
    pub(crate) fn start_from(program: &Path, folder: &Path, arguments: &[&str]) -> Self {
        Self::spawn(command(program, folder, arguments))
    }

    fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                // Ending the reader closes the pipe, which is how a test closes the output.
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines: Some(lines), seen: Vec::new() }
    }

    /// … with somebody at its output who does not read.
    pub(crate) fn start_unread(folder: &Path, arguments: &[&str]) -> (Self, ChildStdout) {
        let mut child = command(BINARY.as_ref(), folder, arguments).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        (Self { child, lines: None, seen: Vec::new() }, stdout)
    }

    /// The next line for which `wanted` holds; lines before it are passed over.
    pub(crate) fn wait(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let lines = self.lines.as_ref().unwrap();
        loop {
            let text = match lines.recv_timeout(PATIENCE) {
                Ok(text) => text,
                Err(error @ (RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => {
                    panic!("{error} while waiting for {what}; seen:\n{}", self.seen.join("\n"))
                }
            };
            let line: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            self.seen.push(text);
            if wanted(&line) {
                return line;
            }
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    /// What nobody can handle.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Nobody reads its output any more.
    pub(crate) fn close_output(&mut self) {
        self.lines = None;
    }

    /// Waits for its end.
    pub(crate) fn expect_exit(&mut self, code: i32) {
        let status = attune_testkit::eventually_blocking("the end of dev", || self.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(code), "{status:?}; seen:\n{}", self.seen.join("\n"));
    }

    /// Ctrl-C, and no process may be left.
    pub(crate) fn stop_and_expect(&mut self, code: i32) {
        let children = descendants_of(self.pid());
        self.interrupt();
        self.expect_exit(code);
        attune_testkit::eventually_blocking("all children are gone", || {
            children.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        });
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let children = descendants_of(self.pid());
            self.kill();
            for pid in children {
                // May be gone already.
                drop(Command::new("kill").args(["-KILL", &pid.to_string()]).output());
            }
        }
    }
}

/// All processes below `pid`.
pub(crate) fn descendants_of(pid: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
        children.entry(parent).or_default().push(id);
    }
    let mut found = Vec::new();
    let mut open = vec![pid];
    while let Some(next) = open.pop() {
        let below = children.remove(&next).unwrap_or_default();
        open.extend(&below);
        found.extend(below);
    }
    found
}

/// Writes a file and its folders.
pub(crate) fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Copies a folder with its modes.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// `runner_type` of an action, read from its file.
pub(crate) fn runtime_of(packs: &Path, action: &str) -> String {
    let (pack, name) = action.split_once('.').unwrap();
    let file = packs.join(pack).join("actions").join(format!("{name}.yaml"));
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let line = text.lines().find_map(|line| line.strip_prefix("runner_type:"));
    line.map_or_else(|| "shell".to_owned(), |value| value.split('#').next().unwrap().trim().to_owned())
}

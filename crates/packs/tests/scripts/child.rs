//! Running the code of the repository's packs for real.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use attune_process::{Command, Input, Keep, Outcome, Stream, start};

/// Where programs are looked for: as where these tests were built.
const PATH: &str = match option_env!("PATH") {
    Some(path) => path,
    None => "/usr/local/bin:/usr/bin:/bin",
};

/// The folder of all packs.
pub(crate) fn packs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packs").canonicalize().unwrap()
}

/// A program on `PATH`; the test fails without it.
pub(crate) fn program(name: &str) -> PathBuf {
    std::env::split_paths(PATH)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("these tests need {name} on PATH"))
}

/// Every POSIX shell of this machine as program and first arguments; `sh` at least.
pub(crate) fn shells() -> Vec<Vec<OsString>> {
    let mut shells = vec![vec![OsString::from("/bin/sh")]];
    for (path, applet) in [("/bin/bash", None), ("/bin/dash", None), ("/bin/busybox", Some("sh"))] {
        if Path::new(path).is_file() {
            shells.push(std::iter::once(path).chain(applet).map(OsString::from).collect());
        }
    }
    shells
}

/// What a run left.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit code.
    pub(crate) code: i32,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
}

/// A command with the environment that every child gets, and `env` on top.
pub(crate) fn command(argv: &[OsString], env: &[(&str, &str)], stdin: Input) -> Command {
    let mut command = Command::new(&argv[0]);
    command.args = argv[1..].to_vec();
    command.env = vec![("PATH".into(), PATH.into())];
    // Version managers for interpreters want to know where home is.
    command.env.extend(option_env!("HOME").map(|home| ("HOME".into(), home.into())));
    command.env.extend(env.iter().map(|(name, value)| (name.into(), value.into())));
    command.stdin = stdin;
    command.stdout = Stream::keep(Keep::Head { limit_bytes: 1 << 20 });
    command.stderr = Stream::keep(Keep::Head { limit_bytes: 1 << 20 });
    command
}

/// Runs it to its end.
pub(crate) async fn run(argv: &[OsString], env: &[(&str, &str)], stdin: &str) -> Ran {
    let command = command(argv, env, Input::Bytes(stdin.as_bytes().to_vec()));
    let report = start(command).unwrap().supervise(None, std::future::pending()).await;
    let Outcome::Exited(code) = report.outcome else { panic!("{argv:?} ended with {:?}", report.outcome) };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code, stdout: text(report.stdout.bytes), stderr: text(report.stderr.bytes) }
}

/// Parameters as the contract writes them for `dotenv` on standard input.
pub(crate) fn dotenv(parameters: &[(&str, &str)]) -> String {
    let line = |(key, value): &(&str, &str)| format!("{key}='{}'", value.replace('\'', r"'\''"));
    let mut lines: Vec<String> = parameters.iter().map(line).collect();
    lines.sort();
    lines.join("\n") + "\n"
}

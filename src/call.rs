//! The command line of one applet.
//!
//! argh reads UTF-8 only, prints and exits on its own when asked to, and knows neither `-h` nor `--name=value`. The
//! differences are evened out here, once for all applets.

use std::ffi::{OsStr, OsString};

use argh::{EarlyExit, FromArgs};

use crate::applet::Applet;
use crate::exit::{Exit, Failure};
use crate::output;

/// A near name is one whose similarity (0 to 1) is at least this.
const NEAR: f64 = 0.7;

/// An applet and what it was called with.
#[derive(Debug)]
pub(crate) struct Call {
    /// The applet.
    pub(crate) applet: &'static Applet,
    /// The words that reached it, as the user typed them: `attune-agent`, or `attune-agents worker`.
    pub(crate) command: String,
    /// Everything after them, as it came.
    pub(crate) arguments: Vec<OsString>,
}

impl Call {
    /// Answers `--version` and `--help`, otherwise runs `body` with the parsed arguments.
    pub(crate) fn with<T: FromArgs>(self, body: impl FnOnce(T) -> Result<Exit, Failure>) -> Result<Exit, Failure> {
        let words = self.words()?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if before_separator(&words).any(|word| matches!(word, "--version" | "-V")) {
            return output::print(&format!("{}\n", self.applet.version()));
        }
        let command: Vec<&str> = self.command.split(' ').collect();
        match T::from_args(&command, &words) {
            Ok(arguments) => body(arguments),
            Err(EarlyExit { output: help, status: Ok(()) }) => output::print(&completed(&help)),
            Err(EarlyExit { output: problem, status: Err(()) }) => {
                let hint = near_flag::<T>(&command, &words, &problem);
                Err(self.usage(&format!("{}{hint}", problem.trim_end())))
            }
        }
    }

    /// A usage error that says where the help is.
    pub(crate) fn usage(&self, problem: &str) -> Failure {
        Failure::usage(format!("{problem}\nRun `{} --help` for more information.", self.command))
    }

    /// The arguments as text, `-h` as `--help`, `--name=value` as two words. After `--` nothing is touched.
    fn words(&self) -> Result<Vec<String>, Failure> {
        let mut words = Vec::with_capacity(self.arguments.len());
        let mut options = true;
        for argument in &self.arguments {
            let Some(word) = argument.to_str() else {
                return Err(self.usage(&format!("argument {} is not UTF-8", quoted(argument))));
            };
            options &= word != "--";
            match word.split_once('=') {
                _ if !options => words.push(word.to_owned()),
                _ if word == "-h" => words.push("--help".to_owned()),
                Some((name, value)) if is_long_option(name) => words.extend([name.to_owned(), value.to_owned()]),
                _ => words.push(word.to_owned()),
            }
        }
        Ok(words)
    }
}

/// argh's line about its own options, and the one that says what there really is.
const OWN_OPTIONS: (&str, &str) = (
    "  --help, help      display usage information",
    "  -h, --help        print this\n  -V, --version     print the version",
);

fn completed(help: &str) -> String {
    format!("{}\n", help.replacen(OWN_OPTIONS.0, OWN_OPTIONS.1, 1).trim_end())
}

/// `argument` as it can be shown: quotes around it, everything unprintable escaped.
#[expect(clippy::unnecessary_debug_formatting, reason = "its quotes and escapes are wanted here")]
pub(crate) fn quoted(argument: &OsStr) -> String {
    format!("{argument:?}")
}

/// A sentence that names the candidate that `name` was probably meant to be; empty when there is none.
pub(crate) fn did_you_mean<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| format!(", did you mean `{candidate}`?"))
        .unwrap_or_default()
}

fn is_long_option(name: &str) -> bool {
    name.len() > 2 && name.starts_with("--") && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

fn before_separator<'a>(words: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    words.iter().copied().take_while(|word| *word != "--")
}

/// The options that exist where `problem` happened are those that the help at that place names.
fn near_flag<T: FromArgs>(command: &[&str], words: &[&str], problem: &str) -> String {
    let Some(unknown) = problem.strip_prefix("Unrecognized argument: ").map(str::trim_end) else {
        return String::new();
    };
    let mut until: Vec<&str> = words.iter().copied().take_while(|word| *word != unknown).collect();
    until.push("--help");
    match T::from_args(command, &until) {
        Err(EarlyExit { output: help, status: Ok(()) }) => {
            let flags = help.split([' ', ',', '[', ']', '\n']).filter(|word| is_long_option(word));
            did_you_mean(unknown, flags)
        }
        Ok(_) | Err(_) => String::new(),
    }
}

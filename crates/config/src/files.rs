//! Configuration files: which ones there are, reading them, and saying what became of each.
//!
//! Files are optional, because the platform's deployments may run on variables alone: one that is not there is a fact
//! for the log. One that is there and cannot be understood is a problem.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use attune_yaml::Node;

use crate::Source;
use crate::problem::{Note, Problem};

/// The variable that names the base file.
pub(crate) const FILE_VARIABLE: &str = "ATTUNE_CONFIG";

/// The base file when nothing names another.
const DEFAULT_FILE: &str = "config.yaml";

/// The variable that names the environment, and so the second file.
pub(crate) const ENVIRONMENT_VARIABLE: &str = "ATTUNE__ENVIRONMENT";

/// The environment when nothing names another.
pub(crate) const DEFAULT_ENVIRONMENT: &str = "development";

/// Larger files are not configuration.
const MOST_BYTES: u64 = 4 << 20;

/// A file that was read.
pub(crate) struct LoadedFile {
    /// As it was named.
    pub(crate) path: PathBuf,
    /// Its document: a mapping, or null when it is empty.
    pub(crate) root: Node,
}

/// What became of the files.
#[derive(Default)]
pub(crate) struct Files {
    /// The strongest first.
    pub(crate) loaded: Vec<LoadedFile>,
    /// One for each file.
    pub(crate) notes: Vec<Note>,
    /// Files that cannot be understood.
    pub(crate) problems: Vec<Problem>,
}

/// Where to look.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    /// From the command line.
    pub(crate) named: Option<&'a Path>,
    /// The working folder.
    pub(crate) folder: &'a Path,
    /// Name of the environment.
    pub(crate) environment: &'a str,
}

/// Reads the base file and the one of the environment.
pub(crate) fn load(places: &Places<'_>, source: &dyn Source) -> Files {
    let Places { named, folder, environment } = *places;
    let mut files = Files::default();
    files.read(
        &folder.join(format!("config.{environment}.yaml")),
        &format!("for the environment `{environment}`"),
        Missing::Normal,
    );
    let variable = source.get(FILE_VARIABLE).filter(|value| !value.is_empty());
    match (named, variable) {
        (Some(path), _) => files.read(&folder.join(path), "named by --config", Missing::Odd),
        (None, Some(path)) => files.read(&folder.join(path), &format!("named by {FILE_VARIABLE}"), Missing::Odd),
        (None, None) => files.read(&folder.join(DEFAULT_FILE), "the default", Missing::Normal),
    }
    files
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Normal,
    Odd,
}

impl Files {
    fn read(&mut self, path: &Path, why: &str, missing: Missing) {
        let shown = path.display();
        let skipped = |reason: &str| format!("configuration file {shown} ({why}) skipped: {reason}");
        match content(path) {
            Ok(Content::Text(text)) => self.parse(path, why, &text),
            Ok(Content::Folder) => self.notes.push(Note::Warning(skipped(
                "it is a folder; container engines make one when the file to be mounted does not exist",
            ))),
            Ok(Content::NotThere) if missing == Missing::Odd => {
                self.notes.push(Note::Warning(skipped("it does not exist")));
            }
            Ok(Content::NotThere) => self.notes.push(Note::Info(skipped("it does not exist"))),
            Err(error) => self.problem(path, None, format!("cannot be read: {error}")),
        }
    }

    fn parse(&mut self, path: &Path, why: &str, text: &str) {
        let other = path.extension().and_then(|extension| extension.to_str()).is_some_and(|extension| {
            ["toml", "ini", "ron", "json5"].iter().any(|other| extension.eq_ignore_ascii_case(other))
        });
        if other {
            self.problem(path, None, "only YAML and JSON are read".to_owned());
            return;
        }
        match attune_yaml::parse(text) {
            Ok(root) if root.is_null() || root.as_mapping().is_some() => {
                self.notes.push(Note::Info(format!("configuration file {} ({why}) used", path.display())));
                self.loaded.push(LoadedFile { path: path.to_owned(), root });
            }
            Ok(root) => {
                self.problem(path, Some(root.line), format!("must hold a mapping of sections, not {}", root.kind()));
            }
            Err(error) => self.problem(path, Some(error.line), error.message),
        }
    }

    fn problem(&mut self, path: &Path, line: Option<u32>, message: String) {
        let place = match line {
            Some(line) => format!("{}:{line}", path.display()),
            None => path.display().to_string(),
        };
        self.problems.push(Problem { place, message });
    }
}

enum Content {
    Text(String),
    Folder,
    NotThere,
}

fn content(path: &Path) -> io::Result<Content> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Content::NotThere);
        }
        Err(error) => return Err(error),
    };
    if file.metadata()?.is_dir() {
        return Ok(Content::Folder);
    }
    let text = bounded_text(&mut file)?;
    Ok(Content::Text(text))
}

fn bounded_text(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MOST_BYTES) {
        return Err(io::Error::other(format!("it is larger than {MOST_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_bytes| io::Error::other("it is not UTF-8"))
}

/// The secret in the file `path`, without the newline that editors put at its end.
pub(crate) fn secret(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.is_dir() {
        return Err(io::Error::other("it is a folder"));
    }
    let text = bounded_text(&mut File::open(path)?)?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

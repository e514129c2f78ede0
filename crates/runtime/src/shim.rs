//! Shims of version managers: scripts that look up the chosen version and start it, at a price of tens of milliseconds.
//!
//! The chosen version is in small files, so the real interpreter is found here without starting anything. Where that is
//! not clear, the shim itself is used: it knows best.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use attune_model::version::{Version, covers};

use crate::host::Host;
use crate::places::is_executable;

/// How much of a script is read to recognise it.
const SCRIPT_HEAD_BYTES: u64 = 4096;

/// What a file in a `shims` folder comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// An ordinary program.
    NotAShim,
    /// A shim that stands for this program.
    To(PathBuf),
    /// A shim whose manager has chosen no version that has the program: starting it would fail.
    Nothing,
    /// A shim of a kind or with a choice that is not understood here.
    Unclear,
}

/// Managers that share one layout: `versions/NAME/bin`, a `version` file, and a file of the project.
const FAMILY: &[(&str, &str)] =
    &[("pyenv", ".python-version"), ("rbenv", ".ruby-version"), ("nodenv", ".node-version"), ("goenv", ".go-version")];

/// What starting `path` comes to.
pub(crate) fn resolve(path: &Path, host: &Host) -> Resolved {
    let Some((root, name)) = parts_of_shim(path) else {
        return Resolved::NotAShim;
    };
    let Some(script) = script_head(path) else {
        return Resolved::Unclear;
    };
    for (manager, version_file) in FAMILY {
        if script.contains(&format!("/{manager}\" exec")) {
            let versions = chosen_versions(root, manager, version_file, host);
            return installed(&root.join("versions"), &versions, name);
        }
    }
    if script.contains("asdf exec") { asdf(&script, root, name, host) } else { Resolved::Unclear }
}

/// `ROOT/shims/NAME`.
fn parts_of_shim(path: &Path) -> Option<(&Path, &OsStr)> {
    let folder = path.parent()?;
    if folder.file_name()? != "shims" {
        return None;
    }
    Some((folder.parent()?, path.file_name()?))
}

fn script_head(path: &Path) -> Option<String> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(SCRIPT_HEAD_BYTES).read_to_end(&mut head).ok()?;
    let text = String::from_utf8(head).ok()?;
    text.starts_with("#!").then_some(text)
}

/// The manager's variable, else the project's file, else the global file.
fn chosen_versions(root: &Path, manager: &str, version_file: &str, host: &Host) -> Vec<String> {
    let variable = format!("{}_VERSION", manager.to_uppercase());
    if let Some(value) = host.var(&variable).and_then(OsStr::to_str).filter(|value| !value.is_empty()) {
        return value.split(':').map(str::to_owned).collect();
    }
    let folders = host.directory().into_iter().flat_map(Path::ancestors);
    let files = folders.map(|folder| folder.join(version_file)).chain([root.join("version")]);
    files.filter_map(|file| fs::read_to_string(file).ok()).map(|text| words(&text)).next().unwrap_or_default()
}

/// The first word of every line that is no comment.
fn words(text: &str) -> Vec<String> {
    let first_words = text.lines().filter_map(|line| line.split_whitespace().next());
    first_words.filter(|word| !word.starts_with('#')).map(str::to_owned).collect()
}

/// The program in the first chosen version that has it. `system` and no choice at all mean: whatever comes later in
/// `PATH`.
fn installed(versions: &Path, chosen: &[String], name: &OsStr) -> Resolved {
    for wanted in chosen.iter().filter(|wanted| *wanted != "system") {
        let wanted = wanted.strip_prefix("python-").unwrap_or(wanted);
        let folder =
            if versions.join(wanted).is_dir() { Some(versions.join(wanted)) } else { newest(versions, wanted) };
        if let Some(program) = folder.map(|folder| folder.join("bin").join(name)).filter(|file| is_executable(file)) {
            return Resolved::To(program);
        }
    }
    Resolved::Nothing
}

/// `3.11` stands for the newest 3.11 that is installed.
fn newest(versions: &Path, line: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(versions).ok()?.flatten().map(|entry| entry.path());
    let named = entries.filter_map(|folder| {
        let text = folder.file_name()?.to_str()?;
        let is_release = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        (is_release && covers(line, text)).then(|| Version::parse(text)).flatten().map(|version| (version, folder))
    });
    named.max_by_key(|(version, _)| *version).map(|(_, folder)| folder)
}

/// asdf's shims list the versions that have the program: `# asdf-plugin: python 3.11.4`. With more than one, the choice
/// is in `.tool-versions`.
fn asdf(script: &str, root: &Path, name: &OsStr, host: &Host) -> Resolved {
    let listed: Vec<(&str, &str)> = script
        .lines()
        .filter_map(|line| line.strip_prefix("# asdf-plugin: "))
        .filter_map(|line| line.trim().split_once(' '))
        .collect();
    let Some(&(plugin, _)) = listed.first() else {
        return Resolved::Unclear;
    };
    if listed.iter().any(|(other, _)| *other != plugin) {
        return Resolved::Unclear;
    }
    let folders = host.directory().into_iter().flat_map(Path::ancestors).chain(host.home());
    let chosen = folders.filter_map(|folder| fs::read_to_string(folder.join(".tool-versions")).ok()).find_map(|text| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(plugin)?.strip_prefix(' ').map(str::to_owned));
        line.and_then(|versions| versions.split_whitespace().next().map(str::to_owned))
    });
    let Some(version) = chosen else {
        return Resolved::Nothing;
    };
    let program = root.join("installs").join(plugin).join(&version).join("bin").join(name);
    match version.as_str() {
        "system" => Resolved::Nothing,
        _ if is_executable(&program) => Resolved::To(program),
        _ => Resolved::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::program;

    const PYENV_SHIM: &str = "exec \"/x/.pyenv/libexec/pyenv\" exec \"$program\" \"$@\"";

    struct Pyenv(tempfile::TempDir);

    impl Pyenv {
        fn new(global: &str) -> Self {
            let pyenv = Self(tempfile::tempdir().unwrap());
            for version in ["3.9.1", "3.11.7", "3.11.10", "3.12.1"] {
                program(&pyenv.program(version), "");
            }
            program(&pyenv.shim(), PYENV_SHIM);
            fs::write(pyenv.0.path().join("version"), global).unwrap();
            pyenv
        }

        fn shim(&self) -> PathBuf {
            self.0.path().join("shims/python3")
        }

        fn program(&self, version: &str) -> PathBuf {
            self.0.path().join("versions").join(version).join("bin/python3")
        }

        fn resolved(&self, host: &Host) -> Resolved {
            resolve(&self.shim(), host)
        }
    }

    fn host(vars: &[(&str, &str)]) -> Host {
        Host::new(vars.iter().map(|&(name, value)| (name.into(), value.into())).collect())
    }

    #[test]
    fn the_global_version_is_the_one_that_the_shim_would_start() {
        let pyenv = Pyenv::new("3.11.7\n3.12.1\n");
        assert_eq!(pyenv.resolved(&host(&[])), Resolved::To(pyenv.program("3.11.7")));
    }

    #[test]
    fn a_line_of_versions_means_its_newest_release() {
        let pyenv = Pyenv::new("# ours\n3.11\n");
        assert_eq!(pyenv.resolved(&host(&[])), Resolved::To(pyenv.program("3.11.10")));
    }

    #[test]
    fn the_project_and_the_variable_come_before_the_global_version() {
        let pyenv = Pyenv::new("3.9.1");
        let project = tempfile::tempdir().unwrap();
        fs::create_dir(project.path().join("below")).unwrap();
        fs::write(project.path().join(".python-version"), "3.12.1\n").unwrap();
        let inside = |vars| host(vars).in_directory(project.path().join("below"));
        assert_eq!(pyenv.resolved(&inside(&[])), Resolved::To(pyenv.program("3.12.1")));
        assert_eq!(pyenv.resolved(&inside(&[("PYENV_VERSION", "3.11.7")])), Resolved::To(pyenv.program("3.11.7")));
    }

    #[test]
    fn a_shim_without_an_installed_choice_stands_for_nothing() {
        for global in ["system", "3.8.0", ""] {
            assert_eq!(Pyenv::new(global).resolved(&host(&[])), Resolved::Nothing, "{global:?}");
        }
    }

    #[test]
    fn other_programs_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let plain = program(&dir.path().join("bin/python3"), PYENV_SHIM);
        assert_eq!(resolve(&plain, &host(&[])), Resolved::NotAShim);
        let unknown = program(&dir.path().join("shims/python3"), "exec something-else");
        assert_eq!(resolve(&unknown, &host(&[])), Resolved::Unclear);
    }

    #[test]
    fn asdf_is_resolved_through_the_tool_versions_of_the_home_folder() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(".asdf");
        let shim = program(
            &root.join("shims/node"),
            "# asdf-plugin: nodejs 18.1.0\n# asdf-plugin: nodejs 20.1.0\nexec asdf exec \"node\" \"$@\"",
        );
        let real = program(&root.join("installs/nodejs/20.1.0/bin/node"), "");
        let host = host(&[("HOME", dir.path().to_str().unwrap())]);
        assert_eq!(resolve(&shim, &host), Resolved::Nothing);
        fs::write(dir.path().join(".tool-versions"), "python 3.12.1\nnodejs 20.1.0 18.1.0\n").unwrap();
        assert_eq!(resolve(&shim, &host), Resolved::To(real));
    }
}

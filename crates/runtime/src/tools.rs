//! Whether an interpreter can make environments, told from files alone.
//!
//! Asking the tools themselves would take longer than everything else in detection together (`npm --version`: half a
//! second).

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::host::Host;
use crate::places::is_executable;

/// One thing that building environments needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tool {
    /// `venv`, `pip`, `npm`, `bundler`, …
    pub name: &'static str,
    /// Whether it is there; none when that cannot be told without starting something.
    pub available: Option<bool>,
}

/// The tools of one runtime.
pub(crate) fn of(runtime: &str, program: &Path, real_path: &Path, host: &Host) -> Vec<Tool> {
    let beside =
        |name: &'static str, binary: &str| Tool { name, available: Some(is_beside(binary, program, real_path, host)) };
    match runtime {
        "python" => python(real_path),
        "node" => vec![beside("npm", "npm")],
        "ruby" => vec![beside("bundler", "bundle")],
        "java" => vec![beside("maven", "mvn")],
        "perl" => vec![beside("cpanm", "cpanm"), beside("cpan", "cpan")],
        // A shell has no environments; go and R bring what they need.
        _ => Vec::new(),
    }
}

/// In the folder of the interpreter, as found or as resolved, or anywhere programs are looked for.
fn is_beside(binary: &str, program: &Path, real_path: &Path, host: &Host) -> bool {
    let folders = [program, real_path].into_iter().filter_map(Path::parent);
    folders.map(|folder| folder.join(binary)).any(|file| is_executable(&file)) || host.find(binary).is_some()
}

/// `PREFIX/bin/python3.12` keeps its library in `PREFIX/lib/python3.12`.
fn python(real_path: &Path) -> Vec<Tool> {
    let library = library_of(real_path);
    let has = |module: &str| library.as_deref().map(|library| library.join(module).join("__init__.py").is_file());
    // Debian packages ensurepip apart from the interpreter; without it `python3 -m venv` fails.
    let venv = has("venv").zip(has("ensurepip")).map(|(venv, ensurepip)| venv && ensurepip);
    vec![Tool { name: "venv", available: venv }, Tool { name: "pip", available: library.as_deref().map(has_pip) }]
}

fn library_of(real_path: &Path) -> Option<PathBuf> {
    let prefix = real_path.parent()?.parent()?;
    let name = real_path.file_name()?.to_str()?;
    for library in ["lib", "lib64"].map(|library| prefix.join(library)) {
        let exact = library.join(name);
        if exact.join("os.py").is_file() {
            return Some(exact);
        }
        // The file may be called plain `python3` or `python`: then the one library that is there is its own.
        let mut others = fs::read_dir(&library).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_library = |path: &PathBuf| path.file_name().is_some_and(is_library_name) && path.join("os.py").is_file();
        if let (Some(only), None) = (others.find(&is_library), others.find(&is_library)) {
            return Some(only);
        }
    }
    None
}

fn is_library_name(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("python"))
}

fn has_pip(library: &Path) -> bool {
    let debian = library.parent().map(|parent| parent.join("python3/dist-packages"));
    let folders = [Some(library.join("site-packages")), Some(library.join("dist-packages")), debian];
    folders.into_iter().flatten().any(|folder| folder.join("pip/__init__.py").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::program;

    fn available(tools: &[Tool], name: &str) -> Option<bool> {
        tools.iter().find(|tool| tool.name == name).unwrap().available
    }

    fn module(library: &Path, name: &str) {
        fs::create_dir_all(library.join(name)).unwrap();
        fs::write(library.join(name).join("__init__.py"), "").unwrap();
    }

    #[test]
    fn a_python_without_ensurepip_cannot_make_environments() {
        let dir = tempfile::tempdir().unwrap();
        let python = program(&dir.path().join("bin/python3.12"), "");
        let library = dir.path().join("lib/python3.12");
        module(&library, "venv");
        fs::write(library.join("os.py"), "").unwrap();
        let host = Host::new(Vec::new()).path_only();
        let tools = of("python", &python, &python, &host);
        assert_eq!((available(&tools, "venv"), available(&tools, "pip")), (Some(false), Some(false)));
        module(&library, "ensurepip");
        module(&library.join("site-packages"), "pip");
        let tools = of("python", &python, &python, &host);
        assert_eq!((available(&tools, "venv"), available(&tools, "pip")), (Some(true), Some(true)));
    }

    #[test]
    fn a_python_whose_library_is_not_found_is_not_judged() {
        let dir = tempfile::tempdir().unwrap();
        let python = program(&dir.path().join("bin/python3"), "");
        assert_eq!(available(&of("python", &python, &python, &Host::new(Vec::new())), "venv"), None);
    }

    #[test]
    fn npm_counts_beside_node_and_anywhere_in_path() {
        let dir = tempfile::tempdir().unwrap();
        let node = program(&dir.path().join("node/bin/node"), "");
        let elsewhere = dir.path().join("other");
        let host = Host::new(vec![("PATH".into(), elsewhere.clone().into())]).path_only();
        assert_eq!(available(&of("node", &node, &node, &host), "npm"), Some(false));
        program(&elsewhere.join("npm"), "");
        assert_eq!(available(&of("node", &node, &node, &host), "npm"), Some(true));
    }
}

//! Detection on machines made of scripts, and on this one.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use attune_runtime::image::{Image, Libc};
use attune_runtime::{Detected, Host, detect};

fn program(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn machine(programs: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    for (name, script) in programs {
        program(&dir.path().join(name), script);
    }
    let host = Host::new(vec![("PATH".into(), dir.path().into())]).path_only();
    (dir, host)
}

fn named<'a>(detected: &'a [Detected], name: &str) -> &'a Detected {
    detected.iter().find(|found| found.name == name).unwrap()
}

#[test]
fn what_interpreters_print_becomes_their_version_in_the_order_of_the_platform() {
    let (dir, host) = machine(&[
        ("perl", "echo 'This is perl 5, version 36, subversion 0 (v5.36.0)'"),
        ("java", "echo 'openjdk version \"17\" 2021-09-14' >&2"),
        ("go", "[ \"$*\" = version ] && echo go version go1.22.5 linux/amd64"),
        ("nodejs", "echo v20.19.0"),
        ("python", "echo Python 2.7.18 >&2; exit 3"),
    ]);
    let detected = detect(&host);
    let names: Vec<_> = detected.iter().map(|found| found.name).collect();
    assert_eq!(names, ["shell", "python", "node", "go", "java", "perl"]);
    let version = |name| named(&detected, name).version.clone().unwrap();
    assert_eq!(["python", "node", "go", "java", "perl"].map(version), ["2.7.18", "20.19.0", "1.22.5", "17", "5.36.0"]);
    assert_eq!(named(&detected, "node").path, dir.path().join("nodejs"));
}

#[test]
fn the_first_binary_wins_even_when_it_tells_nothing() {
    let (dir, host) = machine(&[("python3", "exit 1"), ("python", "echo Python 3.12.1")]);
    let detected = detect(&host);
    let python = named(&detected, "python");
    assert_eq!((&python.path, &python.version), (&dir.path().join("python3"), &None));
    assert_eq!(python.problem.as_deref(), Some("printed no version (exit code 1)"));
}

#[test]
fn an_interpreter_that_hangs_is_given_up_and_the_others_are_there() {
    let (_dir, host) = machine(&[("python3", "exec /bin/sleep 600"), ("node", "echo v20.19.0")]);
    let detected = detect(&host);
    assert_eq!(named(&detected, "python").problem.as_deref(), Some("gave no version within 2 s"));
    assert_eq!(named(&detected, "node").version.as_deref(), Some("20.19.0"));
}

#[test]
fn an_interpreter_that_cannot_start_is_still_reported() {
    let (dir, host) = machine(&[]);
    let python = dir.path().join("python3");
    fs::write(&python, "#!/nowhere/interpreter\n").unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let detected = detect(&host);
    let problem = named(&detected, "python").problem.clone().unwrap();
    assert!(problem.contains("/nowhere/interpreter"), "{problem}");
}

#[test]
fn a_shim_is_reported_where_it_is_found_with_the_interpreter_behind_it() {
    let (dir, _) = machine(&[
        (".pyenv/shims/python3", "exec \"/nowhere/.pyenv/libexec/pyenv\" exec \"$program\" \"$@\""),
        (".pyenv/versions/3.12.1/bin/python3.12", "echo Python 3.12.1"),
    ]);
    let pyenv = dir.path().join(".pyenv");
    symlink("python3.12", pyenv.join("versions/3.12.1/bin/python3")).unwrap();
    fs::write(pyenv.join("version"), "3.12.1\n").unwrap();
    let host = Host::new(vec![("PATH".into(), pyenv.join("shims").into())]).path_only();
    let detected = detect(&host);
    let python = named(&detected, "python");
    assert_eq!(python.path, pyenv.join("shims/python3"));
    assert_eq!(python.real_path, pyenv.canonicalize().unwrap().join("versions/3.12.1/bin/python3.12"));
    assert_eq!(python.version.as_deref(), Some("3.12.1"));
    assert!(matches!(&python.image, Image::Script { interpreter, .. } if interpreter == Path::new("/bin/sh")));
}

#[test]
fn a_program_beside_path_is_found_below_the_home_folder() {
    let (dir, _) = machine(&[(".nvm/versions/node/v20.19.0/bin/only-here", "")]);
    let vars: Vec<(OsString, OsString)> = vec![("PATH".into(), "/nowhere".into()), ("HOME".into(), dir.path().into())];
    let found = Host::new(vars).find("only-here").unwrap();
    assert_eq!(found.path, dir.path().join(".nvm/versions/node/v20.19.0/bin/only-here"));
}

#[test]
fn the_shell_of_this_machine_is_a_program_for_it() {
    let host = Host::new(vec![("PATH".into(), PathBuf::from("/nowhere").into())]).path_only();
    let detected = detect(&host);
    let shell = named(&detected, "shell");
    assert!(shell.path.starts_with("/bin"));
    assert_eq!(shell.image.architecture(), Some(std::env::consts::ARCH));
    assert_ne!(shell.image.libc(), Libc::Unknown);
}

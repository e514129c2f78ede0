//! `attune-agents packs`: what it prints about good and bad packs, and with which code it ends.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the program under test is started the way a user starts it")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Exit code, standard output, standard error.
fn packs(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_attune-agents"))
        .arg("packs")
        .args(arguments)
        .env_clear()
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn shop() -> TempDir {
    let folder = TempDir::new().unwrap();
    let actions = folder.path().join("packs/shop/actions");
    fs::create_dir_all(&actions).unwrap();
    fs::write(folder.path().join("packs/shop/pack.yaml"), "ref: shop\nname: Shop\nlabel: Shop\nversion: 1.0.0\n")
        .unwrap();
    fs::write(actions.join("buy.yaml"), "ref: shop.buy\nentry_point: 'echo bought '\n").unwrap();
    folder
}

#[test]
fn the_packs_of_the_repository_have_no_problem() {
    let (code, stdout, stderr) = packs(Path::new(env!("CARGO_MANIFEST_DIR")), &["check", "packs"]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "2 packs good, 0 errors, 0 warnings\n", ""));
}

#[test]
fn check_prints_every_problem_with_its_place_and_ends_with_1_for_errors_only() {
    let folder = shop();
    let (code, stdout, _) = packs(folder.path(), &["check", "packs/shop"]);
    assert_eq!((code, stdout.as_str()), (0, "1 pack good, 0 errors, 0 warnings\n"));

    let file = folder.path().join("packs/shop/actions/buy.yaml");
    fs::write(&file, "ref: shop.buy\nentry_point: buy.sh\nparamters: {}\n").unwrap();
    let (code, stdout, _) = packs(folder.path(), &["check", "packs"]);
    let expected = "packs/shop/actions/buy.yaml:2: entry_point: packs/shop/actions/buy.sh: No such file or directory (os error 2)\n\
                    packs/shop/actions/buy.yaml:3: paramters: warning: unknown key, ignored; did you mean \"parameters\"?\n\
                    0 packs good, 1 error, 1 warning\n";
    assert_eq!((code, stdout.as_str()), (1, expected));

    fs::write(&file, "ref: shop.buy\nentry_point: 'echo bought '\nparamters: {}\n").unwrap();
    let (code, stdout, _) = packs(folder.path(), &["check", "packs"]);
    assert!(stdout.ends_with("1 pack good, 0 errors, 1 warning\n"), "{stdout}");
    assert_eq!(code, 0);
}

#[test]
fn show_says_what_is_in_a_pack_to_people_and_to_programs() {
    let folder = shop();
    let (code, stdout, _) = packs(folder.path(), &["show", "packs"]);
    assert_eq!(code, 0);
    assert!(stdout.starts_with("shop 1.0.0 (packs/shop)\n  action   shop.buy"), "{stdout}");
    let (code, stdout, stderr) = packs(folder.path(), &["show", "--json", "packs", "gone"]);
    let shown: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, stderr.as_str()), (1, ""));
    assert_eq!(shown["packs"][0]["actions"][0]["runtime"], "core.shell");
    assert_eq!(shown["problems"][0]["message"], "no such file or folder");
}

#[test]
fn a_call_without_a_folder_is_a_usage_error() {
    let folder = TempDir::new().unwrap();
    for arguments in [["check"].as_slice(), &["show"], &["show", "--jsn", "x"], &[]] {
        let (code, stdout, stderr) = packs(folder.path(), arguments);
        assert_eq!((code, stdout.as_str()), (64, ""), "{stderr}");
    }
}

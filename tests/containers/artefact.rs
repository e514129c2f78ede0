//! The file itself: that it needs nothing, is hardened, and says what is in it.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use crate::prepare;

const TOP: &str = env!("CARGO_MANIFEST_DIR");

/// The bound is for what is shipped; what is tested may be another profile.
const ANY_SIZE: &str = "1000000000";

fn succeeded(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

#[test]
fn the_file_is_static_hardened_and_stripped_and_starts() {
    let file = prepare::static_binary();
    succeeded(Command::new(format!("{TOP}/scripts/check-static")).arg(file).args(["--most-bytes", ANY_SIZE]));
}

#[test]
fn the_bill_of_materials_names_what_is_linked_with_its_version_and_nothing_that_only_tests_use() {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let output = succeeded(Command::new("python3").arg(format!("{TOP}/scripts/sbom")).args(["--target", &target]));
    let bill: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |component: &Value, key: &str| component[key].as_str().unwrap().to_owned();
    let components = bill["components"].as_array().unwrap();
    let named: BTreeSet<String> = components
        .iter()
        .map(|component| {
            format!("name = \"{}\"\nversion = \"{}\"", text(component, "name"), text(component, "version"))
        })
        .collect();
    let lock = fs::read_to_string(format!("{TOP}/Cargo.lock")).unwrap();
    let unknown: Vec<_> = named.iter().filter(|component| !lock.contains(component.as_str())).collect();
    assert!(unknown.is_empty(), "not in Cargo.lock: {unknown:?}");
    let has = |name: &str| named.iter().any(|component| component.starts_with(&format!("name = \"{name}\"")));
    for linked in ["tokio", "rustls", "ring", "sqlx-postgres", "lapin", "libsqlite3-sys"] {
        assert!(has(linked), "{linked} is missing");
    }
    for other in ["tempfile", "proptest", "attune-testkit"] {
        assert!(!has(other), "{other} is not linked");
    }
}

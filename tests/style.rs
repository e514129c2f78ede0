//! House rules that no lint knows.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "cargo is asked what it builds")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file that is longer holds more than one concept.
const MOST_LINES: usize = 500;

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    rust_files(Path::new(env!("CARGO_MANIFEST_DIR")), &mut found);
    assert!(found.len() > 50, "the walk found only {} files", found.len());
    found
}

/// Without the unit tests at the end of the file, which may play the user. Those in a file of their own end nothing.
fn without_unit_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

#[test]
fn no_source_file_is_longer_than_a_reader_can_hold() {
    let long: Vec<String> = sources()
        .iter()
        .map(|path| (fs::read_to_string(path).unwrap().lines().count(), path))
        .filter(|(lines, _)| *lines > MOST_LINES)
        .map(|(lines, path)| format!("{}: {lines}", path.display()))
        .collect();
    assert!(long.is_empty(), "split by concept: {long:#?}");
}

#[test]
fn every_source_file_says_first_what_it_is_for() {
    let silent: Vec<PathBuf> =
        sources().into_iter().filter(|path| !fs::read_to_string(path).unwrap().starts_with("//!")).collect();
    assert!(silent.is_empty(), "begin with `//!`: {silent:#?}");
}

#[test]
fn only_one_crate_touches_what_is_unsafe_and_only_the_binary_names_a_backend() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let place = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
        if !place.starts_with("crates/sys") && place != Path::new("tests/style.rs") {
            assert!(!text.contains("unsafe {"), "{} is not crates/sys", place.display());
        }
        let service = ["worker", "sensor", "hub"].iter().any(|name| place.starts_with(format!("crates/{name}/src")));
        if service {
            // Unit tests run on the embedded store; the service itself does not know it.
            let code = without_unit_tests(&text);
            for backend in ["attune_store_sqlite", "attune_store_postgres", "attune_bus_amqp", "MemoryBus"] {
                assert!(!code.contains(backend), "{} names the backend {backend}", place.display());
            }
        }
    }
}

#[test]
fn only_one_crate_starts_processes() {
    let homes = ["crates/process", "crates/sys", "crates/testkit"].map(Path::new);
    let mut seen = 0;
    for path in sources() {
        let place = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
        let is_test = place.components().any(|part| ["tests", "benches"].iter().any(|name| part.as_os_str() == *name));
        let text = fs::read_to_string(&path).unwrap();
        let starts = without_unit_tests(&text).lines().any(|line| {
            let names_command = line.contains("process::") && line.contains("Command") && line.contains("std::");
            names_command || line.contains("tokio::process")
        });
        if homes.iter().any(|home| place.starts_with(home)) {
            seen += usize::from(starts);
        } else {
            assert!(is_test || !starts, "{} starts processes: use attune_process", place.display());
        }
    }
    assert!(seen >= 3, "the walk found only {seen} places that start processes");
}

/// Heavy or dangerous libraries, and the one place that may depend on each; dev-dependencies are free.
const FENCED: &[(&str, &[&str])] = &[
    ("axum", &["hub", "health"]),
    ("chrono-tz", &["timer-sensor"]),
    ("croner", &["timer-sensor"]),
    ("hyper", &["hub", "health"]),
    ("jiff", &["timer-sensor"]),
    ("jsonwebtoken", &["security"]),
    ("lapin", &["bus-amqp"]),
    ("libc", &["sys"]),
    ("reqwest", &["http"]),
    ("ring", &["artefact", "runtime", "security"]),
    ("recurrence", &["timer-sensor"]),
    ("rustls", &["http", "bus-amqp"]),
    ("saphyr-parser", &["yaml"]),
    ("sqlx", &["store-sqlite", "store-postgres", "testkit"]),
    ("attune-bus-amqp", &[]),
    ("attune-store-postgres", &["testkit"]),
    ("attune-store-sqlite", &[]),
];

#[test]
fn each_fenced_library_has_one_way_in() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    let mut seen = 0;
    for entry in fs::read_dir(crates).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        let manifest = fs::read_to_string(entry.path().join("Cargo.toml")).unwrap();
        let normal = manifest.split("\n[dependencies]").nth(1).unwrap_or_default().split("\n[").next().unwrap();
        for (library, allowed) in FENCED {
            let depends = normal
                .lines()
                .any(|line| line.strip_prefix(library).is_some_and(|rest| rest.starts_with(['.', ' ', '='])));
            seen += usize::from(depends);
            assert!(!depends || allowed.contains(&name.as_str()), "crates/{name} must not depend on {library}");
        }
    }
    assert!(seen >= 12, "the walk found only {seen} uses of fenced libraries");
}

/// The names of what runs as a test: a function with the attribute, or one that takes its backend and stands in a list.
fn names_of_tests(sources: &[String]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let (mut of_a_backend, mut listed) = (BTreeSet::new(), BTreeSet::new());
    for text in sources {
        let (mut is_test, mut is_ignored) = (false, false);
        for line in text.lines().map(str::trim) {
            is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
            is_ignored |= line.starts_with("#[ignore");
            let declared = line.trim_start_matches("pub ").trim_start_matches("async ").strip_prefix("fn ");
            let Some((name, parameters)) = declared.and_then(|rest| rest.split_once('(')) else {
                // In a list a name stands alone; a call would have parentheses.
                let words = line.split(|character: char| ",; []".contains(character));
                listed.extend(words.filter(|_| !line.starts_with("//")).map(str::to_owned));
                continue;
            };
            if is_test && !is_ignored {
                names.insert(name.to_owned());
            }
            if ["on: Backend)", "lab: "].iter().any(|backend| parameters.starts_with(backend)) {
                of_a_backend.insert(name.to_owned());
            }
            (is_test, is_ignored) = (false, false);
        }
    }
    names.extend(of_a_backend.intersection(&listed).cloned());
    names
}

fn tests_of_the_project() -> BTreeSet<String> {
    let texts: Vec<String> = sources().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let names = names_of_tests(&texts);
    assert!(names.len() > 1000, "the walk found only {} tests", names.len());
    names
}

#[test]
fn only_what_runs_counts_as_a_test() {
    let text = "#[test]\nfn plain() {\n}\nfn helper() {\n}\n#[test]\n#[ignore = \"a child\"]\nfn child() {\n}\n\
                #[tokio::test(start_paused = true)]\nasync fn waits() {\n}\n\
                async fn listed(on: Backend) {\n}\npub async fn first(lab: &dyn Lab) {\n}\nasync fn forgotten(on: Backend) {\n}\n\
                backends! {\n    module: first,\n    listed,\n    helper,\n}\n";
    let names: Vec<String> = names_of_tests(&[text.to_owned()]).into_iter().collect();
    assert_eq!(names, ["first", "listed", "plain", "waits"]);
}

/// Whether a script has the named step and does it without being asked for it.
fn has_step(script: &str, step: &str) -> bool {
    let is_defined = script.lines().any(|line| line.starts_with(&format!("{step}() {{")));
    let all = script.lines().filter_map(|line| line.split_once("set -- ")).map(|(_, steps)| steps);
    let is_default = all.flat_map(str::split_whitespace).any(|word| word == step);
    is_defined && is_default
}

/// Every row of a page, and that the tests in its last cell exist.
fn assert_rows_have_tests(page: &str, heading: &str, fewest: usize) {
    let known = tests_of_the_project();
    let is_row =
        |line: &&str| line.starts_with("| ") && !["| test |", "| tests |"].iter().any(|end| line.ends_with(end));
    let rows: Vec<&str> = page.split_once(heading).unwrap().1.lines().filter(is_row).collect();
    assert!(rows.len() > fewest, "the page has only {} rows", rows.len());
    for row in rows {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        for test in cell.split(", ").map(|test| test.trim_matches('`')) {
            assert!(known.contains(test), "no test {test:?} for: {row}");
        }
    }
}

#[test]
fn every_promise_of_the_reliability_page_has_its_test() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md")).unwrap();
    assert_rows_have_tests(&page, "# Reliability", 20);
}

#[test]
fn every_rule_of_the_worker_has_its_test() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/worker.md")).unwrap();
    assert_rows_have_tests(&page, "## What the platform relies on", 45);
}

#[test]
fn every_rule_of_the_sensor_host_has_its_test() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sensors.md")).unwrap();
    assert_rows_have_tests(&page, "## What other programs rely on", 20);
}

/// Or its script, where it takes a build of its own.
#[test]
fn every_line_of_the_validation_checklist_of_the_injection_plan_has_its_test() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(top.join("docs/plans/sensor-agent-injection.md")).unwrap();
    let known = tests_of_the_project();
    let checklist = page.split_once("## Validation checklist").unwrap().1;
    let rows: Vec<&str> =
        checklist.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| test |")).collect();
    assert!(rows.len() > 50, "the checklist has only {} lines", rows.len());
    for row in rows {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let mut named = cell.split('`').skip(1).step_by(2).peekable();
        assert!(named.peek().is_some(), "nothing is named for: {row}");
        for name in named {
            let exists = match name.split_once(' ') {
                Some((script, step)) => has_step(&fs::read_to_string(top.join(script)).unwrap_or_default(), step),
                None if name.starts_with("scripts/") => top.join(name).is_file(),
                None => known.contains(name),
            };
            assert!(exists, "no {name:?} for: {row}");
        }
    }
}

/// Each `${NAME` or `${NAME:-default}` of the compose files.
fn variables_of_compose() -> BTreeSet<(String, Option<String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose");
    let mut found = BTreeSet::new();
    for file in ["docker-compose.yaml", "docker-compose.agent.yaml", "docker-compose.platform.yaml"] {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        for variable in text.split("${").skip(1).map(|rest| rest.split('}').next().unwrap()) {
            let (name, default) = match variable.split_once(":-") {
                Some((name, default)) => (name, Some(default.to_owned())),
                None => (variable.split(':').next().unwrap(), None),
            };
            found.insert((name.to_owned(), default));
        }
    }
    found
}

#[test]
fn the_example_of_an_environment_names_every_variable_of_the_compose_files_with_its_default() {
    let example = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/env.example")).unwrap();
    let lines: BTreeSet<&str> = example.lines().map(|line| line.trim_start_matches('#')).collect();
    let variables = variables_of_compose();
    assert!(variables.len() > 20, "the walk found only {} variables", variables.len());
    for (name, default) in variables {
        let is_there = match &default {
            Some(default) => lines.contains(format!("{name}={default}").as_str()),
            None => lines.iter().any(|line| line.starts_with(&format!("{name}=")) && !line.ends_with('=')),
        };
        assert!(is_there, "compose/env.example lacks {name}={}", default.unwrap_or_else(|| "…".to_owned()));
    }
}

#[test]
fn the_kubernetes_files_name_the_version_that_is_built() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, before) in [
        ("compose/kubernetes/base/kustomization.yaml", "newTag: \""),
        ("compose/kubernetes/image-volume/patch.yaml", "reference: attune/agent:"),
        ("docs/QUICKREF-kubernetes.md", "attune/agent:"),
        ("docs/QUICKREF-kubernetes.md", "newTag: \""),
    ] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let named = text.split_once(before).unwrap_or_else(|| panic!("{file} has no {before:?}")).1;
        assert!(named.starts_with(version), "{file} does not name {version} after {before:?}");
    }
}

/// A test that matches would not tell: with the libraries of the tests come all features of this one.
#[test]
fn the_shipped_binary_knows_the_classes_of_unicode_that_patterns_of_packs_use() {
    let tree = ["tree", "--offline", "--package", "attune-agents", "--edges", "normal", "--format", "{p} {f}"];
    let output = Command::new(env!("CARGO")).args(tree).args(["--invert", "regex-syntax"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let first = text.lines().next().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    for feature in ["unicode-case", "unicode-gencat", "unicode-perl"] {
        assert!(first.split([' ', ',']).any(|found| found == feature), "{feature} is missing in {first}");
    }
}

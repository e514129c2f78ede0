//! The packs of this repository are what they should be: no error, no warning.

use std::path::{Path, PathBuf};

use attune_packs::{load, load_action};

fn packs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packs")
}

#[test]
fn every_pack_of_the_repository_loads_without_a_warning() {
    let loaded = load(&[packs()]);
    let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let refs: Vec<&str> = loaded.packs.iter().map(|content| content.pack.r#ref.as_str()).collect();
    assert_eq!(refs, ["core", "demo"]);
}

#[test]
fn the_core_pack_has_what_the_platform_names() {
    let loaded = load(&[packs().join("core")]);
    let core = &loaded.packs[0].pack;
    let mut runtimes: Vec<(&str, &str)> =
        core.runtimes.iter().map(|runtime| (runtime.r#ref.as_str(), runtime.name.as_str())).collect();
    runtimes.sort_unstable();
    assert_eq!(
        runtimes,
        [
            ("core.go", "Go"),
            ("core.java", "Java"),
            ("core.native", "Native"),
            ("core.nodejs", "Node.js"),
            ("core.perl", "Perl"),
            ("core.python", "Python"),
            ("core.r", "R"),
            ("core.ruby", "Ruby"),
            ("core.shell", "Shell"),
        ]
    );
    let triggers: Vec<&str> = core.triggers.iter().map(|trigger| trigger.r#ref.as_str()).collect();
    assert_eq!(
        triggers,
        ["core.alert", "core.crontimer", "core.datetimetimer", "core.intervaltimer", "core.rruletimer"]
    );
    let actions: Vec<&str> = core.actions.iter().map(|action| action.r#ref.as_str()).collect();
    assert_eq!(actions, ["core.echo", "core.http_request", "core.noop", "core.sleep"]);
    assert_eq!(core.sensors[0].entrypoint, "attune-core-timer-sensor");
    assert_eq!(core.sensors[0].runtime_ref, "core.native");
}

#[test]
fn one_action_is_loaded_with_nothing_but_its_runtimes() {
    let loaded = load_action(&[packs()], "core.noop").unwrap();
    let core = &loaded.packs[0].pack;
    assert_eq!((core.actions.len(), core.runtimes.len(), core.triggers.len()), (1, 9, 0));
    assert_eq!(core.actions[0].runtime_ref.as_deref(), Some("core.shell"));
}

//! Packs with mistakes: all of them are named with file, line and field, and other packs are not touched.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use attune_packs::{FindActionError, Loaded, load, load_action, reload};
use tempfile::TempDir;

const MANIFEST: &str = "ref: shop\nname: Shop\nlabel: Shop\nversion: 1.0.0\n";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn shop(files: &[(&str, &str)]) -> Self {
        let folder = Self::new();
        folder.write("shop/pack.yaml", MANIFEST);
        for (name, text) in files {
            folder.write(&format!("shop/{name}"), text);
        }
        folder
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn load(&self) -> Loaded {
        load(&[self.path().to_owned()])
    }

    /// Every problem, with paths from this folder on.
    fn problems(&self) -> Vec<String> {
        self.shown(&self.load())
    }

    fn shown(&self, loaded: &Loaded) -> Vec<String> {
        let root = format!("{}/", self.path().display());
        loaded.problems.iter().map(|problem| problem.to_string().replace(&root, "")).collect()
    }
}

fn refs(loaded: &Loaded) -> Vec<&str> {
    loaded.packs.iter().map(|content| content.pack.r#ref.as_str()).collect()
}

#[test]
fn every_mistake_of_a_pack_is_reported_at_once_and_the_pack_is_left_out() {
    let folder = Folder::new();
    folder.write(
        "shop/pack.yaml",
        "ref: shop\nlabel: Shop\nversion: 1.0\nconf_schema: {a: {secret: maybe}}\nconfig_schema: {}\n",
    );
    folder.write(
        "shop/actions/buy.yaml",
        "ref: shop.buy\nrunner_type: python\nentry_point: buy.py\nparameter_delivery: env\nparameter_fromat: json\n\
         parameters:\n  count: {type: integer, default: many}\ntimeout: 0\nruntime_version: '>= three'\n\
         worker_tolerations: {}\nlog_retention_policy: weeks\n",
    );
    folder.write("shop/triggers/sold.yaml", "ref: Shop.Sold\noutput: [a]\n");
    folder.write("shop/sensors/eye.yaml", "ref: shop.eye\nentry_point: ../eye\ntrigger_types: [shop.sold]\n");
    folder.write("shop/rules/r.yaml", "ref: r\ntrigger_ref: sold\nconditions: {field: a}\n");
    folder.write("shop/runtimes/lua.yaml", "ref: shop.lua\nname: Lua\naliases: [lua]\nexecution_config: {interpreter: {bin: lua}, environment: {}}\nversions: [{version: x}]\n");
    let expected = [
        "shop/actions/buy.yaml:3: entry_point: shop/actions/buy.py: No such file",
        "shop/actions/buy.yaml:4: parameter_delivery: must be one of stdin, file, not \"env\"",
        "shop/actions/buy.yaml:5: parameter_fromat: warning: unknown key, ignored; did you mean \"parameter_format\"?",
        "shop/pack.yaml:3: version: \"1.0\" is not a version of three numbers",
        "shop/pack.yaml:4: conf_schema: a: secret must be true or false",
        "shop/triggers/sold.yaml:1: ref: \"Shop.Sold\" must be lower case with exactly one dot, such as \"shop.sold\"",
        "shop/triggers/sold.yaml:2: output: must be a mapping, this is a list",
        "shop/sensors/eye.yaml:2: entry_point: \"../eye\" leaves the folder sensors/",
        "shop/rules/r.yaml:1: action_ref: required, but missing",
        "shop/rules/r.yaml:3: conditions: a mapping needs a text `expression`; this one never matches",
        "shop/runtimes/lua.yaml:4: execution_config: missing field `env_type`",
        "shop/runtimes/lua.yaml:4: execution_config.interpreter.bin: warning: unknown key",
        "shop/runtimes/lua.yaml:5: versions[0].version: \"x\" is not a version",
    ];
    let found = folder.problems();
    for line in expected {
        assert!(found.iter().any(|found| found.starts_with(line)), "{line}\nis not in\n{}", found.join("\n"));
    }
    assert_eq!(refs(&folder.load()), ["core"]);
}

#[test]
fn fields_of_an_action_are_checked_even_when_its_code_is_missing() {
    let folder = Folder::shop(&[(
        "actions/buy.yaml",
        "ref: shop.buy\nrunner_type: python\nentry_point: buy.py\nparameters:\n  count: {type: integer, default: many}\n\
         timeout: 0\nruntime_version: '>= three'\nworker_tolerations: {}\nlog_retention_policy: weeks\n",
    )]);
    let found = folder.problems();
    for start in [
        "shop/actions/buy.yaml:3: entry_point:",
        "shop/actions/buy.yaml:4: parameters: count: the default must be integer, not a text",
        "shop/actions/buy.yaml:6: timeout: must be from 1",
        "shop/actions/buy.yaml:7: runtime_version: version constraint",
        "shop/actions/buy.yaml:8: worker_tolerations:",
        "shop/actions/buy.yaml:9: log_retention_policy: must be one of versions, days, hours, minutes",
    ] {
        assert!(found.iter().any(|found| found.starts_with(start)), "{start}\nis not in\n{}", found.join("\n"));
    }
}

#[test]
fn a_broken_pack_does_not_touch_its_neighbours() {
    let folder = Folder::shop(&[]);
    folder.write("broken/pack.yaml", "ref: [");
    folder.write("broken2/pack.yaml", MANIFEST.replace("shop", "broken2").as_str());
    folder.write("broken2/actions/a.yaml", "ref: a: b");
    let loaded = folder.load();
    assert_eq!(refs(&loaded), ["core", "shop"]);
    assert!(loaded.has_errors());
    assert_eq!(folder.shown(&loaded).len(), 2);
}

#[test]
fn what_crosses_packs_must_exist_and_have_one_owner() {
    let folder = Folder::shop(&[
        ("triggers/sold.yaml", "ref: shop.sold\nparameters: {min: {type: integer, required: true}}\n"),
        ("sensors/one.yaml", "ref: shop.one\nentry_point: one\ntrigger_type: sold\n"),
        (
            "sensors/two.yaml",
            "ref: shop.two\nrunner_type: lua\nentry_point: two.lua\ntrigger_types: [shop.sold, shop.gone]\n",
        ),
        ("sensors/one", "#!/bin/sh\n"),
        ("sensors/two.lua", ""),
        ("rules/a.yaml", "ref: a\ntrigger_ref: sold\naction_ref: nothing\ntrigger_params: {min: x}\n"),
        (
            "rules/b.yaml",
            "ref: shop.b\ntrigger_ref: shop.sold\naction_ref: other.thing\ntrigger_params: {min: '{{ event.id }}'}\n",
        ),
        ("rules/c.yml", "ref: shop.a\ntrigger_ref: shop.sold\naction_ref: other.thing\n"),
    ]);
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path().join("shop/sensors/one"), executable).unwrap();
    let first = folder.problems();
    assert_eq!(first, ["shop/rules/c.yml:1: ref: the rule shop.a is already declared in shop/rules/a.yaml"],);
    std::fs::remove_file(folder.path().join("shop/rules/c.yml")).unwrap();
    assert_eq!(
        folder.problems(),
        [
            r#"shop/rules/a.yaml:3: action_ref: unknown action "shop.nothing""#,
            "shop/rules/a.yaml:4: trigger_params: min: must be integer, not a text",
            r#"shop/rules/b.yaml:3: action_ref: warning: action "other.thing": the pack other is not loaded"#,
            r#"shop/sensors/two.yaml:2: runner_type: unknown runtime "lua"; known are core.go, core.java, core.native, core.nodejs, core.perl, core.python, core.r, core.ruby, core.shell"#,
            "shop/sensors/two.yaml:4: trigger_types: shop.sold already belongs to the sensor shop.one, a trigger has one sensor only",
            r#"shop/sensors/two.yaml:4: trigger_types: unknown trigger "shop.gone""#,
        ]
    );
}

#[test]
fn what_starts_daemons_must_be_an_action_of_the_pack() {
    let folder = Folder::shop(&[
        ("actions/open.yaml", "ref: shop.open\nlabel: Open\nentry_point: echo open\n"),
        ("pack.yaml", &format!("{MANIFEST}meta: &m {{daemon_starters: [shop.open, shop.close]}}\nmetadata: *m\n")),
    ]);
    let wrong = "shop/pack.yaml:1: metadata: warning: daemon_starters lists actions of this pack by ref, and \"shop.close\" is none";
    assert_eq!(folder.problems(), [wrong]);
    assert!(!folder.load().has_errors());
}

#[test]
fn native_code_must_be_executable() {
    let folder = Folder::shop(&[
        ("actions/a.yaml", "ref: shop.a\nrunner_type: native\nentry_point: a\n"),
        ("actions/a", "#!/bin/sh\n"),
    ]);
    let found = folder.problems();
    assert_eq!(found, ["shop/actions/a.yaml:3: entry_point: shop/actions/a is not executable, run `chmod +x` on it"]);
}

#[test]
fn both_loaders_conventions_are_understood() {
    let folder = Folder::shop(&[
        ("actions/buy.yaml", "name: buy\nentry_point: actions/buy.py\n"),
        ("actions/buy.py", ""),
        ("actions/inline.yaml", "ref: shop.inline\nentry_point: echo hello\ntimeout: 5\n"),
        ("actions/flow.yaml", "ref: shop.flow\nworkflow_file: workflows/flow.yaml\n"),
        ("workflows/flow.yaml", "tasks: []\n"),
        ("rules/r.yaml", "ref: r\ntrigger_ref: t\naction_ref: buy\npermission_set_ref: editor\n"),
        ("triggers/t.yaml", "name: t\n"),
    ]);
    let loaded = folder.load();
    assert!(!loaded.has_errors(), "{:#?}", folder.shown(&loaded));
    let shop = &loaded.packs[1].pack;
    let buy = &shop.actions[0];
    assert_eq!((buy.r#ref.as_str(), buy.entrypoint.as_str()), ("shop.buy", "buy.py"));
    assert_eq!(buy.runtime_ref.as_deref(), Some("core.python"));
    let inline = &shop.actions[1];
    assert_eq!((inline.entrypoint.as_str(), inline.timeout_seconds), ("echo hello", Some(5)));
    assert_eq!(shop.actions.len(), 2);
    let rule = &shop.rules[0];
    assert_eq!((rule.r#ref.as_str(), rule.action_ref.as_str()), ("shop.r", "shop.buy"));
    assert_eq!(rule.permission_set_refs.as_deref(), Some(["editor".to_owned()].as_slice()));
    let warnings = folder.shown(&loaded);
    for part in [
        "no ref, taken as \"shop.buy\"",
        "taken as python",
        "workflows are not supported here",
        "flow.yaml:2: workflow_file:",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(part)), "{part}\n{}", warnings.join("\n"));
    }
}

#[test]
fn a_path_that_has_no_pack_is_an_error() {
    let folder = Folder::new();
    assert_eq!(folder.problems().len(), 1);
    let gone = load(&[PathBuf::from("/nowhere/at/all")]);
    assert_eq!(gone.problems[0].to_string(), "/nowhere/at/all: no such file or folder");
}

#[test]
fn the_same_pack_twice_is_an_error_of_the_second() {
    let folder = Folder::shop(&[]);
    folder.write("store/pack.yaml", MANIFEST);
    let loaded = folder.load();
    assert_eq!(refs(&loaded), ["core", "shop"]);
    let shown = folder.shown(&loaded);
    let expected = "store/pack.yaml:1: ref: the pack \"shop\" is already in ";
    assert!(shown.iter().any(|line| line.starts_with(expected)), "{shown:#?}");
    // One folder given twice is one pack.
    let shop = folder.path().join("shop");
    let twice = load(&[shop.clone(), shop.join("../shop")]);
    assert!(!twice.has_errors());
}

#[test]
fn a_changed_pack_is_checked_against_those_in_use() {
    let folder = Folder::shop(&[("triggers/t.yaml", "ref: shop.t\n")]);
    folder.write("more/pack.yaml", MANIFEST.replace("shop", "more").replace("Shop", "More").as_str());
    folder.write("more/rules/r.yaml", "ref: more.r\ntrigger_ref: shop.t\naction_ref: more.a\n");
    folder.write("more/actions/a.yaml", "ref: more.a\nentry_point: 'true '\n");
    let loaded = folder.load();
    assert_eq!(refs(&loaded), ["core", "more", "shop"]);
    folder.write("more/rules/r.yaml", "ref: more.r\ntrigger_ref: shop.gone\naction_ref: more.a\n");
    let again = reload(&folder.path().join("more"), &loaded.packs);
    assert!(again.packs.is_empty());
    assert_eq!(folder.shown(&again), [r#"more/rules/r.yaml:2: trigger_ref: unknown trigger "shop.gone""#]);
    folder.write("more/rules/r.yaml", "ref: more.r\ntrigger_ref: shop.t\naction_ref: more.a\nenabled: false\n");
    let again = reload(&folder.path().join("more"), &loaded.packs);
    assert!(!again.packs[0].pack.rules[0].enabled);
}

#[test]
fn one_action_is_found_whatever_its_file_is_called_and_missing_ones_are_explained() {
    let folder = Folder::shop(&[
        ("actions/other-name.yaml", "ref: shop.buy\nentry_point: 'echo hello '\n"),
        ("actions/zz.yaml", "ref: shop.zz\nrunner_type: ruby\nentry_point: gone.rb\n"),
        ("rules/broken.yaml", "not read at all: ["),
    ]);
    let paths = [folder.path().to_owned()];
    let loaded = load_action(&paths, "shop.buy").unwrap();
    assert_eq!(refs(&loaded), ["core", "shop"]);
    assert_eq!(loaded.packs[1].pack.actions.len(), 1);

    let error = load_action(&paths, "shop.nothing").unwrap_err();
    assert!(matches!(error, FindActionError::Broken(_)), "one of the broken files may be the wanted one: {error}");
    folder.write("shop/actions/zz.yaml", "ref: shop.zz\nentry_point: 'echo zz '\n");

    let shown = |action: &str| load_action(&paths, action).unwrap_err().to_string();
    assert_eq!(shown("buy"), "\"buy\" is not an action: write pack.name");
    assert!(shown("none.buy").starts_with("no pack \"none\" in "), "{}", shown("none.buy"));
    assert!(shown("shop.bye").ends_with("it has shop.buy, shop.zz"), "{}", shown("shop.bye"));
    folder.write("shop/actions/buy.yaml", "ref: shop.buy\nrunner_type: cobol\nentry_point: other-name.yaml\n");
    assert!(shown("shop.buy").contains("unknown runtime \"cobol\""), "{}", shown("shop.buy"));
}

#[test]
fn what_is_no_file_is_named_and_never_waited_for() {
    let folder = Folder::shop(&[("actions/buy.yaml", "ref: shop.buy\nentry_point: 'echo bought '\n")]);
    let actions = folder.path().join("shop/actions");
    std::os::unix::fs::symlink("/dev/zero", actions.join("endless.yaml")).unwrap();
    std::os::unix::fs::symlink("round.yaml", actions.join("round.yaml")).unwrap();
    std::os::unix::fs::symlink("gone", actions.join("dangling.yaml")).unwrap();
    std::fs::create_dir(actions.join("folder.yaml")).unwrap();
    std::fs::write(actions.join("huge.yaml"), vec![b' '; (4 << 20) + 1]).unwrap();
    let expected = [
        "shop/actions/dangling.yaml: no such file or folder",
        "shop/actions/endless.yaml: not a file",
        "shop/actions/folder.yaml: not a file",
        "shop/actions/huge.yaml: larger than the 4194304 bytes that are allowed",
        "shop/actions/round.yaml: Too many levels of symbolic links (os error 40)",
    ];
    assert_eq!(folder.problems(), expected);
}

#[test]
fn a_value_of_the_wrong_type_in_a_runtime_is_reported_on_its_own_line() {
    let folder = Folder::shop(&[(
        "runtimes/lua.yaml",
        "ref: shop.lua\nname: Lua\naliases: [lua]\nexecution_config:\n  interpreter:\n    binary: [lua]\n    args: -x\n  \
         env_vars:\n    PATH: {operation: shove, value: x}\n    GOOD: {operation: append, value: x}\nversions:\n  \
         - version: '5'\n    execution_config:\n      environment: {dir_name: x}\n",
    )]);
    let expected = [
        "shop/runtimes/lua.yaml:6: execution_config.interpreter.binary: invalid type: sequence, expected a string",
        "shop/runtimes/lua.yaml:7: execution_config.interpreter.args: invalid type: string \"-x\", expected a sequence",
        "shop/runtimes/lua.yaml:9: execution_config.env_vars.PATH: must be a text, or {value, operation: \
         set|prepend|append, separator}",
        "shop/runtimes/lua.yaml:13: versions[0].execution_config: missing field `env_type`",
    ];
    assert_eq!(folder.problems(), expected);
}

#[test]
fn placement_that_makes_no_sense_names_its_entry_once() {
    let folder = Folder::shop(&[(
        "actions/buy.yaml",
        "ref: shop.buy\nentry_point: 'echo bought '\nworker_tolerations: 5\nworker_selector: {gpu: [1]}\n",
    )]);
    let problems = folder.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].matches("worker_").count() == 1, "{problems:?}");
}

#[test]
fn a_pack_whose_manifest_is_no_file_is_not_passed_over() {
    let folder = Folder::shop(&[]);
    std::fs::create_dir_all(folder.path().join("folder/pack.yaml")).unwrap();
    std::fs::create_dir(folder.path().join("link")).unwrap();
    std::os::unix::fs::symlink("gone", folder.path().join("link/pack.yaml")).unwrap();
    std::fs::create_dir(folder.path().join("other")).unwrap();
    assert_eq!(folder.problems(), ["folder/pack.yaml: not a file", "link/pack.yaml: no such file or folder"]);
    assert_eq!(refs(&folder.load()), ["core", "shop"]);
}

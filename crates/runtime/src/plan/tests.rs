//! Planning on machines made of scripts.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use attune_model::execution_config::InlineStrategy;
use serde_json::{Value, json};

use super::*;
use crate::advertise::Tier;
use crate::environment::{Environment, InUse};
use crate::tests_support::program;

/// A machine with packs, and programs in `bin`.
struct World {
    dir: tempfile::TempDir,
    versions: Value,
}

impl World {
    fn new(programs: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in programs {
            program(&dir.path().join("bin").join(name), "");
        }
        fs::create_dir_all(dir.path().join("packs/demo/actions")).unwrap();
        fs::create_dir_all(dir.path().join("packs/demo/sensors")).unwrap();
        fs::write(dir.path().join("packs/demo/actions/run.py"), "").unwrap();
        fs::write(dir.path().join("packs/demo/sensors/watch.py"), "").unwrap();
        Self { dir, versions: json!({}) }
    }

    fn with_versions(self, versions: Value) -> Self {
        Self { versions, ..self }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn planner(&self) -> Planner {
        let host = Host::new(vec![("PATH".into(), self.path("bin").into())]).path_only();
        let runtime_versions: BTreeMap<String, Vec<String>> = serde_json::from_value(self.versions.clone()).unwrap();
        let bases = runtime_versions.iter().map(|(name, versions)| attune_model::capabilities::DetectedInterpreter {
            name: name.clone(),
            path: String::new(),
            version: versions.first().cloned(),
        });
        let advertised = Advertised {
            tier: Tier::Detected,
            runtimes: Vec::new(),
            detected_interpreters: bases.collect(),
            runtime_versions,
            handed_on: None,
            warnings: Vec::new(),
        };
        Planner::new(Arc::new(host), self.path("packs"), self.path("envs"), &advertised)
    }
}

fn runtime(name: &str, r#ref: &str, config: Value) -> Runtime {
    Runtime {
        id: RuntimeId(1),
        r#ref: r#ref.into(),
        pack: None,
        pack_ref: None,
        description: None,
        name: name.into(),
        aliases: Vec::new(),
        distributions: json!({}),
        execution_config: config,
    }
}

fn python() -> Runtime {
    let config = json!({
        "interpreter": {"binary": "python3", "args": ["-u"], "file_extension": ".py"},
        "environment": {"env_type": "virtualenv", "create_command": ["x"], "interpreter_path": "{env_dir}/bin/python3"},
        "env_vars": {
            "PYTHONPATH": {"value": "{pack_dir}/lib", "operation": "prepend"},
            "TRAIL": {"value": "end", "operation": "append", "separator": ";"},
            "WHERE": "{env_dir}|{interpreter}|{manifest_path}",
        },
    });
    runtime("Python", "core.python", config)
}

fn version(text: &str, is_default: bool) -> RuntimeVersion {
    RuntimeVersion {
        id: RuntimeVersionId(7),
        runtime: RuntimeId(1),
        runtime_ref: "core.python".into(),
        version: text.into(),
        execution_config: json!({"interpreter": {"binary": format!("python{text}")}}),
        distributions: json!({}),
        is_default,
        available: false,
    }
}

fn request<'a>(kind: Kind, entrypoint: &'a str, runtime: &'a Runtime) -> PlanRequest<'a> {
    let owner_ref = "demo.thing";
    PlanRequest {
        kind,
        owner_ref,
        pack_ref: "demo",
        entrypoint,
        is_adhoc: false,
        runtime,
        versions: &[],
        constraint: None,
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn an_action_is_started_by_its_interpreter_in_its_pack() {
    let world = World::new(&["python3"]);
    let python = python();
    let chosen = world.planner().choose(&request(Kind::Action, "run.py", &python)).unwrap();
    assert_eq!(chosen.env_dir, world.path("envs/demo/python"));
    let existing = [("PYTHONPATH".into(), "/old".into()), ("TRAIL".into(), "begin".into())];
    let plan = chosen.launch(&Environment::NotNeeded, &existing).unwrap();
    assert_eq!(plan.program, world.path("bin/python3"));
    assert_eq!(plan.args, [OsString::from("-u"), world.path("packs/demo/actions/run.py").into()]);
    assert_eq!(plan.cwd, Some(world.path("packs/demo")));
    let variable = |name: &str| plan.env.iter().find(|(key, _)| key == name).unwrap().1.to_str().unwrap().to_owned();
    assert_eq!(variable("PYTHONPATH"), format!("{}:/old", text(&world.path("packs/demo/lib"))));
    assert_eq!(variable("TRAIL"), "begin;end");
    let expected = [text(&world.path("envs/demo/python")), text(&plan.program), "{manifest_path}".to_owned()].join("|");
    assert_eq!(variable("WHERE"), expected);
}

#[test]
fn a_ready_environment_lends_its_interpreter_and_an_empty_variable_no_separator() {
    let world = World::new(&["python3"]);
    let python = python();
    let chosen = world.planner().choose(&request(Kind::Action, "run.py", &python)).unwrap();
    let inside = world.path("envs/demo/python/bin/python3");
    let plan = chosen
        .launch(
            &Environment::Ready {
                folder: chosen.env_dir.clone(),
                interpreter: Some(inside.clone()),
                in_use: InUse::default(),
            },
            &[],
        )
        .unwrap();
    assert_eq!(plan.program, inside);
    assert!(plan.env.contains(&("PYTHONPATH".into(), world.path("packs/demo/lib").into())));
    assert!(plan.env.contains(&("TRAIL".into(), "end".into())));
}

#[test]
fn a_sensor_runs_where_the_agent_is_and_has_a_folder_of_its_own_name() {
    let world = World::new(&["node", "python3"]);
    let python = python();
    let chosen = world.planner().choose(&request(Kind::Sensor, "watch.py", &python)).unwrap();
    let plan = chosen.launch(&Environment::NotNeeded, &[]).unwrap();
    assert_eq!(plan.cwd, None);
    assert_eq!(plan.args[1], world.path("packs/demo/sensors/watch.py"));
    let node = runtime("Node.js", "core.nodejs", json!({"interpreter": {"binary": "node"}}));
    let planner = world.planner();
    assert_eq!(planner.choose(&request(Kind::Sensor, "watch.py", &node)).unwrap().label, "nodejs");
    assert_eq!(planner.choose(&request(Kind::Action, "run.py", &node)).unwrap().label, "node.js");
}

#[test]
fn native_code_is_started_itself_and_must_be_executable() {
    let world = World::new(&[]);
    let native = runtime("Native", "core.native", json!({}));
    let tool = program(&world.path("packs/demo/actions/tool"), "");
    let planner = world.planner();
    let plan = |entrypoint| planner.choose(&request(Kind::Action, entrypoint, &native)).unwrap();
    let launched = plan("tool").launch(&Environment::NotNeeded, &[]).unwrap();
    assert_eq!((launched.program, launched.args.len(), launched.cwd), (tool.clone(), 0, None));
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = plan("tool").launch(&Environment::NotNeeded, &[]).unwrap_err();
    assert!(refused.to_string().ends_with("make it so with chmod +x"), "{refused}");
}

#[test]
fn an_entry_point_cannot_leave_its_folder() {
    let world = World::new(&["python3"]);
    let (python, planner) = (python(), world.planner());
    fs::write(world.path("packs/demo/secret.py"), "").unwrap();
    symlink(world.path("packs/demo/secret.py"), world.path("packs/demo/actions/link.py")).unwrap();
    let absolute = text(&world.path("packs/demo/secret.py"));
    symlink("..", world.path("packs/demo/actions/up")).unwrap();
    for entrypoint in ["../secret.py", "link.py", absolute.as_str(), "../actions/run.py", "up/secret.py"] {
        let refused = planner.choose(&request(Kind::Action, entrypoint, &python)).unwrap_err();
        assert!(matches!(refused, PlanError::Outside { .. }), "{entrypoint}: {refused}");
    }
    let pack = PlanRequest { pack_ref: "../demo", ..request(Kind::Action, "run.py", &python) };
    assert!(matches!(planner.choose(&pack).unwrap_err(), PlanError::PackRef { .. }));
    symlink(world.path("packs/demo/actions/run.py"), world.path("packs/demo/actions/same.py")).unwrap();
    assert!(planner.choose(&request(Kind::Action, "same.py", &python)).is_ok());
    symlink(".", world.path("packs/demo/actions/here")).unwrap();
    for entrypoint in ["here/same.py", "./run.py", "up/actions/run.py"] {
        assert!(planner.choose(&request(Kind::Action, entrypoint, &python)).is_ok(), "{entrypoint}");
    }
    // Where the pack itself is does not matter.
    fs::rename(world.path("packs/demo"), world.path("elsewhere")).unwrap();
    symlink(world.path("elsewhere"), world.path("packs/demo")).unwrap();
    assert!(planner.choose(&request(Kind::Action, "run.py", &python)).is_ok());
}

#[test]
fn shell_text_is_code_and_other_missing_files_are_named() {
    let world = World::new(&["sh", "python3"]);
    let config = json!({
        "interpreter": {"binary": "/nowhere/bash"},
        "inline_execution": {"strategy": "temp_file", "extension": ".sh", "inject_shell_helpers": true},
    });
    let shell = runtime("Shell", "core.shell", config);
    let planner = world.planner();
    let chosen = planner.choose(&request(Kind::Action, "echo $name && cat ../x", &shell)).unwrap();
    let plan = chosen.launch(&Environment::NotNeeded, &[]).unwrap();
    assert_eq!((plan.program, plan.args.len()), (world.path("bin/sh"), 0));
    let Code::Inline { text, execution } = plan.code else { panic!("inline code") };
    assert_eq!((text.as_str(), execution.strategy), ("echo $name && cat ../x", InlineStrategy::TempFile));

    let adhoc = PlanRequest { is_adhoc: true, ..request(Kind::Action, "run.py", &shell) };
    assert!(matches!(planner.choose(&adhoc).unwrap().code, Code::Inline { .. }));

    let python = python();
    let missing = planner.choose(&request(Kind::Action, "gone.py", &python)).unwrap_err().to_string();
    assert!(missing.contains("'demo.thing'") && missing.ends_with("packs/demo/actions/gone.py"), "{missing}");
}

#[test]
fn a_builtin_stands_in_for_a_file_that_the_pack_does_not_have_or_that_only_starts_it() {
    let world = World::new(&[]);
    let native = runtime("Native", "core.native", json!({}));
    let builtin = Builtin {
        name: "demo/timer".into(),
        program: "/bin/agent".into(),
        args: vec!["timer".into()],
        stand_in: b"#!agent",
    };
    let planner = world.planner().with_builtins(vec![builtin]);
    let plan =
        || planner.choose(&request(Kind::Sensor, "timer", &native)).unwrap().launch(&Environment::NotNeeded, &[]);
    assert_eq!(plan().unwrap().program, Path::new("/bin/agent"));
    let own = program(&world.path("packs/demo/sensors/timer"), "");
    assert_eq!(plan().unwrap().program, own);
    fs::write(&own, "#!other").unwrap();
    assert_eq!(plan().unwrap().program, own);
    fs::write(&own, "#!agent").unwrap();
    assert_eq!(plan().unwrap().program, Path::new("/bin/agent"));
}

#[test]
fn a_version_row_replaces_the_configuration_and_names_the_folder() {
    let world = World::new(&["python3", "python3.12"]).with_versions(json!({"python": ["3.12.4"]}));
    let python = python();
    let versions = [version("3.11", true), version("3.12", false)];
    for kind in [Kind::Action, Kind::Sensor] {
        let entrypoint = if kind == Kind::Action { "run.py" } else { "watch.py" };
        let chosen =
            world.planner().choose(&PlanRequest { versions: &versions, ..request(kind, entrypoint, &python) }).unwrap();
        assert_eq!(chosen.label, "python-3.12");
        assert!(chosen.config.environment.is_none(), "the row's configuration is not merged with the runtime's");
        assert_eq!(chosen.interpreter, Some(world.path("bin/python3.12")));
    }
}

#[test]
fn a_row_without_its_interpreter_gives_way_to_the_runtime_s_own_configuration() {
    let world = World::new(&["python3"]).with_versions(json!({"python": ["3.12.4"]}));
    let python = python();
    let versions = [version("3.12", true)];
    let with = |constraint| PlanRequest { versions: &versions, constraint, ..request(Kind::Action, "run.py", &python) };
    for constraint in [None, Some("3.12"), Some(">=3.12.2")] {
        assert_eq!(world.planner().choose(&with(constraint)).unwrap().label, "python", "{constraint:?}");
    }
}

#[test]
fn a_constraint_that_nothing_meets_is_an_error_that_says_what_is_here() {
    let world = World::new(&["python3"]).with_versions(json!({"python": ["3.11.9", "3.13"]}));
    let python = python();
    let versions = [version("3.13", true)];
    let with = |constraint| PlanRequest { versions: &versions, constraint, ..request(Kind::Action, "run.py", &python) };
    let refused = |constraint| world.planner().choose(&with(Some(constraint))).unwrap_err().to_string();
    assert_eq!(refused(">=4"), "action demo.thing needs core.python >=4, but this agent has 3.11.9, 3.13");
    let lacking = refused("3.13");
    assert!(lacking.ends_with("has 3.11.9, 3.13 and lacks python3.13"), "{lacking}");
    let unreadable = world.planner().choose(&with(Some("newest"))).unwrap_err();
    assert!(matches!(unreadable, PlanError::Constraint { .. }), "{unreadable}");
}

#[test]
fn a_missing_interpreter_and_a_malformed_configuration_are_named() {
    let world = World::new(&[]);
    let python = python();
    let missing = world.planner().choose(&request(Kind::Action, "run.py", &python)).unwrap_err().to_string();
    assert_eq!(missing, "interpreter 'python3' of core.python is not available for action 'demo.thing' on this agent");
    let odd = runtime("Python", "core.python", json!({"interpreter": "python3"}));
    let malformed = world.planner().choose(&request(Kind::Action, "run.py", &odd)).unwrap_err().to_string();
    assert_eq!(malformed, "execution_config of core.python cannot be read");
}

//! Environments made by the real tools of this machine, without a network.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use attune_model::RuntimeId;
use attune_model::activity::NoObserver;
use attune_runtime::Host;
use attune_runtime::environment::{Environment, Environments, InUse};
use attune_runtime::plan::{Chosen, Code, Kind};
use attune_testkit::wheel::{WHEEL, WHEEL_FILE};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    dir: tempfile::TempDir,
    host: Arc<Host>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        fs::create_dir(&home).unwrap();
        Self::at(dir, &home)
    }

    fn with_home(home: &Path) -> Self {
        Self::at(tempfile::tempdir().unwrap(), home)
    }

    fn at(dir: tempfile::TempDir, home: &Path) -> Self {
        fs::create_dir_all(dir.path().join("packs/demo")).unwrap();
        let path = ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into());
        Self { dir, host: Arc::new(Host::new(vec![path, ("HOME".into(), home.into())])) }
    }

    fn program(&self, name: &str) -> PathBuf {
        let found = self.host.find(name);
        found.unwrap_or_else(|| panic!("these tests need {name} on this machine")).program
    }

    fn pack(&self, name: &str) -> PathBuf {
        self.dir.path().join("packs/demo").join(name)
    }

    fn env_dir(&self) -> PathBuf {
        self.dir.path().join("envs/demo/tested")
    }

    fn chosen(&self, interpreter: &str, config: &Value) -> Chosen {
        Chosen {
            kind: Kind::Action,
            owner_ref: "demo.thing".into(),
            pack_ref: "demo".into(),
            runtime: RuntimeId(1),
            runtime_ref: "core.tested".into(),
            runtime_name: "tested".into(),
            version: None,
            config: serde_json::from_value(config.clone()).unwrap(),
            code: Code::File(self.pack("actions/x")),
            pack_dir: self.pack(""),
            env_dir: self.env_dir(),
            label: "tested".into(),
            interpreter: Some(self.program(interpreter)),
            interpreter_version: None,
        }
    }

    async fn ensure(&self, chosen: &Chosen) -> Environment {
        let environments = Environments::new(Arc::clone(&self.host), Arc::new(NoObserver));
        environments.ensure(chosen, None, std::future::pending()).await.unwrap()
    }

    /// What a program prints; panics unless it succeeds.
    fn told(&self, program: &Path, args: &[&str], env: &[(&str, PathBuf)]) -> String {
        let env = env.iter().map(|(name, value)| ((*name).into(), value.clone().into()));
        let env: Vec<_> = self.host.env().iter().cloned().chain(env).collect();
        let output = attune_process::probe(program, args, &env, PATIENCE).unwrap();
        assert_eq!(output.exit_code, Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test]
async fn a_virtual_environment_has_what_its_manifest_names_and_the_system_does_not() {
    let world = World::new();
    let python = world.program("python3");
    world.told(&python, &["-c", WHEEL, world.pack(WHEEL_FILE).to_str().unwrap()], &[]);
    fs::write(world.pack("requirements.txt"), "--no-index\n./thing-1.0-py3-none-any.whl\n").unwrap();
    let chosen = world.chosen(
        "python3",
        &json!({
            "interpreter": {"binary": "python3", "args": ["-u"]},
            "environment": {
                "env_type": "virtualenv",
                "create_command": ["python3", "-m", "venv", "--copies", "{env_dir}"],
                "interpreter_path": "{env_dir}/bin/python3",
            },
            "dependencies": {
                "manifest_file": "requirements.txt",
                "install_command": ["{interpreter}", "-m", "pip", "install", "-r", "{manifest_path}"],
            },
        }),
    );
    let ready = world.ensure(&chosen).await;
    let folder = fs::canonicalize(world.env_dir()).unwrap();
    let inside = folder.join("bin/python3");
    assert_eq!(
        ready,
        Environment::Ready { folder: folder.clone(), interpreter: Some(inside.clone()), in_use: InUse::default() }
    );
    let ask = ["-c", "import sys, thing; print(thing.ANSWER, sys.prefix)"];
    assert_eq!(world.told(&inside, &ask, &[]), format!("42 {}\n", folder.display()));
    let outside = attune_process::probe(&python, &ask, world.host.env(), PATIENCE).unwrap();
    assert_ne!(outside.exit_code, Some(0), "nothing was installed into the system");
    let built = fs::read_link(world.env_dir()).unwrap();
    world.ensure(&chosen).await;
    assert_eq!(fs::read_link(world.env_dir()).unwrap(), built, "the second time there was nothing to do");
}

#[tokio::test]
async fn node_modules_are_installed_outside_the_pack_and_found_through_the_environment() {
    installs_node_modules(&World::new()).await;
}

#[tokio::test]
async fn npm_needs_no_home_folder_that_it_can_write() {
    // Nobody makes files there, not even root.
    let world = World::with_home(Path::new("/proc/sys"));
    installs_node_modules(&world).await;
    let left = fs::read_dir(world.dir.path().join("envs/demo")).unwrap().flatten().map(|entry| entry.path());
    assert_eq!(left.filter(|path| path.extension().is_some_and(|kind| kind == "cache")).count(), 0);
}

async fn installs_node_modules(world: &World) {
    let thing = world.pack("thing");
    fs::create_dir(&thing).unwrap();
    fs::write(thing.join("package.json"), r#"{"name": "thing", "version": "1.0.0", "main": "thing.js"}"#).unwrap();
    fs::write(thing.join("thing.js"), "module.exports = 42;").unwrap();
    let manifest =
        json!({"name": "demo", "version": "1.0.0", "dependencies": {"thing": format!("file:{}", thing.display())}});
    fs::write(world.pack("package.json"), manifest.to_string()).unwrap();
    let chosen = world.chosen(
        "node",
        &json!({
            "interpreter": {"binary": "node"},
            "environment": {
                "env_type": "node_modules",
                "create_command": ["sh", "-c", "mkdir -p {env_dir} && cp {pack_dir}/package.json {env_dir}/"],
            },
            "dependencies": {
                "manifest_file": "package.json",
                "install_command": ["npm", "install", "--offline", "--prefix", "{env_dir}"],
            },
            "env_vars": {"NODE_PATH": "{env_dir}/node_modules"},
        }),
    );
    let ready = world.ensure(&chosen).await;
    assert_eq!(
        ready,
        Environment::Ready {
            folder: fs::canonicalize(world.env_dir()).unwrap(),
            interpreter: None,
            in_use: InUse::default(),
        }
    );
    let modules = world.env_dir().join("node_modules");
    let node = world.program("node");
    assert_eq!(world.told(&node, &["-p", "require('thing')"], &[("NODE_PATH", modules)]), "42\n");
    assert!(!world.pack("node_modules").exists());
}

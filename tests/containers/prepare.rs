//! What has to be there before the first test: an engine, images that look like stock ones, the static binary, its image.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use attune_testkit::containers::{Engine, Image};

/// Where the file is that is tested, beside the tree `image/`; else one is built.
const STATIC_BINARY: &str = "ATTUNE_STATIC_BINARY";

const TOP: &str = env!("CARGO_MANIFEST_DIR");

/// The image of the init container.
const AGENT_IMAGE: &str = "attune-test/agent";

/// The engine and the image of the agent, with these stock images beside it; none where containers are not wanted.
pub(crate) fn machine(stock: &[&str]) -> Option<(Engine, Image)> {
    let engine = Engine::ensure()?;
    // Each image is made by one; different ones by different tests, side by side.
    // Sites take a native program out of the image of busybox.
    script("scripts/test-images", &[&["busybox"], stock].concat());
    // One test builds, the others wait.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let lock = File::create(folder.join("containers.lock")).unwrap();
    lock.lock().unwrap();
    // Each run looks once whether the file is as the sources are.
    let stamp = folder.join("containers.run");
    let run = env::var("NEXTEST_RUN_ID").ok();
    if run.is_none() || fs::read_to_string(&stamp).ok() != run {
        stage(engine, AGENT_IMAGE, "prebuilt-init");
        // Those of earlier runs, which have lost their name to this one.
        let prune = ["image", "prune", "-f", "--filter", "label=attune.test.stage"];
        assert!(Command::new("docker").args(prune).output().unwrap().status.success(), "docker {prune:?}");
        fs::write(&stamp, run.unwrap_or_default()).unwrap();
    }
    Some((engine, engine.named(AGENT_IMAGE)))
}

/// An image of the agents from the static binary.
pub(crate) fn stage(engine: Engine, name: &str, stage: &str) -> Image {
    let context = static_binary().parent().unwrap().to_owned();
    let dockerfile = Path::new(TOP).join("docker/Dockerfile.agent");
    engine.build_stage(name, &context, &dockerfile, stage, "SHELL_IMAGE=attune-test/busybox")
}

/// The static binary.
pub(crate) fn static_binary() -> PathBuf {
    env::var_os(STATIC_BINARY).map_or_else(built, PathBuf::from)
}

fn built() -> PathBuf {
    let folder = Path::new(TOP).join("target/static/tests");
    script("scripts/build-static", &["--profile", "quick", "--out", folder.to_str().unwrap()]);
    folder.join("attune-agents")
}

fn script(name: &str, arguments: &[&str]) {
    let mut command = Command::new(Path::new(TOP).join(name));
    command.args(arguments).stdin(Stdio::null());
    // Those of the test's own build would be taken for its own by the one that the script starts.
    for (variable, _) in env::vars_os() {
        let text = variable.to_string_lossy();
        if (text.starts_with("CARGO_") && text != "CARGO_HOME") || text.starts_with("NEXTEST") {
            command.env_remove(&variable);
        }
    }
    let output = command.output().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

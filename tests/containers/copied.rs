//! The image for init scripts that copy with `cp`, as existing compose files and charts do.

use crate::prepare;
use crate::site::AGENT;

/// What the platform's own init container runs, and a look at what is in the volume then.
const SCRIPT: &str = "set -e
for name in attune attune-agent attune-sensor-agent attune-mcp; do
    cp /usr/local/bin/$name /opt/attune/agent/$name
    chmod +x /opt/attune/agent/$name
    /opt/attune/agent/$name --version > /opt/attune/agent/$name.version
done
cd /opt/attune/agent
cat ./*.version
test -f attune-agent && test ! -L attune-agent
cmp attune-agent /usr/local/bin/attune-agents";

#[test]
fn an_init_script_that_copies_finds_whole_programs_and_all_their_names() {
    let Some((engine, _)) = prepare::machine(&["scratch"]) else { return };
    let image = prepare::stage(engine, "attune-test/agent-compat", "prebuilt-compat");
    let volume = engine.volume();
    let options = [&*volume.at(AGENT, "rw"), "--network=none", "--entrypoint=/bin/sh"];
    let copier = engine.run(&image, &options, &["-c", SCRIPT]);
    assert_eq!(copier.wait(), 0, "{:?}", copier.logs());
    let version = env!("CARGO_PKG_VERSION");
    let lines =
        ["attune-agent", "attune-mcp", "attune-sensor-agent", "attune"].map(|name| format!("{name} {version}\n"));
    assert_eq!(copier.logs().0, lines.concat());
    // A copy runs where nothing else is.
    let options = [&*volume.at(AGENT, "ro"), "--network=none", "--entrypoint=/opt/attune/agent/attune-sensor-agent"];
    let started = engine.run(&engine.named("attune-test/scratch"), &options, &["--detect-only"]);
    assert_eq!(started.wait(), 0, "{:?}", started.logs());
}

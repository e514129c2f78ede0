//! The shipped compose files, brought up whole: with images made from the files in docker/ and stock-like ones beside them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use attune_testkit::containers::Engine;
use attune_testkit::eventually_blocking;
use tempfile::TempDir;

use crate::prepare;

const TOP: &str = env!("CARGO_MANIFEST_DIR");
const STOCK: [&str; 7] = ["postgres", "rabbitmq", "full", "python", "node", "ruby", "busybox"];

/// Ends by itself.
const INITIAL: [&str; 3] = ["init-agent", "init-packs", "migrations"];
const SERVERS: [&str; 2] = ["postgres", "rabbitmq"];
const OURS: [&str; 8] =
    ["hub", "worker-shell", "worker-python", "worker-node", "worker-full", "worker-ruby", "sensor", "sensor-python"];

/// Those of the profile `remote`, by the names of their services; their rows are `…-01`.
const REMOTE: [&str; 2] = ["worker-remote", "sensor-remote"];

/// What an operator writes into `.env`: secrets of his own and images that he has.
const ENVIRONMENT: &str = "\
JWT_SECRET=a-secret-of-the-tests-for-tokens-0123456789
ENCRYPTION_KEY=a-secret-of-the-tests-for-other-secrets-0123
AGENT_BOOTSTRAP_TOKEN=a-secret-of-the-tests-for-downloads
POSTGRES_PASSWORD=a-password-of-the-tests
RABBITMQ_PASSWORD=another-password-of-the-tests
POSTGRES_IMAGE=attune-test/postgres
RABBITMQ_IMAGE=attune-test/rabbitmq
ATTUNE_AGENT_IMAGE=attune-test/agent
WORKER_SHELL_IMAGE=attune-test/busybox
WORKER_PYTHON_IMAGE=attune-test/python
WORKER_NODE_IMAGE=attune-test/node
WORKER_FULL_IMAGE=attune-test/full
WORKER_RUBY_IMAGE=attune-test/ruby
SENSOR_IMAGE=attune-test/full
SENSOR_PYTHON_IMAGE=attune-test/python
WORKER_REMOTE_IMAGE=attune-test/full
SENSOR_REMOTE_IMAGE=attune-test/python
ATTUNE_API_PORT=127.0.0.1:0
";

/// An installation; taken down when dropped.
struct Project {
    engine: Engine,
    name: String,
    folder: TempDir,
}

impl Project {
    fn new(engine: Engine) -> Self {
        let folder = TempDir::new().unwrap();
        let new = Self { engine, name: format!("attune-test-{}", std::process::id()), folder };
        let environment = format!("{ENVIRONMENT}ATTUNE_HUB_IMAGE={}\n", new.hub_image());
        fs::write(new.folder.path().join("env"), environment).unwrap();
        new
    }

    /// Built for this project, and removed with it.
    fn hub_image(&self) -> String {
        format!("attune-test/hub-{}", self.name)
    }

    fn output(&self, words: &[&str]) -> Output {
        let mut command = self.engine.compose();
        command.current_dir(TOP).env("DOCKER_BUILDKIT", "0").args(["-p", &self.name, "--env-file"]);
        command.arg(self.folder.path().join("env"));
        command.args(["-f", "compose/docker-compose.yaml", "-f", "compose/docker-compose.agent.yaml"]);
        command.args(words).output().unwrap()
    }

    /// Runs to its end what has to succeed; its standard output.
    fn compose(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(output.status.success(), "docker-compose {words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A fact of the container of a service.
    fn inspect(&self, service: &str, format: &str) -> String {
        let container = format!("{}_{service}_1", self.name);
        docker(&["inspect", "-f", format, &container])
    }

    fn healthy(&self, service: &str) {
        eventually_blocking(&format!("{service} to be healthy"), || {
            (self.inspect(service, "{{.State.Health.Status}}") == "healthy").then_some(())
        });
    }

    /// Waits until a query says that it is so.
    fn holds(&self, sql: &str) {
        eventually_blocking(sql, || (self.query(sql) == "t").then_some(()));
    }

    /// Stops services, which leave in order and for good.
    fn stop(&self, services: &[&str]) {
        self.compose(&[&["stop"], services].concat());
        for service in services {
            assert_eq!(self.inspect(service, "{{.State.ExitCode}} {{.RestartCount}}"), "0 0", "{service}");
        }
        assert_eq!(self.query("SELECT name, status FROM attune.worker WHERE status <> 'inactive'"), "");
        let unfinished = "SELECT id, action_ref, worker FROM attune.execution WHERE status IN ('running', 'canceling')";
        assert_eq!(self.query(unfinished), "");
    }

    /// Waits until a file in the volume that the hub and the agents beside it share has such a line.
    fn filed(&self, line: &str) {
        let volume = format!("{}_artifacts_data:/artifacts:ro", self.name);
        let words = ["run", "--rm", "-v", &volume, "attune-test/busybox", "/bin/grep", "-rq", line, "/artifacts"];
        let is_there =
            || Command::new("docker").args(words).status().is_ok_and(|status| status.success()).then_some(());
        eventually_blocking(&format!("a log with {line:?}"), is_there);
    }

    fn query(&self, sql: &str) -> String {
        let words = ["exec", "-T", "postgres", "psql", "-U", "attune", "-d", "attune", "-Atc", sql];
        self.compose(&words).trim().to_owned()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.output(&["logs", "--no-color", "--tail", "40"]);
            #[expect(clippy::print_stderr, reason = "the logs of the services explain the test that failed")]
            let () = eprintln!("{}", String::from_utf8_lossy(&logs.stdout));
        }
        let down = self.output(&["down", "-v", "--timeout", "45"]);
        assert!(down.status.success() || std::thread::panicking(), "{down:?}");
        let removed = Command::new("docker").args(["rmi", "-f", &self.hub_image()]).output();
        assert!(removed.is_ok_and(|output| output.status.success()) || std::thread::panicking(), "docker rmi");
    }
}

pub(crate) fn docker(words: &[&str]) -> String {
    let output = Command::new("docker").args(words).output().unwrap();
    assert!(output.status.success(), "docker {words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_compose_files_bring_up_an_installation_that_works_and_goes_without_a_trace() {
    let Some((engine, _agent)) = prepare::machine(&STOCK) else { return };
    let project = Project::new(engine);
    assert!(Path::new(TOP).join(".dockerignore").exists(), "the whole of target/ would go to the engine");
    project.compose(&["build", "hub"]);
    project.compose(&["up", "-d", "--no-build"]);
    for service in INITIAL {
        assert_eq!(project.inspect(service, "{{.State.Status}} {{.State.ExitCode}}"), "exited 0", "{service}");
    }
    for service in SERVERS.iter().chain(&OURS) {
        project.healthy(service);
    }
    // Native, Python and Node sensors; the actions are in every language that the workers have.
    for trigger in ["core.intervaltimer", "demo.file_changed", "demo.webhook"] {
        let completed = format!(
            "SELECT count(*) > 0 FROM attune.execution e JOIN attune.enforcement r ON r.id = e.enforcement
             WHERE e.status = 'completed' AND r.trigger_ref = '{trigger}'"
        );
        project.holds(&completed);
    }
    assert_eq!(project.query("SELECT count(*) FROM attune.worker WHERE status = 'active'"), "7");
    assert_eq!(project.query("SELECT count(*) FROM attune.execution WHERE status = 'failed'"), "0");
    // Once more beside running agents, as for an upgrade.
    project.compose(&["run", "--rm", "init-agent"]);

    project.stop(&OURS);
    let name = project.name.clone();
    drop(project);
    let filter = format!("label=com.docker.compose.project={name}");
    for list in [
        &["ps", "-aq", "--filter", &filter][..],
        &["volume", "ls", "-q", "--filter", &filter],
        &["network", "ls", "-q", "--filter", &filter],
    ] {
        assert_eq!(docker(list), "", "{list:?}");
    }
}

#[test]
fn agents_of_the_profile_remote_share_no_volume_and_work_by_the_api_alone() {
    let Some((engine, _agent)) = prepare::machine(&STOCK) else { return };
    let project = Project::new(engine);
    project.compose(&["build", "hub"]);
    project.compose(&[&["--profile", "remote", "up", "-d", "--no-build", "hub"][..], &REMOTE].concat());
    for service in REMOTE.iter().chain(&["hub"]) {
        project.healthy(service);
    }
    for service in REMOTE {
        let mounts = project.inspect(service, "{{range .Mounts}}{{.Destination}} {{end}}");
        let mut mounts: Vec<&str> = mounts.split_whitespace().collect();
        mounts.sort_unstable();
        assert_eq!(mounts, ["/opt/attune/agent", "/opt/attune/config/config.yaml"], "{service}");
    }
    // The pack has come, its sensor runs, and what that says arrives.
    project.holds(
        "SELECT count(*) = 1 FROM attune.sensor_process WHERE sensor_ref = 'demo.file_watcher' AND status = 'running'
         AND worker_name = 'sensor-remote-01'",
    );
    let folder = "/tmp/attune/artifacts/demo/watched";
    project.filed(&format!("watching {folder}"));
    // The action looks at the file as well, on its machine.
    let write = format!("mkdir -p {folder} && echo 'a line' > {folder}/note.txt");
    for service in REMOTE {
        project.compose(&["exec", "-T", service, "sh", "-c", &write]);
    }
    project.holds(
        "SELECT count(*) > 0 FROM attune.execution e JOIN attune.worker w ON w.id = e.worker
         WHERE e.status = 'completed' AND e.action_ref = 'demo.describe_file' AND w.name = 'worker-remote-01'",
    );
    project.filed(&format!("{folder}/note.txt was created"));
    project.stop(&[&REMOTE[..], &["hub"]].concat());
}

//! Real containers: an engine that is there or is installed, images made from scratch, containers that go with their handle.
//!
//! A machine that cannot run containers fails the tests that need them, unless `ATTUNE_TEST_SKIP=containers` says that this
//! is known. Nothing is pulled: images hold a program, what it links to, and nothing else.
#![expect(clippy::disallowed_methods, reason = "the command line of an engine is what is driven here")]

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{SKIP_VARIABLE, is_given_up};

mod resources;

pub use resources::{Network, Volume};

/// On everything that tests make, so that what a killed test left can be found: `docker ps -a --filter label=attune.test`.
const LABEL: &str = "attune.test";

/// On images that stay: an older one is of no use as soon as its name goes to a newer one.
const STAGE_LABEL: &str = "attune.test.stage";

/// Installing an engine and starting it takes this long at most.
const ENGINE_LIMIT: Duration = Duration::from_mins(3);

/// One at a time prepares the engine, whoever else tests on this machine.
const LOCK: &str = "/tmp/attune-test-containers.lock";

/// A container engine that answers.
#[derive(Debug, Clone, Copy)]
pub struct Engine(());

impl Engine {
    /// The engine of this machine; installed and started first where that is possible. None only where containers are not
    /// wanted ([`SKIP_VARIABLE`]).
    ///
    /// # Panics
    ///
    /// When there is no engine and none can be made to work.
    pub fn ensure() -> Option<Self> {
        if is_given_up("containers") {
            return None;
        }
        let lock = File::create(LOCK).unwrap_or_else(|error| panic!("{LOCK}: {error}"));
        lock.lock().unwrap_or_else(|error| panic!("{LOCK}: {error}"));
        if !answers() {
            if Command::new("dockerd").arg("--version").output().is_err() {
                install("docker.io");
            }
            start();
        }
        Some(Self(()))
    }

    /// Compose, installed first where it is missing.
    ///
    /// # Panics
    ///
    /// When it cannot be installed.
    pub fn compose(&self) -> Command {
        let Self(()) = self;
        let program = "docker-compose";
        let lock = File::create(LOCK).unwrap_or_else(|error| panic!("{LOCK}: {error}"));
        lock.lock().unwrap_or_else(|error| panic!("{LOCK}: {error}"));
        if Command::new(program).arg("version").output().is_err() {
            install(program);
        }
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        command
    }

    /// Builds an image from scratch: each program at its place in the image, with the libraries that it links to.
    ///
    /// # Panics
    ///
    /// When a file cannot be read or the engine refuses.
    pub fn image(&self, programs: &[(&Path, &str)]) -> Image {
        let context = tempfile::tempdir().expect("a scratch folder");
        for (program, place) in programs {
            put(program, &context.path().join(place.trim_start_matches('/')));
            for library in libraries(program) {
                put(&library, &context.path().join(library.strip_prefix("/").unwrap_or(&library)));
            }
        }
        fs::create_dir_all(context.path().join("tmp")).expect("a folder in the context");
        let lines = "FROM scratch\nCOPY . /\n";
        self.build(context.path(), lines)
    }

    /// An image that is there under this name. It stays.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn named(&self, name: &str) -> Image {
        let Self(()) = self;
        succeeded("docker image inspect", docker().args(["image", "inspect", name]).output());
        Image { id: name.to_owned(), stays: true }
    }

    /// A volume with nothing in it.
    ///
    /// # Panics
    ///
    /// When the engine refuses.
    pub fn volume(&self) -> Volume {
        let Self(()) = self;
        Volume::new()
    }

    /// A network of this name.
    ///
    /// # Panics
    ///
    /// When the engine refuses.
    pub fn network(&self, name: &str) -> Network {
        let Self(()) = self;
        Network::new(name)
    }

    /// Builds an image of the folder `context` with these lines as its Dockerfile.
    ///
    /// # Panics
    ///
    /// When the engine refuses.
    pub fn build(&self, context: &Path, dockerfile: &str) -> Image {
        static BUILDS: AtomicU64 = AtomicU64::new(0);
        let Self(()) = self;
        let file = tempfile::NamedTempFile::new().expect("a scratch file");
        // Equal images would be one, and the first handle that is dropped would take it from the others.
        let build = format!("{}-{}", std::process::id(), BUILDS.fetch_add(1, Ordering::Relaxed));
        let lines = format!("{dockerfile}\nLABEL {LABEL}=\"{build}\"\n");
        fs::write(file.path(), lines).expect("a scratch file that can be written");
        let output =
            docker().env("DOCKER_BUILDKIT", "0").args(["build", "-q", "-f"]).arg(file.path()).arg(context).output();
        Image { id: text(&succeeded("docker build", output)), stays: false }
    }

    /// Builds a stage of a Dockerfile of the project, with a build argument `NAME=VALUE`, and gives it a name. It stays, as the cache of the
    /// next run.
    ///
    /// # Panics
    ///
    /// When the engine refuses.
    pub fn build_stage(&self, name: &str, context: &Path, dockerfile: &Path, stage: &str, argument: &str) -> Image {
        let Self(()) = self;
        let mut command = docker();
        command.env("DOCKER_BUILDKIT", "0").args([
            "build",
            "-q",
            "--label",
            STAGE_LABEL,
            "-t",
            name,
            "--target",
            stage,
            "--build-arg",
            argument,
            "-f",
        ]);
        succeeded("docker build", command.arg(dockerfile).arg(context).output());
        self.named(name)
    }

    /// Starts a container; `options` are those of `docker run`, `words` what comes after the image.
    ///
    /// # Panics
    ///
    /// When the engine refuses.
    pub fn run(&self, image: &Image, options: &[&str], words: &[&str]) -> Container {
        let Self(()) = self;
        let output = docker().args(["run", "-d", "--label", LABEL]).args(options).arg(&image.id).args(words).output();
        Container { id: text(&succeeded("docker run", output)) }
    }
}

/// An image; removed with its handle, if that made it.
#[derive(Debug)]
pub struct Image {
    id: String,
    stays: bool,
}

impl Image {
    /// By which the engine knows it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Copies the file `inside` of it to `to`, with its mode.
    ///
    /// # Panics
    ///
    /// When it has no such file.
    pub fn copy_out(&self, inside: &str, to: &Path) {
        // Never started: a container is what the engine copies from.
        let output = docker().args(["create", "--label", LABEL, &self.id, inside]).output();
        let made = Container { id: text(&succeeded("docker create", output)) };
        let from = format!("{}:{inside}", made.id);
        succeeded("docker cp", docker().args(["cp", &from]).arg(to).output());
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if !self.stays {
            remove(&["rmi", "-f", &self.id]);
        }
    }
}

/// A container, running or ended; removed with its handle.
#[derive(Debug)]
pub struct Container {
    id: String,
}

impl Container {
    /// By which the engine knows it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits for its end and returns its exit code.
    ///
    /// # Panics
    ///
    /// When the engine does not know it any more.
    pub fn wait(&self) -> i32 {
        let output = succeeded("docker wait", docker().args(["wait", &self.id]).output());
        text(&output).parse().unwrap_or_else(|_| panic!("docker wait: {output:?}"))
    }

    /// Both streams, so far: standard output, standard error.
    ///
    /// # Panics
    ///
    /// When the engine does not know it any more.
    pub fn logs(&self) -> (String, String) {
        let output = succeeded("docker logs", docker().args(["logs", &self.id]).output());
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (lossy(&output.stdout), lossy(&output.stderr))
    }

    /// Runs something in it, whatever its exit code.
    ///
    /// # Panics
    ///
    /// When the engine cannot be asked.
    pub fn exec(&self, options: &[&str], words: &[&str]) -> Output {
        let output = docker().arg("exec").args(options).arg(&self.id).args(words).output();
        output.unwrap_or_else(|error| panic!("docker exec: {error}"))
    }

    /// Sends a signal to its process 1.
    ///
    /// # Panics
    ///
    /// When it does not run any more.
    pub fn kill(&self, signal: &str) {
        succeeded("docker kill", docker().args(["kill", "-s", signal, &self.id]).output());
    }

    /// `docker stop`: asks it to end, as an operator does, and waits until it did; its exit code.
    ///
    /// # Panics
    ///
    /// When the engine does not know it any more.
    pub fn stop(&self) -> i32 {
        succeeded("docker stop", docker().args(["stop", "-t", "45", &self.id]).output());
        self.wait()
    }

    /// Starts it again after its end.
    ///
    /// # Panics
    ///
    /// When the engine refuses.
    pub fn start(&self) {
        succeeded("docker start", docker().args(["start", &self.id]).output());
    }

    /// Its address in the network that it is in.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn address(&self) -> IpAddr {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let output = succeeded("docker inspect", docker().args(["inspect", "-f", format, &self.id]).output());
        text(&output).parse().unwrap_or_else(|error| panic!("the address of {}: {error}: {output:?}", self.id))
    }

    /// Whether its process 1 runs.
    ///
    /// # Panics
    ///
    /// When the engine does not know it any more.
    pub fn is_running(&self) -> bool {
        let output = docker().args(["inspect", "-f", "{{.State.Running}}", &self.id]).output();
        text(&succeeded("docker inspect", output)) == "true"
    }

    /// The process id of its process 1 as this machine sees it.
    ///
    /// # Panics
    ///
    /// When the engine does not know it any more.
    pub fn pid(&self) -> u32 {
        let output = docker().args(["inspect", "-f", "{{.State.Pid}}", &self.id]).output();
        let output = succeeded("docker inspect", output);
        text(&output).parse().unwrap_or_else(|_| panic!("docker inspect: {output:?}"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(output) = docker().args(["logs", "--tail", "60", &self.id]).output()
        {
            let text = [output.stdout, output.stderr].concat();
            #[expect(clippy::print_stderr, reason = "the log of a container explains the test that failed")]
            let () = eprintln!("== container {}\n{}", self.id, String::from_utf8_lossy(&text));
        }
        remove(&["rm", "-f", "-v", &self.id]);
    }
}

fn docker() -> Command {
    let mut command = Command::new("docker");
    command.stdin(Stdio::null());
    command
}

fn remove(words: &[&str]) {
    let removed = docker().args(words).output();
    let is_gone = removed.as_ref().is_ok_and(|output| output.status.success());
    assert!(is_gone || std::thread::panicking(), "docker {words:?}: {removed:?}");
}

fn answers() -> bool {
    docker().args(["version", "-f", "{{.Server.Version}}"]).output().is_ok_and(|output| output.status.success())
}

/// Installs a package of the distribution. The lists of a machine that was made some time ago name some that are gone.
fn install(package: &str) {
    for words in [&["update"][..], &["install", "-y", "--no-install-recommends", package]] {
        let output = Command::new("apt-get")
            .args(["-qq", "-o", "DPkg::Lock::Timeout=300"])
            .args(words)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .output();
        succeeded(&format!("{package} is missing here, and `apt-get {}`", words.join(" ")), output);
    }
}

/// In a session of its own: it outlives this test and serves the next ones.
fn start() {
    let log = File::create("/tmp/attune-test-dockerd.log").expect("a log file for dockerd");
    let started = Command::new("setsid")
        .args(["-f", "dockerd"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle of the log"))
        .stderr(log)
        .status();
    assert!(started.as_ref().is_ok_and(std::process::ExitStatus::success), "setsid dockerd: {started:?}");
    let begun = Instant::now();
    while !answers() {
        assert!(
            begun.elapsed() < ENGINE_LIMIT,
            "dockerd does not answer; see /tmp/attune-test-dockerd.log, or set {SKIP_VARIABLE}=containers"
        );
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// The shared libraries and the loader of a program; none of a static one.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let Ok(output) = Command::new("ldd").arg(program).stdin(Stdio::null()).output() else {
        return Vec::new();
    };
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn put(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a place below the root")).expect("a folder in the context");
    fs::copy(from, to).unwrap_or_else(|error| panic!("{} to {}: {error}", from.display(), to.display()));
}

fn succeeded(what: &str, output: std::io::Result<Output>) -> Output {
    let output = output.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

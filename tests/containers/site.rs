//! One installation in containers: a network with names of its own, the volumes, a hub, and the agents of a test. Its servers
//! are those that all tests share; containers reach them through the gateway, by names that only they know.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use attune_model::{IdentityId, Secret};
use attune_security::{TokenKey, sign_access_token};
use attune_testkit::containers::{Container, Engine, Image, Network, Volume};
use attune_testkit::database::TestDatabase;
use attune_testkit::wheel::{WHEEL, WHEEL_FILE};
use attune_testkit::{Proxy, TestBroker, eventually};
use chrono::Utc;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::post;
use crate::prepare;

const JWT_SECRET: &str = "a secret of the tests, for tokens";
/// The hub, by the name that containers know.
pub(crate) const API: &str = "attune-api.example.internal";
const DATABASE: &str = "database.example.internal";
const BROKER: &str = "broker.example.internal";
const TOP: &str = env!("CARGO_MANIFEST_DIR");

/// With which the hub hands the agents out.
pub(crate) const BOOTSTRAP_TOKEN: &str = "a-secret-of-the-tests-for-downloads";

/// Where the volume of the agents is mounted.
pub(crate) const AGENT: &str = "/opt/attune/agent";

/// What an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Worker,
    Sensor,
}

impl Role {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Worker => "attune-agent",
            Self::Sensor => "attune-sensor-agent",
        }
    }

    pub(crate) fn applet(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Sensor => "sensor",
        }
    }
}

/// Everything that the containers of one installation share. The hub goes first, network and volumes last.
pub(crate) struct Site {
    hub: Option<Container>,
    pub(crate) database: TestDatabase,
    broker: TestBroker,
    to_database: Proxy,
    to_broker: Proxy,
    pub(crate) agent_bin: Volume,
    packs: Volume,
    envs: Volume,
    artifacts: Volume,
    network: Network,
    source: TempDir,
    pub(crate) agent_image: Image,
    pub(crate) engine: Engine,
    token: String,
}

impl Site {
    /// With the volume of the agents filled, these packs loaded and a hub that listens; none where containers are not wanted.
    pub(crate) async fn new(stock: &[&str], packs: &[&str]) -> Option<Self> {
        let (engine, agent_image) = prepare::machine(stock)?;
        let (database, broker) = (TestDatabase::new().await, TestBroker::new());
        let network = engine.network(broker.vhost());
        let to_database = Proxy::start_at(network.gateway(), database.authority());
        let to_broker = Proxy::start_at(network.gateway(), broker.authority());
        let key = TokenKey::new(&Secret::new(JWT_SECRET.to_owned())).unwrap();
        let token = sign_access_token(&key, IdentityId(1), "test", Utc::now(), Duration::from_hours(1)).unwrap();
        let mut site = Self {
            hub: None,
            agent_bin: engine.volume(),
            packs: engine.volume(),
            envs: engine.volume(),
            artifacts: engine.volume(),
            source: TempDir::new().unwrap(),
            token: token.expose().clone(),
            network,
            to_database,
            to_broker,
            database,
            broker,
            agent_image,
            engine,
        };
        site.install(&site.agent_image);
        site.copy_in(packs);
        site.load();
        site.start_hub().await;
        Some(site)
    }

    /// The init container: leaves the file of this image in the volume.
    pub(crate) fn install(&self, image: &Image) {
        let container = self.engine.run(image, &[&self.agent_bin.at(AGENT, "rw"), "--network=none"], &[]);
        assert_eq!(container.wait(), 0, "{:?}", container.logs());
    }

    /// The same with another file: what comes after the end of the program changes nothing but its bytes.
    pub(crate) fn upgrade(&self) {
        let context = TempDir::new().unwrap();
        let file = context.path().join("attune-agents");
        fs::copy(prepare::static_binary(), &file).unwrap();
        File::options().append(true).open(&file).unwrap().write_all(b"another version").unwrap();
        let dockerfile = format!("FROM {}\nCOPY attune-agents /usr/local/bin/attune-agents", self.agent_image.id());
        self.install(&self.engine.build(context.path(), &dockerfile));
    }

    /// Puts packs where the init container finds them.
    fn copy_in(&self, packs: &[&str]) {
        let source = self.source.path();
        fs::set_permissions(source, fs::Permissions::from_mode(0o755)).unwrap();
        let busybox = self.engine.named("attune-test/busybox");
        for pack in packs {
            copy(&busybox, &Path::new(TOP).join(pack), &source.join(name(pack)));
        }
    }

    /// Another content for a file of a pack, in the volume, too.
    pub(crate) fn change(&self, file: &str, content: &str) {
        fs::write(self.source.path().join(file), content).unwrap();
        self.load();
    }

    /// The init container of the packs, as user 1000, who owns the volumes from then on.
    fn load(&self) {
        let source = self.source.path();
        let mut words =
            vec!["packs".to_owned(), "load".to_owned(), "--into".to_owned(), "/opt/attune/packs".to_owned()];
        let packs = fs::read_dir(source).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut inside: Vec<String> = packs.map(|pack| format!("/packs/{pack}")).collect();
        // Core first: others name its runtimes.
        inside.sort();
        words.extend(inside);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let options = [
            format!("--volume={}:/packs:ro", source.display()),
            format!("--entrypoint={AGENT}/attune-agents"),
            "--user=1000:1000".to_owned(),
        ];
        let container = self.run(&self.agent_image, &options, "rw", &words);
        assert_eq!(container.wait(), 0, "{:?}", container.logs());
    }

    async fn start_hub(&mut self) {
        let options = [
            format!("--network-alias={API}"),
            format!("--entrypoint={AGENT}/attune-agents"),
            "--user=1000:1000".to_owned(),
            "--read-only".to_owned(),
            "--env=ATTUNE__EXECUTOR__TIMEOUT_CHECK_INTERVAL=1".to_owned(),
            format!("--env=ATTUNE__AGENT__BINARY_DIR={AGENT}"),
            format!("--env=ATTUNE__AGENT__BOOTSTRAP_TOKEN={BOOTSTRAP_TOKEN}"),
        ];
        self.hub = Some(self.run(&self.agent_image, &options, "rw", &["hub"]));
        eventually("the hub to listen", async || TcpStream::connect(self.hub_address()).ok()).await;
    }

    fn hub_address(&self) -> SocketAddr {
        SocketAddr::new(self.hub.as_ref().unwrap().address(), 8080)
    }

    /// An agent as the shipped deployments run it, in a stock image: read-only root, no program may be started from /tmp, no
    /// bundle of certificates, and a user `user:group` that the image need not know. `options` are those of `docker run`.
    pub(crate) fn agent(&self, role: Role, stock: &str, name: &str, options: &[&str]) -> Container {
        let image = self.engine.named(&format!("attune-test/{stock}"));
        let own = [
            format!("--entrypoint={AGENT}/{}", role.program()),
            format!("--hostname={name}"),
            format!("--network-alias={name}"),
            "--read-only".to_owned(),
            "--tmpfs=/tmp:rw,noexec,nosuid,nodev,mode=1777".to_owned(),
            "--tmpfs=/etc/ssl:ro".to_owned(),
            "--tmpfs=/usr/share/ca-certificates:ro".to_owned(),
            "--security-opt=no-new-privileges:true".to_owned(),
            "--env=ATTUNE__WORKER__HEARTBEAT_INTERVAL=1".to_owned(),
            "--env=ATTUNE__SENSOR__HEARTBEAT_INTERVAL=1".to_owned(),
        ];
        let options = own.into_iter().chain(options.iter().map(|option| (*option).to_owned())).collect::<Vec<_>>();
        self.run(&image, &options, "ro", &["--name", name])
    }

    fn run(&self, image: &Image, options: &[String], packs: &str, words: &[&str]) -> Container {
        let gateway = self.network.gateway();
        let reach = |name: &str, proxy: &Proxy| format!("{name}:{}", proxy.address().port());
        let shared = [
            format!("--network={}", self.network.name()),
            format!("--add-host={DATABASE}:{gateway}"),
            format!("--add-host={BROKER}:{gateway}"),
            self.agent_bin.at(AGENT, "ro"),
            self.packs.at("/opt/attune/packs", packs),
            self.envs.at("/opt/attune/runtime_envs", "rw"),
            self.artifacts.at("/opt/attune/artifacts", "rw"),
            format!("--env=ATTUNE_API_URL=http://{API}:8080"),
            format!("--env=ATTUNE__DATABASE__URL={}", self.database.url_via(&reach(DATABASE, &self.to_database))),
            format!("--env=ATTUNE__MESSAGE_QUEUE__URL={}", self.broker.url_via(&reach(BROKER, &self.to_broker))),
            format!("--env=ATTUNE__SECURITY__JWT_SECRET={JWT_SECRET}"),
            "--env=ATTUNE__SECURITY__ENCRYPTION_KEY=a secret of the tests, for other secrets".to_owned(),
        ];
        let options: Vec<&str> = shared.iter().chain(options).map(String::as_str).collect();
        self.engine.run(image, &options, words)
    }

    /// Waits until an agent is ready by its own health check and its row says so.
    pub(crate) async fn ready(&self, container: &Container, role: Role, name: &str) {
        let program = format!("{AGENT}/attune-agents");
        let ready = async || {
            assert!(container.is_running(), "{name} has ended: {:?}", container.logs());
            let asked = container.exec(&[], &[&program, "health", role.applet(), "--name", name]);
            asked.status.success().then_some(())
        };
        eventually(&format!("{name} to be ready"), ready).await;
        assert_eq!(self.status(name).await, "active", "{:?}", container.logs());
    }

    /// What the agent's row says.
    pub(crate) async fn status(&self, name: &str) -> String {
        let sql = format!("SELECT status FROM worker WHERE name = '{name}'");
        self.database.texts(&sql).await.unwrap().remove(0)
    }

    /// Waits until the agent has given another sign of life.
    pub(crate) async fn heartbeat(&self, name: &str) {
        let sql = format!("SELECT last_heartbeat FROM worker WHERE name = '{name}'");
        let before = self.database.texts(&sql).await.unwrap();
        let newer = async || self.database.texts(&sql).await.filter(|now| *now != before);
        eventually(&format!("another heartbeat of {name}"), newer).await;
    }

    /// Waits until a query yields a number for which `wanted` holds.
    pub(crate) async fn wait_for(&self, what: &str, sql: &str, wanted: impl Fn(i64) -> bool) -> i64 {
        eventually(what, async || Some(self.database.number(sql).await).filter(|number| wanted(*number))).await
    }

    /// Asks for an execution.
    pub(crate) async fn ask(&self, action: &str, parameters: &Value) -> i64 {
        let body = json!({ "action_ref": action, "parameters": parameters, "permission_set_refs": ["test"] });
        let asked = async || {
            let (status, answer) = post(self.hub_address(), "/api/v1/executions/execute", &self.token, &body);
            (status == 201).then(|| answer["data"]["id"].as_i64().unwrap())
        };
        eventually(&format!("the hub to take {action}"), asked).await
    }

    /// Waits until an execution has this status; one that ends in another way fails the test with its result.
    pub(crate) async fn until(&self, id: i64, status: &str) {
        let sql = format!("SELECT status || ' ' || coalesce(result::text, '') FROM execution WHERE id = {id}");
        let is_so = async || {
            let now = self.database.texts(&sql).await?.remove(0);
            let ended = ["completed", "failed", "cancelled", "timeout", "abandoned"];
            let state = now.split(' ').next().unwrap();
            assert!(state == status || !ended.contains(&state), "execution {id} is {now}, not {status}");
            (state == status).then_some(())
        };
        eventually(&format!("execution {id} to be {status}"), is_so).await;
    }

    /// The result of an execution.
    pub(crate) async fn result(&self, id: i64) -> Value {
        let sql = format!("SELECT result FROM execution WHERE id = {id}");
        serde_json::from_str(&self.database.texts(&sql).await.unwrap()[0]).unwrap()
    }
}

/// Whether a container's program is no longer the one that has its name.
pub(crate) fn is_an_earlier_file(container: &Container) -> bool {
    let own = fs::read_link(Path::new("/proc").join(container.pid().to_string()).join("exe")).unwrap();
    own.to_str().unwrap().ends_with(" (deleted)")
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// With the modes of the files. Added is what is not kept as text: a native program – busybox, which links to nothing – and a
/// wheel.
fn copy(busybox: &Image, from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-rL").args([from, to]).status().unwrap();
    assert!(status.success(), "cp {} {}: {status}", from.display(), to.display());
    if to.ends_with("reach") {
        let program = to.join("actions/cat");
        // Out of the image: the archive that it was made from may be gone.
        busybox.copy_out("/bin/busybox", &program);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    if to.ends_with("shared") {
        let status = Command::new("python3").args(["-c", WHEEL]).arg(to.join(WHEEL_FILE)).status().unwrap();
        assert!(status.success(), "the wheel could not be made: {status}");
    }
}

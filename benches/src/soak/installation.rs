//! A hub and a worker on a database and a virtual host of their own; the worker reaches both through proxies.
#![expect(clippy::disallowed_methods, reason = "the programs are started the way operators do it")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use attune_config::{child_env, process_env};
use attune_model::{IdentityId, Secret};
use attune_security::{TokenKey, sign_access_token};
use attune_testkit::database::TestDatabase;
use attune_testkit::{Proxy, TestBroker, eventually};
use chrono::Utc;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program;

/// Leaves a mark and ends.
const ACTION: &str = "#!/bin/sh\necho \"$ATTUNE_EXEC_ID\" >> \"$MARKS\"\n";
const MANIFEST: &str = "ref: soak.mark\nlabel: Mark\nenabled: true\nrunner_type: shell\nentry_point: mark.sh\n";
const PACK: &str = "ref: soak\nlabel: Soak\nversion: 1.0.0\n";
const SECRET: &str = "a secret of a soak, for its tokens";

/// Everything that runs.
pub(crate) struct Installation {
    program: PathBuf,
    folder: TempDir,
    database: TestDatabase,
    broker: TestBroker,
    pub(crate) database_proxy: Proxy,
    pub(crate) broker_proxy: Proxy,
    hub_address: SocketAddr,
    token: String,
    hub: Child,
    worker: Child,
}

impl Installation {
    /// Starts hub and worker.
    pub(crate) async fn start() -> Result<Self, String> {
        let program = program::path()?;
        let folder = tempfile::tempdir().map_err(in_words("no scratch folder"))?;
        let (database, broker) = (TestDatabase::new().await, TestBroker::new());
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map_err(in_words("no port"))?;
        write_pack(&folder.path().join("source/soak")).map_err(in_words("cannot write the pack"))?;
        let (database_proxy, broker_proxy) = (Proxy::start(database.authority()), Proxy::start(broker.authority()));
        let mut settings =
            Settings { program: &program, folder: folder.path(), hub: free, urls: [database.url(), broker.url()] };
        let load = settings.command("load", &["packs", "load", "--into", "packs", "source"])?.status();
        if !load.map_err(in_words("cannot load the pack"))?.success() {
            return Err(format!("the pack was not loaded; see {}", folder.path().join("load.log").display()));
        }
        let hub = settings.start("hub", &["hub"])?;
        eventually("the hub to listen", async || TcpStream::connect(free).ok()).await;
        settings.urls = [database.url_via(&database_proxy.authority()), amqp(&broker, &broker_proxy)];
        let worker = settings.start("worker", &["worker", "--name", "soak"])?;
        let key = TokenKey::new(&Secret::new(SECRET.to_owned())).map_err(|error| error.to_string())?;
        let token = sign_access_token(&key, IdentityId(1), "soak", Utc::now(), Duration::from_hours(24 * 30));
        let token = token.map_err(|error| error.to_string())?.expose().clone();
        Ok(Self {
            database,
            broker,
            database_proxy,
            broker_proxy,
            hub_address: free,
            token,
            hub,
            worker,
            program,
            folder,
        })
    }

    /// The worker's process id.
    pub(crate) fn worker(&self) -> u32 {
        self.worker.id()
    }

    /// Where actions leave marks.
    pub(crate) fn marks(&self) -> PathBuf {
        self.folder.path().join("marks")
    }

    /// Executions that have not ended.
    pub(crate) async fn outstanding(&self) -> i64 {
        let open = "'requested', 'scheduling', 'scheduled', 'running', 'canceling'";
        self.database.number(&format!("SELECT count(*) FROM execution WHERE status IN ({open})")).await
    }

    /// Every execution and its status.
    pub(crate) async fn statuses(&self) -> Result<Vec<(i64, String)>, String> {
        let rows = self.database.texts("SELECT id || ' ' || status FROM execution").await;
        let rows = rows.ok_or("the executions cannot be read")?;
        let pair =
            |row: &String| row.split_once(' ').and_then(|(id, status)| Some((id.parse().ok()?, status.to_owned())));
        Ok(rows.iter().filter_map(pair).collect())
    }

    /// Asks for so many executions.
    pub(crate) fn ask(&self, count: usize) -> Result<Vec<i64>, String> {
        (0..count)
            .map(|_| {
                self.ask_one().map_err(in_words("the hub cannot be asked"))?.ok_or_else(|| "the hub refuses".to_owned())
            })
            .collect()
    }

    fn ask_one(&self) -> std::io::Result<Option<i64>> {
        let body =
            json!({"action_ref": "soak.mark", "parameters": {}, "env_vars": {"MARKS": self.marks()}}).to_string();
        let mut stream = TcpStream::connect(self.hub_address)?;
        let (token, length) = (&self.token, body.len());
        let request = format!(
            "POST /api/v1/executions/execute HTTP/1.1\r\nhost: hub\r\nconnection: close\r\ncontent-type: application/json\r\n\
             authorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        Ok(body["data"]["id"].as_i64())
    }

    /// Ends the worker by a signal and starts it again under its name.
    pub(crate) async fn restart_worker(&mut self, signal: &str) -> Result<(), String> {
        end(&mut self.worker, signal).await?;
        let urls = [self.database.url_via(&self.database_proxy.authority()), amqp(&self.broker, &self.broker_proxy)];
        let settings = Settings { program: &self.program, folder: self.folder.path(), hub: self.hub_address, urls };
        self.worker = settings.start("worker", &["worker", "--name", "soak"])?;
        Ok(())
    }

    /// Both ways are open.
    pub(crate) fn resume(&self) {
        self.broker_proxy.resume();
        self.database_proxy.resume();
    }

    /// Ends worker and hub.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        end(&mut self.worker, "TERM").await?;
        end(&mut self.hub, "TERM").await
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        for child in [&mut self.worker, &mut self.hub] {
            // They have ended in order, unless the soak broke off.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn amqp(broker: &TestBroker, proxy: &Proxy) -> String {
    format!("{}?heartbeat=2", broker.url_via(&proxy.authority()))
}

async fn end(child: &mut Child, signal: &str) -> Result<(), String> {
    let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
    sent.map_err(in_words("cannot send a signal"))?;
    eventually("the end of a program", async || child.try_wait().ok().flatten()).await;
    Ok(())
}

fn write_pack(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder.join("actions"))?;
    fs::write(folder.join("pack.yaml"), PACK)?;
    fs::write(folder.join("actions/mark.yaml"), MANIFEST)?;
    fs::write(folder.join("actions/mark.sh"), ACTION)?;
    fs::set_permissions(folder.join("actions/mark.sh"), fs::Permissions::from_mode(0o755))
}

fn in_words(what: &str) -> impl Fn(std::io::Error) -> String + '_ {
    move |error| format!("{what}: {error}")
}

/// How programs are started.
struct Settings<'a> {
    program: &'a Path,
    folder: &'a Path,
    hub: SocketAddr,
    /// Of the database and of the broker.
    urls: [String; 2],
}

impl Settings<'_> {
    fn start(&self, name: &str, arguments: &[&str]) -> Result<Child, String> {
        self.command(name, arguments)?.spawn().map_err(in_words("cannot start the program"))
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Result<Command, String> {
        let log = File::options().append(true).create(true).open(self.folder.join(format!("{name}.log")));
        let log = log.map_err(in_words("no log file"))?;
        let mut command = Command::new(self.program);
        let [database, broker] = &self.urls;
        command.args(arguments).env_clear().current_dir(self.folder);
        command.envs(child_env(&process_env(), &[]).into_iter().filter(|(name, _)| name == "PATH"));
        command.env("ATTUNE__DATABASE__URL", database).env("ATTUNE__MESSAGE_QUEUE__URL", broker);
        command.env("ATTUNE__SECURITY__JWT_SECRET", SECRET).env("ATTUNE__SECURITY__ENCRYPTION_KEY", SECRET);
        command.env("ATTUNE__SERVER__HOST", "127.0.0.1").env("ATTUNE__SERVER__PORT", self.hub.port().to_string());
        command.env("ATTUNE__PACKS_BASE_DIR", self.folder.join("packs"));
        command.env("ATTUNE__RUNTIME_ENVS_DIR", self.folder.join("envs"));
        command.env("ATTUNE__ARTIFACTS_DIR", self.folder.join("artifacts"));
        command.env("ATTUNE__WORKER__SHUTDOWN_TIMEOUT", "5").env("ATTUNE_WORKER_RUNTIMES", "shell");
        let errors = log.try_clone().map_err(in_words("no log file"))?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        Ok(command)
    }
}

//! A hub and a worker on a database and a virtual host of their own; the worker reaches both through proxies.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attune_model::{IdentityId, Secret};
use attune_security::{TokenKey, sign_access_token};
use attune_sys::SIGTERM;
use attune_testkit::{Proxy, eventually};
use chrono::Utc;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::place::{JWT_SECRET, Place, Ways};
use crate::words::Context as _;

/// Leaves a mark and ends.
const ACTION: &str = "#!/bin/sh\necho \"$ATTUNE_EXEC_ID\" >> \"$MARKS\"\n";
const MANIFEST: &str = "ref: soak.mark\nlabel: Mark\nenabled: true\nrunner_type: shell\nentry_point: mark.sh\n";
const PACK: &str = "ref: soak\nlabel: Soak\nversion: 1.0.0\n";

/// Everything that runs.
pub(crate) struct Installation {
    place: Place,
    pub(crate) database_proxy: Proxy,
    pub(crate) broker_proxy: Proxy,
    hub_address: SocketAddr,
    token: String,
    hub: Agent,
    worker: Agent,
}

impl Installation {
    /// Starts hub and worker.
    pub(crate) async fn start() -> Result<Self, String> {
        let place = Place::new().await?;
        write_pack(&place.path("source/soak")).context("the pack")?;
        place.load(&place.path("source").display().to_string())?;
        let (database, broker) = (place.database.authority(), place.broker.authority());
        let (database_proxy, broker_proxy) = (Proxy::start(database), Proxy::start(broker));
        let hub_address = Place::free_address()?;
        let mut hub = place.command(&place.ways())?;
        hub.arg("hub").env("ATTUNE__SERVER__HOST", "127.0.0.1");
        hub.env("ATTUNE__SERVER__PORT", hub_address.port().to_string());
        let hub = place.start("hub", hub)?;
        eventually("the hub to listen", async || TcpStream::connect(hub_address).ok()).await;
        let worker = start_worker(&place, &database_proxy, &broker_proxy)?;
        let key = TokenKey::new(&Secret::new(JWT_SECRET.to_owned())).map_err(|error| error.to_string())?;
        let token = sign_access_token(&key, IdentityId(1), "soak", Utc::now(), Duration::from_hours(24 * 30));
        let token = token.map_err(|error| error.to_string())?.expose().clone();
        Ok(Self { place, database_proxy, broker_proxy, hub_address, token, hub, worker })
    }

    /// The worker's process id.
    pub(crate) fn worker(&self) -> u32 {
        self.worker.id()
    }

    /// Where actions leave marks.
    pub(crate) fn marks(&self) -> PathBuf {
        self.place.path("marks")
    }

    /// Executions that have not ended.
    pub(crate) async fn outstanding(&self) -> i64 {
        let open = "'requested', 'scheduling', 'scheduled', 'running', 'canceling'";
        self.place.database.number(&format!("SELECT count(*) FROM execution WHERE status IN ({open})")).await
    }

    /// Every execution and its status.
    pub(crate) async fn statuses(&self) -> Result<Vec<(i64, String)>, String> {
        let rows = self.place.database.texts("SELECT id || ' ' || status FROM execution").await;
        let rows = rows.ok_or("the executions cannot be read")?;
        let pair =
            |row: &String| row.split_once(' ').and_then(|(id, status)| Some((id.parse().ok()?, status.to_owned())));
        Ok(rows.iter().filter_map(pair).collect())
    }

    /// Asks for so many executions.
    pub(crate) fn ask(&self, count: usize) -> Result<Vec<i64>, String> {
        (0..count).map(|_| self.ask_one().context("the hub")?.ok_or_else(|| "the hub refuses".to_owned())).collect()
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
    pub(crate) async fn restart_worker(&mut self, signal: i32) -> Result<(), String> {
        self.worker.end(signal).await?;
        self.worker = start_worker(&self.place, &self.database_proxy, &self.broker_proxy)?;
        Ok(())
    }

    /// Both ways are open.
    pub(crate) fn resume(&self) {
        self.broker_proxy.resume();
        self.database_proxy.resume();
    }

    /// Ends worker and hub.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        self.worker.end(SIGTERM).await?;
        self.hub.end(SIGTERM).await
    }
}

fn start_worker(place: &Place, database: &Proxy, broker: &Proxy) -> Result<Agent, String> {
    let ways = Ways {
        database: place.database.url_via(&database.authority()),
        broker: format!("{}?heartbeat=2", place.broker.url_via(&broker.authority())),
    };
    let mut command = place.command(&ways)?;
    command.env("ATTUNE__WORKER__SHUTDOWN_TIMEOUT", "5").env("ATTUNE_WORKER_RUNTIMES", "shell");
    command.args(["worker", "--name", "soak"]);
    place.start("worker", command)
}

fn write_pack(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder.join("actions"))?;
    fs::write(folder.join("pack.yaml"), PACK)?;
    fs::write(folder.join("actions/mark.yaml"), MANIFEST)?;
    fs::write(folder.join("actions/mark.sh"), ACTION)?;
    fs::set_permissions(folder.join("actions/mark.sh"), fs::Permissions::from_mode(0o755))
}

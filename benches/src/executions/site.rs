//! The installation of this benchmark: the core pack, and rows of the worker and of the floor.

use std::path::PathBuf;

use attune_testkit::TestBroker;
use attune_testkit::database::TestDatabase;
use sqlx::Row as _;

use crate::agent::Agent;
use crate::place::{Place, Ways};
use crate::words::Context as _;

/// The worker's name; its row is there before it starts, so that its queues are known.
const NAME: &str = "bench";

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Site {
    place: Place,
    /// The row of the worker.
    pub(crate) worker: i64,
    /// A row for the floor.
    pub(crate) floor: i64,
    at_once: usize,
}

impl Site {
    /// Makes it and loads the core pack.
    pub(crate) async fn new(at_once: usize) -> Result<Self, String> {
        let place = Place::new().await?;
        place.load("packs/core")?;
        let mut site = Self { place, worker: 0, floor: 0, at_once };
        site.worker = site.register(NAME).await?;
        site.floor = site.register("floor").await?;
        Ok(site)
    }

    async fn register(&self, name: &str) -> Result<i64, String> {
        let mut connection = self.database().connection().await;
        let sql = "INSERT INTO worker (name, worker_role, worker_type, status, capabilities, last_heartbeat)
                   VALUES ($1, 'action', 'local', 'active', '{}', now()) RETURNING id";
        let row = sqlx::query(sql).bind(name).fetch_one(&mut connection).await.context("a worker's row")?;
        row.try_get(0).context("a worker's row")
    }

    pub(crate) fn database(&self) -> &TestDatabase {
        &self.place.database
    }

    pub(crate) fn broker(&self) -> &TestBroker {
        &self.place.broker
    }

    /// A place in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }

    /// Straight to both servers.
    pub(crate) fn ways(&self) -> Ways {
        self.place.ways()
    }

    /// Starts the worker.
    pub(crate) fn start(&self, ways: &Ways) -> Result<Agent, String> {
        let mut command = self.place.command(ways)?;
        command.env("ATTUNE_WORKER_NAME", NAME).env("ATTUNE_WORKER_RUNTIMES", "shell,native");
        command.env("ATTUNE__WORKER__MAX_CONCURRENT_TASKS", self.at_once.to_string());
        command.arg("worker");
        self.place.start("worker", command)
    }

    /// The last lines that the worker wrote, for an error.
    pub(crate) fn log(&self) -> String {
        self.place.log("worker")
    }
}

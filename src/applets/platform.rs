//! The way to the platform's servers: PostgreSQL and RabbitMQ, connected side by side, waited for up to a limit.

use std::sync::Arc;
use std::time::Duration;

use attune_bus::Bus as _;
use attune_bus_amqp::{AmqpBus, AmqpConfig};
use attune_config::{Loaded, Note, PlatformConfig, Rejected};
use attune_lifecycle::Backoff;
use attune_model::chain;
use attune_store_postgres::{CheckError, PostgresStore, RETRY_PAUSE, Role};
use tokio::time::{Instant, sleep, timeout};

use crate::exit::{Exit, Failure};

/// How long closing the connections may take; nothing depends on it any more.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Connections to both servers.
#[derive(Debug, Clone)]
pub(crate) struct Platform {
    pub(crate) store: Arc<PostgresStore>,
    pub(crate) bus: Arc<AmqpBus>,
}

impl Platform {
    /// Connects to both; the broker knows the connection as `name`.
    pub(crate) async fn connect(config: &PlatformConfig, name: &str) -> Result<Self, Failure> {
        let (store, bus) = tokio::try_join!(store(config), bus(config, name))?;
        Ok(Self { store: Arc::new(store), bus: Arc::new(bus) })
    }

    /// Looks whether the schema is the one that `role` knows; agents never change it.
    pub(crate) async fn check(&self, role: Role) -> Result<(), Failure> {
        self.store.check(role).await.map_err(|error| {
            let exit = match &error {
                CheckError::Store(_) => Exit::Unavailable,
                CheckError::Differs(_) => Exit::Configuration,
            };
            Failure::new(exit, error)
        })
    }

    /// Says goodbye to both.
    pub(crate) async fn close(&self) {
        let goodbyes = async { tokio::join!(self.bus.close(), self.store.close()) };
        if timeout(CLOSE_LIMIT, goodbyes).await.is_err() {
            tracing::warn!("the connections could not be closed in order");
        }
    }
}

/// Connects to the database. The log says once that it is waited for.
async fn store(config: &PlatformConfig) -> Result<PostgresStore, Failure> {
    let begun = Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(50), RETRY_PAUSE);
    loop {
        let error = match PostgresStore::connect(&config.database).await {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        if !error.may_pass() {
            return Err(Failure::new(Exit::Configuration, error));
        }
        if begun.elapsed() >= config.startup_timeout {
            return Err(Failure::new(Exit::Unavailable, error));
        }
        if backoff.attempts() == 0 {
            tracing::warn!(
                error = chain(&error),
                limit_s = config.startup_timeout.as_secs(),
                "waiting for the database"
            );
        }
        sleep(backoff.next_delay()).await;
    }
}

/// Connects to the broker, which waits for it by itself.
async fn bus(config: &PlatformConfig, name: &str) -> Result<AmqpBus, Failure> {
    let url = config.message_queue.url.clone();
    let config = AmqpConfig { start_limit: config.startup_timeout, ..AmqpConfig::new(url, name) };
    AmqpBus::connect(&config).await.map_err(|error| {
        let exit = if error.is_final() { Exit::Configuration } else { Exit::Unavailable };
        Failure::new(exit, error)
    })
}

/// Logs how the configuration came about, and hands it on when it is valid.
pub(crate) fn accept<T>(result: Result<Loaded<T>, Rejected>) -> Result<T, Failure> {
    let (notes, result) = match result {
        Ok(Loaded { config, notes }) => (notes, Ok(config)),
        Err(Rejected { problems, notes }) => (notes, Err(Rejected { problems, notes: Vec::new() })),
    };
    for note in notes {
        match note {
            Note::Info(text) => tracing::info!("{text}"),
            Note::Warning(text) => tracing::warn!("{text}"),
        }
    }
    result.map_err(|rejected| Failure::new(Exit::Configuration, rejected))
}

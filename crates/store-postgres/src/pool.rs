//! Connections, and what is done with them: every statement has a time limit, and a connection whose state is not known is
//! closed, never used again.
//!
//! The driver's own pool asks the server after every use whether the connection still works. That is a second round trip
//! for each statement, and a connection into a black hole is not given up for as long as nobody answers. This one asks
//! only when there is a reason: after a while without use, and after another connection was lost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use attune_store::StoreError;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow, Postgres};
use sqlx::{Connection as _, Executor as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::connect::connect;
use crate::error::{During as _, READ_ONLY, has_code, leaves_connection_usable, silent};

/// A statement with its parameters.
pub(crate) type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// How long one statement may take. The server gives up a little earlier, see `connect.rs`, so that a lock that somebody
/// holds is told from a server that is gone.
pub(crate) const STATEMENT_LIMIT: Duration = Duration::from_secs(6);

/// How long one attempt to connect may take.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Unused for longer, a connection is asked whether it still works: what lies between may have forgotten it.
const TRUSTED_FOR: Duration = Duration::from_secs(15);

/// How long it may take to answer.
const PING_LIMIT: Duration = Duration::from_secs(1);

/// How long a connection may take to say goodbye.
const GOODBYE_LIMIT: Duration = Duration::from_millis(500);

/// Sizes and limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) most: u32,
    /// That many are kept however long nobody uses them.
    pub(crate) kept: u32,
    /// How long a caller waits for a connection.
    pub(crate) wait: Duration,
    pub(crate) idle: Duration,
}

/// Clones share the connections.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: PgConnectOptions,
    limits: Limits,
    slots: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last one is used first, so that few connections stay warm.
    idle: Vec<Idle>,
    /// When a connection was lost last: those that were idle then are not trusted.
    lost: Option<Instant>,
    closed: bool,
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    since: Instant,
}

impl Pool {
    /// A pool whose first connection is there already.
    pub(crate) fn new(options: PgConnectOptions, limits: Limits, first: PgConnection) -> Self {
        let slots = Arc::new(Semaphore::new(limits.most.try_into().unwrap_or(usize::MAX)));
        let shared = Arc::new(Shared { options, limits, slots, state: Mutex::default() });
        shared.give_back(first);
        Self { shared }
    }

    /// All rows of a statement that is a unit of work of its own.
    pub(crate) async fn all(&self, query: Query<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut lease = self.lease().await?;
        let rows = lease.limited(async |connection| query.fetch_all(connection).await).await;
        lease.settle(&rows);
        rows
    }

    /// The row of such a statement.
    pub(crate) async fn optional(&self, query: Query<'_>) -> Result<Option<PgRow>, sqlx::Error> {
        Ok(self.all(query).await?.pop())
    }

    /// The row of such a statement that always has one.
    pub(crate) async fn one(&self, query: Query<'_>) -> Result<PgRow, sqlx::Error> {
        self.optional(query).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// The number of rows that such a statement changed.
    pub(crate) async fn execute(&self, query: Query<'_>) -> Result<u64, sqlx::Error> {
        let mut lease = self.lease().await?;
        let done = lease.limited(async |connection| query.execute(connection).await).await;
        lease.settle(&done);
        done.map(|done| done.rows_affected())
    }

    /// Begins a unit of work of several statements.
    pub(crate) async fn begin(&self) -> Result<Unit, sqlx::Error> {
        let mut lease = self.lease().await?;
        lease.limited(async |connection| connection.execute("BEGIN").await).await?;
        Ok(Unit { lease })
    }

    /// Begins several reads of one state.
    pub(crate) async fn begin_reading(&self) -> Result<Unit, sqlx::Error> {
        let mut lease = self.lease().await?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        lease.limited(async |connection| connection.execute(begin).await).await?;
        Ok(Unit { lease })
    }

    /// Closes what is unused and lets nobody in any more.
    pub(crate) async fn close(&self) {
        let idle = {
            let mut state = self.shared.state();
            state.closed = true;
            std::mem::take(&mut state.idle)
        };
        self.shared.slots.close();
        let goodbyes = idle.into_iter().map(|idle| timeout(GOODBYE_LIMIT, idle.connection.close()));
        futures_util::future::join_all(goodbyes).await;
    }

    /// A connection that works as far as anybody knows.
    async fn lease(&self) -> Result<Lease, sqlx::Error> {
        let shared = &self.shared;
        let waited = timeout(shared.limits.wait, Arc::clone(&shared.slots).acquire_owned()).await;
        let slot = waited.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        while let Some((mut connection, trusted)) = shared.take() {
            if trusted || matches!(timeout(PING_LIMIT, connection.ping()).await, Ok(Ok(()))) {
                return Ok(Lease {
                    connection: Some(connection),
                    usable: false,
                    shared: Arc::clone(shared),
                    _slot: slot,
                });
            }
        }
        let limit = CONNECT_LIMIT.min(shared.limits.wait);
        let connection = timeout(limit, connect(&shared.options)).await.map_err(|_| silent(limit))??;
        Ok(Lease { connection: Some(connection), usable: false, shared: Arc::clone(shared), _slot: slot })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An unused connection, and whether it needs no ping.
    fn take(&self) -> Option<(PgConnection, bool)> {
        let mut state = self.state();
        let idle = state.idle.pop()?;
        let lost_since = state.lost.is_some_and(|lost| lost >= idle.since);
        Some((idle.connection, !lost_since && idle.since.elapsed() < TRUSTED_FOR))
    }

    /// Those that are unused are not trusted any more; where the server turned read-only they lead to the same one.
    fn note_loss(&self, error: &sqlx::Error) {
        let mut state = self.state();
        state.lost = Some(Instant::now());
        if has_code(error, READ_ONLY) {
            state.idle.clear();
        }
    }

    fn give_back(&self, connection: PgConnection) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        let now = Instant::now();
        let kept = usize::try_from(self.limits.kept).unwrap_or(usize::MAX);
        let old = state.idle.iter().take_while(|idle| now - idle.since > self.limits.idle).count();
        let surplus = old.min((state.idle.len() + 1).saturating_sub(kept));
        drop(state.idle.drain(..surplus));
        state.idle.push(Idle { connection, since: now });
    }
}

/// A connection in use. Dropped in the middle of something, it takes the connection with it.
#[derive(Debug)]
struct Lease {
    connection: Option<PgConnection>,
    usable: bool,
    shared: Arc<Shared>,
    _slot: OwnedSemaphorePermit,
}

impl Lease {
    async fn limited<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        timeout(STATEMENT_LIMIT, work(connection)).await.unwrap_or_else(|_| Err(silent(STATEMENT_LIMIT)))
    }

    /// Says what became of the last statement.
    fn settle<T>(&mut self, outcome: &Result<T, sqlx::Error>) {
        match outcome {
            Ok(_) => self.usable = true,
            Err(error) if leaves_connection_usable(error) => self.usable = true,
            Err(error) => self.shared.note_loss(error),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(|_| self.usable) {
            self.shared.give_back(connection);
        }
    }
}

/// Several statements that happen together or not at all. Dropped before its end it is rolled back.
#[derive(Debug)]
pub(crate) struct Unit {
    lease: Lease,
}

impl Unit {
    pub(crate) async fn all(&mut self, query: Query<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        let rows = self.lease.limited(async |connection| query.fetch_all(connection).await).await;
        self.note(&rows);
        rows
    }

    pub(crate) async fn optional(&mut self, query: Query<'_>) -> Result<Option<PgRow>, sqlx::Error> {
        Ok(self.all(query).await?.pop())
    }

    pub(crate) async fn one(&mut self, query: Query<'_>) -> Result<PgRow, sqlx::Error> {
        self.optional(query).await?.ok_or(sqlx::Error::RowNotFound)
    }

    pub(crate) async fn execute(&mut self, query: Query<'_>) -> Result<u64, sqlx::Error> {
        let done = self.lease.limited(async |connection| query.execute(connection).await).await;
        self.note(&done);
        done.map(|done| done.rows_affected())
    }

    /// Makes it happen when `outcome` is good, takes it back when it is not.
    pub(crate) async fn end<T>(mut self, outcome: Result<T, StoreError>, operation: &str) -> Result<T, StoreError> {
        let statement = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let done = self.lease.limited(async |connection| connection.execute(statement).await).await;
        self.lease.settle(&done);
        let value = outcome?;
        done.during(|| operation.to_owned())?;
        Ok(value)
    }

    fn note<T>(&mut self, outcome: &Result<T, sqlx::Error>) {
        if let Err(error) = outcome
            && !leaves_connection_usable(error)
        {
            self.lease.shared.note_loss(error);
        }
    }
}

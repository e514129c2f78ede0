//! The platform's part: rows that are `scheduled`, dispatch messages, and the completions that come back.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use attune_lifecycle::Tasks;
use attune_model::message::{Exchange, ExecutionDispatch, Payload};
use attune_model::{ExecutionId, WorkerId};
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
    QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::Value;
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::site::Site;
use crate::words::{Context as _, count_of};

/// What the executions run.
pub(crate) const ACTION: &str = "core.echo";
const QUEUE: &str = "bench.completions";
/// Confirms that are waited for together.
const BATCH: usize = 500;
/// Nothing came for so long: something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);
/// Nothing came for so long after the queue was emptied: nothing more comes.
const QUIET: Duration = Duration::from_millis(500);

/// Gives work to a worker and sees it end.
#[derive(Debug)]
pub(crate) struct Load {
    _connection: Connection,
    channel: Channel,
    completions: mpsc::UnboundedReceiver<Result<Completion, String>>,
    /// Executions that were completed.
    seen: HashSet<i64>,
    database: PgConnection,
}

/// An execution that can be dispatched.
#[derive(Debug, Clone, Copy)]
struct Scheduled {
    id: i64,
    updated: DateTime<Utc>,
}

/// A completion that arrived.
#[derive(Debug, Clone, Copy)]
struct Completion {
    execution: i64,
    at: Instant,
}

impl Completion {
    fn read(delivery: &Delivery, at: Instant) -> Result<Self, String> {
        let message: Value = serde_json::from_slice(&delivery.data).context("a completion")?;
        let payload = &message["payload"];
        if payload["status"] != "Completed" {
            return Err(format!("an execution did not succeed: {payload}"));
        }
        let execution = payload["execution_id"].as_i64().ok_or_else(|| format!("no completion: {message}"))?;
        Ok(Self { execution, at })
    }
}

/// Executions one after the other, or as many as the worker takes.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    /// From the dispatch to the completion, whose row is committed before, one execution at a time.
    pub(crate) alone: Vec<Duration>,
    /// Executions per second with full slots, one for each round.
    pub(crate) rates: Vec<f64>,
}

impl Load {
    /// Connects.
    pub(crate) async fn new(site: &Site) -> Result<Self, String> {
        let connection =
            Connection::connect(&site.broker().url(), ConnectionProperties::default()).await.context("RabbitMQ")?;
        let channel = connection.create_channel().await.context("a channel")?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.context("confirms")?;
        let (none, exchange) = (FieldTable::default, Exchange::Executions.name());
        channel
            .queue_declare(QUEUE.into(), QueueDeclareOptions::default(), none())
            .await
            .context("the queue of completions")?;
        let bound = channel.queue_bind(
            QUEUE.into(),
            exchange.into(),
            "execution.completed".into(),
            QueueBindOptions::default(),
            none(),
        );
        bound.await.context("the queue of completions")?;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumed = channel.basic_consume(QUEUE.into(), "bench".into(), options, none());
        let mut arriving = consumed.await.context("the consumer of completions")?;
        let (sender, completions) = mpsc::unbounded_channel();
        // Whatever the load is doing, so that their times are those of their arrival.
        Tasks::default().spawn(async move {
            while let Some(delivery) = arriving.next().await {
                let at = Instant::now();
                let read = delivery.context("a completion").and_then(|delivery| Completion::read(&delivery, at));
                if sender.send(read).is_err() {
                    return;
                }
            }
        });
        let database = site.database().connection().await;
        Ok(Self { _connection: connection, channel, completions, seen: HashSet::new(), database })
    }

    async fn schedule(&mut self, worker: i64, count: usize) -> Result<Vec<Scheduled>, String> {
        let sql = r#"
            INSERT INTO execution (action, action_ref, config, status, worker)
            SELECT action.id, action.ref, '{"message": "hello"}', 'scheduled', $1
            FROM action, generate_series(1, $2) WHERE action.ref = $3
            RETURNING id, updated
        "#;
        let count = i64::try_from(count).context("a count")?;
        let rows = sqlx::query_as::<_, (i64, DateTime<Utc>)>(sql).bind(worker).bind(count).bind(ACTION);
        let rows = rows.fetch_all(&mut self.database).await.context("scheduled rows")?;
        Ok(rows.into_iter().map(|(id, updated)| Scheduled { id, updated }).collect())
    }

    async fn dispatch(&self, worker: i64, scheduled: &[Scheduled]) -> Result<(), String> {
        for batch in scheduled.chunks(BATCH) {
            let mut confirms = Vec::with_capacity(batch.len());
            for Scheduled { id, updated } in batch {
                let payload = ExecutionDispatch {
                    execution_id: ExecutionId(*id),
                    worker_id: WorkerId(worker),
                    action_ref: ACTION.to_owned(),
                    config: Some(serde_json::json!({"message": "hello", "uppercase": false})),
                    scheduled_attempt_updated_at: Some(*updated),
                };
                let envelope = payload.envelope("executor", Utc::now()).context("a message")?;
                let body = serde_json::to_vec(&envelope).context("a message")?;
                let properties = BasicProperties::default().with_delivery_mode(2);
                let (exchange, key) = (Exchange::Executions.name().into(), payload.routing_key().into());
                let options = BasicPublishOptions::default();
                let sent = self.channel.basic_publish(exchange, key, options, &body, properties).await;
                confirms.push(sent.context("a dispatch")?);
            }
            for confirm in confirms {
                confirm.await.context("a dispatch")?;
            }
        }
        Ok(())
    }

    /// The next completion, of whichever execution.
    async fn completed(&mut self) -> Result<Completion, String> {
        let next = timeout(PATIENCE, self.completions.recv()).await;
        let next = next.map_err(|_elapsed| format!("nothing was completed for {PATIENCE:?}"))?;
        let completion = next.ok_or("the consumer of completions was cancelled")??;
        if self.seen.insert(completion.execution) {
            Ok(completion)
        } else {
            Err(format!("execution {} was completed twice", completion.execution))
        }
    }

    /// How many were completed.
    pub(crate) fn ended(&self) -> usize {
        self.seen.len()
    }

    /// One execution after the other.
    pub(crate) async fn alone(&mut self, worker: i64, count: usize) -> Result<Vec<Duration>, String> {
        let mut times = Vec::with_capacity(count);
        for scheduled in self.schedule(worker, count).await? {
            let begun = Instant::now();
            self.dispatch(worker, &[scheduled]).await?;
            let Completion { execution, at } = self.completed().await?;
            if execution != scheduled.id {
                return Err(format!("execution {execution} was completed instead of {}", scheduled.id));
            }
            times.push(at.saturating_duration_since(begun));
        }
        Ok(times)
    }

    /// As many as the worker takes at once: executions per second.
    pub(crate) async fn together(&mut self, worker: i64, count: usize) -> Result<f64, String> {
        let scheduled = self.schedule(worker, count).await?;
        self.dispatch(worker, &scheduled).await?;
        let mut rate = Rate::begin();
        for _ in 0..count {
            rate.count(self.completed().await?);
        }
        rate.per_second()
    }

    /// The rate of `count` executions while `waiting` more wait in the queue of a worker that works.
    pub(crate) async fn backlog(&mut self, worker: i64, waiting: usize, count: usize) -> Result<f64, String> {
        let scheduled = self.schedule(worker, waiting + count).await?;
        // So many new rows would bring the server to do that by itself, at some time.
        self.database.execute("VACUUM ANALYZE execution").await.context("the rows that wait")?;
        self.dispatch(worker, &scheduled).await?;
        let mut rate = Rate::begin();
        for _ in 0..waiting + count {
            rate.count(self.completed().await?);
            if rate.ended == count {
                return rate.per_second();
            }
        }
        Err("too many ended while they were dispatched: let more of them wait".to_owned())
    }

    /// Takes back what waits for a worker.
    pub(crate) async fn purge(&mut self, worker: i64, queue: &str) -> Result<(), String> {
        self.channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.context("a purge")?;
        // What the worker had taken from the queue still ends.
        while let Ok(Some(_late)) = timeout(QUIET, self.completions.recv()).await {}
        let rows = sqlx::query("DELETE FROM execution WHERE worker = $1 AND status = 'scheduled'").bind(worker);
        rows.execute(&mut self.database).await.map(drop).context("rows that wait")
    }
}

/// Counts what is completed after everything was dispatched: dispatching takes its part of the machine.
#[derive(Debug)]
struct Rate {
    begun: Instant,
    ended: usize,
    last: Instant,
}

impl Rate {
    fn begin() -> Self {
        let begun = Instant::now();
        Self { begun, ended: 0, last: begun }
    }

    fn count(&mut self, completion: Completion) {
        if completion.at > self.begun {
            self.ended += 1;
            self.last = completion.at;
        }
    }

    fn per_second(&self) -> Result<f64, String> {
        let took = self.last.saturating_duration_since(self.begun);
        if took.is_zero() {
            return Err("everything had ended before all was dispatched: ask for more executions".to_owned());
        }
        Ok(count_of(u64::try_from(self.ended).context("a count")?) / took.as_secs_f64())
    }
}

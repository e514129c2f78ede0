//! The platform's part: rows that are `scheduled`, dispatch messages, and the completions that come back.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use attune_model::message::{Exchange, ExecutionDispatch, Payload};
use attune_model::{ExecutionId, WorkerId};
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::Value;
use sqlx::postgres::PgConnection;
use tokio::time::timeout;

use super::site::Site;
use crate::words::Context as _;

/// What the executions run.
pub(crate) const ACTION: &str = "core.echo";
const QUEUE: &str = "bench.completions";
/// Confirms that are waited for together.
const BATCH: usize = 500;
/// Nothing came for so long: something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gives work to a worker and sees it end.
#[derive(Debug)]
pub(crate) struct Load {
    _connection: Connection,
    publisher: Channel,
    channel: Channel,
    completions: lapin::Consumer,
    database: PgConnection,
}

/// An execution that can be dispatched.
#[derive(Debug, Clone, Copy)]
struct Scheduled {
    id: i64,
    updated: DateTime<Utc>,
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
        let publisher = connection.create_channel().await.context("a channel")?;
        publisher.confirm_select(ConfirmSelectOptions::default()).await.context("confirms")?;
        let channel = connection.create_channel().await.context("a channel")?;
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
        channel.basic_qos(1000, BasicQosOptions::default()).await.context("a prefetch")?;
        let consumed = channel.basic_consume(QUEUE.into(), "bench".into(), BasicConsumeOptions::default(), none());
        let completions = consumed.await.context("the consumer of completions")?;
        let database = site.database().connection().await;
        Ok(Self { _connection: connection, publisher, channel, completions, database })
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
                let sent = self.publisher.basic_publish(exchange, key, options, &body, properties).await;
                confirms.push(sent.context("a dispatch")?);
            }
            for confirm in confirms {
                confirm.await.context("a dispatch")?;
            }
        }
        Ok(())
    }

    /// The next completion: whose, and whether it was a success.
    async fn completed(&mut self) -> Result<i64, String> {
        let delivery = timeout(PATIENCE, self.completions.next())
            .await
            .map_err(|_elapsed| format!("nothing was completed for {PATIENCE:?}"))?
            .ok_or("the consumer of completions was cancelled")?
            .context("a completion")?;
        self.channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.context("an answer")?;
        let message: Value = serde_json::from_slice(&delivery.data).context("a completion")?;
        let payload = &message["payload"];
        if payload["status"] != "Completed" {
            return Err(format!("an execution did not succeed: {payload}"));
        }
        payload["execution_id"].as_i64().ok_or_else(|| format!("no completion: {message}"))
    }

    /// One execution after the other.
    pub(crate) async fn alone(&mut self, worker: i64, count: usize) -> Result<Vec<Duration>, String> {
        let mut times = Vec::with_capacity(count);
        for scheduled in self.schedule(worker, count).await? {
            let begun = Instant::now();
            self.dispatch(worker, &[scheduled]).await?;
            let completed = self.completed().await?;
            if completed != scheduled.id {
                return Err(format!("execution {completed} was completed instead of {}", scheduled.id));
            }
            times.push(begun.elapsed());
        }
        Ok(times)
    }

    /// As many as the worker takes at once: executions per second from the first completion to the last.
    pub(crate) async fn together(&mut self, worker: i64, count: usize) -> Result<f64, String> {
        let scheduled = self.schedule(worker, count).await?;
        self.dispatch(worker, &scheduled).await?;
        self.see(count).await
    }

    /// Puts `waiting` executions into the queue of a worker that works, and sees `count` of them end.
    pub(crate) async fn backlog(&mut self, worker: i64, waiting: usize, count: usize) -> Result<f64, String> {
        let scheduled = self.schedule(worker, waiting).await?;
        self.dispatch(worker, &scheduled).await?;
        // What ended while the queue was being filled.
        while let Ok(Some(early)) = timeout(Duration::ZERO, self.completions.next()).await {
            let early = early.context("a completion")?;
            self.channel.basic_ack(early.delivery_tag, BasicAckOptions::default()).await.context("an answer")?;
        }
        self.see(count).await
    }

    async fn see(&mut self, count: usize) -> Result<f64, String> {
        let mut seen = HashSet::with_capacity(count);
        // The way to the first one is not the rate.
        let first = self.completed().await?;
        let begun = Instant::now();
        seen.insert(first);
        while seen.len() < count {
            let completed = self.completed().await?;
            if !seen.insert(completed) {
                return Err(format!("execution {completed} was completed twice"));
            }
        }
        let ended = f64::from(u32::try_from(count - 1).context("a count")?);
        Ok(ended / begun.elapsed().as_secs_f64())
    }
}

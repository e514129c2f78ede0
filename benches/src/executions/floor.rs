//! The floor: a bare loop over the same libraries that does what cannot be left out.
//!
//! Consume, one commit that takes the row, an acknowledgement, `posix_spawn` and wait of the same script with the same
//! input, one commit that ends the row, three confirmed publishes. No claim, no guard, no capture limits, no logs.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use attune_lifecycle::Tasks;
use attune_model::message::{Exchange, ExecutionCompleted, ExecutionStatusChanged, Payload};
use attune_model::{ActionId, ExecutionId};
use chrono::Utc;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, PublisherConfirm};
use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use tokio::sync::Mutex;

use super::load::ACTION;
use super::site::Site;
use crate::words::Context as _;

const TAKE: &str = "UPDATE execution SET status = 'running', started_at = now() WHERE id = $1 AND status = 'scheduled'";
const END: &str = "UPDATE execution SET status = 'completed', result = $2::jsonb WHERE id = $1 AND status = 'running'";

/// Where its dispatches wait.
pub(crate) const QUEUE: &str = "bench.floor";

/// The loops, as many as executions run at once.
#[derive(Debug)]
pub(crate) struct Floor {
    _connection: Connection,
    _loops: Tasks,
}

/// What all loops use.
#[derive(Debug)]
struct Shared {
    deliveries: Mutex<lapin::Consumer>,
    channel: Channel,
    publisher: Channel,
    interpreter: PathBuf,
    script: PathBuf,
}

impl Floor {
    /// Starts `at_once` loops on the queue of the floor's row.
    pub(crate) async fn start(site: &Site, at_once: usize) -> Result<Self, String> {
        let connection =
            Connection::connect(&site.broker().url(), ConnectionProperties::default()).await.context("RabbitMQ")?;
        let publisher = connection.create_channel().await.context("a channel")?;
        publisher.confirm_select(ConfirmSelectOptions::default()).await.context("confirms")?;
        let channel = connection.create_channel().await.context("a channel")?;
        let (queue, none) = (QUEUE, FieldTable::default);
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        // Those of a worker's.
        let mut arguments = FieldTable::default();
        arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("attune.dlx".into()));
        arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(300_000));
        channel.queue_declare(queue.into(), durable, arguments).await.context("the floor's queue")?;
        let (exchange, key) = (Exchange::Executions.name(), format!("execution.dispatch.worker.{}", site.floor));
        let bound = channel.queue_bind(queue.into(), exchange.into(), key.into(), QueueBindOptions::default(), none());
        bound.await.context("the floor's queue")?;
        let prefetch = u16::try_from(at_once).context("a prefetch")?;
        channel.basic_qos(prefetch, BasicQosOptions::default()).await.context("a prefetch")?;
        let consumed = channel.basic_consume(queue.into(), "floor".into(), BasicConsumeOptions::default(), none());
        let deliveries = Mutex::new(consumed.await.context("the floor's consumer")?);
        // What the action's runtime says: another shell would be another program.
        let sql = "SELECT execution_config #>> '{interpreter,binary}' FROM runtime WHERE ref = 'core.shell'";
        let row = sqlx::query(sql).fetch_one(&mut site.database().connection().await).await.context("the runtime")?;
        let interpreter = PathBuf::from(row.try_get::<String, _>(0).context("the runtime")?);
        let script = site.path("packs/core/actions/echo.sh");
        let shared = Arc::new(Shared { deliveries, channel, publisher, interpreter, script });
        let loops = Tasks::default();
        for _ in 0..at_once {
            let (shared, mut database) = (shared.clone(), site.database().connection().await);
            loops.spawn(async move {
                // An execution that fails is missed by the one who waits for it.
                while shared.one(&mut database).await.is_ok() {}
            });
        }
        Ok(Self { _connection: connection, _loops: loops })
    }
}

impl Shared {
    async fn one(&self, database: &mut PgConnection) -> Result<(), String> {
        let delivery = self.deliveries.lock().await.next().await.ok_or("no more deliveries")?.context("a delivery")?;
        let message: Value = serde_json::from_slice(&delivery.data).context("a delivery")?;
        let id = message["payload"]["execution_id"].as_i64().ok_or("no dispatch")?;
        sqlx::query(TAKE).bind(id).execute(&mut *database).await.context("a row")?;
        self.channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.context("an answer")?;
        let running = self.send(&changed(id, "scheduled", "running")).await?;
        let (interpreter, script) = (self.interpreter.clone(), self.script.clone());
        let ran = tokio::task::spawn_blocking(move || run(&interpreter, &script)).await.context("a thread")??;
        let result = json!({"succeeded": true, "exit_code": 0, "duration_ms": 1, "stdout": ran});
        sqlx::query(END).bind(id).bind(result.to_string()).execute(&mut *database).await.context("a row")?;
        let changed = self.send(&changed(id, "running", "completed")).await?;
        let completed = self.send(&completed(id, result)).await?;
        for confirm in [running, changed, completed] {
            confirm.await.context("a confirmation")?;
        }
        Ok(())
    }

    async fn send<P: Payload>(&self, payload: &P) -> Result<PublisherConfirm, String> {
        let envelope = payload.envelope("floor", Utc::now()).context("a message")?;
        let body = serde_json::to_vec(&envelope).context("a message")?;
        let (exchange, key) = (Exchange::Executions.name().into(), payload.routing_key().into());
        let properties = BasicProperties::default().with_delivery_mode(2);
        let sent = self.publisher.basic_publish(exchange, key, BasicPublishOptions::default(), &body, properties);
        sent.await.context("a message")
    }
}

fn changed(id: i64, previous: &str, new: &str) -> ExecutionStatusChanged {
    ExecutionStatusChanged {
        execution_id: ExecutionId(id),
        action_ref: ACTION.to_owned(),
        previous_status: previous.to_owned(),
        new_status: new.to_owned(),
        changed_at: Utc::now(),
    }
}

fn completed(id: i64, result: Value) -> ExecutionCompleted {
    ExecutionCompleted {
        execution_id: ExecutionId(id),
        action_id: ActionId(0),
        action_ref: ACTION.to_owned(),
        status: "Completed".to_owned(),
        result: Some(result),
        completed_at: Utc::now(),
    }
}

/// The script with its parameters on standard input; what it printed.
#[expect(clippy::disallowed_methods, reason = "the least that starts a process is the floor")]
fn run(interpreter: &Path, script: &Path) -> Result<String, String> {
    let mut command = Command::new(interpreter);
    command.arg(script).env_clear().env("PATH", "/usr/bin:/bin");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("the script")?;
    let mut stdin = child.stdin.take().ok_or("no pipe")?;
    stdin.write_all(b"message='hello'\nuppercase='false'\n").context("the script")?;
    drop(stdin);
    let mut printed = String::new();
    child.stdout.take().ok_or("no pipe")?.read_to_string(&mut printed).context("the script")?;
    let status = child.wait().context("the script")?;
    if status.success() { Ok(printed) } else { Err(format!("the script ended with {status}")) }
}

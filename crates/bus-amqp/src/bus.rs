//! The bus.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use attune_bus::{Bus, BusError, Consumer, Outgoing, QueueSpec};
use attune_lifecycle::DropGuard;
use lapin::uri::AMQPScheme;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::config::Address;
use crate::consumer::{self, Wanted};
use crate::publisher::{self, Encoded};
use crate::session::Target;
use crate::shared::{Blocked, Shared};
use crate::state::{AmqpState, Consumers, Link};
use crate::{AmqpConfig, ConnectError, limits, owner, tls, topology};

/// Publishing and consuming on RabbitMQ. Dropping it ends everything at once; [`Bus::close`] says good-bye first.
#[derive(Debug)]
pub struct AmqpBus {
    shared: Arc<Shared>,
    _closing: DropGuard,
}

impl AmqpBus {
    /// Connects, and keeps connected from then on. Tries for as long as the settings say, unless they are wrong.
    pub async fn connect(config: &AmqpConfig) -> Result<Self, ConnectError> {
        let AmqpConfig { url, ca_file, connection_name, start_limit } = config;
        let address = Address::parse(url)?;
        let tls = match address.uri.scheme {
            AMQPScheme::AMQPS => Some(tls::settings(ca_file.as_deref().map(Path::new))?),
            AMQPScheme::AMQP => None,
        };
        let connection_name = connection_name.clone();
        let target = Target { address, tls, connection_name, refusal_told: AtomicBool::new(false) };
        let session = owner::first(&target, *start_limit).await?;
        tracing::debug!(broker = %target.address, heartbeat = ?session.heartbeat(), "connected to the broker");
        let state = AmqpState {
            link: Link::Up { since: Instant::now() },
            blocked: None,
            heartbeat: session.heartbeat(),
            silence: Duration::ZERO,
            consumers: Consumers::default(),
            losses: 0,
        };
        let shared = Arc::new(Shared::new(target, watch::Sender::new(Some(session.clone())), state));
        shared.tasks.spawn(owner::own(shared.clone(), session));
        let closing = shared.closing.clone().drop_guard();
        Ok(Self { shared, _closing: closing })
    }

    /// What is known about the connection, and every change of it.
    pub fn state(&self) -> watch::Receiver<AmqpState> {
        self.shared.state.subscribe()
    }
}

#[async_trait]
impl Bus for AmqpBus {
    async fn declare(&self, queue: &QueueSpec) -> Result<u32, BusError> {
        let session = self.shared.available(Blocked::Goes).await?;
        let channel = session.control().await?;
        let consumers = topology::declare_queue(&session, &channel, queue).await?;
        self.shared.remember(queue);
        Ok(consumers)
    }

    async fn consume(&self, queue: &str, consumer_tag: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BusError> {
        let wanted = Wanted { queue: queue.to_owned(), tag: consumer_tag.to_owned(), prefetch };
        Ok(Box::new(consumer::consume(self.shared.clone(), wanted).await?))
    }

    async fn publish(&self, messages: &[Outgoing]) -> Result<(), BusError> {
        let encoded = messages.iter().map(Encoded::new).collect::<Result<Vec<_>, _>>()?;
        if encoded.is_empty() {
            return Ok(());
        }
        let session = self.shared.available(Blocked::DoesNot).await?;
        publisher::publish(&session, encoded).await
    }

    async fn close(&self) {
        self.shared.closing.cancel();
        if timeout(limits::CLOSE, self.shared.tasks.drained()).await.is_err() {
            tracing::warn!(tasks = self.shared.tasks.len(), "the bus did not close in time; left as it is");
        }
    }
}

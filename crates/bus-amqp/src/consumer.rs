//! One consumer: a task that keeps it subscribed, and the handle that its user holds.

use std::sync::Arc;

use async_trait::async_trait;
use attune_bus::{BusError, Consumer, ConsumerEvent, Delivery};
use attune_lifecycle::{Backoff, CancellationToken};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::try_join;
use lapin::Channel;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::time::{sleep, timeout};

use crate::acker::AmqpAcker;
use crate::error::words;
use crate::limits;
use crate::mailbox::Mailbox;
use crate::session::Session;
use crate::shared::Shared;
use crate::state::Consumers;
use crate::topology::{declare_queue, short};

/// What is consumed, and how.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) queue: String,
    pub(crate) tag: String,
    pub(crate) prefetch: u16,
}

/// A channel that is being consumed from.
#[derive(Debug)]
struct Subscription {
    session: Arc<Session>,
    channel: Channel,
    stream: lapin::Consumer,
    over: CancellationToken,
}

/// How a subscription ended.
enum Ended {
    /// By us.
    Cancelled,
    /// By the broker or the network.
    Lost(String),
}

/// Subscribes, and keeps it so until the consumer is cancelled or dropped, or the bus closed.
pub(crate) async fn consume(shared: Arc<Shared>, wanted: Wanted) -> Result<AmqpConsumer, BusError> {
    let session = shared.available(crate::shared::Blocked::Goes).await?;
    let subscription = subscribe(&shared, &session, &wanted, None).await?;
    let mailbox = Arc::new(Mailbox::default());
    let cancel = shared.closing.child_token();
    let ended = CancellationToken::new();
    shared.state.send_modify(|state| {
        state.consumers.change(|consumers| {
            consumers.wanted += 1;
            consumers.confirmed += 1;
        });
    });
    let keeper = Keeper { shared: shared.clone(), wanted, mailbox: mailbox.clone(), cancel: cancel.clone() };
    let guard = ended.clone().drop_guard();
    shared.tasks.spawn(async move {
        let _ended = guard;
        keeper.keep(subscription).await;
    });
    Ok(AmqpConsumer { mailbox, ended, cancel })
}

/// A channel that nobody consumes from yet. Dropped, it is closed: the broker may have made the consumer already, and would
/// give it messages that nobody sees.
struct Unused<'a> {
    shared: &'a Shared,
    queue: &'a str,
    channel: Option<Channel>,
}

impl Unused<'_> {
    fn keep(mut self) {
        self.channel = None;
    }
}

impl Drop for Unused<'_> {
    fn drop(&mut self) {
        if let Some(channel) = self.channel.take() {
            let queue = self.queue.to_owned();
            self.shared.tasks.spawn(async move { close(&channel, &queue).await });
        }
    }
}

/// Closes a channel, so that the broker takes back at once what was not answered.
async fn close(channel: &Channel, queue: &str) {
    if !channel.status().connected() {
        return;
    }
    match timeout(limits::CLOSE_CHANNEL, channel.close(200, "OK".into())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = words(&error), queue, "channel not closed"),
        Err(_elapsed) => tracing::debug!(queue, "channel not closed in time"),
    }
}

/// Subscribes on a channel of its own. Given up halfway, or refused, it leaves no consumer.
async fn subscribe(
    shared: &Shared,
    session: &Arc<Session>,
    wanted: &Wanted,
    redeclare: Option<&attune_bus::QueueSpec>,
) -> Result<Subscription, BusError> {
    let channel = session.channel().await?;
    let unused = Unused { shared, queue: &wanted.queue, channel: Some(channel.clone()) };
    if let Some(spec) = redeclare {
        declare_queue(session, &channel, spec).await?;
    }
    // None is no bound in AMQP; the largest number is one.
    let prefetch = if wanted.prefetch == 0 { u16::MAX } else { wanted.prefetch };
    let what = format!("consumer of {}", wanted.queue);
    let limited = session.call(&what, channel.basic_qos(prefetch, BasicQosOptions::default()));
    let consumed = channel.basic_consume(
        short(&wanted.queue)?,
        short(&wanted.tag)?,
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let consumed = session.call(&what, consumed);
    let ((), stream) = try_join(limited, consumed).await.map_err(|error| match error {
        BusError::Refused { reason, .. } if reason.contains("NOT_FOUND") => BusError::NoSuchQueue(wanted.queue.clone()),
        other => other,
    })?;
    unused.keep();
    Ok(Subscription { session: session.clone(), channel, stream, over: CancellationToken::new() })
}

/// The task behind a consumer.
struct Keeper {
    shared: Arc<Shared>,
    wanted: Wanted,
    mailbox: Arc<Mailbox>,
    cancel: CancellationToken,
}

impl Keeper {
    async fn keep(self, first: Subscription) {
        let mut subscription = first;
        loop {
            let ended = self.forward(&mut subscription).await;
            self.change(|consumers| consumers.confirmed -= 1);
            self.leave(subscription).await;
            let Ended::Lost(cause) = ended else { break };
            self.mailbox.interrupt(cause);
            match self.resubscribe().await {
                Some(next) => subscription = next,
                None => break,
            }
            self.change(|consumers| consumers.confirmed += 1);
            self.mailbox.resume();
        }
        self.mailbox.close();
        self.change(|consumers| consumers.wanted -= 1);
    }

    fn change(&self, change: impl FnOnce(&mut Consumers)) {
        self.shared.state.send_modify(|state| state.consumers.change(change));
    }

    async fn forward(&self, subscription: &mut Subscription) -> Ended {
        loop {
            let event = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Ended::Cancelled,
                () = subscription.session.over.cancelled() => return Ended::Lost("the connection was lost".to_owned()),
                event = subscription.stream.next() => event,
            };
            match event {
                Some(Ok(delivery)) => {
                    let acker = AmqpAcker {
                        channel: subscription.channel.clone(),
                        tag: delivery.delivery_tag,
                        queue: self.wanted.queue.clone(),
                        over: subscription.over.clone(),
                    };
                    self.mailbox.deliver(Delivery::new(
                        Bytes::from(delivery.data),
                        delivery.routing_key.to_string(),
                        delivery.redelivered,
                        Box::new(acker),
                    ));
                }
                Some(Err(error)) => return Ended::Lost(words(&error)),
                None => return Ended::Lost("the broker cancelled the consumer".to_owned()),
            }
        }
    }

    async fn leave(&self, subscription: Subscription) {
        let Subscription { session, channel, over, stream } = subscription;
        if self.cancel.is_cancelled() {
            self.mailbox.close();
        }
        over.cancel();
        if !session.over.is_cancelled() {
            close(&channel, &self.wanted.queue).await;
        }
        drop(stream);
    }

    /// Tries until it works; none when the consumer is not wanted any more.
    async fn resubscribe(&self) -> Option<Subscription> {
        let mut backoff = Backoff::new(limits::RETRY_MIN, limits::RETRY_MAX);
        let mut told = false;
        let mut sessions = self.shared.session.subscribe();
        loop {
            let session = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return None,
                session = sessions.wait_for(Option::is_some) => session.ok()?.clone()?,
            };
            let spec = self.shared.recall(&self.wanted.queue);
            let subscribed = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return None,
                subscribed = subscribe(&self.shared, &session, &self.wanted, spec.as_ref()) => subscribed,
            };
            match subscribed {
                Ok(subscription) => {
                    if told {
                        tracing::info!(queue = self.wanted.queue, "consuming again");
                    }
                    return Some(subscription);
                }
                // The loss of the connection is said elsewhere, once for all.
                Err(_) if session.over.is_cancelled() => continue,
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(queue = self.wanted.queue, %error, "not consuming; trying on");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = self.cancel.cancelled() => return None,
                () = sleep(backoff.next_delay()) => {}
            }
        }
    }
}

/// What the user of a consumer holds.
#[derive(Debug)]
pub(crate) struct AmqpConsumer {
    mailbox: Arc<Mailbox>,
    /// Cancelled when the task has ended.
    ended: CancellationToken,
    cancel: CancellationToken,
}

impl Drop for AmqpConsumer {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

#[async_trait]
impl Consumer for AmqpConsumer {
    async fn next(&mut self) -> Option<ConsumerEvent> {
        self.mailbox.next().await
    }

    async fn cancel(&mut self) -> Result<(), BusError> {
        self.cancel.cancel();
        match timeout(limits::CLOSE, self.ended.cancelled()).await {
            Ok(()) => Ok(()),
            Err(_elapsed) => Err(BusError::Unavailable("the consumer did not end in time".to_owned())),
        }
    }
}

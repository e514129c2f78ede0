//! Publishing with confirms.

use attune_bus::{BusError, Outgoing};
use futures_util::future::maybe_done;
use futures_util::poll;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::time::{Instant, timeout_at};

use crate::error::words;
use crate::limits;
use crate::session::Session;
use crate::topology::short;

/// Survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// A message in the form in which it goes out.
#[derive(Debug)]
pub(crate) struct Encoded {
    exchange: ShortString,
    routing_key: ShortString,
    body: Vec<u8>,
    properties: BasicProperties,
}

impl Encoded {
    pub(crate) fn new(message: &Outgoing) -> Result<Self, BusError> {
        let envelope = &message.envelope;
        let body = serde_json::to_vec(envelope)
            .map_err(|source| BusError::Encode { message_type: envelope.message_type, source })?;
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_message_id(short(&envelope.message_id.to_string())?)
            .with_correlation_id(short(&envelope.correlation_id.to_string())?)
            .with_timestamp(u64::try_from(envelope.timestamp.timestamp()).unwrap_or(0));
        Ok(Self {
            exchange: message.exchange.name().into(),
            routing_key: short(&message.routing_key)?,
            body,
            properties,
        })
    }
}

/// Sends all messages in order without waiting in between, then waits for all confirmations.
pub(crate) async fn publish(session: &Session, messages: Vec<Encoded>) -> Result<(), BusError> {
    let channel = session.publisher().await?;
    let deadline = Instant::now() + limits::CONFIRM;
    let total = messages.len();
    let mut sends = Vec::with_capacity(total);
    for message in &messages {
        let mut send = Box::pin(maybe_done(send(&channel, message)));
        // The first poll puts the frames in line, so polling in order is sending in order.
        started(poll!(send.as_mut()));
        sends.push(send);
    }
    let mut unconfirmed = 0;
    let mut first = None;
    for mut send in sends {
        let confirmed = tokio::select! {
            () = session.over.cancelled() => Err("the connection was lost".to_owned()),
            waited = timeout_at(deadline, send.as_mut()) => match waited {
                Ok(()) => confirmation(&channel, session, send.as_mut().take_output(), deadline).await,
                Err(_elapsed) => Err(format!("not sent within {:?}", limits::CONFIRM)),
            },
        };
        if let Err(reason) = confirmed {
            unconfirmed += 1;
            first.get_or_insert(reason);
        }
    }
    match first {
        None => Ok(()),
        Some(reason) => Err(BusError::NotConfirmed { unconfirmed, total, reason }),
    }
}

/// A first poll; its result is looked at in its turn.
fn started(polled: std::task::Poll<()>) {
    match polled {
        std::task::Poll::Ready(()) | std::task::Poll::Pending => {}
    }
}

async fn send(channel: &Channel, message: &Encoded) -> lapin::Result<PublisherConfirm> {
    channel
        .basic_publish(
            message.exchange.clone(),
            message.routing_key.clone(),
            BasicPublishOptions::default(),
            &message.body,
            message.properties.clone(),
        )
        .await
}

async fn confirmation(
    channel: &Channel,
    session: &Session,
    sent: Option<lapin::Result<PublisherConfirm>>,
    deadline: Instant,
) -> Result<(), String> {
    let confirm = match sent {
        Some(Ok(confirm)) => confirm,
        Some(Err(error)) => return Err(words(&error)),
        None => return Err("not sent".to_owned()),
    };
    let waited = tokio::select! {
        () = session.over.cancelled() => return Err("the connection was lost".to_owned()),
        waited = timeout_at(deadline, confirm) => waited,
    };
    match waited {
        Ok(Ok(Confirmation::Ack(None))) => Ok(()),
        Ok(Ok(Confirmation::Ack(Some(_)))) => Err("no queue takes it".to_owned()),
        Ok(Ok(Confirmation::Nack(_))) => Err("the broker could not store it".to_owned()),
        Ok(Ok(Confirmation::NotRequested)) => Err("the channel gives no confirmations".to_owned()),
        Ok(Err(error)) => Err(words(&error)),
        Err(_elapsed) if channel.status().connected() => Err(format!("no answer within {:?}", limits::CONFIRM)),
        Err(_elapsed) => Err("the channel was lost".to_owned()),
    }
}

//! Exchanges and queues, exactly as the whole platform declares them: the broker refuses any other arguments.

use attune_bus::{BusError, QueueLifetime, QueueSpec};
use attune_model::message::Exchange;
use futures_util::future::{try_join, try_join_all};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, ExchangeKind};

use crate::session::Session;

const DEAD_LETTER_QUEUE: &str = "attune.dlx.queue";
/// Bound with this literal, although the exchange is a direct one: a fact of the platform.
const DEAD_LETTER_KEY: &str = "#";

/// The exchanges of the platform. Notifications are published by others only.
const EXCHANGES: [(&str, ExchangeKind); 4] = [
    ("attune.events", ExchangeKind::Topic),
    ("attune.executions", ExchangeKind::Topic),
    ("attune.notifications", ExchangeKind::Fanout),
    ("attune.dlx", ExchangeKind::Direct),
];

/// Makes what every service makes. An account that may not is no obstacle: somebody else has made it then. Answers what
/// was refused, and the reason for the first of it.
pub(crate) async fn declare_common(session: &Session) -> Result<Option<Refusal>, BusError> {
    match declare_at_once(session).await {
        // The broker closed the channel, and with it what came after the first that it refused.
        Err(BusError::Refused { .. }) => declare_one_by_one(session).await,
        other => other.map(|()| None),
    }
}

/// All of it in one round trip: the broker takes what comes on one channel in order.
async fn declare_at_once(session: &Session) -> Result<(), BusError> {
    let exchanges = EXCHANGES.into_iter().map(|(name, kind)| declare_exchange(session, name, kind));
    try_join(try_join_all(exchanges), declare_dead_letter_queue(session)).await.map(drop)
}

async fn declare_one_by_one(session: &Session) -> Result<Option<Refusal>, BusError> {
    let mut refusal = None;
    for (name, kind) in EXCHANGES {
        tolerate(&mut refusal, name, declare_exchange(session, name, kind).await)?;
    }
    tolerate(&mut refusal, DEAD_LETTER_QUEUE, declare_dead_letter_queue(session).await)?;
    Ok(refusal)
}

/// What the broker did not let us declare.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) what: Vec<&'static str>,
    pub(crate) reason: String,
}

fn tolerate(refusal: &mut Option<Refusal>, what: &'static str, declared: Result<(), BusError>) -> Result<(), BusError> {
    match declared {
        Err(BusError::Refused { reason, .. }) => {
            refusal.get_or_insert(Refusal { what: Vec::new(), reason }).what.push(what);
            Ok(())
        }
        other => other,
    }
}

async fn declare_exchange(session: &Session, name: &str, kind: ExchangeKind) -> Result<(), BusError> {
    let channel = session.control().await?;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    session.call(name, channel.exchange_declare(name.into(), kind, options, FieldTable::default())).await
}

async fn declare_dead_letter_queue(session: &Session) -> Result<(), BusError> {
    let channel = session.control().await?;
    let name = DEAD_LETTER_QUEUE;
    let declared = session.call(name, channel.queue_declare(name.into(), durable(), FieldTable::default()));
    try_join(declared, bind(session, &channel, name, Exchange::DeadLetters, DEAD_LETTER_KEY)).await.map(drop)
}

/// Makes a queue and its bindings on `channel`, in one round trip; answers how many consume it. Of several errors the
/// first is told, which is the broker's reason for closing the channel.
pub(crate) async fn declare_queue(session: &Session, channel: &Channel, spec: &QueueSpec) -> Result<u32, BusError> {
    let name = short(&spec.name)?;
    let what = format!("queue {}", spec.name);
    let declared = session.call(&what, channel.queue_declare(name, durable(), arguments(spec)));
    let bindings = spec.bindings.iter();
    let bound = bindings.map(|(exchange, pattern)| bind(session, channel, &spec.name, *exchange, pattern));
    let (queue, _bound) = try_join(declared, try_join_all(bound)).await?;
    Ok(queue.consumer_count())
}

async fn bind(
    session: &Session,
    channel: &Channel,
    queue: &str,
    exchange: Exchange,
    pattern: &str,
) -> Result<(), BusError> {
    let what = format!("binding of {queue} to {} by {pattern}", exchange.name());
    let bound = channel.queue_bind(
        short(queue)?,
        exchange.name().into(),
        short(pattern)?,
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    session.call(&what, bound).await
}

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }
}

/// The arguments of a queue. Numbers are signed 32-bit (`I`), names are long strings, as the platform has them.
fn arguments(spec: &QueueSpec) -> FieldTable {
    let number = |value: u128| AMQPValue::LongInt(i32::try_from(value).unwrap_or(i32::MAX));
    let mut arguments = FieldTable::default();
    if spec.dead_letters {
        let exchange = LongString::from(Exchange::DeadLetters.name());
        arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(exchange));
    }
    if let Some(ttl) = spec.message_ttl_ms {
        arguments.insert("x-message-ttl".into(), number(u128::from(ttl)));
    }
    if let QueueLifetime::UntilUnused(limit) = spec.lifetime {
        // Nought is no limit that the broker knows.
        arguments.insert("x-expires".into(), number(limit.as_millis().max(1)));
    }
    arguments
}

/// A name as AMQP has it, at most 255 bytes.
pub(crate) fn short(name: &str) -> Result<ShortString, BusError> {
    ShortString::try_new(name)
        .map_err(|error| BusError::Refused { what: format!("name {name}"), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_types_that_the_platform_declares() {
        let spec = QueueSpec {
            name: "worker.42.executions".into(),
            bindings: Vec::new(),
            message_ttl_ms: Some(300_000),
            dead_letters: true,
            lifetime: QueueLifetime::Permanent,
        };
        let table = arguments(&spec);
        assert_eq!(table.inner().len(), 2);
        assert_eq!(table.inner().get("x-message-ttl"), Some(&AMQPValue::LongInt(300_000)));
        assert_eq!(table.inner().get("x-dead-letter-exchange"), Some(&AMQPValue::LongString("attune.dlx".into())));
        let bare = QueueSpec { message_ttl_ms: None, dead_letters: false, ..spec };
        assert!(arguments(&bare).inner().is_empty());
    }
}

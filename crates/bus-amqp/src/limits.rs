//! How long things may take. Every wait of this crate has one of these limits.

use std::time::Duration;

/// One attempt to reach one address. Brokers on the same network answer in milliseconds.
pub(crate) const DIAL: Duration = Duration::from_secs(5);
/// One whole attempt: names, addresses, TLS and the AMQP handshake.
pub(crate) const CONNECT: Duration = Duration::from_secs(20);
/// One question to the broker.
pub(crate) const CALL: Duration = Duration::from_secs(10);
/// How long callers wait for a connection that is lost or blocked before they are told.
pub(crate) const AVAILABLE: Duration = Duration::from_secs(5);
/// A confirmation. The broker confirms persistent messages after they are on disk, late under load.
pub(crate) const CONFIRM: Duration = Duration::from_secs(30);
/// Writing an answer to the socket.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);
/// The parting words of a channel.
pub(crate) const CLOSE_CHANNEL: Duration = Duration::from_secs(1);
/// The parting words of a connection; then the socket is dropped.
pub(crate) const CLOSE_CONNECTION: Duration = Duration::from_secs(2);
/// Everything that runs behind the bus, when it is closed.
pub(crate) const CLOSE: Duration = Duration::from_secs(4);
/// Between attempts to connect or to subscribe.
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(100);
/// A broker that comes back is used again within this time.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(10);
/// How often the connection is looked at: its loss is told at once, this is for silence. Every look wakes an idle agent, so
/// there are no more of them than the silence of a heartbeat and a half is to be seen within two.
pub(crate) const LOOK: Duration = Duration::from_secs(15);

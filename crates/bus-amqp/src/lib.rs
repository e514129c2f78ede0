//! Publishing and consuming on RabbitMQ.
//!
//! ```text
//!   AmqpBus ──► owner (one task): dial ─► handshake ─► watch ─► lost ─► back-off ─► dial …
//!      │             │ current session
//!      │             ▼
//!      ├── publish ──► one channel with confirms, made again when it is lost
//!      ├── declare ──► one channel for topology, made again when it is lost
//!      └── consume ──► one task and channel per consumer, subscribed again when either is lost
//! ```
//!
//! lapin speaks the protocol; connecting, watching, giving up and coming back are done here, because a client library's
//! own recovery has been seen to wait for ever. The socket is ours too: it has no delay, knows when the broker was last
//! heard, and can be cut at once from outside, which ends everything that lapin has running on it.

mod acker;
mod bus;
mod config;
mod consumer;
mod dial;
mod error;
mod limits;
mod mailbox;
mod owner;
mod publisher;
mod session;
mod shared;
mod state;
mod tls;
mod topology;
mod wire;

pub use bus::AmqpBus;
pub use config::AmqpConfig;
pub use error::ConnectError;
pub use state::{AmqpState, Block, Consumers, Link};

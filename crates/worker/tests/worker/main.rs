//! The worker on real storage, a real bus and real children. One program: each would be linked with everything for itself.
#![expect(clippy::unwrap_used, unreachable_pub, reason = "tests")]

mod canceling;
mod capabilities;
mod clock;
mod dispatcher;
mod endings;
mod executor;
mod golden;
mod health;
mod kept;
mod lives;
mod lost_storage;
mod packs;
mod slots;
mod support;
mod transports;

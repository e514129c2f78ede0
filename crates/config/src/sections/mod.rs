//! One file per section: its keys, the struct they become, and the checks that need more than one of them.

pub(crate) mod agent;
pub(crate) mod artifacts;
pub(crate) mod child;
pub(crate) mod database;
pub(crate) mod executor;
pub(crate) mod folders;
pub(crate) mod health;
pub(crate) mod log;
pub(crate) mod message_queue;
pub(crate) mod security;
pub(crate) mod sensor;
pub(crate) mod server;
pub(crate) mod start;
pub(crate) mod worker;

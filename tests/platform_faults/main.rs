//! The worker when something fails beside it: every execution ends, none runs twice, no row is stuck, nobody restarts it.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the programs under test are started and ended the way operators do it")]

#[path = "../platform/http.rs"]
mod http;
#[path = "../platform/support.rs"]
mod support;

mod broker;
mod cancel;
mod clock;
mod database;
mod disk;
mod drain;
mod hub;
mod messages;
mod processes;
mod rig;
mod spy;

//! One file per applet: arguments → configuration → build → spawn → drain, nothing else.
//!
//! A new one: its module here, a function `run(call: Call) -> Result<Exit, Failure>` that starts with `call.with(…)`,
//! and an entry in the table of `applet.rs`.

mod agent;
pub(crate) mod config;
pub(crate) mod detect;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod elsewhere;
pub(crate) mod exec;
pub(crate) mod fetch;
pub(crate) mod guard;
pub(crate) mod health;
pub(crate) mod host;
pub(crate) mod http_request;
pub(crate) mod hub;
pub(crate) mod init;
pub(crate) mod install;
mod machine;
pub(crate) mod migrate;
pub(crate) mod notify;
pub(crate) mod packs;
pub(crate) mod panic;
mod platform;
pub(crate) mod run;
pub(crate) mod sensor;
pub(crate) mod sensor_ctl;
pub(crate) mod timer_sensor;
pub(crate) mod user_code;
mod vitals;
pub(crate) mod worker;

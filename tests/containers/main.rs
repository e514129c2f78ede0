//! The static binary in real containers: stock-like images of every kind, through PostgreSQL and RabbitMQ.
//!
//! An engine is installed and started where there is none; where that is not possible, these tests fail, unless
//! `ATTUNE_TEST_SKIP=containers` says that it is known.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "what an operator does is done the way operators do it")]

#[path = "../platform/http.rs"]
mod http;

mod artefact;
mod compose;
mod copied;
mod environments;
mod images;
mod lifecycle;
mod prepare;
mod sensors;
mod site;
mod wrapper;

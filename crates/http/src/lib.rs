//! HTTP client with TLS that works in an image without a CA bundle, and what agents ask the platform's API for.
//!
//! Owns: the TLS configuration (rustls with ring, roots built in, plus an optional CA file), a time limit on every call,
//! a bound on every response body, and errors that name method and URL but never a header, a body that was sent, or the
//! user information and query of a URL. It installs nothing globally: two clients in one process do not disturb each other.

mod client;
mod described;
mod error;
mod file_body;
mod file_sink;
mod message;
mod pack_sync;
mod platform;
mod same_files;
mod tls;

pub use client::{Client, ClientConfig, Redirects};
pub use described::{DescribedError, described};
pub use error::{BuildError, Decision, HttpError, Problem};
pub use message::{Body, Method, Request, Response, Sink, form_encoded};
pub use pack_sync::{PackError, PackSync, StagedPack, shares_packs};
pub use platform::{AgentToken, PlatformApi, Transport, UPLOAD_LIMIT_BYTES, shares_artifacts};
pub use tls::Verification;

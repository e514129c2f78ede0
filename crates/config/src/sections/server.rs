//! `server.*` and `ATTUNE_API_URL`: where the platform's API is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::key::{Described, Key};
use crate::kinds::{Text, Whole};
use crate::reader::Reader;

/// The variable that names the API.
pub(crate) const API_VARIABLE: &str = "ATTUNE_API_URL";

const HOST: Key<Text> = Key {
    path: "server.host",
    kind: Text,
    default: "0.0.0.0",
    doc: "Host of the API, when `ATTUNE_API_URL` is not set. The hub listens on this address.",
    reason: "the platform's default; for a client, `0.0.0.0` and `[::]` mean this machine",
};

const PORT: Key<Whole<u16>> = Key {
    path: "server.port",
    kind: Whole(1..=u16::MAX),
    default: "8080",
    doc: "Port of the API, when `ATTUNE_API_URL` is not set. The hub listens on this port.",
    reason: "the platform's default",
};

/// Every key of the section.
pub(crate) const KEYS: &[&dyn Described] = &[&HOST, &PORT];

/// The base address of the API, without a slash at its end, for the agent and for user code.
pub(crate) fn api_url(reader: &mut Reader<'_>) -> String {
    let (host, port) = (reader.value(&HOST), reader.value(&PORT));
    let Some(url) = reader.variable(API_VARIABLE) else {
        let bracketed = host.contains(':') && !host.starts_with('[');
        let host = if bracketed { format!("[{host}]") } else { host };
        return reachable(&format!("http://{host}:{port}"));
    };
    if !["http://", "https://"].iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme)) {
        reader.problem(API_VARIABLE, "must be a URL that begins with http:// or https://");
    }
    reachable(url.trim_end_matches('/'))
}

/// Where the hub listens. A name would have to be looked up, and the answer may change: only `localhost` is known.
pub(crate) fn listen(reader: &mut Reader<'_>) -> SocketAddr {
    let (host, port) = (reader.value(&HOST), reader.value(&PORT));
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    let ip = if plain == "localhost" { Some(Ipv4Addr::LOCALHOST.into()) } else { plain.parse::<IpAddr>().ok() };
    if ip.is_none() {
        let place = reader.place_of(&HOST);
        reader.problem(place, "must be an IP address of this machine, or `localhost`");
    }
    SocketAddr::new(ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port)
}

/// Servers listen on these addresses; clients mean their own machine by them.
fn reachable(url: &str) -> String {
    url.replacen("://0.0.0.0", "://127.0.0.1", 1).replacen("://[::]", "://127.0.0.1", 1)
}

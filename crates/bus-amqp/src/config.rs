//! Where the broker is and how to reach it.

use std::path::PathBuf;
use std::time::Duration;

use attune_model::Secret;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use percent_encoding::percent_decode_str;
use url::Url;

use crate::ConnectError;

/// lapin keeps two buffers of 32 frames. The broker's own 128 KiB would make that 8 MiB; messages are rarely larger than
/// one frame of this size.
const FRAME_MAX: u32 = 16 * 1024;

/// Settings of a bus.
#[derive(Debug, Clone)]
pub struct AmqpConfig {
    /// `amqp://` or `amqps://`, user and password included.
    pub url: Secret,
    /// PEM certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What the connection is called in the broker's management.
    pub connection_name: String,
    /// How long the first connection is tried for. Later ones are tried for ever.
    pub start_limit: Duration,
}

impl AmqpConfig {
    /// A bus at `url` with everything else as usual.
    pub fn new(url: Secret, connection_name: impl Into<String>) -> Self {
        Self { url, ca_file: None, connection_name: connection_name.into(), start_limit: Duration::from_mins(1) }
    }
}

/// A checked address. It prints without user and password.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) uri: AMQPUri,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let AMQPUri { scheme, authority, vhost, .. } = &self.uri;
        write!(f, "{scheme}://{}:{} (virtual host {vhost})", authority.host, authority.port)
    }
}

impl Address {
    /// Reads the URL. No error says what was in it.
    pub(crate) fn parse(url: &Secret) -> Result<Self, ConnectError> {
        let wrong = |problem: &'static str| ConnectError::Url { problem };
        let url = Url::parse(url.expose()).map_err(|_secret| wrong("it is no URL"))?;
        let scheme: AMQPScheme =
            url.scheme().parse().map_err(|_secret| wrong("it begins with neither amqp:// nor amqps://"))?;
        let host = match url.host() {
            None => "localhost".to_owned(),
            Some(url::Host::Domain(name)) => decoded(name).ok_or_else(|| wrong("its host is not UTF-8"))?,
            Some(url::Host::Ipv4(address)) => address.to_string(),
            Some(url::Host::Ipv6(address)) => address.to_string(),
        };
        let user = if url.username().is_empty() { "guest" } else { url.username() };
        let userinfo = AMQPUserInfo {
            username: decoded(user).ok_or_else(|| wrong("its user is not UTF-8"))?,
            password: decoded(url.password().unwrap_or("guest")).ok_or_else(|| wrong("its password is not UTF-8"))?,
        };
        // No path is the default virtual host; an empty one names the virtual host without a name.
        let vhost = url.path().strip_prefix('/').map_or_else(|| Some("/".to_owned()), decoded);
        let vhost = vhost.ok_or_else(|| wrong("its virtual host is not UTF-8"))?;
        if vhost.len() > usize::from(u8::MAX) {
            return Err(wrong("its virtual host is longer than 255 bytes"));
        }
        let port = url.port().unwrap_or_else(|| if scheme == AMQPScheme::AMQP { 5672 } else { 5671 });
        let query = AMQPQueryString {
            frame_max: Some(number(&url, "frame_max")?.unwrap_or(FRAME_MAX)),
            channel_max: number(&url, "channel_max")?,
            heartbeat: number(&url, "heartbeat")?,
            connection_timeout: number(&url, "connection_timeout")?,
            auth_mechanism: None,
        };
        Ok(Self { uri: AMQPUri { scheme, authority: AMQPAuthority { userinfo, host, port }, vhost, query } })
    }
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

fn number<T: std::str::FromStr>(url: &Url, name: &'static str) -> Result<Option<T>, ConnectError> {
    let Some((_, value)) = url.query_pairs().find(|(key, _)| key == name) else { return Ok(None) };
    value.parse().map(Some).map_err(|_secret| ConnectError::UrlParameter { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, ConnectError> {
        Address::parse(&Secret::new(url.to_owned()))
    }

    #[test]
    fn user_password_and_virtual_host_are_decoded() {
        let address = parse("amqps://us%40er:p%2Fa%3Ass@broker.example/te%2Fst?heartbeat=7").unwrap();
        let AMQPUri { scheme, authority, vhost, query } = &address.uri;
        assert_eq!(*scheme, AMQPScheme::AMQPS);
        assert_eq!((authority.userinfo.username.as_str(), authority.userinfo.password.as_str()), ("us@er", "p/a:ss"));
        assert_eq!((authority.host.as_str(), authority.port, vhost.as_str()), ("broker.example", 5671, "te/st"));
        assert_eq!((query.heartbeat, query.frame_max), (Some(7), Some(FRAME_MAX)));
        assert_eq!(address.to_string(), "amqps://broker.example:5671 (virtual host te/st)");
    }

    #[test]
    fn what_is_left_out_has_the_usual_value() {
        let address = parse("amqp://broker").unwrap();
        let AMQPUri { authority, vhost, query, .. } = &address.uri;
        assert_eq!((authority.userinfo.username.as_str(), authority.port, vhost.as_str()), ("guest", 5672, "/"));
        assert_eq!(query.heartbeat, None, "the broker decides");
        assert_eq!(parse("amqp://broker/%2f").unwrap().uri.vhost, "/");
        assert_eq!(parse("amqp://broker/").unwrap().uri.vhost, "");
        assert_eq!(parse("amqp://[::1]:5673").unwrap().uri.authority.host, "::1");
        assert_eq!(parse("amqp://10.0.0.9").unwrap().uri.authority.host, "10.0.0.9");
    }

    #[test]
    fn errors_do_not_tell_what_was_in_the_url() {
        for url in
            ["http://me:hunter2@host", "hunter2", "amqp://me:hunter2@host?heartbeat=hunter2", "amqp://me:hunter2%ff@h"]
        {
            let error = parse(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        let address = parse("amqp://me:hunter2@host").unwrap();
        assert!(!format!("{address} {address:?}").contains("hunter2"));
    }
}

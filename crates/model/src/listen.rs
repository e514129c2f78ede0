//! Where an agent answers questions about its health.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest name of an abstract socket: `sun_path` has 108 bytes, and the first one is the mark.
const MOST_NAME_BYTES: usize = 107;

/// Longest path of a socket: `sun_path` ends with a zero byte.
const MOST_PATH_BYTES: usize = 107;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket in the file system.
    Path(PathBuf),
    /// A Unix socket without a file, known in its network namespace.
    Abstract(String),
}

impl Listen {
    /// Where an agent listens when nobody says otherwise: an abstract socket, because it needs no writable folder, no port
    /// and no configuration. Both sides derive the name from what they know anyway.
    ///
    /// `space` tells containers apart that share a network: two of them may hold agents of one name.
    pub fn of_agent(role: &str, name: &str, space: &str) -> Self {
        let whole = format!("attune-agents/{role}/{name}/{space}");
        if whole.len() <= MOST_NAME_BYTES && !whole.contains('\0') {
            return Self::Abstract(whole);
        }
        let hash = format!("~{:016x}", fnv1a(whole.as_bytes()));
        let mut kept = MOST_NAME_BYTES - hash.len();
        while !whole.is_char_boundary(kept.min(whole.len())) {
            kept -= 1;
        }
        Self::Abstract(format!("{}{hash}", whole[..kept.min(whole.len())].replace('\0', "_")))
    }
}

/// Tells long names apart that begin alike; nothing secret or hostile depends on it.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Path(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{name}"),
        }
    }
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if matches!(text, "off" | "none" | "false") {
            return Ok(Self::Off);
        }
        let Some(place) = text.strip_prefix("unix:") else {
            return text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "must be an address with a port (`127.0.0.1:9464`), `unix:/path`, `unix:@name` or `off`");
        };
        match place.strip_prefix('@') {
            Some(name) if !(1..=MOST_NAME_BYTES).contains(&name.len()) || name.contains('\0') => {
                Err("the name of an abstract socket must have 1 to 107 bytes")
            }
            Some(name) => Ok(Self::Abstract(name.to_owned())),
            None if !place.starts_with('/') => Err("the path of a socket must begin with `/`"),
            None if place.len() > MOST_PATH_BYTES || place.contains('\0') => {
                Err("the path of a socket must have at most 107 bytes")
            }
            None => Ok(Self::Path(place.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_reads_back() {
        for text in ["off", "127.0.0.1:9464", "[::1]:80", "unix:/run/attune/health.sock", "unix:@attune"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["", "9464", "localhost", "unix:", "unix:relative", "unix:@", "http://127.0.0.1:80"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
        assert!(format!("unix:/{}", "x".repeat(107)).parse::<Listen>().is_err());
    }

    #[test]
    fn agents_of_another_role_or_name_listen_elsewhere() {
        assert_eq!(Listen::of_agent("worker", "w1", "7"), Listen::Abstract("attune-agents/worker/w1/7".to_owned()));
        assert_ne!(Listen::of_agent("worker", "w1", "7"), Listen::of_agent("sensor", "w1", "7"));
        assert_ne!(Listen::of_agent("worker", "w1", "7"), Listen::of_agent("worker", "w1", "8"));
        let (one, two) = ("ü".repeat(100), format!("{}x", "ü".repeat(100)));
        let (Listen::Abstract(one), Listen::Abstract(two)) =
            (Listen::of_agent("worker", &one, ""), Listen::of_agent("worker", &two, ""))
        else {
            panic!("not abstract");
        };
        assert!(one != two && one.len() <= MOST_NAME_BYTES && two.len() <= MOST_NAME_BYTES, "{one} {two}");
        assert!(format!("unix:@{one}").parse::<Listen>().is_ok());
    }
}

//! The asking side: one request over a blocking socket, with one limit for everything.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use attune_model::listen::Listen;
use thiserror::Error;

/// Longest answer: a status document with thousands of executions.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Question {
    /// Can it work?
    #[default]
    Ready,
    /// Does it live?
    Live,
    /// What does it do?
    Status,
    /// What has it counted?
    Metrics,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Self::Ready => "/readyz?verbose",
            Self::Live => "/livez",
            Self::Status => "/status.json",
            Self::Metrics => "/metrics",
        }
    }
}

impl FromStr for Question {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ready" => Ok(Self::Ready),
            "live" => Ok(Self::Live),
            "status" => Ok(Self::Status),
            "metrics" => Ok(Self::Metrics),
            _ => Err("expected `ready`, `live`, `status` or `metrics`"),
        }
    }
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `host:port` over TCP.
    Tcp(String),
    /// A socket in the file system.
    Path(PathBuf),
    /// An abstract socket.
    Abstract(String),
}

impl Target {
    /// The other end of `listen`; none when nobody listens. An address that stands for every interface is reached on this
    /// machine.
    pub fn of(listen: &Listen) -> Option<Self> {
        match listen {
            Listen::Off => None,
            Listen::Tcp(address) => Some(Self::Tcp(reachable(*address).to_string())),
            Listen::Path(path) => Some(Self::Path(path.clone())),
            Listen::Abstract(name) => Some(Self::Abstract(name.clone())),
        }
    }

    /// The target of a URL `http://host:port`; a path is not part of it.
    pub fn of_url(url: &str) -> Result<Self, &'static str> {
        let rest = url.strip_prefix("http://").ok_or("must begin with http://")?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
            return Err("must be http://host:port and nothing else; what is asked is chosen by --ask");
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(Self::Tcp(if has_port { authority.to_owned() } else { format!("{authority}:80") }))
    }
}

fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        std::net::IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Path(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{name}"),
        }
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether the answer is yes.
    pub yes: bool,
    /// The text.
    pub text: String,
}

/// No answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody is there, or they do not answer in time.
    #[error("nobody answers at {target}")]
    Silent {
        /// Who was asked.
        target: Target,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket belongs to another user, who could tell anything.
    #[error("{target} is not an agent of this user: it belongs to user {owner}")]
    Stranger {
        /// Who was asked.
        target: Target,
        /// Whose it is.
        owner: u32,
    },
    /// Somebody is there who is not an agent.
    #[error("{target} does not speak as an agent does")]
    Foreign {
        /// Who was asked.
        target: Target,
    },
}

/// Asks, and waits at most `limit` for the whole answer.
///
/// A thread asks, because two steps have no time limit of their own: connecting to a Unix socket whose backlog is full, and
/// looking up a name. One that hangs there is left behind, which ends with the process.
pub fn ask(target: &Target, question: Question, limit: Duration) -> Result<Answer, AskError> {
    let (send, answer) = mpsc::sync_channel(1);
    let asked = target.clone();
    let asking = thread::Builder::new().name("ask".to_owned()).spawn(move || {
        // Nobody receives it when the time is over.
        send.send(ask_blocking(&asked, question, limit)).is_ok()
    });
    let silent = |source| AskError::Silent { target: target.clone(), source };
    match asking.map(|_thread| answer.recv_timeout(limit)) {
        Ok(Ok(answer)) => answer,
        Ok(Err(_over)) => Err(silent(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))),
        Err(error) => Err(silent(error)),
    }
}

fn ask_blocking(target: &Target, question: Question, limit: Duration) -> Result<Answer, AskError> {
    let deadline = Instant::now() + limit;
    let silent = |source| AskError::Silent { target: target.clone(), source };
    let request = format!("GET {} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n", question.path());
    let bytes = match target {
        Target::Tcp(address) => {
            let mut stream = connect_tcp(address, deadline).map_err(silent)?;
            exchange(&mut stream, TcpStream::set_read_timeout, &request, deadline).map_err(silent)?
        }
        Target::Path(path) => {
            let mut stream = UnixStream::connect(path).map_err(silent)?;
            exchange(&mut stream, UnixStream::set_read_timeout, &request, deadline).map_err(silent)?
        }
        Target::Abstract(name) => {
            let mut stream = UnixAddr::from_abstract_name(name)
                .and_then(|address| UnixStream::connect_addr(&address))
                .map_err(silent)?;
            let owner = attune_sys::peer_user(&stream).map_err(silent)?;
            if owner != 0 && owner != attune_sys::effective_user() {
                return Err(AskError::Stranger { target: target.clone(), owner });
            }
            exchange(&mut stream, UnixStream::set_read_timeout, &request, deadline).map_err(silent)?
        }
    };
    parse(&bytes).ok_or_else(|| AskError::Foreign { target: target.clone() })
}

fn connect_tcp(address: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")) } else { Ok(left) }
}

fn exchange<S: Read + Write>(
    stream: &mut S,
    set_timeout: impl Fn(&S, Option<Duration>) -> io::Result<()>,
    request: &str,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        set_timeout(stream, Some(left(deadline)?))?;
        let count = match stream.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            }
            Err(error) => return Err(error),
        };
        bytes.extend_from_slice(&chunk[..count]);
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MOST_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
    }
}

/// None when it is no answer of an agent, or not all of one.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    (body.len() == length && matches!(status, 200 | 503)).then(|| Answer { yes: status == 200, text: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_counts() {
        let answer = |text: &str| parse(text.as_bytes());
        let yes = answer("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n").unwrap();
        assert!(yes.yes && yes.text == "ready\n");
        let no = answer("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nno\n").unwrap();
        assert!(!no.yes);
        for wrong in [
            "",
            "220 mail.example ESMTP\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nready\n",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nready\n",
        ] {
            assert_eq!(answer(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn urls_name_a_host_and_nothing_else() {
        assert_eq!(Target::of_url("http://127.0.0.1:9464/"), Ok(Target::Tcp("127.0.0.1:9464".to_owned())));
        assert_eq!(Target::of_url("http://agent"), Ok(Target::Tcp("agent:80".to_owned())));
        assert_eq!(Target::of_url("http://[::1]:80"), Ok(Target::Tcp("[::1]:80".to_owned())));
        for wrong in ["https://agent", "agent:80", "http://", "http://agent/readyz", "http://user@agent"] {
            assert!(Target::of_url(wrong).is_err(), "{wrong}");
        }
        let every: Listen = "0.0.0.0:9464".parse().unwrap();
        assert_eq!(Target::of(&every), Some(Target::Tcp("127.0.0.1:9464".to_owned())));
    }
}

//! Relays that count what goes through: statements to PostgreSQL, methods from and to RabbitMQ.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// The code of PostgreSQL's request for TLS, 80877103.
const TLS_REQUEST: [u8; 4] = [4, 210, 22, 47];

/// What is spoken on the relayed connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Counts round trips (`Sync` and simple queries), told apart by what the statement touches.
    Postgres,
    /// Counts methods by class and method, in both directions.
    Amqp,
}

/// A relay in front of a server. Lives as long as the process.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    counts: Arc<Mutex<Counts>>,
}

/// How often what was seen, and when last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(BTreeMap<String, (u64, Option<Instant>)>);

impl Counts {
    /// How often.
    pub(crate) fn of(&self, what: &str) -> u64 {
        self.0.get(what).map_or(0, |(count, _)| *count)
    }

    /// When last.
    pub(crate) fn last(&self, what: &str) -> Option<Instant> {
        self.0.get(what).and_then(|(_, last)| *last)
    }

    fn add(&mut self, what: String) {
        let (count, last) = self.0.entry(what).or_default();
        *count += 1;
        *last = Some(Instant::now());
    }
}

impl Relay {
    /// Listens for connections to `server`.
    pub(crate) fn start(server: &str, protocol: Protocol) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, counts) = (listener.local_addr()?, Arc::<Mutex<Counts>>::default());
        let (server, shared) = (server.to_owned(), counts.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A connection that fails is seen by the one who made it.
                drop(join(client, &server, protocol, &shared));
            }
        });
        Ok(Self { address, counts })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has seen.
    pub(crate) fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// Forgets what it has seen.
    pub(crate) fn reset(&self) {
        lock(&self.counts).0.clear();
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn join(client: TcpStream, server: &str, protocol: Protocol, counts: &Arc<Mutex<Counts>>) -> std::io::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (upward, downward) = ((client.try_clone()?, server.try_clone()?), (server, client));
    let (up, down) = (Frames::new(protocol, Side::Client), Frames::new(protocol, Side::Server));
    for ((from, to), frames) in [(upward, up), (downward, down)] {
        let counts = counts.clone();
        thread::spawn(move || forward(from, to, frames, &counts));
    }
    Ok(())
}

fn forward(mut from: TcpStream, mut to: TcpStream, mut frames: Frames, counts: &Mutex<Counts>) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        for seen in frames.accept(&chunk[..count]) {
            lock(counts).add(seen);
        }
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    // Its other half may be gone already.
    drop(to.shutdown(Shutdown::Write));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl Side {
    /// Who sent it: `>` from the client, `<` from the server.
    fn arrow(self) -> char {
        match self {
            Self::Client => '>',
            Self::Server => '<',
        }
    }
}

/// Takes one direction of one connection apart.
#[derive(Debug)]
struct Frames {
    protocol: Protocol,
    side: Side,
    buffer: Vec<u8>,
    greeted: bool,
    /// Names of prepared statements, and what they touch.
    statements: BTreeMap<Vec<u8>, &'static str>,
    bound: &'static str,
}

impl Frames {
    fn new(protocol: Protocol, side: Side) -> Self {
        let (buffer, statements) = (Vec::new(), BTreeMap::new());
        Self { protocol, side, buffer, greeted: false, statements, bound: "other" }
    }

    fn accept(&mut self, chunk: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        if self.protocol == Protocol::Postgres && self.side == Side::Server {
            return seen;
        }
        self.buffer.extend_from_slice(chunk);
        while let Some(length) = self.length().filter(|length| self.buffer.len() >= *length) {
            let frame: Vec<u8> = self.buffer.drain(..length).collect();
            let found = match self.protocol {
                Protocol::Postgres => self.statement(&frame),
                Protocol::Amqp => method(&frame).map(|method| format!("{}{method}", self.side.arrow())),
            };
            // A client may ask for TLS before it says who it is.
            self.greeted |= !(self.protocol == Protocol::Postgres && frame.get(4..8) == Some(&TLS_REQUEST));
            seen.extend(found);
        }
        seen
    }

    /// Of the first frame in the buffer, when it is known.
    fn length(&self) -> Option<usize> {
        let number = |at: usize| {
            let bytes = self.buffer.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_be_bytes(bytes)).ok()
        };
        match (self.protocol, self.greeted) {
            // The first message has no type, the header of the protocol is none.
            (Protocol::Postgres, false) => number(0),
            (Protocol::Postgres, true) => Some(1 + number(1)?),
            (Protocol::Amqp, false) if self.side == Side::Client => Some(8),
            (Protocol::Amqp, _) => Some(8 + number(3)?),
        }
    }

    /// A round trip, by what its statement touches.
    fn statement(&mut self, message: &[u8]) -> Option<String> {
        if !self.greeted {
            return None;
        }
        let mut parts = message.get(5..)?.split(|byte| *byte == 0);
        match message.first()? {
            b'P' => {
                let (name, sql) = (parts.next()?.to_vec(), String::from_utf8_lossy(parts.next()?).into_owned());
                self.statements.insert(name, touches(&sql));
                None
            }
            b'B' => {
                let name = parts.nth(1)?;
                self.bound = self.statements.get(name).copied().unwrap_or("other");
                None
            }
            b'S' => Some(std::mem::replace(&mut self.bound, "preparing").to_owned()),
            b'Q' => Some(touches(&String::from_utf8_lossy(parts.next()?)).to_owned()),
            _ => None,
        }
    }
}

fn touches(sql: &str) -> &'static str {
    match sql {
        sql if sql.contains("artifact_version") || sql.contains("artifact ") => "logs",
        sql if sql.contains("UPDATE execution ") => "execution",
        _ => "other",
    }
}

/// Class and method of a method frame.
fn method(frame: &[u8]) -> Option<String> {
    if frame.first() != Some(&1) {
        return None;
    }
    let number = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    Some(format!("{}.{}", number(7)?, number(9)?))
}

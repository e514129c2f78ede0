//! systemd's `sd_notify`: one datagram for each piece of news.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use attune_lifecycle::CancellationToken;
use tokio::time::{MissedTickBehavior, interval};

use crate::health::Health;

/// How often readiness is looked at until it has come for the first time.
const START_PERIOD: Duration = Duration::from_millis(50);

/// Where a service manager listens, and whether it wants signs of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyConfig {
    /// A path, or `@` and a name.
    pub socket: OsString,
    /// The longest time between two signs of life.
    pub watchdog: Option<Duration>,
}

/// Tells the service manager when the agent is ready, that it is alive and when it stops.
pub(crate) async fn tell(config: NotifyConfig, health: Health, soft: CancellationToken, rest: CancellationToken) {
    let manager = match Manager::connect(&config.socket) {
        Ok(manager) => manager,
        Err(error) => {
            tracing::warn!(%error, "the service manager cannot be told: NOTIFY_SOCKET cannot be used");
            return;
        }
    };
    let news = async {
        if ready(&health, &soft).await {
            manager.say("READY=1");
        }
        soft.cancelled().await;
        manager.say("STOPPING=1");
    };
    let alive = async {
        let Some(watchdog) = config.watchdog else {
            return;
        };
        // Twice as often as asked for, as its manual recommends.
        let mut ticks = interval((watchdog / 2).max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if health.fatal().is_none() {
                manager.say("WATCHDOG=1");
            }
        }
    };
    tokio::select! {
        () = rest.cancelled() => {}
        ((), ()) = async { tokio::join!(news, alive) } => {}
    }
}

/// False when the stop came first.
async fn ready(health: &Health, soft: &CancellationToken) -> bool {
    let mut started = health.follow_start();
    tokio::select! {
        () = soft.cancelled() => return false,
        // The sender lives as long as `health`.
        _ = started.wait_for(|started| *started) => {}
    }
    let mut ticks = interval(START_PERIOD);
    loop {
        tokio::select! {
            () = soft.cancelled() => return false,
            _ = ticks.tick() => if health.is_ready() { return true },
        }
    }
}

struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Manager {
    fn connect(place: &OsStr) -> io::Result<Self> {
        let address = match place.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(place)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }

    fn say(&self, news: &str) {
        if let Err(error) = self.socket.send_to_addr(news.as_bytes(), &self.address) {
            tracing::debug!(%error, news, "the service manager was not told");
        }
    }
}

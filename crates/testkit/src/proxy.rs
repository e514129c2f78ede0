//! A TCP proxy that fails on request, between a program under test and a server: PostgreSQL, RabbitMQ, anything.
//!
//! | call | what the program sees |
//! |---|---|
//! | [`Proxy::cut`] | its connections are reset; new ones work |
//! | [`Proxy::hang_up`] | its connections end as if the server had closed them; new ones work |
//! | [`Proxy::black_hole`] | nothing arrives in that direction, on connections old and new, and nobody says so |
//! | [`Proxy::delay`] | everything arrives later |
//! | [`Proxy::inject`] | bytes that nobody sent, between those of others |
//! | [`Proxy::refuse`] | new connections are refused by the kernel; old ones live on |
//! | [`Proxy::resume`] | all of that is over; what a black hole held back arrives |
//!
//! It runs on a thread of its own, so that a test may block its own runtime, and ends with the test.

#![expect(clippy::missing_panics_doc, reason = "a test whose proxy does not work ends here")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Which way data flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What the program sends.
    ToServer,
    /// What the server sends.
    ToClient,
}

/// How the data of all connections is treated.
#[derive(Debug, Clone, Default)]
struct Weather {
    to_server: Flow,
    to_client: Flow,
    /// Counts orders to end the connections that are there.
    ended: u64,
    /// Whether they are reset.
    reset: bool,
}

#[derive(Debug, Clone, Default)]
struct Flow {
    held: bool,
    delay: Duration,
    /// Counts injections; the bytes are those of the last.
    injections: u64,
    injected: Vec<u8>,
}

impl Weather {
    fn of(&self, direction: Direction) -> &Flow {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }

    fn of_mut(&mut self, direction: Direction) -> &mut Flow {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

/// Whether the port accepts, and who wants to know that it is so now.
type Order = (bool, oneshot::Sender<()>);

/// A proxy in front of one server.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    orders: Option<mpsc::UnboundedSender<Order>>,
    alive: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy to `target` (`host:port`) on a free port of this machine.
    pub fn start(target: &str) -> Self {
        Self::start_at(IpAddr::V4(Ipv4Addr::LOCALHOST), target)
    }

    /// … that others reach at this address of the machine.
    pub fn start_at(address: IpAddr, target: &str) -> Self {
        let target = target.to_owned();
        let weather = watch::Sender::new(Weather::default());
        let (orders, ordered) = mpsc::unbounded_channel();
        let (ready, bound) = std::sync::mpsc::channel();
        let alive = Arc::<AtomicUsize>::default();
        let acceptor = Acceptor { target, weather: weather.clone(), alive: alive.clone() };
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime for the proxy");
            runtime.block_on(async move {
                let listener = TcpListener::bind((address, 0)).await.expect("a port for the proxy");
                let address = listener.local_addr().expect("the proxy's address");
                ready.send(address).expect("the test waits for the proxy");
                acceptor.run(listener, address, ordered).await;
            });
        });
        let thread = thread.expect("a thread for the proxy");
        let address = bound.recv().expect("the proxy listens");
        Self { address, weather, orders: Some(orders), alive, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `host:port` where it listens.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// How many connections go through it.
    pub fn connections(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    /// Resets every connection.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| (weather.ended, weather.reset) = (weather.ended + 1, true));
    }

    /// Ends every connection in good order.
    pub fn hang_up(&self) {
        self.weather.send_modify(|weather| (weather.ended, weather.reset) = (weather.ended + 1, false));
    }

    /// Holds back all that flows in `direction`. Connections are still made: the kernel of the proxy answers.
    pub fn black_hole(&self, direction: Direction) {
        self.weather.send_modify(|weather| weather.of_mut(direction).held = true);
    }

    /// Holds back all that flows.
    pub fn black_hole_both(&self) {
        self.black_hole(Direction::ToServer);
        self.black_hole(Direction::ToClient);
    }

    /// Lets everything that flows in `direction` arrive later.
    pub fn delay(&self, direction: Direction, by: Duration) {
        self.weather.send_modify(|weather| weather.of_mut(direction).delay = by);
    }

    /// Sends `bytes` on every connection as if the other side had. To be done while it is quiet: they may land in the
    /// middle of a message otherwise.
    pub fn inject(&self, direction: Direction, bytes: &[u8]) {
        self.weather.send_modify(|weather| {
            let flow = weather.of_mut(direction);
            flow.injections += 1;
            flow.injected = bytes.to_vec();
        });
    }

    /// Refuses new connections. The port stays ours.
    pub fn refuse(&self) {
        self.accept(false);
    }

    /// Lets everything through again.
    pub fn resume(&self) {
        self.weather.send_modify(|weather| {
            for flow in [&mut weather.to_server, &mut weather.to_client] {
                (flow.held, flow.delay) = (false, Duration::ZERO);
            }
        });
        self.accept(true);
    }

    fn accept(&self, accepts: bool) {
        let (done, is_so) = oneshot::channel();
        let orders = self.orders.as_ref().expect("the proxy lives");
        orders.send((accepts, done)).expect("the proxy runs");
        // The proxy has its own thread, so waiting here cannot hold it up.
        let mut is_so = is_so;
        while let Err(oneshot::error::TryRecvError::Empty) = is_so.try_recv() {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the proxy panicked");
        }
    }
}

struct Acceptor {
    target: String,
    weather: watch::Sender<Weather>,
    alive: Arc<AtomicUsize>,
}

/// A port that is ours, listening or not.
enum Port {
    Accepting(TcpListener),
    Refusing(TcpSocket),
}

impl Acceptor {
    async fn run(self, listener: TcpListener, address: SocketAddr, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut port = Port::Accepting(listener);
        let mut pairs = JoinSet::new();
        loop {
            let accepted = async {
                match &port {
                    Port::Accepting(listener) => listener.accept().await,
                    Port::Refusing(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                order = orders.recv() => {
                    let Some((accepts, done)) = order else { break };
                    port = turned(port, accepts, address);
                    if done.send(()).is_err() {
                        break;
                    }
                }
                accepted = accepted => {
                    if let Ok((client, _)) = accepted {
                        let alive = Alive::new(self.alive.clone());
                        pairs.spawn(connection(client, self.target.clone(), self.weather.subscribe(), alive));
                    }
                }
                Some(_ended) = pairs.join_next() => {}
            }
        }
    }
}

/// A socket that is bound and does not listen makes the kernel refuse, and keeps the port.
fn turned(port: Port, accepts: bool, address: SocketAddr) -> Port {
    match (port, accepts) {
        (Port::Accepting(listener), false) => {
            drop(listener);
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_reuseaddr(true).expect("SO_REUSEADDR");
            socket.bind(address).expect("the proxy's port again");
            Port::Refusing(socket)
        }
        (Port::Refusing(socket), true) => Port::Accepting(socket.listen(128).expect("the proxy listens again")),
        (port, _) => port,
    }
}

/// Counts one connection.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(client: TcpStream, target: String, mut weather: watch::Receiver<Weather>, alive: Alive) {
    let _alive = alive;
    let begun = weather.borrow_and_update().ended;
    let Ok(server) = TcpStream::connect(&target).await else { return };
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("TCP_NODELAY");
    }
    let (mut client, mut server) = (client, server);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = copy(from_client, to_server, Direction::ToServer, weather.clone());
    let down = copy(from_server, to_client, Direction::ToClient, weather.clone());
    let reset = tokio::select! {
        _ = async { tokio::join!(up, down) } => false,
        ended = weather.wait_for(|weather| weather.ended != begun) => ended.is_ok_and(|weather| weather.reset),
    };
    if reset {
        for socket in [&client, &server] {
            socket.set_zero_linger().expect("SO_LINGER");
        }
    }
}

/// Moves bytes from one side to the other, through the weather.
async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    mut weather: watch::Receiver<Weather>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut injections = weather.borrow().of(direction).injections;
    loop {
        // Looked at here only, where every change of the weather leads.
        let Ok(flow) =
            weather.wait_for(|weather| !weather.of(direction).held).await.map(|now| now.of(direction).clone())
        else {
            return;
        };
        if flow.injections > injections && to.write_all(&flow.injected).await.is_err() {
            return;
        }
        injections = flow.injections;
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = weather.changed() => if changed.is_ok() { continue } else { return },
        };
        let count = match read {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let delay = weather.borrow().of(direction).delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        // What was read before the black hole began is held back, too.
        if weather.wait_for(|weather| !weather.of(direction).held).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    // The end of one direction is passed on; the other goes on. A side that is gone needs no telling.
    drop(to.shutdown().await);
}

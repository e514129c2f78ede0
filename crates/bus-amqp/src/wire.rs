//! The socket under lapin: it knows when the broker was last heard and can be cut from outside.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead as TokioRead, AsyncWrite as TokioWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::client::TlsStream;

/// The runtime that lapin runs on: tokio, with sockets of ours.
pub(crate) type Kit = RuntimeParts<Tokio, Sockets>;

/// The current runtime.
pub(crate) fn kit() -> Kit {
    RuntimeParts::new(Tokio::current(), Sockets(Tokio::current()))
}

/// A socket, with or without TLS.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// One end of the socket: what lapin reads and writes.
#[derive(Debug)]
pub(crate) struct Wire {
    transport: Transport,
    handle: Handle,
}

/// The other end: what the owner sees and does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handle(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    cut: AtomicBool,
    /// Counts reads that brought something.
    heard: AtomicU64,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Wire {
    pub(crate) fn new(transport: Transport) -> (Self, Handle) {
        let handle = Handle::default();
        (Self { transport, handle: handle.clone() }, handle)
    }

    fn check(&self) -> io::Result<()> {
        if self.handle.0.cut.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "given up"));
        }
        Ok(())
    }
}

impl Handle {
    /// Fails every read and write from now on, so that lapin lets go of the socket at once.
    pub(crate) fn cut(&self) {
        self.0.cut.store(true, Ordering::Release);
        self.0.reader.wake();
        self.0.writer.wake();
    }

    /// A number that changes whenever something was heard.
    pub(crate) fn heard(&self) -> u64 {
        self.0.heard.load(Ordering::Relaxed)
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Registered before the look, so that a cut in between is not missed.
        this.handle.0.reader.register(cx.waker());
        this.check()?;
        let mut buffer = ReadBuf::new(buffer);
        let polled = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
        };
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // lapin takes an end for a riddle; an error it understands.
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection")))
            }
            Poll::Ready(Ok(())) => {
                this.handle.0.heard.fetch_add(1, Ordering::Relaxed);
                Poll::Ready(Ok(buffer.filled().len()))
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.handle.0.writer.register(cx.waker());
        this.check()?;
        match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.handle.0.writer.register(cx.waker());
        this.check()?;
        match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.handle.0.writer.register(cx.waker());
        this.check()?;
        match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// tokio's timers with our sockets. lapin is given its socket and never makes one.
#[derive(Debug, Clone)]
pub(crate) struct Sockets(Tokio);

fn not_here() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "connections are made by their owner")
}

impl Reactor for Sockets {
    type TcpStream = Wire;
    type Sleep = Sleep;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Wire, _>(not_here())
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(&self, _address: SocketAddr) -> impl Future<Output = io::Result<Wire>> + Send + 'static {
        std::future::ready(Err(not_here()))
    }
}

//! From a host name to a socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::{ConnectError, limits};

/// The first probe of an idle connection, and the time between probes.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Connects to the first address of `host` that answers.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let addresses = resolve(host, port).await?;
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "it has none");
    let mut last = format!("{host}:{port}");
    for address in addresses {
        last = address.to_string();
        match timeout(limits::DIAL, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return prepared(stream).map_err(|source| ConnectError::Dial { address: last, source }),
            Ok(Err(error)) => failed = error,
            Err(_elapsed) => failed = io::Error::new(io::ErrorKind::TimedOut, "no answer"),
        }
    }
    Err(ConnectError::Dial { address: last, source: failed })
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |source| ConnectError::Resolve { host: host.to_owned(), source };
    match timeout(limits::CALL, lookup_host((host, port))).await {
        Ok(found) => found.map(Iterator::collect).map_err(failed),
        Err(_elapsed) => Err(failed(io::Error::new(io::ErrorKind::TimedOut, "the name servers do not answer"))),
    }
}

/// Sets the socket's options. Without `TCP_NODELAY` a small frame waits for the acknowledgement of the one before, which
/// the kernel on the other side delays by 40 ms.
fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    attune_sys::set_keepalive(&stream, KEEPALIVE)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_socket_delays_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = dial("localhost", listener.local_addr().unwrap().port()).await.unwrap();
        assert!(attune_sys::has_no_delay(&stream).unwrap());
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = dial("127.0.0.1", port).await.unwrap_err();
        assert_eq!(error.to_string(), format!("failed to connect to 127.0.0.1:{port}"));
        assert!(!error.is_final());
    }
}

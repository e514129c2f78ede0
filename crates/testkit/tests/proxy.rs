//! The proxy does what it says, so that a test that uses it tests the program.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::ErrorKind;

use attune_testkit::{Direction, PATIENCE, Proxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// One connection through a proxy: its two ends.
async fn connected() -> (Proxy, TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(&listener.local_addr().unwrap().to_string());
    let (client, server) = pair(&proxy, &listener).await;
    (proxy, listener, client, server)
}

async fn pair(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.address()).await.unwrap();
    let (server, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    (client, server)
}

async fn passes(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"hello").await.unwrap();
    arrives(to, b"hello").await;
}

async fn arrives(to: &mut TcpStream, expected: &[u8]) {
    let mut arrived = vec![0; expected.len()];
    timeout(PATIENCE, to.read_exact(&mut arrived)).await.unwrap().unwrap();
    assert_eq!(arrived, expected);
}

/// How a connection ended: none in good order.
async fn end(stream: &mut TcpStream) -> Option<ErrorKind> {
    let mut byte = [0];
    match timeout(PATIENCE, stream.read(&mut byte)).await.unwrap() {
        Ok(count) => {
            assert_eq!(count, 0);
            None
        }
        Err(error) => Some(error.kind()),
    }
}

#[tokio::test]
async fn it_passes_everything_both_ways_and_the_end() {
    let (proxy, _listener, mut client, mut server) = connected().await;
    passes(&mut client, &mut server).await;
    passes(&mut server, &mut client).await;
    assert_eq!(proxy.connections(), 1);
    client.shutdown().await.unwrap();
    assert_eq!(end(&mut server).await, None);
    passes(&mut server, &mut client).await;
    drop(server);
    assert_eq!(end(&mut client).await, None);
    eventually("no connection", async || (proxy.connections() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_cut_is_a_reset_and_new_connections_work() {
    let (proxy, listener, mut client, mut server) = connected().await;
    passes(&mut client, &mut server).await;
    proxy.cut();
    assert_eq!(end(&mut client).await, Some(ErrorKind::ConnectionReset));
    assert_eq!(end(&mut server).await, Some(ErrorKind::ConnectionReset));
    let (mut client, mut server) = pair(&proxy, &listener).await;
    passes(&mut client, &mut server).await;
    proxy.hang_up();
    assert_eq!((end(&mut client).await, end(&mut server).await), (None, None));
}

#[tokio::test]
async fn a_black_hole_holds_back_one_direction_until_it_ends() {
    let (proxy, listener, mut client, mut server) = connected().await;
    proxy.black_hole(Direction::ToServer);
    client.write_all(b"hello").await.unwrap();
    passes(&mut server, &mut client).await;
    let mut byte = [0];
    assert_eq!(server.try_read(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);
    // Connections are made, and nothing is heard on them.
    let (mut other, _silent) = pair(&proxy, &listener).await;
    other.write_all(b"hello").await.unwrap();
    proxy.resume();
    arrives(&mut server, b"hello").await;
    passes(&mut client, &mut server).await;
}

#[tokio::test]
async fn a_refusal_is_the_kernels_and_leaves_old_connections_alone() {
    let (proxy, listener, mut client, mut server) = connected().await;
    proxy.refuse();
    let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    passes(&mut client, &mut server).await;
    proxy.resume();
    let (mut client, mut server) = pair(&proxy, &listener).await;
    passes(&mut client, &mut server).await;
}

#[tokio::test]
async fn what_is_injected_arrives_once() {
    let (proxy, _listener, mut client, mut server) = connected().await;
    passes(&mut client, &mut server).await;
    proxy.inject(Direction::ToServer, b"and more");
    arrives(&mut server, b"and more").await;
    proxy.black_hole(Direction::ToClient);
    proxy.resume();
    passes(&mut client, &mut server).await;
    passes(&mut server, &mut client).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_ends_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(&listener.local_addr().unwrap().to_string());
    drop(listener);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(end(&mut client).await, None);
}

//! The smallest HTTP client: one request on one connection, so that bad requests can be sent too.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The `data` of a success.
    #[track_caller]
    pub(crate) fn data(&self) -> Value {
        assert!(self.status < 300, "{self:?}");
        self.json()["data"].clone()
    }

    /// Asserts the platform's error shape and gives the message.
    #[track_caller]
    pub(crate) fn error(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        body["error"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
    }
}

/// Sends bytes as they are and reads until the server closes.
pub(crate) async fn raw(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    parse(&answer)
}

/// The head, in lower case, and a body that need not be text.
pub(crate) async fn bytes(address: SocketAddr, request: &[u8]) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase(), answer[end + 4..].to_vec())
}

fn parse(answer: &[u8]) -> Answer {
    let text = String::from_utf8(answer.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{text:?}"));
    Answer { status, head: head.to_lowercase(), text: body.to_owned() }
}

/// Any method, with a token, more headers (each ends its line) and a body.
pub(crate) async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: &str,
    headers: &str,
    body: &[u8],
) -> Answer {
    let length = body.len();
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-length: {length}\r\n{headers}\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    raw(address, &request).await
}

pub(crate) async fn get(address: SocketAddr, path: &str, token: Option<&str>) -> Answer {
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n{authorization}\r\n");
    raw(address, request.as_bytes()).await
}

pub(crate) async fn post(address: SocketAddr, path: &str, token: Option<&str>, body: &Value) -> Answer {
    post_text(address, path, token, &body.to_string()).await
}

pub(crate) async fn post_text(address: SocketAddr, path: &str, token: Option<&str>, body: &str) -> Answer {
    let mut headers = "content-type: application/json; charset=utf-8\r\n".to_owned();
    if let Some(token) = token {
        headers.push_str("authorization: Bearer ");
        headers.push_str(token);
        headers.push_str("\r\n");
    }
    post_with(address, path, &headers, body).await
}

pub(crate) async fn post_with(address: SocketAddr, path: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\ncontent-length: {length}\r\n");
    raw(address, format!("{head}{headers}\r\n{body}").as_bytes()).await
}

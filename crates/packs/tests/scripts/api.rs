//! An HTTP server on 127.0.0.1 that gives every request the same answer and hands it to the test.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// One request.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Method and path.
    pub(crate) what: String,
    /// The `authorization` header.
    pub(crate) authorization: Option<String>,
    /// The body as JSON; null without one.
    pub(crate) body: Value,
}

/// The server. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Api {
    /// `http://127.0.0.1:port`.
    pub(crate) url: String,
    asked: UnboundedReceiver<Asked>,
    _tasks: JoinSet<()>,
}

impl Api {
    /// Answers every request with `status` and a small JSON body.
    pub(crate) async fn answering(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, asked) = unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, status, sender.clone()));
            }
        });
        Self { url, asked, _tasks: tasks }
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Asked {
        let limit = std::time::Duration::from_secs(20);
        tokio::time::timeout(limit, self.asked.recv()).await.expect("nobody asked").unwrap()
    }
}

async fn serve(stream: TcpStream, status: &str, asked: UnboundedSender<Asked>) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut length, mut authorization) = (Vec::new(), 0, None);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ") {
                match name.to_lowercase().as_str() {
                    "content-length" => length = value.parse().unwrap(),
                    "authorization" => authorization = Some(value.to_owned()),
                    _ => {}
                }
            }
            head.push(line);
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let what = head[0].trim_end_matches(" HTTP/1.1").to_owned();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        // The test may be over and nobody listening any more.
        drop(asked.send(Asked { what, authorization, body }));
        let answer = r#"{"data":{"id":1}}"#;
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}", answer.len());
        if stream.write_all(format!("{head}\r\n\r\n{answer}").as_bytes()).await.is_err() {
            return;
        }
    }
}

//! The other end of the socket, for `attune-agents sensor ctl`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{ControlReply, ControlRequest};

/// A host that is busy with another conversation answers after its end.
const LIMIT: Duration = Duration::from_secs(15);

/// Why a host did not answer.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no sensor host listens on {}", socket.display())]
    Connect {
        /// Where.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the sensor host did not answer")]
    Broken(#[source] io::Error),
    /// It took too long.
    #[error("the sensor host did not answer within {} s", LIMIT.as_secs())]
    Slow,
    /// Another version, perhaps.
    #[error("the sensor host answered something else")]
    Answer(#[source] serde_json::Error),
}

/// Asks the host that listens on `socket`.
pub async fn ask(socket: &Path, request: &ControlRequest) -> Result<ControlReply, ControlError> {
    timeout(LIMIT, conversation(socket, request)).await.unwrap_or(Err(ControlError::Slow))
}

async fn conversation(socket: &Path, request: &ControlRequest) -> Result<ControlReply, ControlError> {
    let connect = |source| ControlError::Connect { socket: socket.to_owned(), source };
    let mut stream = UnixStream::connect(socket).await.map_err(connect)?;
    let mut text = serde_json::to_string(request).map_err(ControlError::Answer)?;
    text.push('\n');
    stream.write_all(text.as_bytes()).await.map_err(ControlError::Broken)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(ControlError::Broken)?;
    serde_json::from_str(&answer).map_err(ControlError::Answer)
}

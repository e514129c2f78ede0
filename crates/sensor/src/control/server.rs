//! The host's end of the socket.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attune_lifecycle::CancellationToken;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{Command, ControlReply, ControlRequest};

/// A conversation takes no longer: the next one waits for its end.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the host may take to hear what is asked. It answers at once then.
const PATIENCE: Duration = Duration::from_secs(3);
const LONGEST_REQUEST: u64 = 4096;

/// Answers until `stop`, one conversation after another.
pub(crate) async fn serve(path: PathBuf, commands: mpsc::Sender<Command>, stop: CancellationToken) {
    let listener = match bind(&path).await {
        Ok(listener) => listener,
        Err(error) => {
            return tracing::warn!(socket = %path.display(), %error, "this host cannot be controlled");
        }
    };
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let answered = match accepted {
            Ok((stream, _)) => tokio::select! {
                () = stop.cancelled() => break,
                answered = timeout(LIMIT, answer(stream, &commands)) => answered,
            },
            Err(error) => {
                tracing::warn!(%error, "a control connection failed");
                // Out of descriptors, most likely: trying again at once would spin.
                tokio::time::sleep(LIMIT / 10).await;
                continue;
            }
        };
        match answered {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a control connection ended early"),
            Err(_elapsed) => tracing::debug!("a control connection was silent for too long"),
        }
    }
    if let Err(error) = fs::remove_file(&path) {
        tracing::debug!(%error, "the control socket was not removed");
    }
}

/// A socket that somebody answers is another host's; one that nobody answers was left behind.
async fn bind(path: &Path) -> io::Result<UnixListener> {
    match UnixStream::connect(path).await {
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another host listens there")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => fs::remove_file(path)?,
    }
    let listener = UnixListener::bind(path)?;
    // The folder is private already, so nobody was faster.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answer(stream: UnixStream, commands: &mpsc::Sender<Command>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(LONGEST_REQUEST).read_line(&mut line).await?;
    let reply = match serde_json::from_str::<ControlRequest>(&line) {
        Ok(request) => dispatched(request, commands).await,
        Err(error) => ControlReply::Refused(format!("this is no request: {error}")),
    };
    let mut text = serde_json::to_string(&reply)?;
    text.push('\n');
    stream.get_mut().write_all(text.as_bytes()).await
}

async fn dispatched(request: ControlRequest, commands: &mpsc::Sender<Command>) -> ControlReply {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        commands.send(Command { request, reply }).await.ok()?;
        answer.await.ok()
    };
    // Who does not wait any more is not obeyed either.
    let refused = |why: &str| ControlReply::Refused(why.to_owned());
    match timeout(PATIENCE, asked).await {
        Ok(answered) => answered.unwrap_or_else(|| refused("the host is stopping")),
        Err(_elapsed) => refused("the host is busy and has not heard it: nothing was done"),
    }
}

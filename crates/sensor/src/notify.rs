//! What a sensor says about itself, in the words of systemd's `sd_notify`: one datagram socket per process, named in
//! `NOTIFY_SOCKET`.
//!
//! `READY=1`, `STATUS=…`, `STOPPING=1`, `WATCHDOG=1` mean what they mean there. `X_ATTUNE_KEEPS=token,rules` is ours: the
//! sensor reads its token again from the file, or learns of rule changes by itself, and need not be started again for that.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::time::{Instant, sleep_until};

/// A longer message is cut.
const LONGEST_MESSAGE: usize = 4096;
const LONGEST_STATUS: usize = 256;
/// A path of a socket cannot be longer.
const LONGEST_PATH: usize = 107;

/// Where a sensor says that it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It said nothing about that.
    #[default]
    Unsaid,
    Ready,
    Stopping,
}

/// What was said so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) stage: Stage,
    pub(crate) status: Option<String>,
    /// Takes a new token from the file.
    pub(crate) keeps_token: bool,
    /// Listens for rule changes by itself.
    pub(crate) keeps_rules: bool,
    /// When it last gave a sign of life; none as long as it never did.
    alive_at: Option<Instant>,
}

impl Said {
    /// Ready when a sensor that used to give signs of life has given none for `patience`; never for one that does not.
    pub(crate) fn hangs(&self, patience: Duration) -> impl Future<Output = ()> + use<> {
        let alive_at = self.alive_at;
        async move {
            match alive_at {
                Some(alive_at) => sleep_until(alive_at + patience).await,
                None => std::future::pending().await,
            }
        }
    }

    fn hear(&mut self, message: &[u8]) {
        for line in String::from_utf8_lossy(message).lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => self.stage = Stage::Ready,
                Some(("STOPPING", "1")) => self.stage = Stage::Stopping,
                Some(("WATCHDOG", "1")) => self.alive_at = Some(Instant::now()),
                Some(("STATUS", text)) => self.status = Some(text.chars().take(LONGEST_STATUS).collect()),
                Some(("X_ATTUNE_KEEPS", names)) => {
                    self.keeps_token = names.split(',').any(|name| name.trim() == "token");
                    self.keeps_rules = names.split(',').any(|name| name.trim() == "rules");
                }
                _ => {}
            }
        }
    }
}

/// The socket of one process. Dropped, its file is removed.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl NotifySocket {
    /// Must be called inside a runtime.
    pub(crate) fn bind(path: PathBuf) -> io::Result<Self> {
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is too long for a socket"));
        }
        remove(&path)?;
        let socket = UnixDatagram::bind(&path)?;
        let bound = Self { socket, path };
        fs::set_permissions(&bound.path, fs::Permissions::from_mode(0o600))?;
        Ok(bound)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next message and takes all that are there. Cancel-safe.
    pub(crate) async fn hear(&self, said: &mut Said) -> io::Result<()> {
        self.socket.readable().await?;
        // Not across an await: the buffer would be part of every waiting task.
        let mut buffer = [0; LONGEST_MESSAGE];
        loop {
            match self.socket.try_recv(&mut buffer) {
                Ok(count) => said.hear(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "a socket was not removed");
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_heard_and_the_socket_is_private_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n");
        let socket = NotifySocket::bind(path.clone()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let sender = UnixDatagram::unbound().unwrap();
        let mut said = Said::default();
        sender.send_to(b"READY=1\nSTATUS=watching 3 files\nNONSENSE\n", &path).await.unwrap();
        sender.send_to(b"X_ATTUNE_KEEPS=token, rules\nWATCHDOG=1", &path).await.unwrap();
        socket.hear(&mut said).await.unwrap();
        while !said.keeps_rules {
            socket.hear(&mut said).await.unwrap();
        }
        assert!(said.stage == Stage::Ready && said.keeps_token && said.alive_at.is_some());
        assert_eq!(said.status.as_deref(), Some("watching 3 files"));
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_is_too_long_is_an_error_and_no_panic() {
        NotifySocket::bind(PathBuf::from(format!("/tmp/{}", "x".repeat(120)))).unwrap_err();
    }
}

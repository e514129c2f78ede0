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
use tokio::time::{Instant, sleep, sleep_until};

/// A longer message is cut.
const LONGEST_MESSAGE: usize = 4096;
const LONGEST_STATUS: usize = 256;
/// Messages that are taken at once. Who sends more than that has to wait: a sensor that never stops must not keep the host from
/// everything else.
const MOST_AT_ONCE: usize = 8;
const PAUSE: Duration = Duration::from_millis(10);
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
    may_have_more: bool,
}

impl NotifySocket {
    /// Must be called inside a runtime.
    pub(crate) fn bind(path: PathBuf) -> io::Result<Self> {
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is too long for a socket"));
        }
        remove(&path)?;
        let socket = UnixDatagram::bind(&path)?;
        let bound = Self { socket, path, may_have_more: false };
        fs::set_permissions(&bound.path, fs::Permissions::from_mode(0o600))?;
        Ok(bound)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next message and takes those that are there. Cancel-safe.
    pub(crate) async fn hear(&mut self, said: &mut Said) -> io::Result<()> {
        if self.may_have_more {
            sleep(PAUSE).await;
        }
        self.socket.readable().await?;
        self.may_have_more = self.take(said)?;
        Ok(())
    }

    /// Whether there may be more. Not across an await: the buffer would be part of every waiting task.
    fn take(&self, said: &mut Said) -> io::Result<bool> {
        let mut buffer = [0; LONGEST_MESSAGE];
        for _ in 0..MOST_AT_ONCE {
            match self.socket.try_recv(&mut buffer) {
                Ok(count) => said.hear(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
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
        let mut socket = NotifySocket::bind(path.clone()).unwrap();
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

    /// Without a pause in between nobody else would get a turn.
    #[tokio::test]
    async fn a_sensor_that_sends_without_end_is_heard_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        let mut socket = NotifySocket::bind(folder.path().join("n")).unwrap();
        let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
        for number in 0..9 {
            sender.send_to(format!("STATUS={number}").as_bytes(), socket.path()).unwrap();
        }
        let mut said = Said::default();
        for number in [7, 8] {
            socket.hear(&mut said).await.unwrap();
            assert_eq!(said.status, Some(number.to_string()), "eight at a time");
        }
    }

    #[test]
    fn a_path_that_is_too_long_is_an_error_and_no_panic() {
        NotifySocket::bind(PathBuf::from(format!("/tmp/{}", "x".repeat(120)))).unwrap_err();
    }
}

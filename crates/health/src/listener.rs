//! Sockets of every kind that [`Listen`] names.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use attune_model::listen::Listen;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

/// Owner and group may ask: a sidecar that scrapes runs as another user of the same group.
const SOCKET_MODE: u32 = 0o660;

/// A connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A socket that listens.
#[derive(Debug)]
pub(crate) enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A file, removed at the end.
    Path(UnixListener, PathBuf),
    /// No file. Only the agent's own user and root are answered: there are no file permissions to do that.
    Abstract(UnixListener),
}

impl Listener {
    /// Listens; none for [`Listen::Off`].
    pub(crate) async fn bind(listen: &Listen) -> io::Result<Option<Self>> {
        Ok(Some(match listen {
            Listen::Off => return Ok(None),
            Listen::Tcp(address) => Self::Tcp(TcpListener::bind(address).await?),
            Listen::Path(path) => Self::Path(bind_path(path)?, path.clone()),
            Listen::Abstract(name) => {
                let listener = StdUnixListener::bind_addr(&UnixAddr::from_abstract_name(name)?)?;
                listener.set_nonblocking(true)?;
                Self::Abstract(UnixListener::from_std(listener)?)
            }
        }))
    }

    /// Where it listens, with the port that the kernel chose.
    pub(crate) fn address(&self, asked: &Listen) -> Listen {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| asked.clone(), Listen::Tcp),
            Self::Path(..) | Self::Abstract(_) => asked.clone(),
        }
    }

    /// The next connection; none when it comes from somebody who is not answered.
    pub(crate) async fn accept(&self) -> io::Result<Option<Box<dyn Stream>>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Some(Box::new(stream)))
            }
            Self::Path(listener, _) => Ok(Some(Box::new(listener.accept().await?.0))),
            Self::Abstract(listener) => {
                let (stream, _peer) = listener.accept().await?;
                let peer = stream.peer_cred()?.uid();
                let known = peer == 0 || peer == attune_sys::effective_user();
                Ok(known.then(|| Box::new(stream) as Box<dyn Stream>))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Path(_, path) = self
            && let Err(error) = fs::remove_file(&*path)
        {
            tracing::debug!(%error, "socket of the health checks could not be removed");
        }
    }
}

/// A socket that nobody listens on any more is left over by a process that was killed; anything else is not ours.
fn bind_path(path: &Path) -> io::Result<UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let is_dead = || StdUnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_socket && is_dead() {
        fs::remove_file(path)?;
    }
    let listener = StdUnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

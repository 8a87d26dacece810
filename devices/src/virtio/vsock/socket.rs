//! Unix sockets of the host side.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};

use super::{VsockError, host};

/// Connections the kernel keeps for us while the guest is not ready.
const BACKLOG: i32 = 128;

/// A listening socket that removes its path at its end.
pub(super) struct Listener {
    pub(super) socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`, which must not exist, for this user only.
    pub(super) fn bind(path: &Path) -> Result<Self, VsockError> {
        let failed = |source: io::Error| VsockError::Bind {
            path: path.to_owned(),
            source,
        };
        let address = SocketAddrUnix::new(path).map_err(|e| failed(e.into()))?;
        let fd = unix_socket().map_err(failed)?;
        bind(&fd, &address).map_err(|e| failed(e.into()))?;
        let listener = Self {
            socket: UnixListener::from(fd),
            path: path.to_owned(),
        };
        // Before it listens nobody can connect, so the mode is never too wide.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        listen(&listener.socket, BACKLOG).map_err(|e| failed(e.into()))?;
        listener.socket.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }

    /// The next client, if one waits.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.socket.accept()?;
        stream.set_nonblocking(true)?;
        // This fails for a client that has left again, and must not look
        // like a lack of resources.
        host::prepare(&stream).map_err(|_| io::ErrorKind::ConnectionAborted)?;
        Ok(stream)
    }
}

impl Listener {
    /// Closes the connections of all who wait right now.
    pub(super) fn refuse_waiting(&self) {
        // As many as the backlog holds; those who come meanwhile may stay.
        for _ in 0..=BACKLOG {
            match self.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Even one that failed takes a client off the backlog, or
                // else fails each time.
                Ok(_) | Err(_) => {}
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Connects to `path` without ever blocking: a full backlog is a refusal.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let stream = UnixStream::from(unix_socket()?);
    stream.set_nonblocking(true)?;
    match rustix::net::connect(&stream, &address) {
        // Whether it succeeds shows when the stream is used.
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    host::prepare(&stream)?;
    Ok(stream)
}

/// A stream socket that programs started from here do not inherit.
fn unix_socket() -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

//! Unix sockets of the host side.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};

use super::{VsockError, VsockSocket, host};

/// Connections the kernel keeps for us while the guest is not ready.
const BACKLOG: i32 = 128;

/// A path, which goes with this.
struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens at `path`, which must not exist, for this user only; what is returned goes
/// with the path.
fn listen_at(path: &Path) -> io::Result<(UnixListener, Bound)> {
    let address = SocketAddrUnix::new(path)?;
    let fd = unix_socket()?;
    bind(&fd, &address)?;
    let bound = Bound(path.to_owned());
    // Before it listens nobody can connect, so the mode is never too wide.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listen(&fd, BACKLOG)?;
    Ok((UnixListener::from(fd), bound))
}

impl VsockSocket {
    /// Listens at `path`, which must not exist, for this user only, as the device does
    /// by itself. Whoever calls this removes the path.
    ///
    /// # Errors
    /// As the system's calls.
    pub fn listen(path: &Path) -> io::Result<UnixListener> {
        let (socket, bound) = listen_at(path)?;
        std::mem::forget(bound);
        Ok(socket)
    }
}

/// A listening socket of the device.
pub(super) struct Listener {
    socket: Arc<UnixListener>,
    /// If the device has made it.
    _bound: Option<Bound>,
}

impl Listener {
    pub(super) fn new(socket: &VsockSocket) -> Result<Self, VsockError> {
        let listener = match socket {
            VsockSocket::Path(path) => {
                let listening = listen_at(path).map_err(|source| VsockError::Bind {
                    path: path.clone(),
                    source,
                });
                let (socket, bound) = listening?;
                Self {
                    socket: Arc::new(socket),
                    _bound: Some(bound),
                }
            }
            VsockSocket::Open(socket) => Self {
                socket: socket.clone(),
                _bound: None,
            },
        };
        let set = listener.socket.set_nonblocking(true);
        set.map_err(VsockError::Socket)?;
        Ok(listener)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
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

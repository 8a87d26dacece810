//! Ports and sockets that take connections.

use super::Way;
use super::open::{Connection, Open, Sign, spawn};
use super::relay::{Client, relay};
use crate::error::with_causes;
use crate::limits::PORT_PAUSE;
use crate::{Error, host};
use exec_proto::{Printable, Transport};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::net::SocketAddrUnix;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tracing::debug;

/// Connections that wait to be taken, as the standard library has it for TCP.
const BACKLOG: i32 = 128;

/// Takes connections, without waiting for them.
pub enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Goes with it.
        _file: SocketFile,
    },
}

/// A socket in the file system, which is removed with this.
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        let about = path.symlink_metadata()?;
        Ok((about.dev(), about.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // What somebody else has put there stays.
        if Self::identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The error for an address that cannot be listened on.
pub fn taken(address: impl ToString) -> impl FnOnce(io::Error) -> Error {
    move |error| match error.kind() {
        io::ErrorKind::AddrInUse => Error::PortInUse {
            address: address.to_string(),
        },
        _ => Error::system("listen on a port of this host")(error),
    }
}

impl Listener {
    /// A port, and which it is.
    pub fn tcp(address: SocketAddr) -> Result<(Self, SocketAddr), Error> {
        let bind = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let bound = listener.local_addr()?;
            Ok((Self::Tcp(listener), bound))
        };
        bind().map_err(taken(address))
    }

    /// A socket that only this user may connect to.
    pub fn unix(path: &Path) -> Result<Self, Error> {
        let bind = || -> io::Result<Self> {
            let address = SocketAddrUnix::new(path)?;
            let socket = OwnedFd::from(host::stream_socket()?);
            rustix::net::bind(&socket, &address)?;
            let file = SocketFile {
                path: path.to_owned(),
                identity: SocketFile::identity(path)?,
            };
            // Before it listens: nobody was faster.
            rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)?;
            rustix::net::listen(&socket, BACKLOG)?;
            Ok(Self::Unix {
                listener: socket.into(),
                _file: file,
            })
        };
        bind().map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => taken(path.display())(error),
            _ => Error::host("cannot make the socket", path)(error),
        })
    }

    fn accept(&self) -> io::Result<Client> {
        match self {
            Self::Tcp(listener) => Client::tcp(listener.accept()?.0),
            Self::Unix { listener, .. } => Client::unix(listener.accept()?.0),
        }
    }

    fn watch(&self) -> PollFd<'_> {
        let socket = match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix { listener, .. } => listener.as_fd(),
        };
        PollFd::from_borrowed_fd(socket, PollFlags::IN)
    }
}

/// Passes a listener's connections on to a service.
pub fn serve(way: Way, listener: Listener, shown: String) -> Result<Open, Error> {
    let ports = way.ports.clone();
    let severed = ports.severed()?;
    let way = Arc::new(way);
    ports.open(shown, move |stop| accept(&way, &listener, &stop, &severed))
}

/// Takes connections until the sign.
fn accept(way: &Arc<Way>, listener: &Listener, stop: &Sign, severed: &Sign) {
    let mut is_held_up = false;
    loop {
        let mut fds = [stop.watch(), listener.watch()];
        // One that is held up looks for nothing but its end meanwhile.
        is_held_up |= way.ports.is_full();
        let (watched, patience) = match is_held_up {
            true => (1, Some(timespec(PORT_PAUSE))),
            false => (fds.len(), None),
        };
        // Interrupted, it looks again.
        let _ = poll(&mut fds[..watched], patience.as_ref());
        if !fds[0].revents().is_empty() {
            return;
        }
        is_held_up = false;
        let Some(place) = way.ports.enter() else {
            continue;
        };
        match listener.accept() {
            Ok(client) => begin(way, client, severed, place),
            Err(error) => is_held_up = !is_passing(&error),
        }
    }
}

/// Whether an error of `accept` is that of one connection, or that there was none.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    )
}

/// A time limit for `poll`.
pub fn timespec(limit: Duration) -> Timespec {
    // Those of `limits` fit.
    Timespec::try_from(limit).unwrap_or_default()
}

/// Serves a connection on a thread of its own.
fn begin(way: &Arc<Way>, client: Client, severed: &Sign, place: Connection) {
    let (way, severed) = (way.clone(), severed.clone());
    let started = spawn(move || {
        let _place = place;
        match way.door.dial(Transport::Tcp, way.guest_port) {
            Ok((service, waiting)) => relay(client, &service, waiting, &severed),
            Err(error) => {
                client.reset();
                let error = with_causes(&error);
                debug!(port = way.guest_port, error = %Printable::line(&error), "not connected");
            }
        }
    });
    // Its client, which went with it, sees the end.
    if let Err(error) = started {
        debug!(%error, "no thread for a connection");
    }
}

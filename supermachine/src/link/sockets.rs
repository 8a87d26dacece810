//! Where others come in to a machine: sockets with names in its directory, which its
//! embedder makes and its worker listens on.
//!
//! The worker gets them open, and the embedder keeps none: when the worker is gone,
//! whoever connects is refused.

use super::monitor;
use crate::Error;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use vmm_core::spec::VsockSocket;

/// How many there are.
pub const COUNT: usize = 3;

/// Stem of the sockets that the guest reaches: `_` and a port follow. The socket of
/// this name is where clients say which port of the guest they want.
pub fn stem(dir: &Path) -> PathBuf {
    dir.join("mux")
}

/// The socket that leads to the agent.
pub fn exec(dir: &Path) -> PathBuf {
    dir.join("exec")
}

/// The listening sockets of one machine, in the order in which they are passed.
#[derive(Debug)]
pub struct Sockets {
    /// Clients say which port of the guest they want.
    pub mux: UnixListener,
    /// Clients are connected to the agent.
    pub exec: UnixListener,
    /// Clients ask the worker.
    pub monitor: UnixListener,
}

impl Sockets {
    /// Makes them in a machine's directory, instead of those that an order took along
    /// which was not carried out.
    pub fn make(dir: &Path) -> Result<Self, Error> {
        let listen = |path: PathBuf| {
            let listening = match VsockSocket::listen(&path) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    std::fs::remove_file(&path).and_then(|()| VsockSocket::listen(&path))
                }
                listening => listening,
            };
            listening.map_err(Error::host("cannot listen on", path))
        };
        Ok(Self {
            mux: listen(stem(dir))?,
            exec: listen(exec(dir))?,
            monitor: listen(monitor::socket(dir))?,
        })
    }

    pub fn descriptors(&self) -> [BorrowedFd<'_>; COUNT] {
        [&self.mux, &self.exec, &self.monitor].map(AsFd::as_fd)
    }

    /// Those that were passed.
    pub fn of(files: impl IntoIterator<Item = OwnedFd>) -> io::Result<Self> {
        let mut files = files.into_iter().map(UnixListener::from);
        let mut next = || files.next().ok_or(io::ErrorKind::InvalidInput);
        Ok(Self {
            mux: next()?,
            exec: next()?,
            monitor: next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::runtime_dir::RuntimeDir;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn sockets_listen_for_whoever_has_them_and_are_made_again_for_another() {
        let dir = RuntimeDir::create().unwrap();
        let first = Sockets::make(dir.path()).unwrap();
        let passed = first.descriptors().map(|fd| fd.try_clone_to_owned());
        let passed = Sockets::of(passed.map(Result::unwrap)).unwrap();
        drop(first);
        let paths = [stem, exec, monitor::socket].map(|path| path(dir.path()));
        for (path, listener) in paths
            .iter()
            .zip([&passed.mux, &passed.exec, &passed.monitor])
        {
            let mut client = UnixStream::connect(path).unwrap();
            client.write_all(b"x").unwrap();
            let mut byte = [0];
            listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
        }
        // The last who had them is gone.
        drop(passed);
        for path in &paths {
            assert!(UnixStream::connect(path).is_err());
        }
        let again = Sockets::make(dir.path()).unwrap();
        assert!(paths.iter().all(|path| UnixStream::connect(path).is_ok()));
        assert!(
            Sockets::of(
                again.descriptors()[..2]
                    .iter()
                    .map(|fd| fd.try_clone_to_owned().unwrap())
            )
            .is_err()
        );
    }
}

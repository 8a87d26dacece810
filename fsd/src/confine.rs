//! What a client's process gives up before it hears the client.

use std::os::fd::OwnedFd;

use devices::virtio::fs::SymlinkPolicy;
use rustix::io::Errno;

/// Why a process could not be confined.
#[derive(Debug, thiserror::Error)]
#[error("cannot give up {what}, which this system lets no process do")]
pub struct ConfineError {
    what: &'static str,
    #[source]
    source: Errno,
}

/// Takes from this process what it needs no more: ways to more rights and, where it may
/// do that, every path but those of the shared directory.
///
/// # Errors
/// [`ConfineError`] if the system does not do what it may.
pub fn confine(shared: &OwnedFd, symlinks: SymlinkPolicy) -> Result<(), ConfineError> {
    let failed = |what| move |source| ConfineError { what, source };
    rustix::thread::set_no_new_privs(true).map_err(failed("ways to more rights"))?;
    // Links that lead out are followed by their paths.
    if symlinks == SymlinkPolicy::Follow {
        return Ok(());
    }
    let paths = || failed("paths out of the shared directory");
    match rustix::process::fchdir(shared) {
        // A file is shared.
        Err(Errno::NOTDIR) => rustix::process::chdir("/").map_err(paths()),
        // Only root may leave all else behind.
        Ok(()) => match rustix::process::chroot(".") {
            Err(Errno::PERM) => rustix::process::chdir("/").map_err(paths()),
            left => left.map_err(paths()),
        },
        Err(source) => Err(paths()(source)),
    }
}

//! Systems whose figures need calls that are not wrapped safely: there pools
//! count with what their configuration expects of a worker.

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, socket};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// There are none.
pub fn process_descriptor(_pid: u32) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There is no call for files that are open.
pub fn share_content(_from: &File, _to: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There is nothing to end: see [`process_descriptor`].
pub fn kill(_process: BorrowedFd<'_>) {}

/// Sends a process a signal, if `still` says that it is the one that is meant.
/// Between the two its number could change hands, which takes a whole round of
/// process ids.
pub fn signal_if(pid: Pid, signal: Signal, still: impl FnOnce() -> bool) -> io::Result<()> {
    if !still() {
        return Ok(());
    }
    match kill_process(pid, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Not told: here a half that was closed looks the same.
pub fn is_hung_up(_stream: BorrowedFd<'_>) -> bool {
    false
}

/// Not told.
pub fn private_bytes(_pid: u32) -> u64 {
    0
}

/// Not told.
pub fn has_running_thread(_pid: u32) -> Option<bool> {
    None
}

/// Not told.
pub fn page_faults() -> Option<(u64, u64)> {
    None
}

/// Not told.
pub fn memory_bytes() -> Option<u64> {
    None
}

/// Not told: all that are asked for are handled.
#[cfg(feature = "cli")]
pub fn ignored_signals() -> u64 {
    0
}

/// There are none that a user could reach.
#[cfg(feature = "cli")]
pub fn watch_limits() -> Option<(u64, u64)> {
    None
}

/// `std`'s streams see to it that a broken connection is no signal.
pub const SEND_FLAGS: SendFlags = SendFlags::empty();
/// There is none for descriptors.
pub const RECEIVE_FLAGS: RecvFlags = RecvFlags::empty();

/// Marks a received descriptor as close-on-exec. A program that this process starts in
/// between inherits it.
pub fn close_on_exec(received: &OwnedFd) -> io::Result<()> {
    Ok(fcntl_setfd(received, FdFlags::CLOEXEC)?)
}

/// A socket that is not connected and does not block.
pub fn stream_socket() -> io::Result<UnixStream> {
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(true)?;
    Ok(stream)
}

//! Here each call carries the wish.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::net::{SendFlags, send as send_on};

/// Readies a new socket: nothing to do.
pub(in super::super) fn prepare(_stream: &UnixStream) -> io::Result<()> {
    Ok(())
}

/// Writes what fits.
pub(in super::super) fn send(stream: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    Ok(send_on(stream, bytes, SendFlags::NOSIGNAL)?)
}

//! Here the socket carries the wish.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::net::sockopt::set_socket_nosigpipe;
use rustix::net::{SendFlags, send as send_on};

/// Readies a new socket; fails if the other end is gone already.
pub(in super::super) fn prepare(stream: &UnixStream) -> io::Result<()> {
    Ok(set_socket_nosigpipe(stream, true)?)
}

/// Writes what fits.
pub(in super::super) fn send(stream: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    Ok(send_on(stream, bytes, SendFlags::empty())?)
}

//! Sockets for echo requests, which need no privileges where the system permits them:
//! to all on macOS, to the groups of `net.ipv4.ping_group_range` on Linux.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, event};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto};

/// A socket for echo requests to one address, and the answers to them.
pub(super) struct Echo(OwnedFd);

impl Echo {
    pub(super) fn connect(to: IpAddr) -> io::Result<Self> {
        let (family, protocol) = match to {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let socket = rustix::net::socket(family, SocketType::DGRAM, Some(protocol))?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        rustix::net::connect(&socket, &SocketAddr::new(to, 0))?;
        Ok(Self(socket))
    }

    pub(super) fn send(&self, message: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.0, message, SendFlags::empty())?)
    }

    /// Receives one message, without the header that some systems put before it.
    pub(super) fn receive(&self, room: &mut [u8]) -> io::Result<usize> {
        let (_, bytes) = rustix::net::recv(&self.0, &mut *room, RecvFlags::empty())?;
        let bytes = bytes.min(room.len());
        let header = header_bytes(room.get(..bytes).unwrap_or_default());
        room.copy_within(header..bytes, 0);
        Ok(bytes - header)
    }
}

/// Bytes of the IPv4 header of a message, if it has one: an answer begins with a zero.
fn header_bytes(message: &[u8]) -> usize {
    match message.first() {
        Some(first) if first >> 4 == 4 => (usize::from(first & 15) * 4).min(message.len()),
        _ => 0,
    }
}

impl event::Source for Echo {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_in_front_of_an_answer_is_left_out() {
        let mut with = vec![0x46; 24];
        with.extend([0, 0, 1, 2]);
        assert_eq!(header_bytes(&with), 24);
        assert_eq!(header_bytes(&with[24..]), 0);
        assert_eq!(header_bytes(&[129, 0]), 0);
        assert_eq!(header_bytes(&[0x4f; 3]), 3);
        assert_eq!(header_bytes(&[]), 0);
    }
}

//! What the guest is told of what it does not get.

use std::io;
use std::net::IpAddr;

use super::Stack;
use crate::io::Io;
use crate::tcp::Key;
use crate::wire;
use crate::wire::build::{self, TcpOut};
use crate::wire::icmp::{self, Trouble};
use crate::wire::ip::Packet;
use crate::wire::tcp::{Segment, flag};

/// What the guest is told of an error of a socket; none if it is told nothing.
pub(super) fn trouble_of(error: &io::Error) -> Option<Trouble> {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => Some(Trouble::PortUnreachable),
        Kind::HostUnreachable => Some(Trouble::HostUnreachable),
        Kind::NetworkUnreachable | Kind::NetworkDown => Some(Trouble::NetworkUnreachable),
        Kind::PermissionDenied => Some(Trouble::Prohibited),
        // Nobody answered, or the host has no descriptor or port to give now: the
        // guest asks again, or gives up in its own time.
        _ => None,
    }
}

impl Stack {
    /// Tells the guest that a connection was not made, as the host was told.
    pub(super) fn refuse(&self, key: Key, sequence: u32, error: &io::Error, io: &mut impl Io) {
        use io::ErrorKind as Kind;
        if let Kind::ConnectionRefused | Kind::ConnectionReset = error.kind() {
            let out = TcpOut {
                acknowledged: sequence.wrapping_add(1),
                ..reset_out(key)
            };
            build::tcp(io, self.link, &out);
        } else if let Some(trouble) = trouble_of(error) {
            let start = icmp::ports(key, sequence.to_be_bytes());
            self.unreachable(key, wire::TCP, start, trouble, io);
        }
    }

    /// Tells the guest that a packet of its could not be delivered.
    pub(super) fn undelivered(&self, packet: &Packet<'_>, trouble: Trouble, io: &mut impl Io) {
        let quoted = packet
            .whole
            .get(..icmp::QUOTED_BYTES)
            .unwrap_or(packet.whole);
        self.quote(packet.source, packet.destination, trouble, quoted, io);
    }

    /// The same for a packet that is not there any more.
    pub(super) fn unreachable(
        &self,
        key: Key,
        protocol: u8,
        start: [u8; 8],
        trouble: Trouble,
        io: &mut impl Io,
    ) {
        let quoted = icmp::remembered(key, protocol, start);
        self.quote(key.guest.ip(), key.remote.ip(), trouble, &quoted, io);
    }

    fn quote(
        &self,
        guest: IpAddr,
        remote: IpAddr,
        trouble: Trouble,
        quoted: &[u8],
        io: &mut impl Io,
    ) {
        // What was for many is not complained of (RFC 1122, 3.2.2).
        let is_for_many = match remote {
            IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
            IpAddr::V6(address) => address.is_multicast(),
        };
        if is_for_many {
            return;
        }
        let gateway = self.config.addresses.gateway_like(guest);
        let header = icmp::error(trouble, gateway, guest, quoted);
        build::icmp(io, self.link, gateway, guest, [&header, quoted]);
    }

    /// Answers a segment of no connection (RFC 9293, 3.5.2).
    pub(super) fn reset_unknown(&self, key: Key, segment: &Segment<'_>, io: &mut impl Io) {
        if segment.has(flag::RST) {
            return;
        }
        let out = if segment.has(flag::ACK) {
            TcpOut {
                sequence: segment.acknowledged,
                flags: flag::RST,
                ..reset_out(key)
            }
        } else {
            TcpOut {
                acknowledged: segment.sequence.wrapping_add(segment.length()),
                ..reset_out(key)
            }
        };
        build::tcp(io, self.link, &out);
    }
}

/// A reset in the name of the remote end, without numbers.
pub(super) fn reset_out(key: Key) -> TcpOut<'static> {
    TcpOut {
        from: key.remote,
        to: key.guest,
        sequence: 0,
        acknowledged: 0,
        flags: flag::RST | flag::ACK,
        window: 0,
        options: &[],
        payload: [&[], &[]],
        segment_bytes: 0,
    }
}

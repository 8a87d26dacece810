//! What the guest is told of what it does not get.

use std::io;
use std::net::IpAddr;

use super::Stack;
use crate::io::Io;
use crate::tcp::Key;
use crate::wire;
use crate::wire::build::{self, TcpOut};
use crate::wire::ip::Packet;
use crate::wire::tcp::{Segment, flag};

impl Stack {
    /// Tells the guest that a connection was not made, as the host was told.
    pub(super) fn refuse(
        &self,
        key: Key,
        packet: Option<&Packet<'_>>,
        sequence: u32,
        error: &io::Error,
        io: &mut impl Io,
    ) {
        use io::ErrorKind as Kind;
        let code = match error.kind() {
            Kind::HostUnreachable => wire::icmp::HOST_UNREACHABLE,
            Kind::NetworkUnreachable | Kind::NetworkDown => wire::icmp::NETWORK_UNREACHABLE,
            Kind::PermissionDenied => wire::icmp::PROHIBITED,
            Kind::ConnectionRefused | Kind::ConnectionReset => {
                let out = TcpOut {
                    acknowledged: sequence.wrapping_add(1),
                    ..reset_out(key)
                };
                build::tcp(io, self.link, &out);
                return;
            }
            // Nobody answered, or the host has no descriptor or port to give now:
            // the guest asks again, or gives up in its own time.
            _ => return,
        };
        match packet {
            Some(packet) => self.unreachable(packet, code, io),
            None => {
                let quoted = wire::icmp::syn(key, sequence);
                if let Some(packet) = Packet::read(wire::TYPE_IPV4, &quoted) {
                    self.unreachable(&packet, code, io);
                }
            }
        }
    }

    /// Tells the guest that a packet of its could not be delivered.
    pub(super) fn unreachable(&self, packet: &Packet<'_>, code: u8, io: &mut impl Io) {
        let gateway = IpAddr::V4(self.config.addresses.gateway);
        let quoted = packet
            .whole
            .get(..wire::icmp::QUOTED_BYTES)
            .unwrap_or(packet.whole);
        let header = wire::icmp::unreachable(code, quoted);
        build::icmp(io, self.link, gateway, packet.source, [&header, quoted]);
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

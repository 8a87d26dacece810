//! Control messages (RFC 792, RFC 4443).

use std::net::IpAddr;

use super::checksum::Sum;
use super::{ICMP, ICMPV6, checksum};
use crate::tcp::Key;

/// Bytes of the header of messages.
pub(crate) const HEADER_BYTES: usize = 8;
/// Bytes of a packet that an error quotes: the longest header of IPv4, and as much
/// again as tells whose it was; with IPv6 that is its header and 28 bytes.
pub(crate) const QUOTED_BYTES: usize = 68;

/// Why a packet could not be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    NetworkUnreachable,
    HostUnreachable,
    PortUnreachable,
    /// It is not allowed (RFC 1812, 5.2.7.1).
    Prohibited,
    /// It may pass no router more.
    TimeExceeded,
    /// It is longer than the way takes, which takes so much.
    TooBig(u16),
}

impl Trouble {
    fn type_and_code(self, is_v6: bool) -> [u8; 2] {
        match (self, is_v6) {
            (Self::NetworkUnreachable, false) => [3, 0],
            (Self::HostUnreachable, false) => [3, 1],
            (Self::PortUnreachable, false) => [3, 3],
            (Self::Prohibited, false) => [3, 13],
            (Self::TimeExceeded, false) => [11, 0],
            (Self::TooBig(_), false) => [3, 4],
            (Self::TooBig(_), true) => [2, 0],
            (Self::NetworkUnreachable, true) => [1, 0],
            (Self::HostUnreachable, true) => [1, 3],
            (Self::PortUnreachable, true) => [1, 4],
            (Self::Prohibited, true) => [1, 1],
            (Self::TimeExceeded, true) => [3, 0],
        }
    }
}

/// The number of the protocol, which is that of the addresses' family.
pub(crate) fn protocol_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => ICMP,
        IpAddr::V6(_) => ICMPV6,
    }
}

/// What a message's sum begins with: IPv6 counts the addresses in (RFC 4443, 2.3).
fn begin(from: IpAddr, to: IpAddr, bytes: usize) -> Sum {
    match from {
        IpAddr::V4(_) => Sum::default(),
        IpAddr::V6(_) => Sum::pseudo_header(from, to, ICMPV6, bytes),
    }
}

/// Whether a message arrived as it was sent.
pub(crate) fn is_intact(from: IpAddr, to: IpAddr, message: &[u8]) -> bool {
    let mut sum = begin(from, to, message.len());
    sum.add(message);
    sum.finish() == 0
}

/// Fills in the checksum of a message that is in two parts, of which the first has
/// an even number of bytes.
pub(crate) fn seal(from: IpAddr, to: IpAddr, head: &mut [u8], rest: &[u8]) {
    let mut sum = begin(from, to, head.len() + rest.len());
    if let Some(field) = head.get_mut(2..4) {
        field.fill(0);
    }
    sum.add(head);
    sum.add(rest);
    if let Some(field) = head.get_mut(2..4) {
        field.copy_from_slice(&sum.finish().to_be_bytes());
    }
}

/// The header of an error that quotes a packet.
pub(crate) fn error(
    trouble: Trouble,
    from: IpAddr,
    to: IpAddr,
    quoted: &[u8],
) -> [u8; HEADER_BYTES] {
    let [kind, code] = trouble.type_and_code(from.is_ipv6());
    let mut header = [kind, code, 0, 0, 0, 0, 0, 0];
    if let Trouble::TooBig(bytes) = trouble {
        // The low half of both kinds' field (RFC 1191, 4; RFC 4443, 3.2).
        header[6..].copy_from_slice(&bytes.to_be_bytes());
    }
    seal(from, to, &mut header, quoted);
    header
}

/// Echo requests, and answers to them, by the family of their addresses.
pub(crate) mod echo {
    use std::net::IpAddr;

    use super::HEADER_BYTES;

    /// The number with which a request tells its answers from others.
    pub(crate) fn request(address: IpAddr, message: &[u8]) -> Option<u16> {
        number(message, if address.is_ipv6() { 128 } else { 8 })
    }

    /// The same of an answer.
    pub(crate) fn reply(address: IpAddr, message: &[u8]) -> Option<u16> {
        number(message, if address.is_ipv6() { 129 } else { 0 })
    }

    fn number(message: &[u8], kind: u8) -> Option<u16> {
        let header = message.first_chunk::<HEADER_BYTES>()?;
        (header[..2] == [kind, 0]).then(|| u16::from_be_bytes([header[4], header[5]]))
    }

    /// The header of a message made that of an answer with this number, unsealed.
    pub(crate) fn reply_header(
        address: IpAddr,
        message: &[u8],
        number: u16,
    ) -> Option<[u8; HEADER_BYTES]> {
        let mut header = *message.first_chunk::<HEADER_BYTES>()?;
        header[0] = if address.is_ipv6() { 129 } else { 0 };
        header[1] = 0;
        header[4..6].copy_from_slice(&number.to_be_bytes());
        Some(header)
    }
}

/// As much of a packet as an error has to quote, for one that is not there any more:
/// its addresses, and the first eight bytes of what it carried.
pub(crate) fn remembered(key: Key, protocol: u8, start: [u8; 8]) -> Vec<u8> {
    let mut out = match (key.guest.ip(), key.remote.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut out = vec![0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            out.extend(source.octets());
            out.extend(destination.octets());
            let sum = checksum::of(&out);
            out[10..12].copy_from_slice(&sum.to_be_bytes());
            out
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut out = vec![0x60, 0, 0, 0, 0, 8, protocol, 64];
            out.extend(source.octets());
            out.extend(destination.octets());
            out
        }
        _ => return Vec::new(),
    };
    out.extend(start);
    out
}

/// The first bytes of a segment or datagram of this key.
pub(crate) fn ports(key: Key, rest: [u8; 4]) -> [u8; 8] {
    let [a, b] = key.guest.port().to_be_bytes();
    let [c, d] = key.remote.port().to_be_bytes();
    let [e, f, g, h] = rest;
    [a, b, c, d, e, f, g, h]
}

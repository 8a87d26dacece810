//! Writes headers of frames for the guest.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use super::checksum::Sum;
use super::{ETHERNET_BYTES, Mac, TYPE_IPV4, TYPE_IPV6, UDP, checksum, ip, tcp};
use crate::io::{Frame, Io, PartialChecksum, Segmentation};

/// Room for Ethernet, IPv6, and TCP with all its options.
const MAX_BYTES: usize = ETHERNET_BYTES + ip::IPV6_BYTES + 60;
/// Routers that a packet may pass (IANA's recommendation).
const HOPS: u8 = 64;
/// Longest packet that the guest's link takes, and what is behind it: an interface inside
/// the guest drops one that is longer.
const MTU: usize = 1500;
/// Tells the pieces of one packet from those of others.
static NEXT_NUMBER: AtomicU32 = AtomicU32::new(1);
/// Bytes of a UDP header.
pub(crate) const UDP_BYTES: usize = 8;

/// Who sends to whom, below IP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) guest: Mac,
    pub(crate) gateway: Mac,
}

/// Headers that are being written.
struct Header {
    bytes: [u8; MAX_BYTES],
    len: usize,
}

impl Header {
    fn ethernet(link: Link, kind: u16) -> Self {
        let mut header = Self {
            bytes: [0; MAX_BYTES],
            len: 0,
        };
        header.put(&link.guest);
        header.put(&link.gateway);
        header.put(&kind.to_be_bytes());
        header
    }

    /// Ethernet and IP in front of `length` bytes. None for addresses of two
    /// kinds, and for what does not fit in a packet.
    fn packet(
        link: Link,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        length: usize,
    ) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = Self::ethernet(link, TYPE_IPV4);
                let total = u16::try_from(ip::IPV4_BYTES.checked_add(length)?).ok()?;
                header.put(&[0x45, 0]);
                header.put(&total.to_be_bytes());
                // No identification is needed: "don't fragment" (RFC 6864, 4).
                header.put(&[0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
                header.put(&source.octets());
                header.put(&destination.octets());
                let sum = checksum::of(&header.bytes[ETHERNET_BYTES..header.len]);
                header.set(ETHERNET_BYTES + 10, sum);
                Some(header)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = Self::ethernet(link, TYPE_IPV6);
                let length = u16::try_from(length).ok()?;
                header.put(&[0x60, 0, 0, 0]);
                header.put(&length.to_be_bytes());
                // Neighbours take only what has passed no router (RFC 4861, 7.1).
                let hops = if protocol == super::ICMPV6 { 255 } else { HOPS };
                header.put(&[protocol, hops]);
                header.put(&source.octets());
                header.put(&destination.octets());
                Some(header)
            }
            _ => None,
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    fn set(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn written(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A TCP segment for the guest, or several in one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TcpOut<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) sequence: u32,
    pub(crate) acknowledged: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// A whole number of words, at most ten.
    pub(crate) options: &'a [u8],
    pub(crate) payload: [&'a [u8]; 2],
    /// Bytes of each segment, where the payload is longer than that.
    pub(crate) segment_bytes: u16,
}

/// Gives the guest a segment; false if it has no room.
pub(crate) fn tcp(io: &mut impl Io, link: Link, out: &TcpOut<'_>) -> bool {
    let [first, second] = out.payload;
    let payload_bytes = first.len() + second.len();
    let header_bytes = tcp::HEADER_BYTES + out.options.len();
    let bytes = header_bytes + payload_bytes;
    let (source, destination) = (out.from.ip(), out.to.ip());
    let Some(mut header) = Header::packet(link, source, destination, super::TCP, bytes) else {
        return true;
    };
    let start = header.len;
    header.put(&out.from.port().to_be_bytes());
    header.put(&out.to.port().to_be_bytes());
    header.put(&out.sequence.to_be_bytes());
    header.put(&out.acknowledged.to_be_bytes());
    // Five words of header and those of the options, at most fifteen.
    let words = u8::try_from(header_bytes / 4).unwrap_or(5);
    header.put(&[words << 4, out.flags]);
    header.put(&out.window.to_be_bytes());
    header.put(&[0; 4]);
    header.put(out.options);
    let pseudo = Sum::pseudo_header(source, destination, super::TCP, bytes);
    let checksum = sum_or_leave(io, &mut header, start, 16, pseudo, out.payload);
    let is_long = payload_bytes > usize::from(out.segment_bytes);
    let segmentation = is_long.then_some(Segmentation {
        is_v6: source.is_ipv6(),
        segment_bytes: out.segment_bytes,
        header_bytes: u16::try_from(header.len).unwrap_or(u16::MAX),
    });
    io.give(&Frame {
        header: header.written(),
        payload: out.payload,
        checksum,
        segmentation,
    })
}

/// Fills in the checksum, or the part of it that a guest which takes over the rest
/// wants.
fn sum_or_leave(
    io: &impl Io,
    header: &mut Header,
    start: usize,
    offset: u16,
    pseudo: Sum,
    payload: [&[u8]; 2],
) -> Option<PartialChecksum> {
    let at = start + usize::from(offset);
    if io.offloads().checksum {
        header.set(at, pseudo.folded());
        return Some(PartialChecksum {
            start: u16::try_from(start).unwrap_or(0),
            offset,
        });
    }
    let mut sum = pseudo;
    sum.add(&header.bytes[start..header.len]);
    let [first, second] = payload;
    sum.add(first);
    if first.len() % 2 == 0 {
        sum.add(second);
    } else if let [odd, rest @ ..] = second {
        // The byte that shares a word with the last of the first part.
        sum.add(&[0, *odd]);
        sum.add(rest);
    }
    let value = match (sum.finish(), offset) {
        // In UDP zero means that there is none (RFC 768).
        (0, 6) => 0xffff,
        (value, _) => value,
    };
    header.set(at, value);
    None
}

/// Bytes of an IP header of this address.
fn ip_bytes(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => ip::IPV4_BYTES,
        IpAddr::V6(_) => ip::IPV6_BYTES,
    }
}

/// Gives the guest a packet in pieces that its link takes; false if it has no room for
/// one. Checksums are in place.
fn in_pieces(
    io: &mut impl Io,
    link: Link,
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    [head, rest]: [&[u8]; 2],
) -> bool {
    let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
    let bytes = head.len() + rest.len();
    let extra = if source.is_ipv6() {
        ip::FRAGMENT_BYTES
    } else {
        0
    };
    let most = (MTU - ip_bytes(source) - extra) / 8 * 8;
    for start in (0..bytes).step_by(most) {
        let end = bytes.min(start + most);
        let is_last = end == bytes;
        let Ok(place) = u16::try_from(start) else {
            return true;
        };
        let (carried, length) = match source {
            IpAddr::V4(_) => (protocol, end - start),
            IpAddr::V6(_) => (ip::FRAGMENT, end - start + extra),
        };
        let Some(mut header) = Header::packet(link, source, destination, carried, length) else {
            return true;
        };
        let [.., high, low] = number.to_be_bytes();
        match source {
            IpAddr::V4(_) => {
                header.set(ETHERNET_BYTES + 4, u16::from_be_bytes([high, low]));
                let more = if is_last { 0 } else { 0x2000 };
                header.set(ETHERNET_BYTES + 6, (place / 8) | more);
                header.set(ETHERNET_BYTES + 10, 0);
                let sum = checksum::of(&header.bytes[ETHERNET_BYTES..header.len]);
                header.set(ETHERNET_BYTES + 10, sum);
            }
            IpAddr::V6(_) => {
                header.put(&[protocol, 0]);
                header.put(&(place | u16::from(!is_last)).to_be_bytes());
                header.put(&number.to_be_bytes());
            }
        }
        let part = |of: &'_ [u8], before: usize| {
            let at = |place: usize| place.saturating_sub(before).min(of.len());
            (at(start), at(end))
        };
        let (first, second) = (part(head, 0), part(rest, head.len()));
        let given = io.give(&Frame {
            header: header.written(),
            payload: [&head[first.0..first.1], &rest[second.0..second.1]],
            checksum: None,
            segmentation: None,
        });
        if !given {
            return false;
        }
    }
    true
}

/// Gives the guest a datagram; false if it has no room.
pub(crate) fn udp(
    io: &mut impl Io,
    link: Link,
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
) -> bool {
    let bytes = UDP_BYTES + payload.len();
    if bytes > MTU - ip_bytes(from.ip()) {
        return long_datagram(io, link, from, to, payload);
    }
    let Some(mut header) = Header::packet(link, from.ip(), to.ip(), UDP, bytes) else {
        return true;
    };
    let start = header.len;
    header.put(&from.port().to_be_bytes());
    header.put(&to.port().to_be_bytes());
    header.put(&u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes());
    header.put(&[0; 2]);
    let pseudo = Sum::pseudo_header(from.ip(), to.ip(), UDP, bytes);
    let checksum = sum_or_leave(io, &mut header, start, 6, pseudo, [payload, &[]]);
    io.give(&Frame {
        header: header.written(),
        payload: [payload, &[]],
        checksum,
        segmentation: None,
    })
}

fn long_datagram(
    io: &mut impl Io,
    link: Link,
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
) -> bool {
    let bytes = UDP_BYTES + payload.len();
    let Ok(length) = u16::try_from(bytes) else {
        return true;
    };
    let ([a, b], [c, d], [e, f]) = (
        from.port().to_be_bytes(),
        to.port().to_be_bytes(),
        length.to_be_bytes(),
    );
    let mut head = [a, b, c, d, e, f, 0, 0];
    let mut sum = Sum::pseudo_header(from.ip(), to.ip(), UDP, bytes);
    sum.add(&head);
    sum.add(payload);
    let value = match sum.finish() {
        // Zero means that there is none (RFC 768).
        0 => 0xffff,
        value => value,
    };
    head[6..].copy_from_slice(&value.to_be_bytes());
    in_pieces(io, link, (from.ip(), to.ip()), UDP, [&head, payload])
}

/// Gives the guest an ICMP message whose checksum is in place.
pub(crate) fn icmp(
    io: &mut impl Io,
    link: Link,
    from: IpAddr,
    to: IpAddr,
    message: [&[u8]; 2],
) -> bool {
    let protocol = if from.is_ipv6() {
        super::ICMPV6
    } else {
        super::ICMP
    };
    let bytes = message[0].len() + message[1].len();
    if bytes > MTU - ip_bytes(from) {
        return in_pieces(io, link, (from, to), protocol, message);
    }
    let Some(header) = Header::packet(link, from, to, protocol, bytes) else {
        return true;
    };
    io.give(&Frame {
        header: header.written(),
        payload: message,
        checksum: None,
        segmentation: None,
    })
}

/// Gives the guest an answer to a question for an address.
pub(crate) fn arp(io: &mut impl Io, link: Link, message: &[u8]) -> bool {
    let header = Header::ethernet(link, super::TYPE_ARP);
    io.give(&Frame {
        header: header.written(),
        payload: [message, &[]],
        checksum: None,
        segmentation: None,
    })
}

//! Internet packets (RFC 791, RFC 8200).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{TYPE_IPV4, TYPE_IPV6, be16, checksum};

/// Bytes of an IPv4 header without options.
pub(crate) const IPV4_BYTES: usize = 20;
/// Bytes of an IPv6 header.
pub(crate) const IPV6_BYTES: usize = 40;
/// Bytes of the header of a piece of IPv6.
pub(crate) const FRAGMENT_BYTES: usize = 8;
/// Number of that header among protocols.
pub(crate) const FRAGMENT: u8 = 44;
/// Headers of IPv6 that say something to hosts or routers on the way.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;
/// Most headers in front of what a packet carries.
const MAX_HEADERS: usize = 8;
/// Options of IPv4 by which a packet chooses its routers (RFC 791, 3.1).
const LOOSE_ROUTE: u8 = 131;
const STRICT_ROUTE: u8 = 137;

/// A whole packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    /// Routers that it may still pass, this one included.
    pub(crate) hops: u8,
    pub(crate) payload: &'a [u8],
    /// The packet with its header, for errors that quote it.
    pub(crate) whole: &'a [u8],
}

/// What the pieces of one packet have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) number: u32,
}

/// A piece of a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) label: Label,
    hops: u8,
    /// Where in the packet's payload it begins.
    pub(crate) offset: usize,
    pub(crate) is_last: bool,
    pub(crate) payload: &'a [u8],
}

/// What a frame carries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arrived<'a> {
    Packet(Packet<'a>),
    Piece(Piece<'a>),
}

impl<'a> Arrived<'a> {
    /// Reads what has this EtherType. Packets that choose their way are not taken, nor
    /// those of headers that are not known.
    pub(crate) fn read(kind: u16, bytes: &'a [u8]) -> Option<Self> {
        match kind {
            TYPE_IPV4 => Self::read_v4(bytes),
            TYPE_IPV6 => Self::read_v6(bytes),
            _ => None,
        }
    }

    fn read_v4(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<IPV4_BYTES>()?;
        let header_bytes = usize::from(fixed[0] & 0x0f) * 4;
        let total = usize::from(be16(fixed, 2)?);
        if fixed[0] >> 4 != 4 || header_bytes < IPV4_BYTES || total < header_bytes {
            return None;
        }
        // Behind the end is what Ethernet pads short frames with.
        let whole = bytes.get(..total)?;
        let (header, payload) = whole.split_at(header_bytes);
        if checksum::of(header) != 0 || chooses_way(header.get(IPV4_BYTES..)?) {
            return None;
        }
        let packet = Packet {
            source: Ipv4Addr::from(*fixed[12..].first_chunk::<4>()?).into(),
            destination: Ipv4Addr::from(*fixed[16..].first_chunk::<4>()?).into(),
            protocol: fixed[9],
            hops: fixed[8],
            payload,
            whole,
        };
        // "More fragments", and the offset of this one.
        let place = be16(fixed, 6)? & 0x3fff;
        if place == 0 {
            return Some(Self::Packet(packet));
        }
        let number = be16(fixed, 4)?.into();
        let offset = usize::from(place & 0x1fff) * 8;
        Some(packet.piece(number, packet.protocol, offset, place & 0x2000 == 0))
    }

    fn read_v6(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<IPV6_BYTES>()?;
        let length = usize::from(be16(fixed, 4)?);
        if fixed[0] >> 4 != 6 {
            return None;
        }
        let whole = bytes.get(..IPV6_BYTES + length)?;
        let mut packet = Packet {
            source: Ipv6Addr::from(*fixed[8..].first_chunk::<16>()?).into(),
            destination: Ipv6Addr::from(*fixed[24..].first_chunk::<16>()?).into(),
            protocol: fixed[6],
            hops: fixed[7],
            payload: whole.get(IPV6_BYTES..)?,
            whole,
        };
        for _ in 0..MAX_HEADERS {
            let header = packet.payload;
            let length = match packet.protocol {
                HOP_BY_HOP | DESTINATION => header_bytes(header)?,
                // One that has been everywhere it was to go.
                ROUTING if *header.get(3)? == 0 => header_bytes(header)?,
                ROUTING => return None,
                FRAGMENT => {
                    let fixed = header.first_chunk::<FRAGMENT_BYTES>()?;
                    let number = u32::from_be_bytes(*fixed[4..].first_chunk::<4>()?);
                    let place = be16(fixed, 2)?;
                    packet.payload = header.get(FRAGMENT_BYTES..)?;
                    let offset = usize::from(place & !7);
                    return Some(packet.piece(number, fixed[0], offset, place & 1 == 0));
                }
                _ => return Some(Self::Packet(packet)),
            };
            packet.protocol = *header.first()?;
            packet.payload = header.get(length..)?;
        }
        None
    }
}

impl<'a> Packet<'a> {
    /// Reads a packet that is whole.
    pub(crate) fn read(kind: u16, bytes: &'a [u8]) -> Option<Self> {
        match Arrived::read(kind, bytes)? {
            Arrived::Packet(packet) => Some(packet),
            Arrived::Piece(_) => None,
        }
    }

    fn piece(self, number: u32, protocol: u8, offset: usize, is_last: bool) -> Arrived<'a> {
        Arrived::Piece(Piece {
            label: Label {
                source: self.source,
                destination: self.destination,
                protocol,
                number,
            },
            hops: self.hops,
            offset,
            is_last,
            payload: self.payload,
        })
    }
}

impl Piece<'_> {
    /// The packet that this was a piece of, with all that it carried. None if it is
    /// longer than a packet can be.
    pub(crate) fn whole(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let Label {
            source,
            destination,
            protocol,
            ..
        } = self.label;
        let length = |more: usize| u16::try_from(payload.len().checked_add(more)?).ok();
        let mut out = Vec::with_capacity(IPV6_BYTES + payload.len());
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                out.extend([0x45, 0]);
                out.extend(length(IPV4_BYTES)?.to_be_bytes());
                out.extend([0, 0, 0, 0, self.hops, protocol, 0, 0]);
                out.extend(source.octets());
                out.extend(destination.octets());
                let sum = checksum::of(&out);
                out[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                out.extend([0x60, 0, 0, 0]);
                out.extend(length(0)?.to_be_bytes());
                out.extend([protocol, self.hops]);
                out.extend(source.octets());
                out.extend(destination.octets());
            }
            _ => return None,
        }
        out.extend(payload);
        Some(out)
    }
}

/// Bytes of a header of options (RFC 8200, 4.3).
fn header_bytes(header: &[u8]) -> Option<usize> {
    Some((usize::from(*header.get(1)?) + 1) * 8)
}

/// Whether options of IPv4 choose routers, or are none.
fn chooses_way(mut options: &[u8]) -> bool {
    while let [option, rest @ ..] = options {
        match *option {
            // The end, and one without a length.
            0 => return false,
            1 => options = rest,
            LOOSE_ROUTE | STRICT_ROUTE => return true,
            _ => match rest.first() {
                Some(length) if *length >= 2 => match options.get(usize::from(*length)..) {
                    Some(next) => options = next,
                    None => return true,
                },
                _ => return true,
            },
        }
    }
    false
}

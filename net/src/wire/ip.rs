//! Internet packets (RFC 791, RFC 8200).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{TYPE_IPV4, TYPE_IPV6, be16, checksum};

/// Bytes of an IPv4 header without options.
pub(crate) const IPV4_BYTES: usize = 20;
/// Bytes of an IPv6 header.
pub(crate) const IPV6_BYTES: usize = 40;

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

impl<'a> Packet<'a> {
    /// Reads a packet of this EtherType. Fragments and IPv6 extension headers
    /// are not taken.
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
        // "More fragments", and the offset of this one.
        if be16(fixed, 6)? & 0x3fff != 0 || checksum::of(header) != 0 {
            return None;
        }
        Some(Self {
            source: Ipv4Addr::from(*fixed[12..].first_chunk::<4>()?).into(),
            destination: Ipv4Addr::from(*fixed[16..].first_chunk::<4>()?).into(),
            protocol: fixed[9],
            hops: fixed[8],
            payload,
            whole,
        })
    }

    fn read_v6(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<IPV6_BYTES>()?;
        let length = usize::from(be16(fixed, 4)?);
        if fixed[0] >> 4 != 6 {
            return None;
        }
        let whole = bytes.get(..IPV6_BYTES + length)?;
        Some(Self {
            source: Ipv6Addr::from(*fixed[8..].first_chunk::<16>()?).into(),
            destination: Ipv6Addr::from(*fixed[24..].first_chunk::<16>()?).into(),
            protocol: fixed[6],
            hops: fixed[7],
            payload: whole.get(IPV6_BYTES..)?,
            whole,
        })
    }
}

//! Frames and packets: read with every length checked, written into buffers
//! that are long enough.

pub(crate) mod arp;
pub(crate) mod build;
pub(crate) mod checksum;
pub(crate) mod icmp;
pub(crate) mod ip;
pub(crate) mod tcp;

/// A MAC address.
pub type Mac = [u8; 6];

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_BYTES: usize = 14;
/// EtherTypes (IEEE 802 numbers).
pub(crate) const TYPE_IPV4: u16 = 0x0800;
/// Address resolution.
pub(crate) const TYPE_ARP: u16 = 0x0806;
/// IPv6.
pub(crate) const TYPE_IPV6: u16 = 0x86dd;

/// Protocol numbers (IANA).
pub(crate) const ICMP: u8 = 1;
/// TCP.
pub(crate) const TCP: u8 = 6;
/// UDP.
pub(crate) const UDP: u8 = 17;
/// ICMP for IPv6.
pub(crate) const ICMPV6: u8 = 58;

/// A frame, as far as its header goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ethernet<'a> {
    pub(crate) destination: Mac,
    pub(crate) source: Mac,
    pub(crate) kind: u16,
    pub(crate) payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    pub(crate) fn read(frame: &'a [u8]) -> Option<Self> {
        let (header, payload) = frame.split_first_chunk::<ETHERNET_BYTES>()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, k0, k1] = *header;
        Some(Self {
            destination: [d0, d1, d2, d3, d4, d5],
            source: [s0, s1, s2, s3, s4, s5],
            kind: u16::from_be_bytes([k0, k1]),
            payload,
        })
    }
}

/// A number of 16 bits at an offset.
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*field))
}

/// A number of 32 bits at an offset.
pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*field))
}

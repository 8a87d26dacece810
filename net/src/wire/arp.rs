//! Address resolution (RFC 826), for the gateway's address only.

use std::net::Ipv4Addr;

use super::{Mac, TYPE_IPV4, be16};

/// Bytes of a message about Ethernet and IPv4.
pub(crate) const BYTES: usize = 28;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const ETHERNET: u16 = 1;

/// A question who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) sender: Ipv4Addr,
    pub(crate) sender_mac: Mac,
    pub(crate) target: Ipv4Addr,
}

impl Request {
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let message = message.first_chunk::<BYTES>()?;
        let fields = [be16(message, 0)?, be16(message, 2)?, be16(message, 6)?];
        if fields != [ETHERNET, TYPE_IPV4, REQUEST] || message[4..6] != [6, 4] {
            return None;
        }
        Some(Self {
            sender_mac: *message[8..].first_chunk()?,
            sender: Ipv4Addr::from(*message[14..].first_chunk::<4>()?),
            target: Ipv4Addr::from(*message[24..].first_chunk::<4>()?),
        })
    }

    /// The answer that `mac` has the address.
    pub(crate) fn reply(&self, mac: Mac) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        out[..2].copy_from_slice(&ETHERNET.to_be_bytes());
        out[2..4].copy_from_slice(&TYPE_IPV4.to_be_bytes());
        out[4..6].copy_from_slice(&[6, 4]);
        out[6..8].copy_from_slice(&REPLY.to_be_bytes());
        out[8..14].copy_from_slice(&mac);
        out[14..18].copy_from_slice(&self.target.octets());
        out[18..24].copy_from_slice(&self.sender_mac);
        out[24..].copy_from_slice(&self.sender.octets());
        out
    }
}

//! Control messages (RFC 792).

use std::net::IpAddr;

use super::checksum::{self, Sum};
use super::ip::IPV4_BYTES;
use crate::tcp::Key;

const ECHO_REQUEST: u8 = 8;
const UNREACHABLE: u8 = 3;
/// Codes of messages that say that something could not be delivered.
pub(crate) const NETWORK_UNREACHABLE: u8 = 0;
/// The host is not there.
pub(crate) const HOST_UNREACHABLE: u8 = 1;
/// It is not allowed (RFC 1812, 5.2.7.1).
pub(crate) const PROHIBITED: u8 = 13;
/// Bytes of a packet that such a message quotes: the longest header, and as much
/// again as tells whose it was.
pub(crate) const QUOTED_BYTES: usize = 68;
/// Bytes of the header of messages.
const HEADER_BYTES: usize = 8;

/// The header of the answer to an echo request; the rest is that of the request.
pub(crate) fn echo_reply(message: &[u8]) -> Option<[u8; HEADER_BYTES]> {
    let (header, rest) = message.split_first_chunk::<HEADER_BYTES>()?;
    if header[..2] != [ECHO_REQUEST, 0] || checksum::of(message) != 0 {
        return None;
    }
    let mut reply = *header;
    reply[0] = 0;
    reply[2..4].copy_from_slice(&[0; 2]);
    let mut sum = Sum::default();
    sum.add(&reply);
    sum.add(rest);
    reply[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    Some(reply)
}

/// The header of a message that what it quotes could not be delivered.
pub(crate) fn unreachable(code: u8, quoted: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    let mut sum = Sum::default();
    sum.add(&header);
    sum.add(quoted);
    header[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    header
}

/// As much of a SYN as a message has to quote, for one that is not there any more.
pub(crate) fn syn(key: Key, sequence: u32) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (key.guest.ip(), key.remote.ip()) else {
        return Vec::new();
    };
    let mut out = vec![0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, super::TCP, 0, 0];
    out.extend(source.octets());
    out.extend(destination.octets());
    let sum = checksum::of(&out);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    debug_assert_eq!(out.len(), IPV4_BYTES);
    out.extend(key.guest.port().to_be_bytes());
    out.extend(key.remote.port().to_be_bytes());
    out.extend(sequence.to_be_bytes());
    out
}

//! Answers to guests that ask for what there is beside addresses over IPv6 (RFC 8415,
//! 18.2.6): the name server. Addresses they give themselves.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Stack;
use crate::config::GATEWAY_ON_LINK;
use crate::io::Io;
use crate::wire::be16;
use crate::wire::build::{self, UDP_BYTES};
use crate::wire::ip::Packet;

const SERVER_PORT: u16 = 547;
const CLIENT_PORT: u16 = 546;
/// All servers of a link (RFC 8415, 7.1).
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// Kinds of messages.
const INFORMATION_REQUEST: u8 = 11;
const REPLY: u8 = 7;
/// Bytes of a message before its options: its kind, and the transaction.
const FIXED_BYTES: usize = 4;
/// Options.
const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const NAME_SERVERS: u16 = 23;
/// Longest name that clients and servers have (RFC 8415, 11.1).
const MAX_ID_BYTES: usize = 130;

fn option(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(0);
    out.extend(kind.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend(value);
}

impl Stack {
    /// A datagram of a guest's that asks all servers of its link.
    pub(super) fn dhcp6(
        &self,
        packet: &Packet<'_>,
        is_checked: bool,
        io: &mut impl Io,
    ) -> Option<()> {
        let (IpAddr::V6(source), IpAddr::V6(to)) = (packet.source, packet.destination) else {
            return None;
        };
        let ports = (be16(packet.payload, 0)?, be16(packet.payload, 2)?);
        let is_near = source.is_unicast_link_local() && source != GATEWAY_ON_LINK
            || self.config.addresses.is_guest(source.into());
        if ports != (CLIENT_PORT, SERVER_PORT) || to != ALL_SERVERS || !is_near {
            return None;
        }
        if !Self::is_intact(packet, is_checked) {
            return None;
        }
        let message = packet.payload.get(UDP_BYTES..)?;
        let reply = self.information(message)?;
        let from = SocketAddr::from((GATEWAY_ON_LINK, SERVER_PORT));
        build::udp(io, self.link, from, (source, CLIENT_PORT).into(), &reply);
        Some(())
    }

    /// The answer to a request for information; none to what is another.
    fn information(&self, message: &[u8]) -> Option<Vec<u8>> {
        // A name of the kind that is made of a MAC address (RFC 8415, 11.4).
        let mut id = vec![0, 3, 0, 1];
        id.extend(self.link.gateway);
        let (fixed, mut rest) = message.split_first_chunk::<FIXED_BYTES>()?;
        if fixed[0] != INFORMATION_REQUEST {
            return None;
        }
        let mut reply = vec![REPLY];
        reply.extend(&fixed[1..]);
        while let Some((header, tail)) = rest.split_first_chunk::<4>() {
            let length = usize::from(be16(header, 2)?);
            let (value, next) = tail.split_at_checked(length)?;
            match be16(header, 0)? {
                CLIENT_ID if length <= MAX_ID_BYTES => option(&mut reply, CLIENT_ID, value),
                // It asks another.
                SERVER_ID if value != id => return None,
                _ => {}
            }
            rest = next;
        }
        option(&mut reply, SERVER_ID, &id);
        let server = self.config.addresses.gateway_v6.octets();
        option(&mut reply, NAME_SERVERS, &server);
        Some(reply)
    }
}

//! Answers to guests that ask for an address (RFC 2131): there is one, for ever.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Stack;
use crate::io::Io;
use crate::wire::be16;
use crate::wire::build::{self, UDP_BYTES};
use crate::wire::ip::Packet;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Bytes of a message before its options (RFC 2131, 2).
const FIXED_BYTES: usize = 236;
/// What options begin with.
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Kinds of messages (RFC 2132, 9.6).
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const INFORM: u8 = 8;
/// Options (RFC 2132).
const MASK: u8 = 1;
const ROUTER: u8 = 3;
const NAME_SERVER: u8 = 6;
const WANTED: u8 = 50;
const LEASE: u8 = 51;
const KIND: u8 = 53;
const SERVER: u8 = 54;
const END: u8 = 255;

/// What a guest asks.
struct Asked {
    kind: u8,
    wanted: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

fn read(message: &[u8]) -> Option<Asked> {
    let mut rest = message.get(FIXED_BYTES..)?.strip_prefix(&COOKIE)?;
    // A request, over Ethernet.
    if message.get(..3)? != [1, 1, 6] {
        return None;
    }
    let mut asked = Asked {
        kind: 0,
        wanted: None,
        server: None,
    };
    while let [option, tail @ ..] = rest {
        if *option == END {
            break;
        }
        if *option == 0 {
            rest = tail;
            continue;
        }
        let (length, tail) = tail.split_first()?;
        let (value, next) = tail.split_at_checked(usize::from(*length))?;
        let address = value
            .first_chunk::<4>()
            .map(|octets| Ipv4Addr::from(*octets));
        match *option {
            KIND => asked.kind = *value.first()?,
            WANTED => asked.wanted = address,
            SERVER => asked.server = address,
            _ => {}
        }
        rest = next;
    }
    Some(asked)
}

impl Stack {
    /// A datagram of a guest that has no address yet, or asks for it again.
    pub(super) fn dhcp(
        &self,
        packet: &Packet<'_>,
        is_checked: bool,
        io: &mut impl Io,
    ) -> Option<()> {
        let (IpAddr::V4(source), IpAddr::V4(to)) = (packet.source, packet.destination) else {
            return None;
        };
        let addresses = &self.config.addresses;
        let ports = (be16(packet.payload, 0)?, be16(packet.payload, 2)?);
        let is_for_us = to.is_broadcast() || to == addresses.gateway;
        if ports != (CLIENT_PORT, SERVER_PORT) || !is_for_us || !source.is_unspecified() {
            return None;
        }
        let is_checked = is_checked || be16(packet.payload, 6) == Some(0);
        if !Self::is_intact(packet, is_checked) {
            return None;
        }
        self.dhcp_message(packet.payload.get(UDP_BYTES..)?, io)
    }

    /// A message to the server of addresses.
    pub(super) fn dhcp_message(&self, message: &[u8], io: &mut impl Io) -> Option<()> {
        let addresses = &self.config.addresses;
        let asked = read(message)?;
        if asked
            .server
            .is_some_and(|server| server != addresses.gateway)
        {
            // It took what another offered.
            return None;
        }
        let kind = match asked.kind {
            DISCOVER => OFFER,
            REQUEST if asked.wanted.is_some_and(|wanted| wanted != addresses.guest) => NAK,
            REQUEST | INFORM => ACK,
            _ => return None,
        };
        let is_given = kind != NAK && asked.kind != INFORM;
        let mut reply = message.get(..FIXED_BYTES)?.to_vec();
        reply[0] = 2;
        // Hops and seconds; the transaction's number and the flags stay.
        reply[3] = 0;
        reply[8..10].fill(0);
        if is_given {
            reply[16..20].copy_from_slice(&addresses.guest.octets());
        }
        // Server, relay, and the names of server and file.
        reply[20..28].fill(0);
        reply[44..].fill(0);
        reply.extend(COOKIE);
        reply.extend([KIND, 1, kind]);
        reply.extend([SERVER, 4]);
        reply.extend(addresses.gateway.octets());
        if kind != NAK {
            let mask = u32::MAX
                .checked_shl(32_u32.saturating_sub(addresses.prefix.into()))
                .unwrap_or(0);
            if is_given {
                reply.extend([LEASE, 4, 0xff, 0xff, 0xff, 0xff]);
            }
            reply.extend([MASK, 4]);
            reply.extend(mask.to_be_bytes());
            for option in [ROUTER, NAME_SERVER] {
                reply.extend([option, 4]);
                reply.extend(addresses.gateway.octets());
            }
        }
        reply.push(END);
        // A guest without an address hears only what is sent to all.
        let is_for_all = reply[10] & 0x80 != 0 || kind == NAK;
        let to = match is_for_all {
            true => Ipv4Addr::BROADCAST,
            false => addresses.guest,
        };
        let from = SocketAddr::from((addresses.gateway, SERVER_PORT));
        build::udp(io, self.link, from, (to, CLIENT_PORT).into(), &reply);
        Some(())
    }
}

//! Who has which address: address resolution (RFC 826) and its successor for IPv6
//! (RFC 4861), for the gateway's addresses only.

use std::net::{IpAddr, Ipv6Addr};

use super::Stack;
use crate::config::GATEWAY_ON_LINK;
use crate::io::Io;
use crate::wire::ip::Packet;
use crate::wire::{Ethernet, arp, build, icmp};

/// Types of messages (RFC 4861, 4).
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// What a neighbour's message has as its number of routers left: it passed none.
const NEIGHBOUR_HOPS: u8 = 255;
/// All nodes of a link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Router, solicited, override (RFC 4861, 4.4).
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// How long a guest may take an advertisement for true, in seconds: the longest time
/// there is, since it hears of no change (RFC 4861, 6.2.1).
const LIFETIME: [u8; 2] = 9000_u16.to_be_bytes();
/// For ever, for prefixes and name servers.
const FOR_EVER: [u8; 4] = [0xff; 4];

impl Stack {
    pub(super) fn address_resolution(
        &self,
        ethernet: &Ethernet<'_>,
        io: &mut impl Io,
    ) -> Option<()> {
        let request = arp::Request::read(ethernet.payload)?;
        if request.target != self.config.addresses.gateway || ethernet.source != self.link.guest {
            return None;
        }
        build::arp(io, self.link, &request.reply(self.link.gateway));
        Some(())
    }

    /// A message between neighbours: none if it is another.
    pub(super) fn neighbour(&self, packet: &Packet<'_>, io: &mut impl Io) -> Option<()> {
        let (IpAddr::V6(source), IpAddr::V6(_)) = (packet.source, packet.destination) else {
            return None;
        };
        let message = packet.payload;
        let is_guest = self.config.addresses.is_guest(source.into())
            || source.is_unspecified()
            || source.is_unicast_link_local() && source != GATEWAY_ON_LINK;
        if packet.hops != NEIGHBOUR_HOPS
            || message.get(1) != Some(&0)
            || !is_guest
            || !icmp::is_intact(packet.source, packet.destination, message)
        {
            return None;
        }
        // A guest without an address yet is told by a message to all.
        let to = match source.is_unspecified() {
            true => ALL_NODES,
            false => source,
        };
        match *message.first()? {
            SOLICITATION => {
                let target = Ipv6Addr::from(*message.get(8..)?.first_chunk::<16>()?);
                if !self.config.addresses.is_gateway(target.into()) {
                    return None;
                }
                self.advertise_neighbour(target, to, !source.is_unspecified(), io);
            }
            ROUTER_SOLICITATION if io.has_ipv6() => self.advertise_router(to, io),
            // Without a way out there is none to tell of.
            ROUTER_SOLICITATION => {}
            _ => return None,
        }
        Some(())
    }

    fn advertise_neighbour(
        &self,
        target: Ipv6Addr,
        to: Ipv6Addr,
        is_asked: bool,
        io: &mut impl Io,
    ) {
        let solicited = if is_asked { SOLICITED } else { 0 };
        let mut message = vec![ADVERTISEMENT, 0, 0, 0];
        message.extend([ROUTER | OVERRIDE | solicited, 0, 0, 0]);
        message.extend(target.octets());
        self.link_address(&mut message, 2);
        self.say(target, to, message, io);
    }

    /// What a guest sets itself up by that is not set up by its agent.
    fn advertise_router(&self, to: Ipv6Addr, io: &mut impl Io) {
        let addresses = &self.config.addresses;
        // Hops, that there is more to ask for (RFC 8415, 18.2.6), and the times of
        // RFC 4861, 4.2.
        let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0x40];
        message.extend(LIFETIME);
        message.extend([0; 8]);
        self.link_address(&mut message, 1);
        // On the link, and for addresses of the guest's own making (RFC 4861, 4.6.2).
        let mask = u128::MAX
            .checked_shl(128_u32.saturating_sub(addresses.prefix_v6.into()))
            .unwrap_or(0);
        let prefix = Ipv6Addr::from_bits(addresses.guest_v6.to_bits() & mask);
        message.extend([3, 4, addresses.prefix_v6, 0xc0]);
        message.extend(FOR_EVER);
        message.extend(FOR_EVER);
        message.extend([0; 4]);
        message.extend(prefix.octets());
        // The name server (RFC 8106, 5.1).
        message.extend([25, 3, 0, 0]);
        message.extend(FOR_EVER);
        message.extend(addresses.gateway_v6.octets());
        self.say(GATEWAY_ON_LINK, to, message, io);
    }

    /// Adds the gateway's MAC address, as an option.
    fn link_address(&self, message: &mut Vec<u8>, kind: u8) {
        message.extend([kind, 1]);
        message.extend(self.link.gateway);
    }

    fn say(&self, from: Ipv6Addr, to: Ipv6Addr, mut message: Vec<u8>, io: &mut impl Io) {
        icmp::seal(from.into(), to.into(), &mut message, &[]);
        build::icmp(io, self.link, from.into(), to.into(), [&message, &[]]);
    }
}

//! The guest's resolver. Every server that it asks is this one: no other is reached.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::{DNS, Stack};
use crate::dns::message::{self, Asked, Code, Question, kind};
use crate::dns::{Answer, Family};
use crate::io::{Io, Ticket};
use crate::policy::{Cause, Protocol};
use crate::tcp::Origin;
use crate::wire::build;
use crate::wire::ip::Packet;
use crate::wire::{be16, icmp};

/// Most questions that are looked up at a time.
const MAX_LOOK_UPS: usize = 256;

impl Stack {
    pub(super) fn udp(
        &mut self,
        packet: &Packet<'_>,
        is_checked: bool,
        now: Instant,
        io: &mut impl Io,
    ) -> Option<()> {
        let length = usize::from(be16(packet.payload, 4)?);
        let datagram = packet.payload.get(..length)?;
        let payload = datagram.get(build::UDP_BYTES..)?;
        // Over IPv4 it may go without a checksum (RFC 768).
        let is_checked = is_checked || packet.source.is_ipv4() && be16(datagram, 6) == Some(0);
        if !Self::is_intact(packet, is_checked) {
            return None;
        }
        let guest = SocketAddr::new(packet.source, be16(datagram, 0)?);
        let remote = SocketAddr::new(packet.destination, be16(datagram, 2)?);
        if remote.port() == DNS {
            return self.question(payload, guest, remote, now, io);
        }
        self.counters.refused += 1;
        self.unreachable(packet, icmp::PROHIBITED, io);
        Some(())
    }

    fn question(
        &mut self,
        payload: &[u8],
        guest: SocketAddr,
        server: SocketAddr,
        now: Instant,
        io: &mut impl Io,
    ) -> Option<()> {
        let question = match message::read(payload) {
            Asked::Question(question) => question,
            Asked::Unanswerable(reply) => {
                build::udp(io, self.link, server, guest, &reply);
                return Some(());
            }
            Asked::Garbage => return None,
        };
        let reply = match self.known(&question, server, now) {
            Some(reply) => reply,
            None => match self.look_up(&question, guest, server, io) {
                true => return Some(()),
                false => question.reply(Code::Failed),
            },
        };
        build::udp(io, self.link, server, guest, &reply);
        Some(())
    }

    /// The answer to what needs no looking up.
    fn known(&mut self, question: &Question, server: SocketAddr, now: Instant) -> Option<Vec<u8>> {
        if !question.is_internet() {
            return Some(question.reply(Code::NotImplemented));
        }
        if question.name == self.config.host_name {
            let gateway = IpAddr::V4(self.config.addresses.gateway);
            self.names.tell(&question.name, gateway, now);
            let addresses = if question.kind == kind::A {
                &[gateway][..]
            } else {
                &[]
            };
            return Some(question.addresses(addresses, question.udp_limit()));
        }
        if !self.config.policy.may_ask(&question.name) {
            let origin = Origin {
                cause: Cause::Name,
                name: Some(question.name.clone()),
                begun: now,
            };
            self.note_denied(Protocol::Udp, server, origin);
            return Some(question.reply(Code::Refused));
        }
        match question.kind {
            kind::A if question.is_host_name() => None,
            kind::A => Some(question.reply(Code::NoName)),
            // Guests have no IPv6. Hints of addresses (RFC 9460) would go past what
            // names are known to mean.
            kind::AAAA | kind::SVCB | kind::HTTPS => Some(question.reply(Code::Good)),
            _ => Some(question.reply(Code::NotImplemented)),
        }
    }

    /// Has a question's name looked up; false if there is too much to do.
    fn look_up(
        &mut self,
        question: &Question,
        guest: SocketAddr,
        server: SocketAddr,
        io: &mut impl Io,
    ) -> bool {
        if self.look_ups.len() >= MAX_LOOK_UPS {
            return false;
        }
        let ticket = Ticket(self.next_ticket);
        if !io.look_up(ticket, &question.name, Family::V4) {
            return false;
        }
        self.next_ticket += 1;
        self.counters.look_ups += 1;
        let entry = (question.clone(), guest, server);
        self.look_ups.insert(ticket, entry);
        true
    }

    /// What became of a look-up.
    pub fn answered(&mut self, ticket: Ticket, answer: &Answer, now: Instant, io: &mut impl Io) {
        let Some((question, guest, server)) = self.look_ups.remove(&ticket) else {
            return;
        };
        let reply = match answer {
            Answer::Addresses(addresses) => {
                for address in addresses {
                    self.names.tell(&question.name, *address, now);
                }
                question.addresses(addresses, question.udp_limit())
            }
            Answer::NoName => question.reply(Code::NoName),
            Answer::Failed => question.reply(Code::Failed),
        };
        build::udp(io, self.link, server, guest, &reply);
    }
}

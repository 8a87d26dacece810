//! The guest's resolver. Every server that it asks is this one: no other is reached.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::Stack;
use super::routed::{StreamId, Work};
use crate::dns::message::{self, Asked, Code, Question, kind};
use crate::dns::{Answer, Family};
use crate::io::{Io, Query, Ticket};
use crate::policy::{Cause, Protocol};
use crate::tcp::{Fate, Key, Origin};
use crate::wire::build;

/// Most questions that are looked up at a time.
const MAX_LOOK_UPS: usize = 256;

/// Who asked, and is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// By a datagram, between these ends.
    Datagram(Key),
    /// Over a connection.
    Stream(StreamId, SocketAddr),
}

impl Asker {
    /// The server that it asks.
    fn server(&self) -> SocketAddr {
        match self {
            Self::Datagram(key) => key.remote,
            Self::Stream(_, server) => *server,
        }
    }

    fn protocol(&self) -> Protocol {
        match self {
            Self::Datagram(_) => Protocol::Udp,
            Self::Stream(..) => Protocol::Tcp,
        }
    }

    /// Bytes of an answer that it can take.
    fn limit(&self, question: &Question) -> usize {
        match self {
            Self::Datagram(_) => question.udp_limit(),
            Self::Stream(..) => usize::from(u16::MAX),
        }
    }
}

impl Stack {
    pub(super) fn datagram_question(
        &mut self,
        payload: &[u8],
        key: Key,
        now: Instant,
        io: &mut impl Io,
    ) -> Option<()> {
        self.question(payload, Asker::Datagram(key), now, io)
    }

    /// Answers what was asked over connections.
    pub(super) fn serve_streams(&mut self, now: Instant, io: &mut impl Io) {
        for work in self.streams.work(now) {
            match work {
                Work::Question(id, message) => {
                    let Some(flow) = self.table.get(id.flow) else {
                        continue;
                    };
                    let asker = Asker::Stream(id, flow.key.remote);
                    if self.question(&message, asker, now, io).is_none() {
                        self.streams.break_off(id);
                    }
                    self.with_flow(id.flow, now, io, |flow, _| {
                        flow.ready(true, true);
                        Fate::GoesOn
                    });
                }
                Work::Finished(id) => self.with_flow(id, now, io, |flow, _| {
                    flow.ready(true, false);
                    Fate::GoesOn
                }),
            }
        }
    }

    fn question(
        &mut self,
        message: &[u8],
        asker: Asker,
        now: Instant,
        io: &mut impl Io,
    ) -> Option<()> {
        let question = match message::read(message) {
            Asked::Question(question) => question,
            Asked::Unanswerable(reply) => {
                self.reply(asker, &reply, now, io);
                return Some(());
            }
            Asked::Garbage => return None,
        };
        let reply = match self.known(&question, asker, now, io) {
            Some(reply) => reply,
            None => match self.look_up(&question, asker, io) {
                true => return Some(()),
                false => question.reply(Code::Failed),
            },
        };
        self.reply(asker, &reply, now, io);
        Some(())
    }

    fn reply(&mut self, asker: Asker, reply: &[u8], now: Instant, io: &mut impl Io) {
        match asker {
            Asker::Datagram(key) => {
                build::udp(io, self.link, key.remote, key.guest, reply);
            }
            Asker::Stream(id, _) => {
                if self.streams.answer(id, reply).is_some() {
                    self.with_flow(id.flow, now, io, |flow, _| {
                        flow.ready(true, true);
                        Fate::GoesOn
                    });
                }
            }
        }
    }

    /// The answer to what needs no looking up.
    fn known(
        &mut self,
        question: &Question,
        asker: Asker,
        now: Instant,
        io: &mut impl Io,
    ) -> Option<Vec<u8>> {
        if !question.is_internet() {
            return Some(question.reply(Code::NotImplemented));
        }
        if question.name == self.config.host_name {
            let addresses = &self.config.addresses;
            let address = match question.kind {
                kind::A => Some(IpAddr::V4(addresses.gateway)),
                kind::AAAA if self.config.has_ipv6 => Some(IpAddr::V6(addresses.gateway_v6)),
                _ => None,
            };
            if let Some(address) = address {
                self.names.tell(&question.name, address, now);
            }
            let addresses = address.as_slice();
            return Some(question.addresses(addresses, asker.limit(question)));
        }
        if !self.config.policy.may_ask(&question.name) {
            let origin = Origin {
                cause: Cause::Name,
                name: Some(question.name.clone()),
                begun: now,
            };
            self.note_denied(asker.protocol(), asker.server(), origin);
            return Some(question.reply(Code::Refused));
        }
        match question.kind {
            kind::A | kind::AAAA if !question.is_host_name() => Some(question.reply(Code::NoName)),
            kind::A => None,
            kind::AAAA if self.config.has_ipv6 && io.has_ipv6() => None,
            // A host without IPv6 has nothing to do with such addresses. Hints of
            // addresses (RFC 9460) would go past what names are known to mean.
            kind::AAAA | kind::SVCB | kind::HTTPS => Some(question.reply(Code::Good)),
            // Whole zones, and everything at once (RFC 8482), are for name servers.
            kind::IXFR.. => Some(question.reply(Code::NotImplemented)),
            0 | kind::OPT => Some(question.reply(Code::Malformed)),
            _ => None,
        }
    }

    /// Starts to look a question's name up; false if there is too much to do.
    fn look_up(&mut self, question: &Question, asker: Asker, io: &mut impl Io) -> bool {
        if self.look_ups.len() >= MAX_LOOK_UPS {
            return false;
        }
        let ticket = Ticket(self.next_ticket);
        let addresses = |family| Query::Addresses {
            name: question.name.clone(),
            family,
        };
        let query = match question.kind {
            kind::A => addresses(Family::V4),
            kind::AAAA => addresses(Family::V6),
            _ => Query::Records(question.asked().to_vec()),
        };
        if !io.look_up(ticket, query) {
            return false;
        }
        self.next_ticket += 1;
        self.counters.look_ups += 1;
        self.look_ups.insert(ticket, (question.clone(), asker));
        true
    }

    /// What became of a look-up.
    pub fn answered(&mut self, ticket: Ticket, answer: &Answer, now: Instant, io: &mut impl Io) {
        let Some((question, asker)) = self.look_ups.remove(&ticket) else {
            return;
        };
        let limit = asker.limit(&question);
        let reply = match answer {
            Answer::Addresses(addresses) => {
                let is_v6 = question.kind == kind::AAAA;
                let wanted = addresses.iter().filter(|found| found.is_ipv6() == is_v6);
                let wanted: Vec<IpAddr> = wanted.copied().collect();
                for address in &wanted {
                    self.names.tell(&question.name, *address, now);
                }
                question.addresses(&wanted, limit)
            }
            Answer::Message(message) => question.relay(message, limit),
            Answer::NoName => question.reply(Code::NoName),
            Answer::Failed => question.reply(Code::Failed),
        };
        self.reply(asker, &reply, now, io);
    }
}

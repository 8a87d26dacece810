//! The guest's connections: from its SYN to their end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use super::routed::Routed;
use super::watched::Watched;
use super::{DNS, DNS_OVER_TLS, Stack};
use crate::io::{Close, FlowId, Io, Transport};
use crate::policy::{Cause, Protocol, Verdict, is_special};
use crate::record::End;
use crate::tcp::{Context, Fate, Flow, Key, Origin};
use crate::wire::ip::Packet;
use crate::wire::tcp::{Segment, flag};

impl Stack {
    pub(super) fn tcp(
        &mut self,
        packet: &Packet<'_>,
        is_checked: bool,
        now: Instant,
        io: &mut impl Io,
    ) -> Option<()> {
        let segment = Segment::read(packet.payload)?;
        if !Self::is_intact(packet, is_checked) {
            return None;
        }
        let key = Key {
            guest: SocketAddr::new(packet.source, segment.source_port),
            remote: SocketAddr::new(packet.destination, segment.destination_port),
        };
        let is_new = segment.has(flag::SYN) && segment.flags & (flag::ACK | flag::RST) == 0;
        if let Some(id) = self.table.find(&key) {
            let closing = self.table.get(id).is_some_and(Flow::is_closing);
            if !(is_new && closing) {
                self.with_flow(id, now, io, |flow, context| flow.segment(context, &segment));
                return Some(());
            }
            // The guest uses the port again.
            self.end(id, End::Closed, now, io);
        }
        if is_new {
            self.open(key, &segment, now, io);
        } else {
            self.reset_unknown(key, &segment, io);
        }
        Some(())
    }

    /// Where a flow goes, if it may, and why.
    pub(super) fn target(
        &self,
        protocol: Protocol,
        remote: SocketAddr,
        now: Instant,
        io: &mut impl Io,
    ) -> (Option<SocketAddr>, Origin) {
        let (address, port) = (remote.ip(), remote.port());
        let origin = |cause, name: Option<&str>| Origin {
            cause,
            name: name.filter(|_| self.records.is_kept()).map(str::to_owned),
            begun: now,
        };
        if self.config.addresses.is_gateway(address) {
            let listed = self.config.policy.has_host_port(protocol, port);
            // The same family first: a connection that is refused there goes to the other.
            let loopback: IpAddr = match address {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
            let target = listed.then(|| (loopback, port).into());
            let name = Some(self.config.host_name.as_str());
            return (target, origin(Cause::HostPort, name));
        }
        if port == DNS_OVER_TLS || port == DNS || port == 0 && protocol != Protocol::Icmp {
            return (None, origin(Cause::NameServer, None));
        }
        let mut names = self.names.of(address, now);
        let policy = &self.config.policy;
        let decision = policy.decide(protocol, address, port, &mut names);
        let mut may = decision.verdict == Verdict::Allow;
        // QUIC would go past whoever puts the secret in.
        let is_brokered = |name| self.config.is_brokered(name, port);
        if may && protocol == Protocol::Udp && self.names.of(address, now).any(is_brokered) {
            return (None, origin(Cause::Secret, decision.name));
        }
        let mut origin = origin(decision.cause, decision.name);
        // What of the host others do not reach, from here would be reached.
        if may && !is_special(address) && !policy.lists_alone(address) && io.is_own(address) {
            may = false;
            origin.cause = Cause::NotPublic;
        }
        (may.then_some(remote), origin)
    }

    /// The guest wants to connect.
    fn open(&mut self, key: Key, syn: &Segment<'_>, now: Instant, io: &mut impl Io) {
        let is_ours = key.remote.port() == DNS;
        let (target, mut origin) = match is_ours {
            true => {
                let origin = Origin {
                    cause: Cause::NameServer,
                    name: None,
                    begun: now,
                };
                (Some(key.remote), origin)
            }
            false => self.target(Protocol::Tcp, key.remote, now, io),
        };
        let Some(target) = target else {
            self.note_denied(Protocol::Tcp, key.remote, origin);
            return self.reset_unknown(key, syn, io);
        };
        if is_ours && let Some(oldest) = self.streams.too_many() {
            self.give_up(oldest, End::Displaced, now, io);
        }
        if self.table.is_full() {
            origin.cause = Cause::Limit;
            self.note_denied(Protocol::Tcp, key.remote, origin);
            return self.reset_unknown(key, syn, io);
        }
        // The guest asks again when others are done.
        let Some(id) = self.table.reserve(target, self.config.max_half_open) else {
            return;
        };
        if is_ours {
            self.streams.begin(id, now);
        }
        let cause = origin.cause;
        let connected = match is_ours {
            true => Ok(()),
            false => io.connect(id, Transport::Stream, target),
        };
        match connected {
            Ok(()) => {
                let first = self.first_sequence();
                let flow = Flow::new(id, key, target, origin, syn, first);
                self.table.insert(id, flow);
                self.counters.connections += 1;
                if !is_ours {
                    self.placeholders.begin(id, &self.config);
                    self.watch(id, key.remote, cause, now);
                }
            }
            Err(error) => {
                self.table.give_up(id, target);
                let end = (End::of_connect(&error), now);
                self.note_end(Protocol::Tcp, key.remote, origin, (0, 0), end);
                return self.refuse(key, syn.sequence, &error, io);
            }
        }
        if is_ours {
            self.with_flow(id, now, io, |flow, context| {
                flow.connected(context);
                Fate::GoesOn
            });
        }
    }

    /// Looks at the first bytes of a connection if the name that they show matters.
    fn watch(&mut self, id: FlowId, remote: SocketAddr, cause: Cause, now: Instant) {
        let config = &self.config;
        let is_host = config.addresses.is_gateway(remote.ip());
        let by_name = !is_host && config.policy.is_by_name(cause, remote.port());
        if !by_name && config.brokered.is_empty() {
            return;
        }
        let names: Vec<String> = match is_host {
            true => vec![config.host_name.clone()],
            false => self.names.of(remote.ip(), now).map(str::to_owned).collect(),
        };
        let port = remote.port();
        let is_brokered = names.iter().any(|name| config.is_brokered(name, port));
        if by_name || is_brokered {
            self.watches.begin(id, remote, names, by_name);
        }
    }

    /// Ends a connection, and tells the guest.
    fn give_up(&mut self, id: FlowId, end: End, now: Instant, io: &mut impl Io) {
        self.with_flow(id, now, io, |flow, context| {
            flow.reset(context);
            Fate::Ends(end)
        });
    }

    /// The first sequence number of a connection (RFC 9293, 3.4.1), far from those
    /// before it. Only the guest ever sees one, so none has to be hard to guess.
    fn first_sequence(&mut self) -> u32 {
        // SplitMix64: every value of the counter gives another one.
        self.numbers = self.numbers.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.numbers ^ self.numbers >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from(mixed >> 32).unwrap_or_default()
    }

    pub(super) fn with_flow<I: Io>(
        &mut self,
        id: FlowId,
        now: Instant,
        io: &mut I,
        what: impl FnOnce(&mut Flow, &mut Context<'_, Routed<'_, I>>) -> Fate,
    ) {
        let Some(flow) = self.table.get_mut(id) else {
            return;
        };
        let mut context = Context {
            io: &mut Routed {
                io,
                streams: &mut self.streams,
                watches: &mut self.watches,
                placeholders: &mut self.placeholders,
                config: &self.config,
            },
            link: self.link,
            memory: &mut self.memory,
            rates: &mut self.rates,
            now,
        };
        let fate = what(flow, &mut context);
        self.settle(id, fate, now, io);
    }

    /// Gives a flow its turn and its deadline, or ends it.
    pub(super) fn settle(&mut self, id: FlowId, fate: Fate, now: Instant, io: &mut impl Io) {
        if let Fate::Ends(end) = fate {
            return self.end(id, end, now, io);
        }
        self.table.note_open(id);
        if let Some(flow) = self.table.get_mut(id)
            && !flow.is_queued
        {
            flow.is_queued = true;
            self.queue.push_back(id);
        }
        self.time(id);
    }

    /// Looks at a flow when it wants that, or before.
    pub(super) fn time(&mut self, id: FlowId) {
        let Some(flow) = self.table.get_mut(id) else {
            return;
        };
        if let Some(due) = flow.due()
            && flow.timer.is_none_or(|timer| timer > due)
        {
            if let Some(old) = flow.timer.replace(due) {
                self.timers.remove(&(old, id));
            }
            self.timers.insert((due, id));
        }
    }

    pub(super) fn end(&mut self, id: FlowId, end: End, now: Instant, io: &mut impl Io) {
        let Some(mut flow) = self.table.remove(id) else {
            return;
        };
        let bytes = flow.bytes();
        flow.discard(&mut self.memory, &mut self.rates);
        if let Some(timer) = flow.timer {
            self.timers.remove(&(timer, id));
        }
        let Flow {
            key, mut origin, ..
        } = *flow;
        if self.streams.end(id) {
            return self.note_end(Protocol::Tcp, key.remote, origin, bytes, (end, now));
        }
        let misplaced = self.placeholders.end(id, &self.config);
        match self.watches.end(id) {
            Watched::Passed => {
                io.close(id, Close::after(end));
                let mut ended = self.ended(Protocol::Tcp, key.remote, origin, bytes, (end, now));
                ended.secrets = misplaced;
                self.note(ended);
            }
            Watched::Handed => {
                let ended = self.ended(Protocol::Tcp, key.remote, origin, bytes, (end, now));
                // Whoever served it may have more to say of it.
                if let Some(record) = io.complete(id, ended) {
                    self.note(record);
                }
                io.close(id, Close::after(end));
            }
            Watched::Denied(name) => {
                io.close(id, Close::Reset);
                origin.cause = Cause::Shown;
                origin.name = name.or(origin.name).filter(|_| self.records.is_kept());
                self.note_denied(Protocol::Tcp, key.remote, origin);
            }
        }
    }
}

//! The network of one guest: takes its frames, and gives it others.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::dns::message::Question;
use crate::io::{FlowId, Io, Ticket};
use crate::policy::{Cause, Names, Protocol, Verdict};
use crate::record::{End, FlowRecord, Records};
use crate::tcp::buffer::Memory;
use crate::tcp::{Context, Fate, Flow, Key, Origin, Turn};
use crate::wire::build::{self, Link};
use crate::wire::checksum::Sum;
use crate::wire::ip::Packet;
use crate::wire::tcp::{Segment, flag};
use crate::wire::{self, Ethernet, arp};

mod names;
mod refusals;
mod saved;
mod table;

pub use saved::BadState;
use saved::Owed;
use table::Table;

/// Port of name servers.
const DNS: u16 = 53;
/// Port of name servers behind TLS and QUIC, which would go past ours.
const DNS_OVER_TLS: u16 = 853;

/// What a network has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Frames that the guest sent.
    pub frames: u64,
    /// Those among them that mean nothing here.
    pub ignored_frames: u64,
    /// Connections that were begun.
    pub connections: u64,
    /// What the guest wanted to reach and may not.
    pub refused: u64,
    /// Names that were looked up.
    pub look_ups: u64,
    /// Bytes that other ends were sent, without headers.
    pub sent_bytes: u64,
    /// Bytes that the guest got, without headers.
    pub received_bytes: u64,
    /// Records that nobody took in time.
    pub lost_records: u64,
}

/// The network of one guest. Nothing here waits or has a thread: whoever owns it
/// passes on frames, what became of sockets, and the time.
pub struct Stack {
    config: Config,
    link: Link,
    table: Table,
    /// Flows that have something to do, in turn.
    queue: VecDeque<FlowId>,
    timers: BTreeSet<(Instant, FlowId)>,
    memory: Memory,
    /// What first sequence numbers are made of.
    numbers: u64,
    names: Names,
    look_ups: HashMap<Ticket, (Question, SocketAddr, SocketAddr)>,
    next_ticket: u64,
    /// Connections of the guest that ended with another machine.
    owed: VecDeque<Owed>,
    counters: Counters,
    records: Records,
}

impl Stack {
    /// A network without connections.
    pub fn new(config: Config) -> Self {
        let mut seed = [0; 8];
        // Without random numbers each machine begins with the same.
        let _ = getrandom::fill(&mut seed);
        let limit = config.max_buffered_bytes;
        let link = Link {
            guest: config.addresses.guest_mac,
            gateway: config.addresses.gateway_mac,
        };
        Self {
            link,
            table: Table::new(config.max_flows),
            queue: VecDeque::new(),
            timers: BTreeSet::new(),
            memory: Memory::new(limit),
            numbers: u64::from_le_bytes(seed),
            names: Names::default(),
            look_ups: HashMap::new(),
            next_ticket: 0,
            owed: VecDeque::new(),
            counters: Counters::default(),
            records: Records::default(),
            config,
        }
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        for flow in self.table.iter() {
            let (sent, received) = flow.bytes();
            counters.sent_bytes += sent;
            counters.received_bytes += received;
        }
        counters.lost_records = self.records.lost;
        counters
    }

    /// Keeps records of flows from now on, at most so many until they are taken.
    pub fn keep_records(&mut self, most: usize) {
        self.records.keep(most);
    }

    /// Records of flows that have ended or were refused since the last call.
    pub fn take_records(&mut self) -> VecDeque<FlowRecord> {
        self.records.take()
    }

    /// Connections there are right now.
    pub fn flows(&self) -> usize {
        self.table.len()
    }

    /// Bytes that wait in either direction.
    pub fn buffered_bytes(&self) -> usize {
        self.memory.used()
    }

    /// A frame of the guest's. `is_checked` says that its transport checksum need
    /// not be looked at, since the guest's driver left it to us.
    pub fn frame(&mut self, frame: &[u8], is_checked: bool, now: Instant, io: &mut impl Io) {
        self.counters.frames += 1;
        if self.try_frame(frame, is_checked, now, io).is_none() {
            self.counters.ignored_frames += 1;
        }
    }

    fn try_frame(
        &mut self,
        frame: &[u8],
        is_checked: bool,
        now: Instant,
        io: &mut impl Io,
    ) -> Option<()> {
        let ethernet = Ethernet::read(frame)?;
        let is_for_all = ethernet.destination[0] & 1 != 0;
        if ethernet.destination != self.link.gateway && !is_for_all {
            return None;
        }
        if ethernet.kind == wire::TYPE_ARP {
            let request = arp::Request::read(ethernet.payload)?;
            if request.target != self.config.addresses.gateway || ethernet.source != self.link.guest
            {
                return None;
            }
            build::arp(io, self.link, &request.reply(self.link.gateway));
            return Some(());
        }
        let packet = Packet::read(ethernet.kind, ethernet.payload)?;
        // Answers go to the guest's address, so what claims another gets none.
        if packet.source != IpAddr::V4(self.config.addresses.guest) {
            return None;
        }
        match packet.protocol {
            wire::TCP => self.tcp(&packet, is_checked, now, io),
            wire::UDP => self.udp(&packet, is_checked, now, io),
            wire::ICMP if packet.source.is_ipv4() => self.icmp(&packet, io),
            _ => None,
        }
    }

    /// Whether a packet's payload arrived as it was sent.
    fn is_intact(packet: &Packet<'_>, is_checked: bool) -> bool {
        let (source, destination) = (packet.source, packet.destination);
        let bytes = packet.payload.len();
        is_checked || {
            let mut sum = Sum::pseudo_header(source, destination, packet.protocol, bytes);
            sum.add(packet.payload);
            sum.finish() == 0
        }
    }

    fn tcp(
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
            self.open(key, packet, &segment, now, io);
        } else {
            self.reset_unknown(key, &segment, io);
        }
        Some(())
    }

    /// Where a connection goes, if it may, and why.
    fn target(&self, remote: SocketAddr, now: Instant) -> (Option<SocketAddr>, Origin) {
        let (address, port) = (remote.ip(), remote.port());
        let origin = |cause, name: Option<&str>| Origin {
            cause,
            name: name.filter(|_| self.records.is_kept()).map(str::to_owned),
            begun: now,
        };
        if address == IpAddr::V4(self.config.addresses.gateway) {
            let listed = self.config.policy.has_host_port(port);
            let target = listed.then(|| (Ipv4Addr::LOCALHOST, port).into());
            let name = Some(self.config.host_name.as_str());
            return (target, origin(Cause::HostPort, name));
        }
        if port == DNS || port == DNS_OVER_TLS || port == 0 {
            return (None, origin(Cause::NameServer, None));
        }
        let mut names = self.names.of(address, now);
        let policy = &self.config.policy;
        let decision = policy.decide(Protocol::Tcp, address, port, &mut names);
        let may = decision.verdict == Verdict::Allow;
        let origin = origin(decision.cause, decision.name);
        (may.then_some(remote), origin)
    }

    /// Takes note of a flow that was not begun.
    fn note_denied(&mut self, protocol: Protocol, remote: SocketAddr, origin: Origin) {
        self.counters.refused += 1;
        if self.records.is_kept() {
            self.records.add(FlowRecord {
                name: origin.name,
                remote,
                protocol,
                verdict: Verdict::Deny,
                cause: origin.cause,
                sent_bytes: 0,
                received_bytes: 0,
                end: End::Denied,
                lasted: Duration::ZERO,
            });
        }
    }

    /// Takes note of a flow that has ended.
    fn note_end(
        &mut self,
        protocol: Protocol,
        remote: SocketAddr,
        origin: Origin,
        (sent_bytes, received_bytes): (u64, u64),
        (end, now): (End, Instant),
    ) {
        self.counters.sent_bytes += sent_bytes;
        self.counters.received_bytes += received_bytes;
        if self.records.is_kept() {
            self.records.add(FlowRecord {
                name: origin.name,
                remote,
                protocol,
                verdict: Verdict::Allow,
                cause: origin.cause,
                sent_bytes,
                received_bytes,
                end,
                lasted: now.saturating_duration_since(origin.begun),
            });
        }
    }

    /// The guest wants to connect.
    fn open(
        &mut self,
        key: Key,
        packet: &Packet<'_>,
        syn: &Segment<'_>,
        now: Instant,
        io: &mut impl Io,
    ) {
        let (target, mut origin) = self.target(key.remote, now);
        let Some(target) = target else {
            self.note_denied(Protocol::Tcp, key.remote, origin);
            return self.reset_unknown(key, syn, io);
        };
        if self.table.is_full() {
            origin.cause = Cause::Limit;
            self.note_denied(Protocol::Tcp, key.remote, origin);
            return self.reset_unknown(key, syn, io);
        }
        // The guest asks again when others are done.
        let Some(id) = self.table.reserve(target, self.config.max_half_open) else {
            return;
        };
        match io.connect(id, target) {
            Ok(()) => {
                let first = self.first_sequence();
                let flow = Flow::new(id, key, target, origin, syn, first);
                self.table.insert(id, flow);
                self.counters.connections += 1;
            }
            Err(error) => {
                self.table.give_up(id, target);
                let end = (End::of_connect(&error), now);
                self.note_end(Protocol::Tcp, key.remote, origin, (0, 0), end);
                self.refuse(key, Some(packet), syn.sequence, &error, io);
            }
        }
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

    fn icmp(&mut self, packet: &Packet<'_>, io: &mut impl Io) -> Option<()> {
        let reply = wire::icmp::echo_reply(packet.payload)?;
        if packet.destination != IpAddr::V4(self.config.addresses.gateway) {
            self.counters.refused += 1;
            self.unreachable(packet, wire::icmp::PROHIBITED, io);
            return Some(());
        }
        let rest = packet.payload.get(reply.len()..)?;
        let (from, to) = (packet.destination, packet.source);
        build::icmp(io, self.link, from, to, [&reply, rest]);
        Some(())
    }

    /// A socket has become ready for something.
    pub fn ready(
        &mut self,
        id: FlowId,
        readable: bool,
        writable: bool,
        now: Instant,
        io: &mut impl Io,
    ) {
        let Some(flow) = self.table.get_mut(id) else {
            return;
        };
        flow.ready(readable, writable);
        if !flow.is_connecting() {
            return self.settle(id, Fate::GoesOn, now, io);
        }
        match io.connected(id) {
            Ok(()) => self.with_flow(id, now, io, |flow, context| {
                flow.connected(context);
                Fate::GoesOn
            }),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Err(error) => {
                let key = flow.key;
                let (_, after_syn) = flow.sequences();
                self.end(id, End::of_connect(&error), now, io);
                self.refuse(key, None, after_syn.wrapping_sub(1), &error, io);
            }
        }
    }

    /// Has every flow that has something to do do some of it; whether there is more
    /// to do at once. What the guest has no room for waits until it is called again.
    pub fn turn(&mut self, now: Instant, io: &mut impl Io) -> bool {
        if !self.pay(io) {
            return false;
        }
        while let Some(&(due, id)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            if let Some(flow) = self.table.get_mut(id) {
                flow.timer = None;
            }
            self.with_flow(id, now, io, |flow, context| flow.time_passed(context));
        }
        for _ in 0..self.queue.len() {
            let Some(id) = self.queue.pop_front() else {
                break;
            };
            let Some(flow) = self.table.get_mut(id).filter(|flow| flow.is_queued) else {
                continue;
            };
            flow.is_queued = false;
            let mut context = Context {
                io,
                link: self.link,
                memory: &mut self.memory,
                now,
            };
            let turn = flow.turn(&mut context);
            match turn {
                Turn::Ended(end) => self.end(id, end, now, io),
                Turn::Idle => self.time(id),
                Turn::Again => self.settle(id, Fate::GoesOn, now, io),
                Turn::NoRoom => {
                    // It is the next when there is room.
                    self.time(id);
                    if let Some(flow) = self.table.get_mut(id) {
                        flow.is_queued = true;
                        self.queue.push_front(id);
                    }
                    return false;
                }
            }
        }
        !self.queue.is_empty()
    }

    /// When it has to be called again, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        // What is owed comes first, and waits for the guest to make room.
        if self.owes() {
            return None;
        }
        self.timers.first().map(|(due, _)| *due)
    }

    fn with_flow<I: Io>(
        &mut self,
        id: FlowId,
        now: Instant,
        io: &mut I,
        what: impl FnOnce(&mut Flow, &mut Context<'_, I>) -> Fate,
    ) {
        let Some(flow) = self.table.get_mut(id) else {
            return;
        };
        let mut context = Context {
            io,
            link: self.link,
            memory: &mut self.memory,
            now,
        };
        let fate = what(flow, &mut context);
        self.settle(id, fate, now, io);
    }

    /// Gives a flow its turn and its deadline, or ends it.
    fn settle(&mut self, id: FlowId, fate: Fate, now: Instant, io: &mut impl Io) {
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
    fn time(&mut self, id: FlowId) {
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

    fn end(&mut self, id: FlowId, end: End, now: Instant, io: &mut impl Io) {
        let Some(mut flow) = self.table.remove(id) else {
            return;
        };
        let bytes = flow.bytes();
        flow.discard(&mut self.memory);
        if let Some(timer) = flow.timer {
            self.timers.remove(&(timer, id));
        }
        io.close(id, end.close());
        let Flow { key, origin, .. } = *flow;
        self.note_end(Protocol::Tcp, key.remote, origin, bytes, (end, now));
    }
}

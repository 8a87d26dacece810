//! The network of one guest: takes its frames, and gives it others.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::time::Instant;

use crate::config::Config;
use crate::dns::message::Question;
use crate::io::{FlowId, Io, Ticket};
use crate::policy::Names;
use crate::rate::{Rates, Way};
use crate::record::{End, Records};
use crate::tcp::buffer::Memory;
use crate::tcp::{Context, Fate, Turn};
use crate::wire::build::Link;
use crate::wire::checksum::Sum;
use crate::wire::icmp::Trouble;
use crate::wire::ip::{Arrived, Packet};
use crate::wire::{self, Ethernet};

mod connections;
mod datagrams;
mod dhcp;
mod dhcp6;
mod fragments;
mod names;
mod neighbours;
mod noted;
mod placeholders;
mod refusals;
mod routed;
mod saved;
mod table;
mod watched;

use datagrams::Datagrams;
use fragments::Fragments;
use names::Asker;
use placeholders::Placeholders;
use routed::{Routed, Streams};
pub use saved::BadState;
use saved::Owed;
use table::Table;
use watched::Watches;

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
    /// Exchanges of datagrams and echo requests that were begun.
    pub datagram_flows: u64,
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
    /// Times that a flow waited for its part of a rate.
    pub waits: u64,
    /// Messages of the guest's that were beyond the rate, and lost.
    pub lost_messages: u64,
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
    rates: Rates,
    datagrams: Datagrams,
    fragments: Fragments,
    /// Connections with the resolver, which have no socket.
    streams: Streams,
    /// Connections whose first bytes are looked at.
    watches: Watches,
    /// Connections that are looked at for what stands for secrets.
    placeholders: Placeholders,
    /// What first sequence numbers are made of.
    numbers: u64,
    names: Names,
    look_ups: HashMap<Ticket, (Question, Asker)>,
    next_ticket: u64,
    /// Connections of the guest that ended with another machine.
    owed: VecDeque<Owed>,
    counters: Counters,
    records: Records,
}

impl Stack {
    /// A network without connections.
    pub fn new(mut config: Config) -> Self {
        let limits = config.policy.limits();
        if let Some(most) = limits.max_flows {
            let most = usize::try_from(most.get()).unwrap_or(usize::MAX);
            config.max_flows = config.max_flows.min(most);
            config.max_datagram_flows = config.max_datagram_flows.min(most);
        }
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
            rates: Rates::new(&limits),
            datagrams: Datagrams::new(config.max_flows, config.max_datagram_flows),
            fragments: Fragments::default(),
            streams: Streams::default(),
            watches: Watches::default(),
            placeholders: Placeholders::default(),
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

    /// Connections there are right now.
    pub fn flows(&self) -> usize {
        self.table.len()
    }

    /// Exchanges of datagrams and echo requests there are right now.
    pub fn datagram_flows(&self) -> usize {
        self.datagrams.len()
    }

    /// Bytes that wait in either direction, pieces of packets among them.
    pub fn buffered_bytes(&self) -> usize {
        self.memory.used() + self.fragments.bytes()
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
            return self.address_resolution(&ethernet, io);
        }
        match Arrived::read(ethernet.kind, ethernet.payload)? {
            Arrived::Packet(packet) => self.packet(&packet, is_checked, now, io),
            Arrived::Piece(piece) => {
                if !self.config.addresses.is_guest(piece.label.source) {
                    return None;
                }
                let Some(whole) = self.fragments.add(&piece, now) else {
                    return Some(());
                };
                // Pieces of pieces are none.
                let packet = Packet::read(ethernet.kind, &whole)?;
                self.packet(&packet, false, now, io)
            }
        }
    }

    fn packet(
        &mut self,
        packet: &Packet<'_>,
        is_checked: bool,
        now: Instant,
        io: &mut impl Io,
    ) -> Option<()> {
        // Answers go to the guest's address, so what claims another gets none. One
        // that has no address yet asks for it.
        if !self.config.addresses.is_guest(packet.source) {
            return match packet.protocol {
                wire::UDP => self
                    .dhcp(packet, is_checked, io)
                    .or_else(|| self.dhcp6(packet, is_checked, io)),
                wire::ICMPV6 => self.neighbour(packet, io),
                _ => None,
            };
        }
        let is_here = self.config.addresses.is_gateway(packet.destination)
            || packet.destination.is_multicast();
        if packet.hops <= 1 && !is_here {
            self.undelivered(packet, Trouble::TimeExceeded, io);
            return Some(());
        }
        match packet.protocol {
            wire::TCP => self.tcp(packet, is_checked, now, io),
            wire::UDP => self
                .dhcp6(packet, is_checked, io)
                .or_else(|| self.udp(packet, is_checked, now, io)),
            wire::ICMP if packet.source.is_ipv4() => self.echo(packet, now, io),
            wire::ICMPV6 if packet.source.is_ipv6() => self
                .neighbour(packet, io)
                .or_else(|| self.echo(packet, now, io)),
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
            return self.datagrams.ready(id);
        };
        flow.ready(readable, writable);
        if !flow.is_connecting() {
            if writable {
                self.watches.writable(id, io);
            }
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
                self.refuse(key, after_syn.wrapping_sub(1), &error, io);
            }
        }
    }

    /// Gives each flow with work its turn; whether there is more to do at once.
    /// What the guest has no room for waits until it is called again.
    pub fn turn(&mut self, now: Instant, io: &mut impl Io) -> bool {
        if !self.pay(io) {
            return false;
        }
        // One that waited is looked at again if the guest has room.
        self.rates.inward.hold_message(false);
        self.serve_streams(now, io);
        while let Some(&(due, id)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            if let Some(flow) = self.table.get_mut(id) {
                flow.timer = None;
            }
            self.with_flow(id, now, io, |flow, context| flow.time_passed(context));
        }
        self.grant_shares(now);
        for _ in 0..self.queue.len() {
            let Some(id) = self.queue.pop_front() else {
                break;
            };
            let Some(flow) = self.table.get_mut(id).filter(|flow| flow.is_queued) else {
                continue;
            };
            flow.is_queued = false;
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
        let Some(more) = self.datagram_turn(now, io) else {
            return false;
        };
        more || !self.queue.is_empty() || self.streams.have_asked()
    }

    /// When it has to be called again, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        // What is owed comes first, and waits for the guest to make room.
        if self.owes() {
            return None;
        }
        let connections = self.timers.first().map(|(due, _)| *due);
        let messages = self.datagrams.due();
        let rates = self.rates.due();
        connections.into_iter().chain(messages).chain(rates).min()
    }

    /// Has flows go on that waited for their part of a rate, as far as that goes.
    fn grant_shares(&mut self, now: Instant) {
        for way in [Way::In, Way::Out] {
            while let Some(id) = self.rates.of(way).next(now) {
                let Some(flow) = self.table.get_mut(id).filter(|flow| flow.waits(way)) else {
                    continue;
                };
                flow.granted(way, &mut self.rates);
                if !flow.is_queued {
                    flow.is_queued = true;
                    self.queue.push_back(id);
                }
            }
        }
    }
}

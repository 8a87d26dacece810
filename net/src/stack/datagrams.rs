//! Datagrams and echo requests that leave: each pair of ends has a socket of the
//! host, which is connected to the other end and hears of nobody else.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::refusals::trouble_of;
use super::{DNS, Stack};
use crate::io::{Close, FlowId, Io, Transport};
use crate::policy::{Cause, Protocol};
use crate::record::End;
use crate::tcp::{Key, Origin};
use crate::wire::build::{self, UDP_BYTES};
use crate::wire::icmp::{self, Trouble, echo};
use crate::wire::ip::Packet;
use crate::wire::{UDP, be16};

/// How long an exchange may be silent (RFC 4787, REQ-5, asks for two minutes; one
/// that was never answered has had its time sooner).
const UNANSWERED: Duration = Duration::from_secs(30);
const ANSWERED: Duration = Duration::from_secs(120);
/// How often silent exchanges are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// Messages that one exchange passes to the guest in a turn.
const MESSAGES_PER_TURN: usize = 32;
/// What a way is taken to have room for that has none for the guest's longest packet:
/// what any way of IPv6 has (RFC 8200, 5).
const SHORT_WAY_BYTES: u16 = 1280;
/// Longest packet that the guest sends in one piece.
const MTU: usize = 1500;
/// Longest message.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// An exchange of messages with another end.
struct Exchange {
    transport: Transport,
    /// The port at the guest's side is the number of its echo requests.
    key: Key,
    origin: Origin,
    heard: Instant,
    is_answered: bool,
    is_queued: bool,
    sent_bytes: u64,
    received_bytes: u64,
}

impl Exchange {
    fn protocol(&self) -> Protocol {
        match self.transport {
            Transport::Echo => Protocol::Icmp,
            _ => Protocol::Udp,
        }
    }
}

/// All exchanges of messages.
pub(super) struct Datagrams {
    /// The number of the first: those below are connections.
    first: usize,
    limit: usize,
    places: Vec<Option<Box<Exchange>>>,
    by_key: HashMap<(Transport, Key), FlowId>,
    /// Those with something to read, in turn.
    queue: VecDeque<FlowId>,
    sweep: Option<Instant>,
    /// What a message is received into.
    message: Vec<u8>,
}

impl Datagrams {
    pub(super) fn new(first: usize, limit: usize) -> Self {
        Self {
            first,
            limit: limit.max(1),
            places: Vec::new(),
            by_key: HashMap::new(),
            queue: VecDeque::new(),
            sweep: None,
            message: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.sweep
    }

    /// Bytes that went each way, of each.
    pub(super) fn bytes(&self) -> impl Iterator<Item = (u64, u64)> {
        let there = self.places.iter().flatten();
        there.map(|exchange| (exchange.sent_bytes, exchange.received_bytes))
    }

    fn place(&mut self, id: FlowId) -> Option<&mut Option<Box<Exchange>>> {
        let place = usize::try_from(id.0).ok()?.checked_sub(self.first)?;
        self.places.get_mut(place)
    }

    fn get(&mut self, id: FlowId) -> Option<&mut Exchange> {
        self.place(id)?.as_deref_mut()
    }

    fn ids(&self) -> Vec<FlowId> {
        self.by_key.values().copied().collect()
    }

    /// A number that is free.
    fn free(&mut self) -> Option<FlowId> {
        let place = match self.places.iter().position(Option::is_none) {
            Some(place) => place,
            None if self.places.len() < self.limit => {
                self.places.push(None);
                self.places.len() - 1
            }
            None => return None,
        };
        u32::try_from(self.first + place).ok().map(FlowId)
    }

    /// The exchange that was silent longest.
    fn oldest(&mut self) -> Option<FlowId> {
        let there = self.by_key.values().copied();
        let mut oldest: Option<(Instant, FlowId)> = None;
        for id in there.collect::<Vec<_>>() {
            if let Some(heard) = self.get(id).map(|exchange| exchange.heard)
                && oldest.is_none_or(|(before, _)| heard < before)
            {
                oldest = Some((heard, id));
            }
        }
        oldest.map(|(_, id)| id)
    }

    fn remove(&mut self, id: FlowId) -> Option<Box<Exchange>> {
        let exchange = self.place(id)?.take()?;
        self.by_key.remove(&(exchange.transport, exchange.key));
        if self.by_key.is_empty() {
            self.sweep = None;
        }
        Some(exchange)
    }

    /// A socket may have something to read.
    pub(super) fn ready(&mut self, id: FlowId) {
        if let Some(exchange) = self.get(id)
            && !exchange.is_queued
        {
            exchange.is_queued = true;
            self.queue.push_back(id);
        }
    }
}

/// What became of a message that was to be received.
enum Received {
    Message(usize),
    Nothing,
    Error(io::Error),
}

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
        let payload = datagram.get(UDP_BYTES..)?;
        // Over IPv4 it may go without a checksum (RFC 768).
        let is_checked = is_checked || packet.source.is_ipv4() && be16(datagram, 6) == Some(0);
        if !Self::is_intact(packet, is_checked) {
            return None;
        }
        let key = Key {
            guest: SocketAddr::new(packet.source, be16(datagram, 0)?),
            remote: SocketAddr::new(packet.destination, be16(datagram, 2)?),
        };
        if (key.guest.port(), key.remote.port()) == (68, 67) {
            return self.dhcp_message(payload, io);
        }
        if key.remote.port() == DNS {
            return self.datagram_question(payload, key, now, io);
        }
        self.pass_message(Transport::Datagram, key, packet, payload, now, io);
        Some(())
    }

    pub(super) fn echo(
        &mut self,
        packet: &Packet<'_>,
        now: Instant,
        io: &mut impl Io,
    ) -> Option<()> {
        let (guest, remote, message) = (packet.source, packet.destination, packet.payload);
        let number = echo::request(guest, message)?;
        if !icmp::is_intact(guest, remote, message) {
            return None;
        }
        if self.config.addresses.is_gateway(remote) {
            let mut header = echo::reply_header(guest, message, number)?;
            let rest = message.get(header.len()..)?;
            icmp::seal(remote, guest, &mut header, rest);
            build::icmp(io, self.link, remote, guest, [&header, rest]);
            return Some(());
        }
        let key = Key {
            guest: SocketAddr::new(guest, number),
            remote: SocketAddr::new(remote, 0),
        };
        self.pass_message(Transport::Echo, key, packet, message, now, io);
        Some(())
    }

    /// Passes a message of the guest's on, over a socket that is made for the first.
    fn pass_message(
        &mut self,
        transport: Transport,
        key: Key,
        packet: &Packet<'_>,
        message: &[u8],
        now: Instant,
        io: &mut impl Io,
    ) {
        let known = self.datagrams.by_key.get(&(transport, key)).copied();
        let id = match known {
            Some(id) => id,
            None => match self.begin_exchange(transport, key, now, io) {
                Ok(id) => id,
                Err(Some(trouble)) => return self.undelivered(packet, trouble, io),
                Err(None) => return,
            },
        };
        if !self.rates.outward.has_room_for_message(now) {
            self.counters.lost_messages += 1;
            return;
        }
        let result = io.send(id, message);
        let Some(exchange) = self.datagrams.get(id) else {
            return;
        };
        exchange.heard = now;
        match result {
            Ok(_) => {
                exchange.sent_bytes += message.len() as u64;
                self.rates.outward.message_passed(message.len());
            }
            // One that came in pieces would come in pieces again.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                if packet.whole.len() > SHORT_WAY_BYTES.into() && packet.whole.len() <= MTU {
                    self.undelivered(packet, Trouble::TooBig(SHORT_WAY_BYTES), io);
                }
            }
            Err(error) => self.exchange_failed(id, &error, now, io),
        }
    }

    /// A socket for messages to another end; what the guest is told if there is none.
    fn begin_exchange(
        &mut self,
        transport: Transport,
        key: Key,
        now: Instant,
        io: &mut impl Io,
    ) -> Result<FlowId, Option<Trouble>> {
        let protocol = match transport {
            Transport::Echo => Protocol::Icmp,
            _ => Protocol::Udp,
        };
        let (target, mut origin) = self.target(protocol, key.remote, now, io);
        let Some(target) = target else {
            // Nothing listens there, for all that the guest can know.
            let trouble = match origin.cause {
                Cause::HostPort => Trouble::PortUnreachable,
                _ => Trouble::Prohibited,
            };
            self.note_denied(protocol, key.remote, origin);
            return Err(Some(trouble));
        };
        if self.datagrams.len() >= self.datagrams.limit
            && let Some(oldest) = self.datagrams.oldest()
        {
            self.end_exchange(oldest, End::Displaced, now, io);
        }
        let Some(id) = self.datagrams.free() else {
            origin.cause = Cause::Limit;
            self.note_denied(protocol, key.remote, origin);
            return Err(None);
        };
        if let Err(error) = io.connect(id, transport, target) {
            let end = (End::of_connect(&error), now);
            self.note_end(protocol, key.remote, origin, (0, 0), end);
            return Err(trouble_of(&error));
        }
        let exchange = Exchange {
            transport,
            key,
            origin,
            heard: now,
            is_answered: false,
            is_queued: false,
            sent_bytes: 0,
            received_bytes: 0,
        };
        if let Some(place) = self.datagrams.place(id) {
            *place = Some(Box::new(exchange));
            self.datagrams.by_key.insert((transport, key), id);
        }
        self.datagrams.sweep.get_or_insert(now + SWEEP);
        self.counters.datagram_flows += 1;
        Ok(id)
    }

    /// A socket has said that something went wrong. It is asked for nothing more: the
    /// guest's next message gets another.
    fn exchange_failed(&mut self, id: FlowId, error: &io::Error, now: Instant, io: &mut impl Io) {
        use io::ErrorKind as Kind;
        if let Kind::WouldBlock | Kind::Interrupted = error.kind() {
            // The message is lost, as messages may be.
            return;
        }
        let Some(exchange) = self.datagrams.get(id) else {
            return;
        };
        let (key, transport) = (exchange.key, exchange.transport);
        let (trouble, end) = (trouble_of(error), End::of_connect(error));
        let (protocol, start) = match transport {
            Transport::Echo => {
                let [high, low] = key.guest.port().to_be_bytes();
                let kind = if key.guest.is_ipv6() { 128 } else { 8 };
                let protocol = icmp::protocol_of(key.guest.ip());
                (protocol, [kind, 0, 0, 0, high, low, 0, 0])
            }
            _ => (UDP, icmp::ports(key, [0, 8, 0, 0])),
        };
        if let Some(trouble) = trouble {
            self.unreachable(key, protocol, start, trouble, io);
        }
        self.end_exchange(id, end, now, io);
    }

    fn end_exchange(&mut self, id: FlowId, end: End, now: Instant, io: &mut impl Io) {
        let Some(exchange) = self.datagrams.remove(id) else {
            return;
        };
        io.close(id, Close::Orderly);
        let protocol = exchange.protocol();
        let bytes = (exchange.sent_bytes, exchange.received_bytes);
        let (remote, origin) = (exchange.key.remote, exchange.origin);
        self.note_end(protocol, remote, origin, bytes, (end, now));
    }

    /// Ends all exchanges.
    pub(super) fn end_exchanges(&mut self, end: End, now: Instant, io: &mut impl Io) {
        for id in self.datagrams.ids() {
            self.end_exchange(id, end, now, io);
        }
        self.datagrams.queue.clear();
    }

    /// Passes on to the guest what has come; whether there is more, or none if the
    /// guest has no room.
    pub(super) fn datagram_turn(&mut self, now: Instant, io: &mut impl Io) -> Option<bool> {
        self.sweep(now, io);
        for _ in 0..self.datagrams.queue.len() {
            let id = self.datagrams.queue.pop_front()?;
            for left in (0..MESSAGES_PER_TURN).rev() {
                if !self.rates.inward.has_room_for_message(now) {
                    self.datagrams.queue.push_front(id);
                    self.rates.inward.hold_message(true);
                    return Some(false);
                }
                match self.receive_message(id, io) {
                    Received::Nothing => {
                        if let Some(exchange) = self.datagrams.get(id) {
                            exchange.is_queued = false;
                        }
                        break;
                    }
                    Received::Error(error) => {
                        if let Some(exchange) = self.datagrams.get(id) {
                            exchange.is_queued = false;
                        }
                        self.exchange_failed(id, &error, now, io);
                        break;
                    }
                    Received::Message(bytes) => {
                        self.rates.inward.message_passed(bytes);
                        let has_room = self.give_message(id, bytes, now, io);
                        if !has_room || left == 0 {
                            self.datagrams.queue.push_back(id);
                        }
                        if !has_room {
                            // The message is lost, as it would be on a wire.
                            return None;
                        }
                    }
                }
            }
        }
        Some(!self.datagrams.queue.is_empty())
    }

    fn receive_message(&mut self, id: FlowId, io: &mut impl Io) -> Received {
        if self.datagrams.get(id).is_none() {
            return Received::Nothing;
        }
        let message = &mut self.datagrams.message;
        message.resize(MAX_MESSAGE_BYTES, 0);
        let mut room = [IoSliceMut::new(message)];
        loop {
            return match io.receive(id, &mut room) {
                Ok(bytes) => Received::Message(bytes),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => continue,
                    io::ErrorKind::WouldBlock => Received::Nothing,
                    _ => Received::Error(error),
                },
            };
        }
    }

    /// Gives the guest the message that was received; false if it has no room.
    fn give_message(&mut self, id: FlowId, bytes: usize, now: Instant, io: &mut impl Io) -> bool {
        let Some(place) = usize::try_from(id.0)
            .ok()
            .and_then(|id| id.checked_sub(self.datagrams.first))
        else {
            return true;
        };
        let Some(Some(exchange)) = self.datagrams.places.get_mut(place) else {
            return true;
        };
        let message = self.datagrams.message.get(..bytes).unwrap_or_default();
        let (guest, remote) = (exchange.key.guest, exchange.key.remote);
        let given = match exchange.transport {
            Transport::Echo => {
                let header = echo::reply(remote.ip(), message)
                    .and_then(|_| echo::reply_header(remote.ip(), message, guest.port()));
                // A socket for echo requests hears of other messages, too.
                let Some(mut header) = header else {
                    return true;
                };
                let rest = message.get(header.len()..).unwrap_or_default();
                icmp::seal(remote.ip(), guest.ip(), &mut header, rest);
                build::icmp(io, self.link, remote.ip(), guest.ip(), [&header, rest])
            }
            _ => build::udp(io, self.link, remote, guest, message),
        };
        exchange.heard = now;
        exchange.is_answered = true;
        if given {
            exchange.received_bytes += bytes as u64;
        }
        given
    }

    /// Ends exchanges that were silent for too long.
    fn sweep(&mut self, now: Instant, io: &mut impl Io) {
        if self.datagrams.sweep.is_none_or(|due| due > now) {
            return;
        }
        for id in self.datagrams.ids() {
            let Some(exchange) = self.datagrams.get(id) else {
                continue;
            };
            let limit = if exchange.is_answered {
                ANSWERED
            } else {
                UNANSWERED
            };
            if now.saturating_duration_since(exchange.heard) >= limit {
                self.end_exchange(id, End::TimedOut, now, io);
            }
        }
        self.datagrams.sweep = (self.datagrams.len() > 0).then(|| now + SWEEP);
    }
}

//! Connections that end here, at the guest's resolver, and have no socket.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::placeholders::Placeholders;
use super::watched::Watches;
use crate::config::Config;
use crate::io::{Close, FlowId, Frame, Io, Offloads, Query, Ticket, Transport};

/// Most connections with the resolver: the one that was silent longest makes room.
const MAX_STREAMS: usize = 64;
/// Longest question that is asked.
const MAX_QUESTION_BYTES: usize = 4096;
/// Bytes of the length in front of each message (RFC 1035, 4.2.2).
const LENGTH_BYTES: usize = 2;
/// Most questions of one connection that are under way.
const MAX_UNANSWERED: usize = 16;
/// Bytes that the guest has not read, beyond which it is asked nothing more.
const MAX_WAITING_BYTES: usize = 64 << 10;

/// A connection with the resolver.
#[derive(Debug)]
struct Stream {
    /// Tells it from others that had its number.
    serial: u64,
    heard: Instant,
    incoming: Vec<u8>,
    outgoing: VecDeque<u8>,
    unanswered: usize,
    is_finished: bool,
    /// What it sent is no question.
    is_broken: bool,
}

/// A connection with the resolver, by which an answer finds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamId {
    pub(super) flow: FlowId,
    serial: u64,
}

/// What there is to do for a connection with the resolver.
pub(super) enum Work {
    /// It asks this.
    Question(StreamId, Vec<u8>),
    /// It has asked all, and has all answers.
    Finished(FlowId),
}

/// All connections with the resolver.
#[derive(Debug, Default)]
pub(super) struct Streams {
    by_flow: HashMap<FlowId, Stream>,
    next_serial: u64,
}

impl Stream {
    fn has_room(&self) -> bool {
        self.unanswered < MAX_UNANSWERED && self.outgoing.len() < MAX_WAITING_BYTES
    }

    /// The length of the next message, if that is there.
    fn next_length(&self) -> Option<usize> {
        let length = self.incoming.first_chunk::<LENGTH_BYTES>()?;
        Some(usize::from(u16::from_be_bytes(*length)))
    }

    fn has_question(&self) -> bool {
        self.next_length()
            .is_some_and(|length| self.incoming.len() >= LENGTH_BYTES + length)
    }

    fn take_question(&mut self) -> Option<Vec<u8>> {
        if !self.has_room() || !self.has_question() {
            return None;
        }
        let length = self.next_length()?;
        let rest = self.incoming.split_off(LENGTH_BYTES + length);
        let mut message = std::mem::replace(&mut self.incoming, rest);
        message.drain(..LENGTH_BYTES);
        self.unanswered += 1;
        Some(message)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = (LENGTH_BYTES + MAX_QUESTION_BYTES).saturating_sub(self.incoming.len());
        let taken = bytes.len().min(room);
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.incoming.extend(bytes.iter().take(taken));
        if self
            .next_length()
            .is_some_and(|length| length > MAX_QUESTION_BYTES)
        {
            self.is_broken = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(taken)
    }

    fn receive(&mut self, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if self.is_broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.outgoing.is_empty() {
            return match self.is_finished && self.unanswered == 0 && !self.has_question() {
                true => Ok(0),
                false => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let mut got = 0;
        for part in room {
            let count = part.len().min(self.outgoing.len());
            for (place, byte) in part.iter_mut().zip(self.outgoing.drain(..count)) {
                *place = byte;
            }
            got += count;
        }
        Ok(got)
    }
}

impl Streams {
    /// The connection that has to make room for another.
    pub(super) fn too_many(&self) -> Option<FlowId> {
        let oldest = self.by_flow.iter().min_by_key(|(_, stream)| stream.heard);
        let oldest = oldest.map(|(flow, _)| *flow);
        oldest.filter(|_| self.by_flow.len() >= MAX_STREAMS)
    }

    pub(super) fn begin(&mut self, flow: FlowId, now: Instant) {
        self.next_serial += 1;
        let stream = Stream {
            serial: self.next_serial,
            heard: now,
            incoming: Vec::new(),
            outgoing: VecDeque::new(),
            unanswered: 0,
            is_finished: false,
            is_broken: false,
        };
        self.by_flow.insert(flow, stream);
    }

    /// Forgets a connection; false if it is none of these.
    pub(super) fn end(&mut self, flow: FlowId) -> bool {
        !self.by_flow.is_empty() && self.by_flow.remove(&flow).is_some()
    }

    fn get(&mut self, flow: FlowId) -> Option<&mut Stream> {
        match self.by_flow.is_empty() {
            true => None,
            false => self.by_flow.get_mut(&flow),
        }
    }

    /// Whether a question can be answered now.
    pub(super) fn have_asked(&self) -> bool {
        let mut streams = self.by_flow.values();
        streams.any(|stream| stream.has_room() && stream.has_question())
    }

    /// What there is to do.
    pub(super) fn work(&mut self, now: Instant) -> Vec<Work> {
        let mut work = Vec::new();
        for (flow, stream) in &mut self.by_flow {
            let id = StreamId {
                flow: *flow,
                serial: stream.serial,
            };
            while let Some(question) = stream.take_question() {
                stream.heard = now;
                work.push(Work::Question(id, question));
            }
            if stream.is_finished && stream.unanswered == 0 && stream.outgoing.is_empty() {
                work.push(Work::Finished(id.flow));
            }
        }
        work
    }

    /// An answer has come; none if nobody waits for it any more.
    pub(super) fn answer(&mut self, id: StreamId, message: &[u8]) -> Option<()> {
        let stream = self
            .get(id.flow)
            .filter(|stream| stream.serial == id.serial)?;
        stream.unanswered = stream.unanswered.saturating_sub(1);
        let length = u16::try_from(message.len()).ok()?;
        stream.outgoing.extend(length.to_be_bytes());
        stream.outgoing.extend(message);
        Some(())
    }

    /// A message was not a question, and gets no answer.
    pub(super) fn break_off(&mut self, id: StreamId) {
        if let Some(stream) = self.get(id.flow) {
            stream.is_broken = true;
        }
    }
}

/// The host, but for the connections that end here, and those that are looked at.
pub(super) struct Routed<'a, I> {
    pub(super) io: &'a mut I,
    pub(super) streams: &'a mut Streams,
    pub(super) watches: &'a mut Watches,
    pub(super) placeholders: &'a mut Placeholders,
    pub(super) config: &'a Config,
}

impl<I: Io> Io for Routed<'_, I> {
    fn offloads(&self) -> Offloads {
        self.io.offloads()
    }

    fn give(&mut self, frame: &Frame<'_>) -> bool {
        self.io.give(frame)
    }

    fn connect(&mut self, flow: FlowId, transport: Transport, to: SocketAddr) -> io::Result<()> {
        self.io.connect(flow, transport, to)
    }

    fn connected(&mut self, flow: FlowId) -> io::Result<()> {
        self.io.connected(flow)
    }

    fn send(&mut self, flow: FlowId, bytes: &[u8]) -> io::Result<usize> {
        if let Some(stream) = self.streams.get(flow) {
            return stream.send(bytes);
        }
        let sent = match self.watches.send(flow, bytes, self.config, self.io) {
            Some(sent) => sent,
            None => self.io.send(flow, bytes),
        }?;
        let taken = bytes.get(..sent).unwrap_or_default();
        self.placeholders.sent(flow, taken, self.config);
        Ok(sent)
    }

    fn receive(&mut self, flow: FlowId, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self.streams.get(flow) {
            Some(stream) => stream.receive(room),
            None if self.watches.is_denied(flow) => Err(io::ErrorKind::ConnectionReset.into()),
            None => self.io.receive(flow, room),
        }
    }

    fn finish_sending(&mut self, flow: FlowId) {
        match self.streams.get(flow) {
            Some(stream) => stream.is_finished = true,
            None if self.watches.finish(flow, self.config, self.io) => {}
            None => self.io.finish_sending(flow),
        }
    }

    fn close(&mut self, flow: FlowId, how: Close) {
        self.io.close(flow, how);
    }

    fn look_up(&mut self, ticket: Ticket, query: Query) -> bool {
        self.io.look_up(ticket, query)
    }

    fn has_ipv6(&mut self) -> bool {
        self.io.has_ipv6()
    }

    fn is_own(&mut self, address: IpAddr) -> bool {
        self.io.is_own(address)
    }
}

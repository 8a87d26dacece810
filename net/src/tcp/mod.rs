//! One TCP connection: the guest's segments at one side, a stream of the host at
//! the other.
//!
//! There is no second network in between: the guest's connection is answered when
//! the host's is there, what the guest sent is acknowledged when the host's socket
//! has taken it, and it ends as the other end ended it. Offsets count bytes of a
//! stream from its SYN, which is number 0; the first byte of data is number 1.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::io::{FlowId, Io};
use crate::policy::Cause;
use crate::rate::{Rates, Share, Way};
use crate::record::End;
use crate::wire::build::{self, Link, TcpOut};
use crate::wire::tcp::{Segment, flag};

use buffer::{Memory, SendBuffer};
use parked::Parked;
pub(crate) use send::Turn;

pub(crate) mod buffer;
mod parked;
mod receive;
mod send;

/// What the guest may send ahead of what the host has taken.
pub(crate) const WINDOW_BYTES: u32 = 1 << 20;
/// Shift of the windows that we show.
pub(crate) const SCALE: u8 = 8;
/// What is assumed of a peer that does not say (RFC 9293, 3.7.1).
const DEFAULT_SEGMENT_BYTES: u16 = 536;
/// Fewest bytes of a segment, lest a guest have one sent for each byte.
const MIN_SEGMENT_BYTES: u16 = 88;
/// First wait for an acknowledgement. The guest is microseconds away; this is for
/// one that is busy.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest wait for an acknowledgement.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How often something is sent again before the guest is taken to have forgotten
/// the connection; Linux's `tcp_retries2`.
const MAX_TRIES: u8 = 15;
/// The same for the answer to a SYN; Linux's `tcp_synack_retries`.
const MAX_SYN_TRIES: u8 = 5;

/// Both ends of a connection, as the guest knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) guest: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// What a flow works with.
pub(crate) struct Context<'a, I> {
    pub(crate) io: &'a mut I,
    pub(crate) link: Link,
    pub(crate) memory: &'a mut Memory,
    pub(crate) rates: &'a mut Rates,
    pub(crate) now: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The host's stream is being made.
    Connecting,
    /// It is there, and the guest was told.
    Answered,
    /// The guest knows.
    Open,
}

/// What the host's end of the stream still gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HostEnd {
    Open,
    /// Nothing more comes; it may still take.
    Finished,
    /// It is gone.
    Broken,
}

/// Whether a flow goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    GoesOn,
    /// Its socket is to be closed, and it is over.
    Ends(End),
}

/// What a log says of how a flow began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) cause: Cause,
    /// Left out if there is no log.
    pub(crate) name: Option<String>,
    pub(crate) begun: Instant,
}

/// What the stream from the guest has come to.
struct Receiving {
    /// Sequence number of the SYN.
    first: u32,
    /// Offset up to which the host has taken it: what the guest is told it has.
    accepted: u64,
    parked: Parked,
    /// Offset of the guest's FIN.
    fin_at: Option<u64>,
    /// The FIN was passed on.
    is_finished: bool,
    /// The socket took nothing the last time.
    is_blocked: bool,
    /// What the guest may send up to.
    edge: u64,
    /// Shift of the windows that we show.
    scale: u8,
    /// Its part of the rate.
    share: Share,
}

/// What the stream to the guest has come to.
struct Sending {
    /// Sequence number of the SYN.
    first: u32,
    /// Offset up to which the guest has it.
    acknowledged: u64,
    /// Offset of what is sent next.
    next: u64,
    /// Offset up to which it was ever sent.
    highest: u64,
    /// From `buffered_from` on.
    buffer: SendBuffer,
    buffered_from: u64,
    /// What the guest takes beyond `acknowledged`.
    window: u32,
    /// Offset of the segment that the window was in.
    window_from: u64,
    scale: u8,
    segment_bytes: u16,
    /// Acknowledgements in a row that said nothing new.
    repeated: u8,
    /// While something is being sent again: up to where.
    recovery: Option<u64>,
    /// What may be on its way: unbounded until something was lost.
    allowance: u64,
    wait: Duration,
    tries: u8,
    due: Option<Instant>,
    /// Its part of the rate.
    share: Share,
}

/// A connection of the guest.
pub(crate) struct Flow {
    pub(crate) id: FlowId,
    pub(crate) key: Key,
    /// What the host's socket is connected to.
    pub(crate) target: SocketAddr,
    pub(crate) origin: Origin,
    /// It waits for its turn.
    pub(crate) is_queued: bool,
    /// The moment at which the stack looks at its deadline.
    pub(crate) timer: Option<Instant>,
    state: State,
    receiving: Receiving,
    sending: Sending,
    host: HostEnd,
    /// The host's socket may have something to read.
    is_readable: bool,
    /// The host's socket has refused to take more: what the guest sends is lost.
    is_deaf: bool,
    ack_due: bool,
}

impl Flow {
    /// A flow for the guest's SYN, whose host side is being connected to `target`.
    pub(crate) fn new(
        id: FlowId,
        key: Key,
        target: SocketAddr,
        origin: Origin,
        syn: &Segment<'_>,
        first: u32,
    ) -> Self {
        let options = syn.syn_options();
        let most: u16 = if key.guest.is_ipv4() { 1460 } else { 1440 };
        let segment_bytes = options.max_segment.unwrap_or(DEFAULT_SEGMENT_BYTES);
        Self {
            id,
            key,
            target,
            origin,
            is_queued: false,
            timer: None,
            state: State::Connecting,
            receiving: Receiving {
                first: syn.sequence,
                accepted: 1,
                parked: Parked::default(),
                fin_at: None,
                is_finished: false,
                is_blocked: false,
                edge: 1,
                scale: options.scale.map_or(0, |_| SCALE),
                share: Share::default(),
            },
            sending: Sending {
                first,
                acknowledged: 0,
                next: 0,
                highest: 0,
                buffer: SendBuffer::default(),
                buffered_from: 1,
                window: syn.window.into(),
                window_from: 0,
                scale: options.scale.unwrap_or(0),
                segment_bytes: segment_bytes.clamp(MIN_SEGMENT_BYTES, most),
                repeated: 0,
                recovery: None,
                allowance: u64::MAX,
                wait: FIRST_WAIT,
                tries: 0,
                due: None,
                share: Share::default(),
            },
            host: HostEnd::Open,
            is_readable: false,
            is_deaf: false,
            ack_due: false,
        }
    }

    pub(crate) fn is_connecting(&self) -> bool {
        self.state == State::Connecting
    }

    /// The guest has not acknowledged the connection yet.
    pub(crate) fn is_half_open(&self) -> bool {
        self.state != State::Open
    }

    /// The guest has finished, so that a SYN of the same ends begins another.
    pub(crate) fn is_closing(&self) -> bool {
        self.receiving.fin_at.is_some() || self.host == HostEnd::Broken
    }

    /// The next sequence numbers of the gateway and of the guest.
    pub(crate) fn sequences(&self) -> (u32, u32) {
        (
            sequence(self.sending.first, self.sending.highest),
            sequence(self.receiving.first, self.receiving.accepted),
        )
    }

    /// Bytes that the host has from the guest, and the guest from the host.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let control = 1 + u64::from(self.receiving.is_finished);
        let sent = self.receiving.accepted.saturating_sub(control);
        // Neither the SYN nor the FIN is data.
        let received = self.sending.acknowledged.min(self.data_end());
        (sent, received.saturating_sub(1))
    }

    /// The host's stream is there.
    pub(crate) fn connected(&mut self, context: &mut Context<'_, impl Io>) {
        self.state = State::Answered;
        self.is_readable = true;
        self.send_syn_ack(context);
    }

    /// The host's socket is ready for something.
    pub(crate) fn ready(&mut self, readable: bool, writable: bool) {
        self.is_readable |= readable;
        self.receiving.is_blocked &= !writable;
    }

    /// When it has to be looked at again, if nothing happens before.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.sending.due
    }

    /// It is granted a share of the rate, and goes on.
    pub(crate) fn granted(&mut self, way: Way, rates: &mut Rates) {
        match way {
            Way::In => rates.inward.grant(&mut self.sending.share),
            Way::Out => {
                rates.outward.grant(&mut self.receiving.share);
                self.receiving.is_blocked = false;
            }
        }
    }

    /// Whether it waits for its part of the rate.
    pub(crate) fn waits(&self, way: Way) -> bool {
        match way {
            Way::In => self.sending.share.is_waiting(),
            Way::Out => self.receiving.share.is_waiting(),
        }
    }

    /// Ends it towards the guest.
    pub(crate) fn reset(&self, context: &mut Context<'_, impl Io>) {
        let (sequence, acknowledged) = self.sequences();
        let out = TcpOut {
            sequence,
            acknowledged,
            ..self.blank(flag::RST | flag::ACK)
        };
        build::tcp(context.io, context.link, &out);
    }

    /// Gives its memory back, and its part of the rates.
    pub(crate) fn discard(&mut self, memory: &mut Memory, rates: &mut Rates) {
        rates.inward.forget(&mut self.sending.share, self.id);
        rates.outward.forget(&mut self.receiving.share, self.id);
        self.receiving.parked.discard(memory);
        self.sending.buffer.discard(memory);
    }

    fn blank(&self, flags: u8) -> TcpOut<'static> {
        TcpOut {
            from: self.key.remote,
            to: self.key.guest,
            sequence: 0,
            acknowledged: 0,
            flags,
            window: 0,
            options: &[],
            payload: [&[], &[]],
            segment_bytes: self.sending.segment_bytes,
        }
    }

    /// Whether both sides have finished and know it.
    fn fate(&self) -> Fate {
        let sent = &self.sending;
        let all_sent = self.host != HostEnd::Open && sent.acknowledged > self.data_end();
        match all_sent && self.receiving.is_finished && !self.ack_due {
            true => Fate::Ends(End::Closed),
            false => Fate::GoesOn,
        }
    }
}

/// The sequence number at an offset of a stream.
fn sequence(first: u32, offset: u64) -> u32 {
    let [.., a, b, c, d] = offset.to_be_bytes();
    first.wrapping_add(u32::from_be_bytes([a, b, c, d]))
}

/// The offset of a sequence number that is near `near`; none before the SYN.
fn offset(first: u32, near: u64, number: u32) -> Option<u64> {
    let distance = number.wrapping_sub(sequence(first, near)).cast_signed();
    near.checked_add_signed(distance.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_survive_the_wrap_of_sequence_numbers() {
        let first = u32::MAX - 5;
        for at in [0, 1, 7, 1 << 31, (1 << 32) + 9] {
            let number = sequence(first, at);
            for near in [at.saturating_sub(1 << 30), at, at + (1 << 30)] {
                assert_eq!(offset(first, near, number), Some(at), "{at} near {near}");
            }
        }
        assert_eq!(offset(first, 3, first.wrapping_sub(1)), None);
    }
}

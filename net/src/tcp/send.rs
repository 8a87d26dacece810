//! What the guest is sent.

use std::io;

use super::{
    Context, FIRST_WAIT, Fate, Flow, HostEnd, LONGEST_WAIT, MAX_SYN_TRIES, MAX_TRIES, SCALE, State,
    sequence,
};
use crate::io::Io;
use crate::record::End;
use crate::wire::build::{self, TcpOut};
use crate::wire::tcp::flag;

/// Bytes of one frame at most, with room for its headers.
const MAX_FRAME_PAYLOAD: usize = 65_000;
/// Bytes that one flow passes on in a turn.
const TURN_BYTES: usize = 256 << 10;
/// Segments on their way at first after a loss.
const SEGMENTS_AFTER_LOSS: u64 = 2;

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There is nothing to do until something happens.
    Idle,
    /// There is more to do.
    Again,
    /// The guest has no room for a frame.
    NoRoom,
    Ended(End),
}

impl Flow {
    /// Offset behind the last byte that the host has given.
    pub(super) fn data_end(&self) -> u64 {
        self.sending.buffered_from + self.sending.buffer.len() as u64
    }

    /// Passes on what there is, in both directions, up to a turn's worth.
    pub(crate) fn turn(&mut self, context: &mut Context<'_, impl Io>) -> Turn {
        if self.state == State::Connecting {
            return Turn::Idle;
        }
        self.pass_parked(context);
        let mut left = TURN_BYTES.min(context.rates.inward.turn_bytes());
        loop {
            let got = self.fill(context, left);
            let has_room = self.emit(context);
            if !has_room {
                return Turn::NoRoom;
            }
            left = left.saturating_sub(got);
            if got == 0 || left == 0 {
                break;
            }
        }
        context.rates.inward.give_back(&mut self.sending.share);
        if self.ack_due && !self.send_ack(context) {
            return Turn::NoRoom;
        }
        if self.host == HostEnd::Broken && self.sending.next >= self.data_end() {
            self.reset(context);
            return Turn::Ended(End::RemoteReset);
        }
        if !self.is_readable {
            self.sending.buffer.release(context.memory);
        }
        match self.fate() {
            Fate::Ends(end) => Turn::Ended(end),
            Fate::GoesOn if left == 0 => Turn::Again,
            Fate::GoesOn => Turn::Idle,
        }
    }

    /// Reads from the host what there is room for; how much that was.
    fn fill(&mut self, context: &mut Context<'_, impl Io>, most: usize) -> usize {
        let mut got = 0;
        while self.is_readable && self.host == HostEnd::Open && got < most {
            let allowed = context
                .rates
                .inward
                .allowed(&self.sending.share, context.now);
            if allowed == 0 {
                context.rates.inward.wait(&mut self.sending.share, self.id);
                break;
            }
            // A guest that does not read keeps what it has not read.
            if !self.sending.buffer.make_room(context.memory) {
                break;
            }
            let mut room = self.sending.buffer.room(allowed);
            match context.io.receive(self.id, &mut room) {
                Ok(0) if self.is_deaf => self.host = HostEnd::Broken,
                Ok(0) => self.host = HostEnd::Finished,
                Ok(bytes) => {
                    self.sending.buffer.filled(bytes);
                    context.rates.inward.passed(&mut self.sending.share, bytes);
                    got += bytes;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => self.is_readable = false,
                    // It ends here, whatever the reason: asking again would not.
                    _ => self.host = HostEnd::Broken,
                },
            }
        }
        // One that refuses to take and has nothing to say is gone, too.
        if self.is_deaf && !self.is_readable {
            self.host = HostEnd::Broken;
        }
        got
    }

    /// Sends what the guest takes; false if it has no room for frames.
    fn emit(&mut self, context: &mut Context<'_, impl Io>) -> bool {
        if self.state != State::Open {
            return true;
        }
        let offloads = context.io.offloads();
        let is_v4 = self.key.guest.is_ipv4();
        let long = offloads.checksum
            && if is_v4 {
                offloads.segments_v4
            } else {
                offloads.segments_v6
            };
        let segment = usize::from(self.sending.segment_bytes);
        let most = if long {
            MAX_FRAME_PAYLOAD / segment * segment
        } else {
            segment
        };
        loop {
            let sending = &self.sending;
            let flying = sending.next.saturating_sub(sending.acknowledged);
            let allowed = u64::from(sending.window).min(sending.allowance);
            let allowed = usize::try_from(allowed.saturating_sub(flying)).unwrap_or(usize::MAX);
            let there = self.data_end().saturating_sub(sending.next);
            let there = usize::try_from(there).unwrap_or(0);
            let bytes = there.min(allowed).min(most);
            // A little now and the rest later costs the guest more than waiting
            // does (RFC 9293, 3.8.6.2.1), unless it waits for nothing else.
            let is_scrap = bytes < segment && bytes < there && flying > 0;
            let finishes =
                self.host == HostEnd::Finished && bytes == there && sending.next <= self.data_end();
            if (bytes == 0 || is_scrap) && !finishes {
                break;
            }
            if !self.send_data(context, bytes, finishes) {
                return false;
            }
            self.sending.next += bytes as u64 + u64::from(finishes);
            self.sending.highest = self.sending.highest.max(self.sending.next);
        }
        self.arm(context);
        true
    }

    /// Sends bytes from `next` on.
    fn send_data(&mut self, context: &mut Context<'_, impl Io>, bytes: usize, fin: bool) -> bool {
        let window = self.window(context.rates.outward.window_bytes());
        let sending = &self.sending;
        let at = sending.next.saturating_sub(sending.buffered_from);
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let is_last = sending.next + bytes as u64 == self.data_end();
        let mut flags = flag::ACK;
        if is_last {
            flags |= flag::PSH;
        }
        if fin {
            flags |= flag::FIN;
        }
        let out = TcpOut {
            sequence: sequence(sending.first, sending.next),
            acknowledged: sequence(self.receiving.first, self.receiving.accepted),
            window,
            payload: sending.buffer.slices(at, bytes),
            ..self.blank(flags)
        };
        let given = build::tcp(context.io, context.link, &out);
        if given {
            self.ack_due = false;
        }
        given
    }

    /// Says what we have, and what we take.
    pub(super) fn send_ack(&mut self, context: &mut Context<'_, impl Io>) -> bool {
        let window = self.window(context.rates.outward.window_bytes());
        let (sequence, acknowledged) = self.sequences();
        let out = TcpOut {
            sequence,
            acknowledged,
            window,
            ..self.blank(flag::ACK)
        };
        let given = build::tcp(context.io, context.link, &out);
        self.ack_due = !given;
        given
    }

    /// Answers the guest's SYN. One that is lost is sent again when it is due.
    pub(super) fn send_syn_ack(&mut self, context: &mut Context<'_, impl Io>) {
        let segment: u16 = if self.key.guest.is_ipv4() { 1460 } else { 1440 };
        let [high, low] = segment.to_be_bytes();
        let options = [2, 4, high, low, 1, 3, 3, SCALE];
        let scales = self.receiving.scale > 0;
        // A SYN's own window is not scaled (RFC 7323, 2.2).
        let window = self.window(context.rates.outward.window_bytes());
        let shown = (u64::from(window) << self.receiving.scale).min(u16::MAX.into());
        let out = TcpOut {
            sequence: self.sending.first,
            acknowledged: sequence(self.receiving.first, 1),
            window: u16::try_from(shown).unwrap_or(u16::MAX),
            options: &options[..if scales { 8 } else { 4 }],
            ..self.blank(flag::SYN | flag::ACK)
        };
        build::tcp(context.io, context.link, &out);
        self.sending.next = self.sending.next.max(1);
        self.sending.highest = self.sending.highest.max(1);
        if self.sending.due.is_none() {
            self.sending.due = context.now.checked_add(self.sending.wait);
        }
    }

    /// The guest has everything up to there.
    pub(super) fn advance(&mut self, context: &mut Context<'_, impl Io>, acknowledged: u64) {
        let end = self.data_end();
        let sending = &mut self.sending;
        let news = acknowledged - sending.acknowledged;
        sending.acknowledged = acknowledged;
        sending.next = sending.next.max(acknowledged);
        let bytes = acknowledged.min(end).saturating_sub(sending.buffered_from);
        sending
            .buffer
            .consume(usize::try_from(bytes).unwrap_or(usize::MAX));
        sending.buffered_from += bytes;
        sending.repeated = 0;
        sending.tries = 0;
        sending.wait = FIRST_WAIT;
        sending.due = None;
        sending.allowance = sending.allowance.saturating_add(news);
        if sending.allowance >= super::buffer::MAX_BYTES as u64 {
            sending.allowance = u64::MAX;
        }
        match sending.recovery {
            Some(until) if acknowledged < until => self.send_first_again(context),
            Some(_) => sending.recovery = None,
            None => {}
        }
        self.arm(context);
    }

    /// Something was lost, though what was sent after it was not.
    pub(super) fn begin_recovery(&mut self, context: &mut Context<'_, impl Io>) {
        let sending = &mut self.sending;
        let flying = sending.highest - sending.acknowledged;
        sending.recovery = Some(sending.highest);
        let least = SEGMENTS_AFTER_LOSS * u64::from(sending.segment_bytes);
        sending.allowance = (flying / 2).max(least);
        self.send_first_again(context);
    }

    /// Sends the first segment again that the guest does not have.
    fn send_first_again(&mut self, context: &mut Context<'_, impl Io>) {
        let next = std::mem::replace(&mut self.sending.next, self.sending.acknowledged);
        let there = self.data_end().saturating_sub(self.sending.next);
        let bytes = usize::try_from(there).unwrap_or(0);
        let bytes = bytes.min(self.sending.segment_bytes.into());
        let ends = self.sending.next + bytes as u64 == self.data_end();
        let fin = ends && self.host == HostEnd::Finished && self.sending.highest > self.data_end();
        if bytes > 0 || fin {
            // Without room it is sent when its time is over.
            self.send_data(context, bytes, fin);
        }
        self.sending.next = next;
    }

    /// Sets the moment until which the guest is waited for.
    fn arm(&mut self, context: &Context<'_, impl Io>) {
        let end = self.data_end();
        let sending = &mut self.sending;
        let waits = sending.highest > sending.acknowledged;
        let is_shut = sending.window == 0 && end > sending.acknowledged;
        if !waits && !is_shut {
            sending.due = None;
        } else if sending.due.is_none() {
            sending.due = context.now.checked_add(sending.wait);
        }
    }

    /// Time has passed. Gives what is to become of the flow.
    pub(crate) fn time_passed(&mut self, context: &mut Context<'_, impl Io>) -> Fate {
        if self.sending.due.is_none_or(|due| due > context.now) {
            return Fate::GoesOn;
        }
        let sending = &mut self.sending;
        let is_shut = sending.window == 0 && self.state == State::Open;
        sending.tries = sending.tries.saturating_add(u8::from(!is_shut));
        let most = match self.state {
            State::Open => MAX_TRIES,
            _ => MAX_SYN_TRIES,
        };
        if sending.tries > most {
            self.reset(context);
            return Fate::Ends(End::TimedOut);
        }
        sending.wait = (sending.wait * 2).min(LONGEST_WAIT);
        sending.due = context.now.checked_add(sending.wait);
        if self.state != State::Open {
            self.send_syn_ack(context);
            return Fate::GoesOn;
        }
        if is_shut {
            // Asks whether the guest takes more, with a byte that it need not.
            let next = std::mem::replace(&mut sending.next, sending.acknowledged);
            let bytes = usize::from(self.data_end() > self.sending.next);
            if self.send_data(context, bytes, false) {
                self.sending.highest = self.sending.highest.max(self.sending.next + bytes as u64);
            }
            self.sending.next = next;
            return Fate::GoesOn;
        }
        // All of it again, and slowly: something inside the guest drops frames.
        sending.recovery = None;
        sending.repeated = 0;
        sending.allowance = SEGMENTS_AFTER_LOSS * u64::from(sending.segment_bytes);
        sending.next = sending.acknowledged;
        self.emit(context);
        Fate::GoesOn
    }
}

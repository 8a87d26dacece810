//! What the guest sends.

use std::io;

use super::{Context, Fate, Flow, HostEnd, State, WINDOW_BYTES, offset};
use crate::io::{FlowId, Io};
use crate::record::End;
use crate::wire::tcp::{Segment, flag};

/// Acknowledgements in a row without news that mean a loss (RFC 5681, 3.2).
const REPEATED: u8 = 3;

/// What became of bytes that were offered to the host.
enum Offered {
    /// It took all.
    Taken,
    /// It took so many, and no more now.
    Full(usize),
    /// It is gone.
    Broken,
}

fn offer(io: &mut impl Io, id: FlowId, bytes: &[u8]) -> Offered {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match io.send(id, rest) {
            Ok(0) => return Offered::Full(done),
            Ok(sent) => done += sent,
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Offered::Full(done),
                _ => return Offered::Broken,
            },
        }
    }
    Offered::Taken
}

impl Flow {
    /// A segment of the guest's. The flow has its turn afterwards.
    pub(crate) fn segment(
        &mut self,
        context: &mut Context<'_, impl Io>,
        segment: &Segment<'_>,
    ) -> Fate {
        let accepted = self.receiving.accepted;
        let at = offset(self.receiving.first, accepted, segment.sequence);
        if self.state == State::Connecting {
            // The same SYN again waits like the first. One that gives up ends it.
            return match segment.has(flag::RST) {
                true => Fate::Ends(End::GuestReset),
                false => Fate::GoesOn,
            };
        }
        let Some(at) = at else {
            self.ack_due = true;
            return Fate::GoesOn;
        };
        let in_window = (accepted..=accepted.max(self.receiving.edge)).contains(&at);
        if segment.has(flag::RST) {
            return match in_window {
                true => Fate::Ends(End::GuestReset),
                false => Fate::GoesOn,
            };
        }
        if segment.has(flag::SYN) {
            match (self.state, at) {
                (State::Answered, 0) => self.send_syn_ack(context),
                // A guest that has forgotten the connection resets it when it
                // hears of it, and begins again (RFC 5961, 4.2).
                _ => self.ack_due = true,
            }
            return Fate::GoesOn;
        }
        if !segment.has(flag::ACK) {
            return Fate::GoesOn;
        }
        if let Fate::Ends(end) = self.acknowledgement(context, segment, at) {
            return Fate::Ends(end);
        }
        if segment.length() > 0 {
            self.data(context, segment, at);
        } else if at < self.receiving.accepted {
            // It asks whether we are there, or take more.
            self.ack_due = true;
        }
        self.fate()
    }

    fn acknowledgement(
        &mut self,
        context: &mut Context<'_, impl Io>,
        segment: &Segment<'_>,
        at: u64,
    ) -> Fate {
        let sending = &mut self.sending;
        let known = sending.acknowledged;
        let Some(acknowledged) = offset(sending.first, known, segment.acknowledged) else {
            return Fate::GoesOn;
        };
        if acknowledged > sending.highest {
            // It cannot have that. One that has not answered yet is another.
            self.ack_due = true;
            return match self.state {
                State::Answered => Fate::Ends(End::GuestReset),
                _ => Fate::GoesOn,
            };
        }
        if self.state == State::Answered && acknowledged > 0 {
            self.state = State::Open;
        }
        let window = u32::from(segment.window) << sending.scale;
        let same_window = window == sending.window;
        if acknowledged >= known && at >= sending.window_from {
            sending.window = window;
            sending.window_from = at;
        }
        if acknowledged > known {
            self.advance(context, acknowledged);
        } else if acknowledged == known
            && segment.length() == 0
            && same_window
            && window > 0
            && sending.highest > known
        {
            sending.repeated = sending.repeated.saturating_add(1);
            if sending.repeated == REPEATED && sending.recovery.is_none() {
                self.begin_recovery(context);
            }
        }
        Fate::GoesOn
    }

    fn data(&mut self, context: &mut Context<'_, impl Io>, segment: &Segment<'_>, at: u64) {
        let receiving = &mut self.receiving;
        let end = at.saturating_add(segment.payload.len() as u64);
        if segment.has(flag::FIN) && receiving.fin_at.is_none() && end <= receiving.edge {
            receiving.fin_at = Some(end);
        }
        // Nothing comes behind a FIN, or beyond the window.
        let limit = receiving.edge.min(receiving.fin_at.unwrap_or(u64::MAX));
        let from = at.max(receiving.accepted);
        let to = end.min(limit);
        let is_next = from == receiving.accepted;
        let mut is_news = false;
        if from < to {
            let start = usize::try_from(from - at).unwrap_or(usize::MAX);
            let stop = usize::try_from(to - at).unwrap_or(usize::MAX);
            let fresh = segment.payload.get(start..stop).unwrap_or_default();
            is_news = self.take(context, from, fresh);
        }
        self.pass_parked(context);
        if !is_news && !segment.payload.is_empty() && self.receiving.is_blocked {
            // It waits for an acknowledgement of what the host does not take: with no
            // room at all it asks now and then, and does not give up.
            self.receiving.edge = self.receiving.accepted;
        }
        if is_news && !is_next {
            // The guest counts those to know what was lost.
            self.send_ack(context);
        } else {
            self.ack_due = true;
        }
    }

    /// Passes bytes on to the host, and keeps what it does not take. False if none of
    /// them were new.
    fn take(&mut self, context: &mut Context<'_, impl Io>, from: u64, bytes: &[u8]) -> bool {
        let receiving = &mut self.receiving;
        let mut rest = bytes;
        let mut at = from;
        let in_order = from == receiving.accepted;
        if in_order && self.is_deaf {
            receiving.accepted += bytes.len() as u64;
            return true;
        }
        if in_order && !receiving.is_blocked && receiving.parked.is_empty() {
            let rate = &mut context.rates.outward;
            let allowed = rate.allowed(&receiving.share, context.now);
            let allowed = bytes.get(..allowed).unwrap_or(bytes);
            match offer(context.io, self.id, allowed) {
                Offered::Taken => {
                    rate.passed(&mut receiving.share, allowed.len());
                    receiving.accepted += allowed.len() as u64;
                    if allowed.len() == bytes.len() {
                        return true;
                    }
                    rate.wait(&mut receiving.share, self.id);
                    receiving.is_blocked = true;
                    rest = bytes.get(allowed.len()..).unwrap_or_default();
                    at += allowed.len() as u64;
                }
                Offered::Full(taken) => {
                    rate.passed(&mut receiving.share, taken);
                    receiving.accepted += taken as u64;
                    receiving.is_blocked = true;
                    rest = bytes.get(taken..).unwrap_or_default();
                    at += taken as u64;
                }
                Offered::Broken => {
                    self.host_broke();
                    return true;
                }
            }
        }
        receiving.parked.insert(at, rest, context.memory) || at > from
    }

    /// Passes on what has become the next, and the end after all of it.
    pub(super) fn pass_parked(&mut self, context: &mut Context<'_, impl Io>) {
        let receiving = &mut self.receiving;
        while !receiving.is_blocked && !self.is_deaf {
            let Some(piece) = receiving.parked.at(receiving.accepted, context.memory) else {
                break;
            };
            let rate = &mut context.rates.outward;
            let allowed = rate.allowed(&receiving.share, context.now);
            if allowed == 0 {
                rate.wait(&mut receiving.share, self.id);
                receiving.is_blocked = true;
                break;
            }
            let piece = piece.get(..allowed).unwrap_or(piece);
            let taken = match offer(context.io, self.id, piece) {
                Offered::Taken => piece.len(),
                Offered::Full(taken) => {
                    receiving.is_blocked = true;
                    taken
                }
                Offered::Broken => return self.host_broke(),
            };
            context.rates.outward.passed(&mut receiving.share, taken);
            receiving.accepted += taken as u64;
            self.ack_due = true;
        }
        context.rates.outward.give_back(&mut receiving.share);
        // What was taken is dropped here, and not when the next piece comes.
        let _ = receiving.parked.at(receiving.accepted, context.memory);
        if receiving.fin_at == Some(receiving.accepted) && !receiving.is_finished {
            receiving.accepted += 1;
            receiving.is_finished = true;
            self.ack_due = true;
            if !self.is_deaf {
                context.io.finish_sending(self.id);
            }
        }
    }

    /// The host's socket takes nothing more, but may have something left to read.
    fn host_broke(&mut self) {
        self.is_deaf = true;
        match self.host {
            HostEnd::Open => self.is_readable = true,
            HostEnd::Finished | HostEnd::Broken => self.host = HostEnd::Broken,
        }
    }

    /// The window to show, of `limit` bytes at most, which never shrinks but where the
    /// guest asks again and again.
    pub(super) fn window(&mut self, limit: u64) -> u16 {
        let receiving = &mut self.receiving;
        let scale = receiving.scale;
        // Without a scale the field holds no more than 16 bits.
        let most = u64::from(WINDOW_BYTES).min(u64::from(u16::MAX) << scale);
        let most = most.min(limit);
        if !receiving.is_blocked {
            receiving.edge = receiving.edge.max(receiving.accepted + most);
        }
        let open = receiving.edge.saturating_sub(receiving.accepted) >> scale;
        u16::try_from(open).unwrap_or(u16::MAX)
    }
}

//! Packets that come in pieces, put together again (RFC 791, RFC 8200, 4.5).
//!
//! Nothing is decided of a piece: the whole is looked at as any packet is. So what hides
//! a port in a later piece hides it from nobody.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::wire::ip::{Label, Piece};

/// Most packets that are being put together; the oldest makes room.
const MAX_PACKETS: usize = 16;
/// Most bytes of all of them.
const MAX_BYTES: usize = 256 << 10;
/// Most pieces of one: the longest packet has 54 of IPv6's shortest link.
const MAX_PIECES: usize = 64;
/// How long one is waited for (RFC 8200, 4.5).
const PATIENCE: Duration = Duration::from_secs(60);

/// A packet that is not whole yet.
struct Pending {
    label: Label,
    since: Instant,
    /// Where pieces begin and what is in them, in order.
    pieces: Vec<(usize, Vec<u8>)>,
    bytes: usize,
    /// Where it ends, once that is known.
    end: Option<usize>,
    /// Two pieces said something of one place: none of it is taken (RFC 5722).
    is_broken: bool,
}

/// Packets that are being put together.
#[derive(Default)]
pub(super) struct Fragments {
    pending: VecDeque<Pending>,
    bytes: usize,
}

impl Pending {
    /// Adds a piece, and tells how many bytes of it are new; none if it does not fit with
    /// the others.
    fn add(&mut self, piece: &Piece<'_>) -> Option<usize> {
        let (start, end) = (piece.offset, piece.offset + piece.payload.len());
        let last = self.pieces.last().map_or(0, |(at, there)| at + there.len());
        let is_beyond = match self.end {
            Some(known) => end > known || piece.is_last && end != known,
            None => piece.is_last && end < last,
        };
        let place = self.pieces.partition_point(|(at, _)| *at < start);
        let same = self.pieces.get(place);
        if same.is_some_and(|(at, there)| *at == start && there == piece.payload) {
            // A bridge may say things twice.
            return (!is_beyond).then_some(0);
        }
        let before = place.checked_sub(1).and_then(|at| self.pieces.get(at));
        let overlaps = before.is_some_and(|(at, there)| at + there.len() > start)
            || self.pieces.get(place).is_some_and(|(at, _)| *at < end);
        if is_beyond || overlaps || self.pieces.len() >= MAX_PIECES {
            return None;
        }
        if piece.is_last {
            self.end = Some(end);
        }
        self.bytes += piece.payload.len();
        self.pieces.insert(place, (start, piece.payload.to_vec()));
        Some(piece.payload.len())
    }

    fn is_whole(&self) -> bool {
        // They do not overlap, so that as many bytes as there are have no gap.
        !self.is_broken && self.end == Some(self.bytes)
    }
}

impl Fragments {
    /// Takes a piece of a packet; the packet, once all of it is there.
    pub(super) fn add(&mut self, piece: &Piece<'_>, now: Instant) -> Option<Vec<u8>> {
        self.forget(|pending| now.saturating_duration_since(pending.since) >= PATIENCE);
        // All but the last are in units of eight bytes, and say something.
        let is_odd = !piece.is_last && !piece.payload.len().is_multiple_of(8);
        let end = piece.offset.checked_add(piece.payload.len())?;
        if is_odd || piece.payload.is_empty() || end > usize::from(u16::MAX) {
            return None;
        }
        if piece.offset == 0 && piece.is_last {
            // A packet of one piece has nothing to do with others (RFC 6946).
            return piece.whole(piece.payload);
        }
        while self.bytes + piece.payload.len() > MAX_BYTES {
            self.drop_oldest();
        }
        let known = self.pending.iter().position(|one| one.label == piece.label);
        let place = match known {
            Some(place) => place,
            None => {
                if self.pending.len() >= MAX_PACKETS {
                    self.drop_oldest();
                }
                self.pending.push_back(Pending {
                    label: piece.label,
                    since: now,
                    pieces: Vec::new(),
                    bytes: 0,
                    end: None,
                    is_broken: false,
                });
                self.pending.len() - 1
            }
        };
        let pending = self.pending.get_mut(place)?;
        if pending.is_broken {
            return None;
        }
        let Some(added) = pending.add(piece) else {
            // It stays, so that what comes of it later is not taken for another.
            self.bytes -= std::mem::take(&mut pending.bytes);
            pending.pieces.clear();
            pending.is_broken = true;
            return None;
        };
        self.bytes += added;
        if !pending.is_whole() {
            return None;
        }
        let whole = self.pending.remove(place)?;
        self.bytes -= whole.bytes;
        let parts: Vec<&[u8]> = whole.pieces.iter().map(|(_, part)| &**part).collect();
        piece.whole(&parts.concat())
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.pending.pop_front() {
            self.bytes -= oldest.bytes;
        }
    }

    fn forget(&mut self, is_over: impl Fn(&Pending) -> bool) {
        while self.pending.front().is_some_and(&is_over) {
            self.drop_oldest();
        }
    }

    /// Bytes that wait for others.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

//! What the guest sent and the host's socket has not taken yet: because something
//! before it is missing, or because the socket is full.

use std::collections::BTreeMap;

use super::buffer::Memory;

/// Most pieces of one flow. Each is a segment at least, so a window of full ones
/// fits; of shorter ones the guest sends some again.
const MAX_PIECES: usize = 1024;

/// Pieces of a stream by their offset in it. They do not overlap.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    pieces: BTreeMap<u64, Vec<u8>>,
    bytes: usize,
}

impl Parked {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Keeps what of `bytes` is new, as far as there is memory, and tells whether
    /// anything was. What is here first stays: a guest that says two things of one
    /// place is heard once.
    pub(crate) fn insert(&mut self, offset: u64, bytes: &[u8], memory: &mut Memory) -> bool {
        let before = self.bytes;
        let end = offset.saturating_add(bytes.len() as u64);
        let mut at = offset;
        while at < end {
            // The piece that covers this place, or else the next one.
            let before = self.pieces.range(..=at).next_back();
            let covered = before.map_or(0, |(start, piece)| start + piece.len() as u64);
            if covered > at {
                at = covered;
                continue;
            }
            let next = self.pieces.range(at..).next().map(|(start, _)| *start);
            let until = next.unwrap_or(end).min(end);
            let part = slice(bytes, at - offset, until - offset);
            if self.pieces.len() >= MAX_PIECES || !memory.take(part.len()) {
                break;
            }
            self.bytes += part.len();
            self.pieces.insert(at, part.to_vec());
            at = until;
        }
        self.bytes > before
    }

    /// The piece that begins at `offset`, after those before it were dropped.
    pub(crate) fn at(&mut self, offset: u64, memory: &mut Memory) -> Option<&[u8]> {
        while let Some(entry) = self.pieces.first_entry() {
            let start = *entry.key();
            if start >= offset {
                break;
            }
            let piece = entry.remove();
            let done = usize::try_from(offset - start).unwrap_or(usize::MAX);
            let rest = piece.get(done..).unwrap_or_default();
            let gone = piece.len() - rest.len();
            self.bytes -= gone;
            memory.give_back(gone);
            if !rest.is_empty() {
                self.pieces.insert(offset, rest.to_vec());
            }
        }
        self.pieces.get(&offset).map(Vec::as_slice)
    }

    /// Drops all of it.
    pub(crate) fn discard(&mut self, memory: &mut Memory) {
        memory.give_back(self.bytes);
        *self = Self::default();
    }
}

fn slice(bytes: &[u8], from: u64, to: u64) -> &[u8] {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    bytes.get(index(from)..index(to)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_pieces_join_to_the_stream_they_are_of() {
        let stream: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let mut memory = Memory::new(1 << 20);
        let mut parked = Parked::default();
        // Every piece several times, in an order that is none.
        for n in 0..400_usize {
            let start = n * 1237 % 4900;
            let end = (start + 40 + n * 31 % 200).min(stream.len());
            parked.insert(start as u64, &stream[start..end], &mut memory);
        }
        assert!(memory.used() <= stream.len());
        let mut out = Vec::new();
        while let Some(piece) = parked.at(out.len() as u64, &mut memory) {
            out.extend_from_slice(&piece[..piece.len().div_ceil(2)]);
        }
        assert!(
            out.len() > 4900 && out == stream[..out.len()],
            "{}",
            out.len()
        );
        parked.discard(&mut memory);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn what_was_said_first_of_a_place_stays() {
        let mut memory = Memory::new(100);
        let mut parked = Parked::default();
        parked.insert(2, b"cd", &mut memory);
        parked.insert(0, b"XXXXXX", &mut memory);
        let mut out = Vec::new();
        while let Some(piece) = parked.at(out.len() as u64, &mut memory) {
            out.extend_from_slice(piece);
        }
        assert_eq!(out, b"XXcdXX");
    }

    #[test]
    fn pieces_and_memory_are_bounded() {
        let mut memory = Memory::new(10);
        let mut parked = Parked::default();
        parked.insert(0, &[1; 11], &mut memory);
        assert!(parked.is_empty() && memory.used() == 0);
        let mut memory = Memory::new(1 << 20);
        for n in 0..2 * MAX_PIECES as u64 {
            parked.insert(n * 2, &[1], &mut memory);
        }
        assert_eq!(memory.used(), MAX_PIECES);
        parked.insert(u64::MAX - 1, &[1; 4], &mut memory);
    }
}

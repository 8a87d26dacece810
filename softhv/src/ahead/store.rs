//! Blocks that were decoded ahead: one thread adds them, one vCPU takes them.
//!
//! Neither waits for the other. A block is there for the vCPU once its place is
//! written, after which the thread does not touch it any more.

use crate::cpu::op::Op;
use crate::heap;
use crate::zeroes::atomic_words;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Ops that there is room for: 8 MiB, and more than twice what the first command of a
/// shell needs. Room costs nothing until it is used.
pub const MAX_OPS: usize = 1 << 18;
/// Bits of a place: where the ops begin, where the words begin, how many words. There
/// are no more words than ops.
const AT_BITS: u32 = MAX_OPS.trailing_zeros();
const COUNT_BITS: u32 = 7;
/// Set in a place.
const IS_THERE: u64 = 1 << 63;

const _: () = assert!(2 * AT_BITS + COUNT_BITS < 63);

/// What the table has of one block.
#[derive(Clone, Copy, Debug)]
struct Place {
    op: usize,
    word: usize,
    count: usize,
}

impl Place {
    fn pack(self) -> u64 {
        let words = (self.word as u64) << AT_BITS;
        IS_THERE | self.op as u64 | words | (self.count as u64) << (2 * AT_BITS)
    }

    fn unpack(packed: u64) -> Self {
        let at = |from: u32| (packed >> from) as usize & (MAX_OPS - 1);
        Self {
            op: at(0),
            word: at(AT_BITS),
            count: (packed >> (2 * AT_BITS)) as usize & ((1 << COUNT_BITS) - 1),
        }
    }
}

/// Blocks that were decoded ahead.
pub struct Store {
    /// A key, incremented, and behind it the place; open addressing. Keys are written
    /// by the thread, places by the thread and then, to 0, by the vCPU.
    table: Box<[AtomicU64]>,
    /// Room for [`MAX_OPS`]; how many there are is the thread's to know.
    ops: *mut Op,
    words: *mut u32,
    /// What has the room, and gives it back at the end.
    _room: (Vec<Op>, Vec<u32>),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

// SAFETY: ops and words are only reached through `add` and `take`: by the one thread as
// long as they are in no place, then by the one vCPU.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

/// How far a store is filled: what the one has who may add to it.
#[derive(Debug, Default)]
pub struct Filled {
    ops: usize,
    words: usize,
}

impl Store {
    /// Room for so many blocks.
    pub fn new(blocks: usize) -> Self {
        let entries = (blocks + blocks / 2 + 1).next_power_of_two();
        let mut ops: Vec<Op> = Vec::with_capacity(MAX_OPS);
        heap::prefer_huge_pages(&ops);
        let mut words: Vec<u32> = Vec::with_capacity(MAX_OPS);
        Self {
            table: atomic_words(2 * entries),
            ops: ops.as_mut_ptr(),
            words: words.as_mut_ptr(),
            _room: (ops, words),
        }
    }

    /// Where in the table the entry of `key` is, or the empty one where it would be.
    /// `None` if neither is there.
    fn entry(&self, key: u64) -> Option<usize> {
        let mask = self.table.len() / 2 - 1;
        let hash = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        (0..=mask).map(|n| 2 * ((hash + n) & mask)).find(|at| {
            let found = self.table[*at].load(Ordering::Acquire);
            found == 0 || found == key + 1
        })
    }

    /// Adds the block of `key`: `ops`, the first of which is room for the one that leads
    /// to compiled code, and the `words` that they were decoded from. False if there is
    /// no room for more; a block that was there before stays.
    ///
    /// # Safety
    /// `filled` is of this store, and all calls are by one thread at a time.
    pub unsafe fn add(&self, filled: &mut Filled, key: u64, ops: &[Op], words: &[u32]) -> bool {
        let Some(at) = self.entry(key) else {
            return false;
        };
        if self.table[at].load(Ordering::Relaxed) != 0 {
            return true;
        }
        let place = Place {
            op: filled.ops,
            word: filled.words,
            count: words.len(),
        };
        if place.op + ops.len() > MAX_OPS || place.word + words.len() > MAX_OPS {
            return false;
        }
        // SAFETY: there is room for both, which no place leads to yet, and nobody else
        // adds any. Ops need no dropping.
        unsafe {
            let to = self.ops.add(place.op);
            ops.as_ptr().copy_to_nonoverlapping(to, ops.len());
            let to = self.words.add(place.word);
            words.as_ptr().copy_to_nonoverlapping(to, words.len());
        }
        filled.ops += ops.len();
        filled.words += words.len();
        self.table[at + 1].store(place.pack(), Ordering::Relaxed);
        self.table[at].store(key + 1, Ordering::Release);
        true
    }

    /// The block of `key`, which is given once: where its ops are, and its words.
    ///
    /// # Safety
    /// All calls are by one thread at a time.
    pub unsafe fn take(&self, key: u64) -> Option<(*mut Op, &[u32])> {
        let at = self.entry(key)?;
        if self.table[at].load(Ordering::Acquire) == 0 {
            return None;
        }
        let packed = self.table[at + 1].load(Ordering::Relaxed);
        if packed & IS_THERE == 0 {
            return None;
        }
        self.table[at + 1].store(0, Ordering::Relaxed);
        let place = Place::unpack(packed);
        // SAFETY: `add` has written there, and touches it no more.
        unsafe {
            let words = self.words.add(place.word);
            let words = std::slice::from_raw_parts(words, place.count);
            Some((self.ops.add(place.op), words))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::branch::stale;

    #[test]
    fn blocks_are_taken_once_by_their_key() {
        let store = Store::new(3);
        let mut filled = Filled::default();
        let ops = vec![Op::new(stale); 3];
        // SAFETY: one thread.
        unsafe {
            assert!(store.take(4).is_none());
            for key in [4, 5, 1 << 47] {
                assert!(store.add(&mut filled, key, &ops, &[7, key as u32]));
            }
            assert!(store.add(&mut filled, 5, &ops, &[9]), "it stays");
            let (first, words) = store.take(5).unwrap();
            assert_eq!(words, [7, 5]);
            let (second, words) = store.take(1 << 47).unwrap();
            assert_eq!(words, [7, 0]);
            assert_eq!(second.addr() - first.addr(), 3 * size_of::<Op>());
            assert!(store.take(5).is_none() && store.take(6).is_none());
            assert!(store.add(&mut filled, 5, &ops, &[9]) && store.take(5).is_none());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let store = Store::new(2);
        let mut filled = Filled::default();
        let ops = vec![Op::new(stale); MAX_OPS - 1];
        // SAFETY: one thread.
        unsafe {
            assert!(store.add(&mut filled, 0, &ops, &[1]));
            assert!(!store.add(&mut filled, 4, &ops[..2], &[1]));
            assert!(store.add(&mut filled, 4, &ops[..1], &[2]));
            let mut more = (2..9).map(|n| store.add(&mut filled, 4 * n, &[], &[]));
            assert!(
                more.any(|added| !added),
                "more blocks than there are entries"
            );
            assert_eq!(store.take(4).unwrap().1, [2]);
        }
    }
}

//! The jump cache: where virtual addresses continue.
//!
//! Each index has two entries, the second ones behind all first ones: see
//! decision 0182.

use crate::cpu::op::Op;
use crate::heap;

/// Pairs of entries; a power of two. The second entry of a pair is so many behind the
/// first.
pub const JUMP_ENTRIES: usize = 16384;

/// Where a virtual address continues, if the context is the same.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct JumpEntry {
    /// Virtual address of the block.
    pub pc: u64,
    /// [`Cpu::context`](crate::cpu::Cpu::context) of that half of the address space at the time.
    pub context: u64,
    /// First op.
    pub op: *const Op,
}

impl JumpEntry {
    /// Whether it is for `pc` in `context`.
    #[inline(always)]
    pub fn is_of(&self, pc: u64, context: u64) -> bool {
        self.pc == pc && self.context == context
    }
}

/// Matches nothing: no context is 0. All zeroes, so that entries never used
/// cost the host no memory.
const NO_JUMP: JumpEntry = JumpEntry {
    pc: 0,
    context: 0,
    op: std::ptr::null(),
};

/// The number of the pair of `pc` in `context`, which is the index of its first entry.
/// Processes made by fork run the same addresses in turn and must not throw each other
/// out.
#[inline(always)]
pub fn jump_index(pc: u64, context: u64) -> usize {
    (pc >> 2 ^ context) as usize & (JUMP_ENTRIES - 1)
}

fn pair(pc: u64, context: u64) -> [usize; 2] {
    let first = jump_index(pc, context);
    [first, JUMP_ENTRIES + first]
}

/// All entries of one vCPU.
pub struct JumpCache(Box<[JumpEntry]>);

impl JumpCache {
    /// Without an entry.
    pub fn new() -> Self {
        // SAFETY: zeroes are two integers and a null pointer: `NO_JUMP`.
        Self(unsafe { Box::new_zeroed_slice(2 * JUMP_ENTRIES).assume_init() })
    }

    /// Where handlers index from; valid as long as the cache lives.
    pub fn ptr(&mut self) -> *mut JumpEntry {
        self.0.as_mut_ptr()
    }

    /// Where `pc` continues, if that is known.
    pub fn get(&self, pc: u64, context: u64) -> Option<*const Op> {
        let entries = pair(pc, context).map(|at| &self.0[at]);
        let known = entries.into_iter().find(|entry| entry.is_of(pc, context));
        known.map(|entry| entry.op)
    }

    /// Remembers that `pc` continues at `op`, as the first entry of its pair. What was
    /// that becomes the second.
    pub fn remember(&mut self, pc: u64, context: u64, op: *const Op) {
        let [first, second] = pair(pc, context);
        let before = self.0[first];
        if before.context != NO_JUMP.context && !before.is_of(pc, context) {
            self.0[second] = before;
        }
        self.0[first] = JumpEntry { pc, context, op };
    }

    /// Forgets where `pc` continues.
    pub fn forget(&mut self, pc: u64, context: u64) {
        for at in pair(pc, context) {
            if self.0[at].is_of(pc, context) {
                self.0[at] = NO_JUMP;
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.fill(NO_JUMP);
    }

    /// Nearly all of its first entries are about to be written, and each page of them
    /// was read first, which costs two page faults.
    pub fn make_own(&mut self) {
        let first = &mut self.0[..JUMP_ENTRIES];
        // SAFETY: memory of this list.
        unsafe { heap::make_own(first.as_mut_ptr().cast(), size_of_val(first)) };
    }
}

impl Default for JumpCache {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::branch::stale;

    #[test]
    fn two_places_of_one_index_are_known_and_the_older_makes_way_for_a_third() {
        let op = Op::new(stale);
        let pcs = [0u64, 1, 2].map(|n| 0x1000 + n * 4 * JUMP_ENTRIES as u64);
        let known = |cache: &JumpCache| pcs.map(|pc| cache.get(pc, 5).is_some());
        let mut cache = JumpCache::new();
        for pc in pcs {
            // Twice is once.
            cache.remember(pc, 5, &raw const op);
            cache.remember(pc, 5, &raw const op);
        }
        assert_eq!(known(&cache), [false, true, true]);
        assert_eq!(cache.get(pcs[1], 6), None);
        cache.forget(pcs[1], 6);
        cache.forget(pcs[0], 5);
        assert_eq!(known(&cache), [false, true, true]);
        cache.forget(pcs[1], 5);
        assert_eq!(known(&cache), [false, false, true]);
        cache.remember(pcs[0], 5, &raw const op);
        assert_eq!(known(&cache), [true, false, true]);
        cache.clear();
        assert_eq!(known(&cache), [false; 3]);
    }
}

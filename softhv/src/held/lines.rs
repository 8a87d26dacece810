//! The lines of guest memory that a vCPU may hold decoded code of.

use crate::zeroes::atomic_words;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of [`HeldLines`], a power of two. A vCPU decodes 4 MiB of code at most
/// before it starts over, a quarter of as many lines.
const LINE_BITS: usize = 1 << 18;
/// Bytes of a line of code, the least that is invalidated.
const LINE_BYTES: u64 = 64;
/// More lines than this are not looked for one by one.
const MAX_LINES: u64 = 1024;

/// The lines of guest memory that one vCPU may hold decoded code of. Lines whose
/// numbers differ by `LINE_BITS` share a bit.
#[derive(Debug)]
pub struct HeldLines(Box<[AtomicU64]>);

impl HeldLines {
    /// None.
    pub fn new() -> Self {
        Self(atomic_words(LINE_BITS / 64))
    }

    fn bit(line: u64) -> (usize, u64) {
        (line as usize % LINE_BITS / 64, 1 << (line % 64))
    }

    /// Notes that code of `pa` to `end` was decoded.
    pub fn note(&self, pa: u64, end: u64) {
        for line in pa / LINE_BYTES..end.div_ceil(LINE_BYTES) {
            let (word, bit) = Self::bit(line);
            let known = self.0[word].load(Ordering::Relaxed);
            if known & bit == 0 {
                // The owner is the only one to write.
                self.0[word].store(known | bit, Ordering::Release);
            }
        }
    }

    /// There is no code any more.
    pub fn clear(&self) {
        self.0
            .iter()
            .for_each(|word| word.store(0, Ordering::Release));
    }

    /// Whether any of the lines of `pa` to `end` may be among them.
    pub fn may_hold(&self, pa: u64, end: u64) -> bool {
        let lines = pa / LINE_BYTES..end.div_ceil(LINE_BYTES);
        lines.end - lines.start > MAX_LINES
            || lines.into_iter().any(|line| {
                let (word, bit) = Self::bit(line);
                self.0[word].load(Ordering::Acquire) & bit != 0
            })
    }
}

impl Default for HeldLines {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_held_from_first_to_last_byte_until_all_go() {
        let held = HeldLines::new();
        held.note(0x1038, 0x1044);
        assert!(held.may_hold(0x1000, 0x1001) && held.may_hold(0x1040, 0x1080));
        assert!(!held.may_hold(0xfc0, 0x1000) && !held.may_hold(0x1080, 0x10c0));
        assert!(held.may_hold(0, u64::MAX), "more than is looked for");
        held.note(u64::MAX - 3, u64::MAX);
        assert!(held.may_hold(u64::MAX - 63, u64::MAX));
        held.clear();
        assert!(!held.may_hold(0x1000, 0x1080));
    }
}

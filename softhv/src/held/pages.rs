//! The pages that a vCPU may hold translations or code of.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Pairs of entries of a TLB bank; a power of two.
pub const TAGS: usize = 1024;
/// Entries that a page can be in: the one at its index, and the one [`TAGS`] behind.
pub const WAYS: usize = 2;
/// Tags name the flush they were made after by a number of this many bits.
const EPOCH_BITS: u32 = 5;
const LAST_EPOCH: u32 = (1 << EPOCH_BITS) - 1;
/// Words of one bit for each of the pages with code, by low bits.
const CODE_WORDS: usize = 64;
/// More pages than this are not looked for one by one.
const MAX_PAGES: u64 = 64;

/// The pages that one TLB bank and the jump cache may know of one context.
#[derive(Debug)]
pub struct HeldPages {
    /// By index of the entry: what it was filled with last.
    tags: OnceLock<Box<[AtomicU32]>>,
    epoch: AtomicU32,
    code: [AtomicU64; CODE_WORDS],
    /// First and last address that block mappings cover.
    blocks: [AtomicU64; 2],
}

/// The bits of a page's number that its index has not, 26 and the half of the
/// address space, behind the epoch.
fn tag(va: u64, epoch: u32) -> u32 {
    let above = (va >> 22) as u32 & ((1 << 26) - 1);
    (above << 1 | (va >> 63) as u32) << EPOCH_BITS | epoch
}

fn code_bit(va: u64) -> (usize, u64) {
    let page = va >> 12;
    (page as usize / 64 % CODE_WORDS, 1 << (page % 64))
}

impl HeldPages {
    /// None.
    pub fn new() -> Self {
        Self {
            tags: OnceLock::new(),
            epoch: AtomicU32::new(1),
            code: [const { AtomicU64::new(0) }; CODE_WORDS],
            blocks: [AtomicU64::new(u64::MAX), AtomicU64::new(0)],
        }
    }

    /// Notes the page that entry `index` was filled with; what the entry had
    /// before is gone.
    pub fn note(&self, index: usize, va: u64) {
        let tags = self
            .tags
            .get_or_init(|| (0..WAYS * TAGS).map(|_| AtomicU32::new(0)).collect());
        let epoch = self.epoch.load(Ordering::Relaxed);
        tags[index].store(tag(va, epoch), Ordering::Release);
    }

    /// Notes what block mappings cover.
    pub fn note_blocks(&self, (first, last): (u64, u64)) {
        self.blocks[0].store(first, Ordering::Relaxed);
        self.blocks[1].store(last, Ordering::Release);
    }

    /// Notes that the jump cache may know code of a page.
    #[inline]
    pub fn note_code(&self, va: u64) {
        let (word, bit) = code_bit(va);
        let known = self.code[word].load(Ordering::Relaxed);
        if known & bit == 0 {
            // The owner is the only one to write.
            self.code[word].store(known | bit, Ordering::Release);
        }
    }

    /// The entries are empty.
    pub fn clear(&self) {
        let epoch = self.epoch.load(Ordering::Relaxed);
        if epoch < LAST_EPOCH {
            self.epoch.store(epoch + 1, Ordering::Release);
        } else {
            for tag in self.tags.get().into_iter().flatten() {
                tag.store(0, Ordering::Release);
            }
            self.epoch.store(1, Ordering::Release);
        }
        self.note_blocks((u64::MAX, 0));
    }

    /// The jump cache knows none of the code any more.
    pub fn clear_code(&self) {
        for word in &self.code {
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Release);
            }
        }
    }

    /// Whether `pages` pages from `va` may be among them.
    pub fn may_hold(&self, va: u64, pages: u64) -> bool {
        if pages > MAX_PAGES {
            return true;
        }
        (0..pages).any(|page| self.may_hold_page(va.wrapping_add(page << 12)))
    }

    fn may_hold_page(&self, va: u64) -> bool {
        let tagged = self.tags.get().is_some_and(|tags| {
            // The tag of an older epoch than the owner's is a page that is gone.
            let epoch = self.epoch.load(Ordering::Acquire);
            let wanted = tag(va, epoch);
            // A page goes from the first entry to the second, and is noted there before
            // it is not noted here any more: looked for in this order, it is found.
            (0..WAYS).any(|way| {
                let place = (va >> 12) as usize % TAGS + way * TAGS;
                tags[place].load(Ordering::Acquire) == wanted
            })
        });
        // Behind the tag, which code may outlive.
        let (word, bit) = code_bit(va);
        let coded = self.code[word].load(Ordering::Acquire) & bit != 0;
        let last = self.blocks[1].load(Ordering::Acquire);
        let first = self.blocks[0].load(Ordering::Relaxed);
        tagged || coded || first <= va && va <= last
    }
}

impl Default for HeldPages {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIGH: u64 = 0xffff_8000_0000_0000;

    #[test]
    fn a_page_is_held_from_its_note_until_another_takes_its_place_or_all_go() {
        let held = HeldPages::new();
        let same_index = (TAGS as u64) << 12;
        for va in [0, 0x1000, 0x7fff_f000, HIGH, HIGH | 0x1000, !0xfff] {
            let index = (va >> 12) as usize % TAGS;
            assert!(!held.may_hold(va, 1), "{va:x}");
            held.note(index, va);
            assert!(held.may_hold(va, 1) && held.may_hold(va | 0xfff, 1));
            for other in [va ^ same_index, va ^ 0x1000, va ^ 1 << 47, va ^ 1 << 63] {
                assert!(!held.may_hold(other, 1), "{va:x} {other:x}");
            }
            held.note(index, va ^ same_index);
            assert!(!held.may_hold(va, 1) && held.may_hold(va ^ same_index, 1));
            held.clear();
            assert!(!held.may_hold(va ^ same_index, 1));
        }
    }

    #[test]
    fn no_number_of_flushes_brings_a_page_back() {
        let held = HeldPages::new();
        held.note(1, 0x1000);
        for _ in 0..100 {
            held.clear();
            assert!(!held.may_hold(0x1000, 1));
            held.note(2, 0x2000);
            assert!(held.may_hold(0x2000, 1));
        }
    }

    #[test]
    fn code_and_blocks_are_held_whatever_the_entries_have() {
        let held = HeldPages::new();
        held.note_code(HIGH | 0x5123);
        held.note_blocks((0x20_0000, 0x3f_ffff));
        held.note(5, 0x5000);
        held.note(5, 0x5000 + ((TAGS as u64) << 12));
        assert!(held.may_hold(HIGH | 0x5000, 1));
        assert!(held.may_hold(0x2f_f000, 1) && !held.may_hold(0x40_0000, 1));
        assert!(held.may_hold(0x1f_f000, 2), "the second of two pages");
        held.clear();
        assert!(!held.may_hold(0x2f_f000, 1));
        assert!(
            held.may_hold(HIGH | 0x5000, 1),
            "the jump cache is another matter"
        );
        held.clear_code();
        assert!(!held.may_hold(HIGH | 0x5000, 1));
        assert!(held.may_hold(0, MAX_PAGES + 1), "more than is looked for");
    }
}

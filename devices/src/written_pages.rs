//! Marks of the pages that devices wrote.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::bitmap::{Bitmap, NewBitmap, RefSlice, WithBitmapSlice};

/// Unit of [`WrittenPages`], in bytes: the granule of guest page tables.
pub const WRITTEN_PAGE_BYTES: usize = 4096;

/// Words of marks that come into being together.
pub const WRITTEN_WORDS: usize = 64;

const WORD_PAGES: usize = u64::BITS as usize;
const GROUP_PAGES: usize = WRITTEN_WORDS * WORD_PAGES;
const GROUP_BYTES: usize = GROUP_PAGES * WRITTEN_PAGE_BYTES;

type Group = [AtomicU64; WRITTEN_WORDS];

/// Which pages of a memory region devices wrote, and anyone else who went
/// through it.
///
/// Marks take memory and time only where there are some: a copy of a large
/// guest is made in the time of a small one, and its marks are taken in the
/// time of the pages it wrote.
#[derive(Debug, Default)]
pub struct WrittenPages {
    /// Each stands for 16 MiB.
    groups: Box<[OnceLock<Box<Group>>]>,
    bytes: usize,
}

impl WrittenPages {
    /// No marks, for a region of `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let groups = bytes.div_ceil(GROUP_BYTES);
        Self {
            groups: (0..groups).map(|_| OnceLock::new()).collect(),
            bytes,
        }
    }

    /// Takes all marks and gives them to `each`: the offset in bytes of the
    /// page that the lowest bit of the first word stands for, and the words.
    pub fn take(&self, mut each: impl FnMut(u64, &[u64; WRITTEN_WORDS])) {
        for (offset, group) in (0_u64..).step_by(GROUP_BYTES).zip(&self.groups) {
            let Some(group) = group.get() else { continue };
            let mut any = 0;
            let words = std::array::from_fn(|n| {
                // Most are clean, and a look is cheaper than an exchange.
                let word = match group[n].load(Ordering::Acquire) {
                    0 => 0,
                    _ => group[n].swap(0, Ordering::AcqRel),
                };
                any |= word;
                word
            });
            if any != 0 {
                each(offset, &words);
            }
        }
    }

    fn mark(&self, page: usize) {
        if let Some(group) = self.groups.get(page / GROUP_PAGES) {
            let group = group.get_or_init(|| Box::new([const { AtomicU64::new(0) }; _]));
            let bit = 1 << (page % WORD_PAGES);
            group[page / WORD_PAGES % WRITTEN_WORDS].fetch_or(bit, Ordering::AcqRel);
        }
    }
}

impl<'a> WithBitmapSlice<'a> for WrittenPages {
    type S = RefSlice<'a, Self>;
}

impl Bitmap for WrittenPages {
    fn mark_dirty(&self, offset: usize, len: usize) {
        let end = offset.saturating_add(len).min(self.bytes);
        if offset < end {
            let last = (end - 1) / WRITTEN_PAGE_BYTES;
            for page in offset / WRITTEN_PAGE_BYTES..=last {
                self.mark(page);
            }
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        let page = offset / WRITTEN_PAGE_BYTES;
        let group = self.groups.get(page / GROUP_PAGES);
        group.and_then(OnceLock::get).is_some_and(|group| {
            let word = group[page / WORD_PAGES % WRITTEN_WORDS].load(Ordering::Acquire);
            word >> (page % WORD_PAGES) & 1 != 0
        })
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Self> {
        RefSlice::new(self, offset)
    }
}

impl NewBitmap for WrittenPages {
    fn with_len(len: usize) -> Self {
        Self::new(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = WRITTEN_PAGE_BYTES;

    fn taken(marks: &WrittenPages) -> Vec<u64> {
        let mut pages = Vec::new();
        marks.take(|offset, words| {
            for (n, word) in (0_u64..).zip(words) {
                let bits = (0..64).filter(|bit| word >> bit & 1 != 0);
                pages.extend(bits.map(|bit| offset / PAGE as u64 + n * 64 + bit));
            }
        });
        pages
    }

    #[test]
    fn a_write_marks_every_page_it_touches() {
        let marks = WrittenPages::new(GROUP_BYTES * 2);
        marks.mark_dirty(PAGE - 1, 2);
        marks.mark_dirty(GROUP_BYTES - 1, PAGE + 2);
        marks.mark_dirty(5 * PAGE, 0);
        for (offset, marked) in [
            (0, true),
            (PAGE, true),
            (2 * PAGE, false),
            (5 * PAGE, false),
            (GROUP_BYTES, true),
        ] {
            assert_eq!(marks.dirty_at(offset), marked, "{offset:#x}");
        }
        let edge = GROUP_PAGES as u64;
        assert_eq!(taken(&marks), [0, 1, edge - 1, edge, edge + 1]);
    }

    #[test]
    fn marks_are_taken_once_and_can_be_made_again() {
        let marks = WrittenPages::new(GROUP_BYTES);
        marks.mark_dirty(64 * PAGE, 1);
        assert_eq!(taken(&marks), [64]);
        assert!(taken(&marks).is_empty());
        assert!(!marks.dirty_at(64 * PAGE));
        marks.mark_dirty(64 * PAGE, 1);
        assert_eq!(taken(&marks), [64]);
    }

    #[test]
    fn writes_beyond_the_region_are_left_out() {
        let marks = WrittenPages::new(3 * PAGE + 1);
        marks.mark_dirty(3 * PAGE, usize::MAX);
        marks.mark_dirty(4 * PAGE, 1);
        marks.mark_dirty(usize::MAX, usize::MAX);
        assert_eq!(taken(&marks), [3]);
        assert!(!marks.dirty_at(usize::MAX));
    }

    #[test]
    fn clean_marks_of_a_large_region_take_no_memory() {
        let marks = WrittenPages::new(1 << 32);
        marks.mark_dirty(1 << 31, 1);
        let made = marks.groups.iter().filter(|group| group.get().is_some());
        assert_eq!(made.count(), 1);
    }

    #[test]
    fn slices_mark_at_their_offset() {
        let marks = WrittenPages::new(GROUP_BYTES);
        marks.slice_at(PAGE).slice_at(PAGE).mark_dirty(PAGE, 1);
        assert_eq!(taken(&marks), [3]);
    }
}

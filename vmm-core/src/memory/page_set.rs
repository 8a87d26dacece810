//! Sets of guest pages, for what was written and what is to go back.

use std::ops::Range;

/// Unit of a [`PageSet`], in bytes: the granule of guest page tables.
pub const PAGE_SET_BYTES: usize = 4096;

const PAGE: u64 = PAGE_SET_BYTES as u64;
const WORD_PAGES: u64 = u64::BITS as u64;

/// A set of 4 KiB pages of a range of guest addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageSet {
    base: u64,
    pages: u64,
    words: Vec<u64>,
}

impl PageSet {
    /// No pages of the `bytes` (rounded up to whole pages) from guest address
    /// `base`, a multiple of 4 KiB.
    pub fn new(base: u64, bytes: u64) -> Self {
        let base = base & !(PAGE - 1);
        let pages = bytes.min(u64::MAX - base).div_ceil(PAGE);
        let words = usize::try_from(pages.div_ceil(WORD_PAGES)).unwrap_or(usize::MAX);
        Self {
            base,
            pages,
            words: vec![0; words],
        }
    }

    /// Guest address of the first page there can be.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Adds every page that has one of the `bytes` from `ipa`. What lies
    /// outside the range is left out.
    pub fn insert(&mut self, ipa: u64, bytes: u64) {
        self.change(ipa, bytes, |word, mask| *word |= mask);
    }

    /// Takes out every page that has one of the `bytes` from `ipa`.
    pub fn remove(&mut self, ipa: u64, bytes: u64) {
        self.change(ipa, bytes, |word, mask| *word &= !mask);
    }

    fn change(&mut self, ipa: u64, bytes: u64, change: impl Fn(&mut u64, u64)) {
        if bytes == 0 {
            return;
        }
        let mut page = ipa.saturating_sub(self.base) / PAGE;
        let end = ipa
            .saturating_add(bytes)
            .saturating_sub(self.base)
            .div_ceil(PAGE)
            .min(self.pages);
        while page < end {
            let bit = page % WORD_PAGES;
            let count = (WORD_PAGES - bit).min(end - page);
            if let Some(word) = self.word_mut(page / WORD_PAGES) {
                change(word, u64::MAX >> (WORD_PAGES - count) << bit);
            }
            page += count;
        }
    }

    /// Adds the pages whose bits are set in `words`, of which the lowest bit
    /// of the first stands for the page at `ipa`.
    pub(crate) fn insert_words(&mut self, ipa: u64, words: &[u64]) {
        for (n, &word) in (0_u64..).zip(words) {
            let mut rest = word;
            while rest != 0 {
                let first = u64::from(rest.trailing_zeros());
                let count = u64::from((rest >> first).trailing_ones());
                let at = n
                    .checked_mul(WORD_PAGES)
                    .and_then(|pages| pages.checked_add(first)?.checked_mul(PAGE))
                    .and_then(|bytes| ipa.checked_add(bytes));
                if let Some(at) = at {
                    self.insert(at, count * PAGE);
                }
                rest &= !(u64::MAX >> (WORD_PAGES - count) << first);
            }
        }
    }

    /// Adds the pages of `other`, as far as they lie in this set's range.
    pub fn union(&mut self, other: &Self) {
        if self.base == other.base && self.pages >= other.pages {
            for (word, more) in self.words.iter_mut().zip(&other.words) {
                *word |= more;
            }
        } else {
            self.insert_words(other.base, &other.words);
        }
    }

    /// Takes the pages of `other` out, a set of the same range.
    pub fn subtract(&mut self, other: &Self) {
        debug_assert_eq!((self.base, self.pages), (other.base, other.pages));
        for (word, less) in self.words.iter_mut().zip(&other.words) {
            *word &= !less;
        }
    }

    /// Whether the page of `ipa` is in the set.
    pub fn contains(&self, ipa: u64) -> bool {
        ipa.checked_sub(self.base).is_some_and(|offset| {
            let page = offset / PAGE;
            self.word(page / WORD_PAGES) >> (page % WORD_PAGES) & 1 != 0
        })
    }

    /// How many pages there are.
    pub fn count(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Takes all pages out.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// The pages as ranges of guest addresses, in order, none touching the
    /// next.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.find(at, true)?;
            let end = self.find(start, false).unwrap_or(self.pages);
            at = end;
            Some(self.base + start * PAGE..self.base + end * PAGE)
        })
    }

    /// The first page from `page` that is in the set, or is not.
    fn find(&self, mut page: u64, present: bool) -> Option<u64> {
        while page < self.pages {
            let word = self.word(page / WORD_PAGES);
            let wanted = if present { word } else { !word };
            let rest = wanted >> (page % WORD_PAGES);
            if rest != 0 {
                return Some(page + u64::from(rest.trailing_zeros())).filter(|at| *at < self.pages);
            }
            page = (page / WORD_PAGES + 1) * WORD_PAGES;
        }
        None
    }

    fn word(&self, index: u64) -> u64 {
        let word = usize::try_from(index).ok().and_then(|n| self.words.get(n));
        word.copied().unwrap_or(0)
    }

    fn word_mut(&mut self, index: u64) -> Option<&mut u64> {
        usize::try_from(index)
            .ok()
            .and_then(|n| self.words.get_mut(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const BASE: u64 = 0x8000_0000;

    fn runs(set: &PageSet) -> Vec<Range<u64>> {
        set.runs().collect()
    }

    #[test]
    fn a_byte_is_its_page_and_neighbours_make_one_run() {
        let mut set = PageSet::new(BASE, 1 << 20);
        set.insert(BASE + 0x1fff, 2);
        set.insert(BASE + 0x5000, 0);
        set.insert(BASE + 0x7010, 1);
        assert_eq!(
            runs(&set),
            [BASE + 0x1000..BASE + 0x3000, BASE + 0x7000..BASE + 0x8000]
        );
        assert_eq!(set.count(), 3);
        assert!(set.contains(BASE + 0x2abc) && !set.contains(BASE + 0x3000));
        assert!(!set.contains(BASE - 1));
        set.remove(BASE + 0x2fff, 1);
        assert_eq!(
            runs(&set),
            [BASE + 0x1000..BASE + 0x2000, BASE + 0x7000..BASE + 0x8000]
        );
        set.clear();
        assert!(set.is_empty() && set.runs().next().is_none());
    }

    #[test]
    fn what_lies_outside_is_left_out() {
        let mut set = PageSet::new(BASE, 0x3000);
        set.insert(0, u64::MAX);
        assert_eq!(runs(&set), vec![BASE..BASE + 0x3000]);
        set.clear();
        set.insert(BASE - 0x1000, 0x1000);
        set.insert(BASE + 0x3000, 0x1000);
        set.insert(u64::MAX, u64::MAX);
        assert!(set.is_empty());
        set.insert_words(BASE, &[!0, !0]);
        assert_eq!(set.count(), 3);
        set.insert_words(!0xfff, &[!0, !0]);
        assert_eq!(set.count(), 3);
    }

    #[test]
    fn sets_of_other_ranges_unite_by_address() {
        let mut set = PageSet::new(BASE, 1 << 20);
        let mut other = PageSet::new(BASE + 0x3_f000, 0x8000);
        other.insert(BASE + 0x3_f000, 0x2000);
        set.union(&other);
        assert_eq!(runs(&set), vec![BASE + 0x3_f000..BASE + 0x4_1000]);
        let same = set.clone();
        set.union(&same);
        assert_eq!(set, same);
        other.union(&same);
        assert_eq!(other.count(), 2);
    }

    #[test]
    fn runs_are_what_a_set_of_pages_gives() {
        let mut state = 0x1234_5678_u64;
        let mut random = |limit: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % limit
        };
        for _ in 0..200 {
            let pages = 1 + random(400);
            let mut set = PageSet::new(BASE, pages * PAGE);
            let mut model = BTreeSet::new();
            for _ in 0..random(12) {
                let (start, count) = (random(pages), random(150));
                set.insert(BASE + start * PAGE, count * PAGE);
                model.extend(start..(start + count).min(pages));
            }
            assert_eq!(set.count(), model.len() as u64);
            let mut listed = BTreeSet::new();
            let mut last = None;
            for run in set.runs() {
                assert!(run.start < run.end && last.is_none_or(|end| end < run.start));
                last = Some(run.end);
                listed.extend((run.start - BASE) / PAGE..(run.end - BASE) / PAGE);
            }
            assert_eq!(listed, model);
        }
    }
}

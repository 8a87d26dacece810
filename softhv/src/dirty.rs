//! Which pages of guest memory vCPUs wrote, and which hold code they decoded.
//!
//! No TLB entry gives a direct write to a page that the log counts as clean:
//! the first store to it takes the slow path, which marks it, and entries made
//! from then on are as fast as ever. So an entry that can write means a page
//! that is marked, and taking the marks has to take those entries' rights too.

use crate::page::PAGE_SIZE;
use crate::phys::MAP_GRANULE_BYTES;
use crate::zeroes::atomic_words;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Bytes of guest memory that one word of marks stands for.
const WORD_BYTES: u64 = 64 * PAGE_SIZE;

/// Marks of one followed range.
#[derive(Debug)]
struct Range {
    ipa: u64,
    bytes: u64,
    words: Box<[AtomicU64]>,
}

impl Range {
    fn word(&self, pa: u64) -> Option<(&AtomicU64, u64)> {
        let offset = pa.checked_sub(self.ipa).filter(|at| *at < self.bytes)?;
        let word = self.words.get((offset / WORD_BYTES) as usize)?;
        Some((word, 1 << (offset / PAGE_SIZE % 64)))
    }
}

/// One version of the followed ranges: what a vCPU holds on to. Versions share
/// the marks.
#[derive(Clone, Debug, Default)]
pub struct DirtyView(Arc<Vec<Arc<Range>>>);

impl DirtyView {
    /// Notes a write to the page of `pa`.
    pub fn mark(&self, pa: u64) {
        for range in self.0.iter() {
            if let Some((word, bit)) = range.word(pa)
                && word.load(Ordering::Relaxed) & bit == 0
            {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// Whether a write to the page of `pa` need not be noted any more.
    pub fn is_noted(&self, pa: u64) -> bool {
        let mut words = self.0.iter().filter_map(|range| range.word(pa));
        words.all(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }
}

/// The log of one VM.
#[derive(Debug, Default)]
pub struct DirtyLog {
    ranges: RwLock<DirtyView>,
}

impl DirtyLog {
    /// The ranges as they are now.
    pub fn view(&self) -> DirtyView {
        let guard = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        guard.clone()
    }

    /// Follows a range from now on, all of it clean, instead of every range it
    /// overlaps. vCPUs must get a new view.
    pub fn start(&self, ipa: u64, bytes: u64) {
        let mut guard = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        let apart =
            |range: &&Arc<Range>| range.ipa + range.bytes <= ipa || ipa + bytes <= range.ipa;
        let mut list: Vec<_> = guard.0.iter().filter(apart).cloned().collect();
        let words = bytes.div_ceil(WORD_BYTES);
        list.push(Arc::new(Range {
            ipa,
            bytes,
            words: atomic_words(usize::try_from(words).unwrap_or(usize::MAX)),
        }));
        *guard = DirtyView(Arc::new(list));
    }

    /// The numbers of all pages that are marked, which stay so.
    pub fn marked(&self) -> Vec<u64> {
        let mut pages = Vec::new();
        for range in self.view().0.iter() {
            for (first, word) in (range.ipa / PAGE_SIZE..).step_by(64).zip(&range.words) {
                let word = word.load(Ordering::Relaxed);
                pages.extend((0..64).filter(|n| word >> n & 1 != 0).map(|n| first + n));
            }
        }
        pages
    }

    /// Moves the marks of a followed range into `out`, one word for each 64
    /// pages. `None` if there is no such range, or `out` has another length;
    /// else whether there were any, in which case every vCPU must lose its
    /// direct writes.
    pub fn take(&self, ipa: u64, bytes: u64, out: &mut [u64]) -> Option<bool> {
        let view = self.view();
        let wanted = |range: &&Arc<Range>| range.ipa == ipa && range.bytes == bytes;
        let range = view.0.iter().find(wanted)?;
        if range.words.len() != out.len() {
            return None;
        }
        let mut any = false;
        for (word, out) in range.words.iter().zip(out) {
            *out = match word.load(Ordering::Relaxed) {
                0 => 0,
                _ => word.swap(0, Ordering::Relaxed),
            };
            any |= *out != 0;
        }
        Some(any)
    }
}

/// Bits of [`CodePages`], a power of two: exact for 1 GiB of guest memory,
/// beyond which pages share bits.
const CODE_BITS: u64 = 1 << 18;

/// Which pages some vCPU may have decoded code of. Never forgets one: a page
/// that once held code costs a look into each code cache when it changes, the
/// others cost a bit test.
#[derive(Debug)]
pub struct CodePages(Box<[AtomicU64]>);

impl CodePages {
    /// None.
    pub fn new() -> Self {
        Self(atomic_words((CODE_BITS / 64) as usize))
    }

    fn word(&self, pa: u64) -> Option<(&AtomicU64, u64)> {
        let page = pa / PAGE_SIZE % CODE_BITS;
        Some((self.0.get((page / 64) as usize)?, 1 << (page % 64)))
    }

    /// Notes that code of the page of `pa` was decoded.
    pub fn note(&self, pa: u64) {
        if let Some((word, bit)) = self.word(pa)
            && word.load(Ordering::Relaxed) & bit == 0
        {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether code of the page of `pa` may have been decoded.
    pub fn may_hold(&self, pa: u64) -> bool {
        self.word(pa)
            .is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }
}

impl Default for CodePages {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a range is in whole pages of guest mappings.
pub fn is_whole(ipa: u64, bytes: u64) -> bool {
    bytes > 0
        && ipa.is_multiple_of(MAP_GRANULE_BYTES)
        && bytes.is_multiple_of(MAP_GRANULE_BYTES)
        && ipa.checked_add(bytes).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x8000_0000;

    #[test]
    fn marks_are_taken_once_and_only_of_followed_ranges() {
        let log = DirtyLog::default();
        assert!(log.view().is_noted(BASE), "nothing to note");
        log.start(BASE, 0x10_0000);
        let view = log.view();
        assert!(!view.is_noted(BASE + 0x4_1000));
        view.mark(BASE + 0x4_1fff);
        view.mark(BASE + 0xf_f000);
        view.mark(BASE + 0x10_0000);
        view.mark(BASE - 1);
        assert!(view.is_noted(BASE + 0x4_1000) && !view.is_noted(BASE + 0x4_2000));
        assert_eq!(log.marked(), [0x8_0041, 0x8_00ff]);
        let mut out = [0; 4];
        assert_eq!(log.take(BASE, 0x10_0000, &mut out), Some(true));
        assert_eq!(out, [0, 1 << 1, 0, 1 << 63]);
        assert_eq!(log.take(BASE, 0x10_0000, &mut out), Some(false));
        assert_eq!(out, [0; 4]);
        assert!(!view.is_noted(BASE + 0x4_1000));
        assert_eq!(log.take(BASE, 0x10_0000, &mut out[..3]), None);
        assert_eq!(log.take(BASE, 0x8_0000, &mut out[..2]), None);
    }

    #[test]
    fn starting_again_replaces_what_overlaps_and_keeps_the_rest() {
        let log = DirtyLog::default();
        log.start(BASE, 0x4000);
        log.start(BASE + 0x4000, 0x4000);
        log.view().mark(BASE);
        log.view().mark(BASE + 0x5000);
        log.start(BASE, 0x4000);
        let mut out = [0];
        assert_eq!(log.take(BASE, 0x4000, &mut out), Some(false));
        assert_eq!(log.take(BASE + 0x4000, 0x4000, &mut out), Some(true));
        assert_eq!(out, [2]);
    }
}

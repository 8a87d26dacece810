//! What senders collect for a vCPU until it looks: neighbours become one, and
//! what is too much covers a little more rather than everything.

/// Decoded code of this physical range is stale (IC IVAU, map changes).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodeRange {
    /// First intermediate physical address.
    pub pa: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl CodeRange {
    /// The address after the last.
    pub fn end(self) -> u64 {
        self.pa.saturating_add(self.bytes)
    }

    /// Both and what is between them.
    fn hull(self, other: Self) -> Self {
        let pa = self.pa.min(other.pa);
        let end = self.end().max(other.end());
        Self {
            pa,
            bytes: end - pa,
        }
    }

    /// One range of both, if they touch.
    pub fn joined(self, other: Self) -> Option<Self> {
        (self.pa <= other.end() && other.pa <= self.end()).then(|| self.hull(other))
    }
}

/// Ranges in order of address, none of which touch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CodeRanges(Vec<CodeRange>);

impl CodeRanges {
    /// More than this many make two of them one, with what is between them:
    /// 64 KiB for each vCPU at most.
    pub const LIMIT: usize = 4096;

    /// Adds a range.
    pub fn add(&mut self, range: CodeRange) {
        if range.bytes == 0 {
            return;
        }
        let first = self.0.partition_point(|known| known.end() < range.pa);
        let behind = self.0.partition_point(|known| known.pa <= range.end());
        let joined = match (self.0.get(first), behind.checked_sub(1)) {
            (Some(low), Some(last)) if first <= last => range.hull(*low).hull(self.0[last]),
            _ => range,
        };
        self.0.splice(first..behind.max(first), [joined]);
        if self.0.len() > Self::LIMIT {
            self.close_smallest_gap();
        }
    }

    fn close_smallest_gap(&mut self) {
        let gap = |at: &usize| self.0[at + 1].pa - self.0[*at].end();
        if let Some(at) = (0..self.0.len().saturating_sub(1)).min_by_key(gap) {
            self.0[at] = self.0[at].hull(self.0[at + 1]);
            self.0.remove(at + 1);
        }
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = CodeRange> {
        self.0.iter().copied()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A TLB invalidation for the inner shareable domain. Addresses have bits
/// 11:0 clear and the top byte as the guest's half requires (sign-extended).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlbInvalidate {
    /// Everything (VMALLE1IS).
    All,
    /// All non-global entries of an address space (ASIDE1IS).
    Asid(u16),
    /// `pages` pages of 4 KiB from `va` in one address space, and global ones
    /// (VAE1IS, VALE1IS, RVAE1IS, ...).
    Va {
        /// First page.
        va: u64,
        /// Address space.
        asid: u16,
        /// Number of 4 KiB pages.
        pages: u64,
    },
    /// `pages` pages of 4 KiB from `va` in every address space (VAAE1IS, ...).
    VaAllAsids {
        /// First page.
        va: u64,
        /// Number of 4 KiB pages.
        pages: u64,
    },
}

impl TlbInvalidate {
    /// One message that does what this and then `next` do, if there is one
    /// that does no more.
    fn with(self, next: Self) -> Option<Self> {
        let extended = |va: u64, pages: u64, next_va: u64, next_pages: u64| {
            let follows = va.checked_add(pages.checked_mul(4096)?)? == next_va;
            follows.then(|| pages.saturating_add(next_pages))
        };
        match (self, next) {
            (Self::All, _) | (_, Self::All) => Some(Self::All),
            _ if self == next => Some(self),
            (
                Self::Va { va, asid, pages },
                Self::Va {
                    va: next_va,
                    asid: next_asid,
                    pages: next_pages,
                },
            ) if asid == next_asid => {
                extended(va, pages, next_va, next_pages).map(|pages| Self::Va { va, asid, pages })
            }
            (
                Self::VaAllAsids { va, pages },
                Self::VaAllAsids {
                    va: next_va,
                    pages: next_pages,
                },
            ) => {
                extended(va, pages, next_va, next_pages).map(|pages| Self::VaAllAsids { va, pages })
            }
            _ => None,
        }
    }
}

/// TLB invalidations, or the order to drop everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TlbBatch {
    /// Apply these, in any order.
    Each(Vec<TlbInvalidate>),
    /// There were too many, or one was for everything.
    Everything,
}

impl TlbBatch {
    /// More than this many make [`TlbBatch::Everything`], which costs walks and
    /// looks into the maps of decoded code, but not the code.
    pub const LIMIT: usize = 64;

    /// Adds a message.
    pub fn add(&mut self, message: TlbInvalidate) {
        let Self::Each(list) = self else {
            return;
        };
        let is_full = list.len() >= Self::LIMIT;
        let found = list
            .iter_mut()
            .rev()
            .find_map(|known| known.with(message).map(|both| (known, both)));
        match found {
            Some((_, TlbInvalidate::All)) => *self = Self::Everything,
            Some((known, both)) => *known = both,
            None if message == TlbInvalidate::All || is_full => {
                *self = Self::Everything;
            }
            None => list.push(message),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Each(list) if list.is_empty())
    }
}

impl Default for TlbBatch {
    fn default() -> Self {
        Self::Each(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pages: impl IntoIterator<Item = u64>) -> Vec<CodeRange> {
        let mut ranges = CodeRanges::default();
        for pa in pages {
            ranges.add(CodeRange { pa, bytes: 64 });
        }
        ranges.iter().collect()
    }

    #[test]
    fn lines_next_to_each_other_are_one_range_in_any_order() {
        let whole = [CodeRange {
            pa: 0x1000,
            bytes: 24 * 64,
        }];
        assert_eq!(lines((0..24).map(|n| 0x1000 + 64 * n)), whole);
        assert_eq!(lines((0..24).rev().map(|n| 0x1000 + 64 * n)), whole);
        assert_eq!(lines((0..24).map(|n| 0x1000 + 64 * (n * 7 % 24))), whole);
        assert_eq!(lines([0x1000, 0x1080, 0x1000]).len(), 2);
        assert_eq!(lines([0x1000, 0x1080, 0x1040]).len(), 1);
    }

    #[test]
    fn a_flood_of_ranges_covers_all_of_them_and_leaves_far_ones_apart() {
        let far = 1 << 40;
        let mut ranges = CodeRanges::default();
        ranges.add(CodeRange { pa: far, bytes: 64 });
        let count = 3 * CodeRanges::LIMIT as u64;
        for n in 0..count {
            ranges.add(CodeRange {
                pa: n * 4096,
                bytes: 64,
            });
        }
        let all: Vec<_> = ranges.iter().collect();
        assert!(all.len() <= CodeRanges::LIMIT);
        for n in 0..count {
            assert!(
                all.iter()
                    .any(|r| r.pa <= n * 4096 && n * 4096 + 64 <= r.end())
            );
        }
        assert!(all[..all.len() - 1].iter().all(|r| r.end() <= count * 4096));
        assert_eq!(all[all.len() - 1], CodeRange { pa: far, bytes: 64 });
    }

    #[test]
    fn ranges_to_the_end_of_the_address_space_are_kept() {
        let everything = CodeRange {
            pa: 0,
            bytes: u64::MAX,
        };
        let mut ranges = CodeRanges::default();
        ranges.add(CodeRange {
            pa: u64::MAX - 63,
            bytes: 64,
        });
        ranges.add(everything);
        ranges.add(CodeRange { pa: 64, bytes: 0 });
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [everything]);
    }

    #[test]
    fn tlb_messages_join_where_the_result_does_no_more() {
        let page = |va, asid, pages| TlbInvalidate::Va { va, asid, pages };
        let mut batch = TlbBatch::default();
        for n in 0..1000 {
            batch.add(page(0x1000 * n, 1, 1));
            batch.add(page(0x1000 * n, 2, 1));
        }
        batch.add(TlbInvalidate::Asid(3));
        batch.add(TlbInvalidate::Asid(3));
        let expected = vec![page(0, 1, 1000), page(0, 2, 1000), TlbInvalidate::Asid(3)];
        assert_eq!(batch, TlbBatch::Each(expected));
        for n in 0..=TlbBatch::LIMIT as u64 {
            batch.add(page(0x2000 * n, 9, 1));
        }
        assert_eq!(batch, TlbBatch::Everything);
        batch.add(TlbInvalidate::Asid(3));
        assert_eq!(batch, TlbBatch::Everything);
    }
}

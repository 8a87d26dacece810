//! Which blocks of a region are plugged.

use std::ops::Range;

/// Bytes of a block: the size of a huge page of the guest, and the least that
/// Linux adds or removes.
pub const BLOCK_BYTES: u64 = 2 << 20;

/// One bit per block of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocks {
    address: u64,
    count: usize,
    words: Vec<u64>,
}

impl Blocks {
    /// No block of a region that the device's constructor has checked.
    pub(super) fn new(address: u64, region_bytes: u64) -> Self {
        // At most 2¹⁹ blocks.
        let count = (region_bytes / BLOCK_BYTES) as usize;
        Self {
            address,
            count,
            words: vec![0; count.div_ceil(64)],
        }
    }

    /// The blocks of saved words; `None` if they are not those of this region.
    pub(super) fn from_words(address: u64, region_bytes: u64, words: &[u64]) -> Option<Self> {
        let mut blocks = Self::new(address, region_bytes);
        if words.len() != blocks.words.len() {
            return None;
        }
        blocks.words.copy_from_slice(words);
        let beyond = blocks.count..blocks.words.len() * 64;
        blocks.all(&beyond, false).then_some(blocks)
    }

    /// Blocks of the region, plugged or not.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    pub(super) fn plugged_bytes(&self) -> u64 {
        let blocks: u32 = self.words.iter().map(|word| word.count_ones()).sum();
        u64::from(blocks) * BLOCK_BYTES
    }

    /// The blocks a guest names; `None` if they are not blocks of the region.
    pub(super) fn range(&self, address: u64, blocks: u16) -> Option<Range<usize>> {
        let offset = address.checked_sub(self.address)?;
        if !offset.is_multiple_of(BLOCK_BYTES) || blocks == 0 {
            return None;
        }
        let first = usize::try_from(offset / BLOCK_BYTES).ok()?;
        let end = first.checked_add(usize::from(blocks))?;
        (end <= self.count).then_some(first..end)
    }

    /// Address and bytes of some blocks.
    pub(super) fn extent(&self, range: &Range<usize>) -> (u64, u64) {
        let bytes = |blocks: usize| blocks as u64 * BLOCK_BYTES;
        (self.address + bytes(range.start), bytes(range.len()))
    }

    fn is_plugged(&self, block: usize) -> bool {
        self.words[block / 64] >> (block % 64) & 1 != 0
    }

    /// Whether all blocks of a range are in one state.
    pub(super) fn all(&self, range: &Range<usize>, plugged: bool) -> bool {
        range.clone().all(|block| self.is_plugged(block) == plugged)
    }

    pub(super) fn set(&mut self, range: &Range<usize>, plugged: bool) {
        for block in range.clone() {
            let bit = 1 << (block % 64);
            match plugged {
                true => self.words[block / 64] |= bit,
                false => self.words[block / 64] &= !bit,
            }
        }
    }

    /// Plugged blocks, neighbours together.
    pub(super) fn plugged_runs(&self) -> Vec<Range<usize>> {
        runs(self.count, |block| self.is_plugged(block))
    }

    /// Blocks that are plugged here and not in `other`, of the same region.
    pub(super) fn runs_beyond(&self, other: &Self) -> Vec<Range<usize>> {
        runs(self.count, |block| {
            self.is_plugged(block) && !other.is_plugged(block)
        })
    }
}

fn runs(count: usize, is_in: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for block in (0..count).filter(|&block| is_in(block)) {
        match runs.last_mut() {
            Some(run) if run.end == block => run.end += 1,
            _ => runs.push(block..block + 1),
        }
    }
    runs
}

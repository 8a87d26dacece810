//! Which blocks of a disk are its own: a bit for each, in leaves that are made when the
//! first of their bits is set.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const WORD_BITS: u64 = 64;
const LEAF_WORDS: usize = 512;
/// Blocks of a leaf: 128 MiB, if they have 4 KiB each.
const LEAF_BITS: u64 = LEAF_WORDS as u64 * WORD_BITS;

type Leaf = Box<[AtomicU64]>;

/// A set of blocks. Those who look and those who add do not wait for each other.
pub(super) struct BlockMap {
    leaves: Box<[OnceLock<Leaf>]>,
}

impl BlockMap {
    /// None of so many blocks.
    pub(super) fn new(blocks: u64) -> Self {
        let leaves = blocks.div_ceil(LEAF_BITS);
        Self {
            leaves: (0..leaves).map(|_| OnceLock::new()).collect(),
        }
    }

    fn leaf(&self, block: u64) -> Option<&OnceLock<Leaf>> {
        self.leaves.get(usize::try_from(block / LEAF_BITS).ok()?)
    }

    /// Whether `block` is in it, and the first block behind it up to `end` of which the
    /// opposite is true, or `end`. It is looked at once: it may be added meanwhile, and
    /// whoever asks goes on behind it.
    pub(super) fn run(&self, block: u64, end: u64) -> (bool, u64) {
        let (has, mut at) = self.piece(block);
        while at < end {
            let (same, next) = self.piece(at);
            if same != has {
                break;
            }
            at = next;
        }
        (has, at.min(end))
    }

    /// Whether `block` is in it, and how far that is true at least.
    fn piece(&self, block: u64) -> (bool, u64) {
        let Some(leaf) = self.leaf(block).and_then(OnceLock::get) else {
            return (false, (block / LEAF_BITS + 1) * LEAF_BITS);
        };
        let bit = block % WORD_BITS;
        let word = leaf[index_in_leaf(block)].load(Ordering::Acquire) >> bit;
        let has = word & 1 == 1;
        let same = if has {
            word.trailing_ones()
        } else {
            word.trailing_zeros()
        };
        (has, block + u64::from(same).min(WORD_BITS - bit))
    }

    /// Adds blocks, once their content is where it will be looked for.
    pub(super) fn add(&self, blocks: std::ops::Range<u64>) {
        let mut at = blocks.start;
        while at < blocks.end {
            let bit = at % WORD_BITS;
            let count = (WORD_BITS - bit).min(blocks.end - at);
            let mask = (u64::MAX >> (WORD_BITS - count)) << bit;
            let Some(leaf) = self.leaf(at) else { return };
            let leaf = leaf.get_or_init(|| (0..LEAF_WORDS).map(|_| AtomicU64::new(0)).collect());
            leaf[index_in_leaf(at)].fetch_or(mask, Ordering::Release);
            at += count;
        }
    }

    /// Whether it has no block.
    pub(super) fn is_empty(&self) -> bool {
        let leaves = self.leaves.iter().filter_map(OnceLock::get);
        let mut words = leaves.flatten();
        words.all(|word| word.load(Ordering::Acquire) == 0)
    }

    /// Takes all blocks out, which nobody uses meanwhile.
    pub(super) fn clear(&self) {
        let leaves = self.leaves.iter().filter_map(OnceLock::get);
        leaves
            .flatten()
            .for_each(|word| word.store(0, Ordering::Release));
    }
}

impl Clone for BlockMap {
    fn clone(&self) -> Self {
        let copy = |leaf: &OnceLock<Leaf>| match leaf.get() {
            None => OnceLock::new(),
            Some(words) => {
                let words = words.iter();
                let words = words.map(|word| AtomicU64::new(word.load(Ordering::Acquire)));
                OnceLock::from(words.collect::<Leaf>())
            }
        };
        Self {
            leaves: self.leaves.iter().map(copy).collect(),
        }
    }
}

fn index_in_leaf(block: u64) -> usize {
    // Less than 512.
    usize::try_from(block % LEAF_BITS / WORD_BITS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_those_of_a_list_across_words_and_leaves() {
        let blocks = 3 * LEAF_BITS + 100;
        let map = BlockMap::new(blocks);
        assert_eq!(map.run(0, blocks), (false, blocks));
        assert!(map.is_empty());
        let added = [
            3..4,
            60..70,
            128..192,
            LEAF_BITS - 1..LEAF_BITS + 1,
            blocks - 2..blocks,
        ];
        for range in &added {
            map.add(range.clone());
        }
        let is_in = |block: u64| added.iter().any(|range| range.contains(&block));
        let copy = map.clone();
        let mut at = 0;
        while at < blocks {
            let (has, end) = map.run(at, blocks);
            assert_eq!((has, end), copy.run(at, blocks));
            assert!((at..end).all(|block| is_in(block) == has), "{at}..{end}");
            assert!(end == blocks || is_in(end) != has, "{at}..{end}");
            at = end;
        }
        assert_eq!(map.run(62, 65), (true, 65));
        map.clear();
        assert!(map.is_empty() && !copy.is_empty());
        assert_eq!(map.run(0, blocks), (false, blocks));
        // What is beyond its end is not in it.
        map.add(blocks + LEAF_BITS..blocks + LEAF_BITS + 1);
        assert!(map.is_empty());
    }
}

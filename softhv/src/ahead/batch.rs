//! Blocks that were decoded ahead, and where a vCPU has those that it was given.

use crate::address_hash::AddressMap;
use crate::cpu::op::Op;

/// A decoded block.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// What names it: [`crate::mode::Mode::key`].
    pub key: u64,
    /// Where its ops begin in the batch: with room for the one that leads to
    /// compiled code.
    pub op: u32,
    /// Where the words that it was decoded from begin.
    pub word: u32,
    /// How many of them.
    pub count: u8,
}

/// Blocks that were decoded ahead.
#[derive(Default)]
pub struct Batch {
    /// The ops of all, none of which leads anywhere yet.
    pub ops: Vec<Op>,
    /// Their words.
    pub words: Vec<u32>,
    /// Where each is.
    pub blocks: Vec<Ready>,
}

// SAFETY: its ops have no links yet, and nobody else has an address of any of them.
unsafe impl Send for Batch {}

/// Batches that a vCPU was given. They stay until all its code goes.
#[derive(Default)]
pub struct Taken {
    batches: Vec<(*mut Op, Batch)>,
    /// Of each block that was not needed yet, its batch and its place there.
    index: AddressMap<(u32, u32)>,
}

impl Taken {
    /// One more batch.
    pub fn add(&mut self, mut batch: Batch) {
        let number = self.batches.len() as u32;
        for (at, block) in (0..).zip(&batch.blocks) {
            self.index.insert(block.key, (number, at));
        }
        // Its ops are used by this address from now on: none is added any more.
        self.batches.push((batch.ops.as_mut_ptr(), batch));
    }

    /// The block of `key`: room for the op in front of it, which is followed by the
    /// block, and its words. It is given once.
    pub fn take(&mut self, key: u64) -> Option<(*mut Op, &[u32])> {
        let (number, at) = self.index.remove(&key)?;
        let (ops, batch) = self.batches.get(number as usize)?;
        let block = batch.blocks.get(at as usize)?;
        let words = batch.words.get(block.word as usize..)?;
        let words = words.get(..usize::from(block.count))?;
        Some((ops.wrapping_add(block.op as usize), words))
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

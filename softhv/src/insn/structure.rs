//! The loads and stores of SIMD structures: LD1 to LD4, ST1 to ST4, LD1R to LD4R.
//!
//! Memory is one contiguous run of [`StructAccess::total_bytes`] bytes at the base.

use super::operand::{Reg, VReg};

/// Largest number of bytes that one structure access moves: four registers.
pub const MAX_BYTES: usize = 64;

/// What the elements in memory correspond to in the registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lanes {
    /// Every lane.
    All,
    /// One lane, the others staying as they are.
    One(u8),
    /// Every lane receives the same element.
    Replicate,
}

/// What post-indexing adds to the base register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writeback {
    /// No post-index.
    None,
    /// This many bytes, the size of the access.
    Bytes(u8),
    /// What this general register holds.
    Register(Reg),
}

/// A SIMD structure load or store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StructAccess {
    /// Load rather than store.
    pub load: bool,
    /// 128-bit rather than 64-bit registers.
    pub q: bool,
    /// log2 of the bytes of one element.
    pub size: u8,
    /// Registers that follow each other in memory: 1, except for LD1 and ST1
    /// of several registers.
    pub rpt: u8,
    /// Elements of one structure, each in a register of its own.
    pub selem: u8,
    /// Which lanes take part.
    pub lanes: Lanes,
    /// First vector register; those after V31 start again at V0.
    pub rt: VReg,
    /// The base register.
    pub base: Reg,
    /// What the base register is advanced by afterwards.
    pub writeback: Writeback,
}

impl StructAccess {
    /// Bytes moved between memory and registers, 1 to [`MAX_BYTES`].
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        match self.lanes {
            Lanes::All => self.register_bytes() * usize::from(self.rpt * self.selem),
            _ => usize::from(self.selem) << self.size,
        }
    }

    /// Bytes of each register.
    #[must_use]
    pub fn register_bytes(&self) -> usize {
        if self.q { 16 } else { 8 }
    }

    /// The number of the register `index` behind the first.
    #[must_use]
    pub fn register(&self, index: usize) -> usize {
        (usize::from(self.rt.number()) + index) & 31
    }
}

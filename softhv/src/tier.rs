//! The seam to what compiles blocks.
//!
//! Where there is such a tier, each block has one op in front of it, which
//! everything that leads to the block leads to. It counts entries, then leads to
//! the compiled code; should that go, it counts again.

use crate::cpu::op::Op;
use crate::mode::Mode;
use crate::words::Words;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How the vCPUs of a machine execute code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Tier {
    /// What runs often is compiled, where the host lets it; all else is
    /// interpreted.
    #[default]
    Auto,
    /// Everything is interpreted.
    Interpret,
    /// Everything is compiled as soon as it is to run; see [`Tier::must_compile`].
    Compile,
    /// For tests: blocks are compiled after a few entries, and soon dropped again.
    Restless,
    /// Everything is interpreted, one instruction to a block, and counted: see
    /// `counting`.
    Count,
    /// As [`Tier::Compile`], and counts what is executed, several times slower. What the
    /// interpreter executes is right for one vCPU, and that of the process.
    Census,
}

impl Tier {
    /// Whether there are no such machines where nothing can be compiled.
    #[must_use]
    pub const fn must_compile(self) -> bool {
        matches!(self, Self::Compile | Self::Census)
    }

    /// As [`Tier`] `as u8` gave it; what it never gives is [`Tier::Auto`].
    pub(crate) const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Interpret,
            2 => Self::Compile,
            3 => Self::Restless,
            4 => Self::Count,
            5 => Self::Census,
            _ => Self::Auto,
        }
    }
}

/// Keeps ops where they stay as long as the decoded code; `None` if there is no
/// room.
pub type Place<'a> = dyn FnMut(&mut Vec<Op>) -> Option<*mut Op> + 'a;

/// Compiles the blocks of one vCPU.
pub trait Compiler: Send {
    /// Another of the same kind, without any code.
    fn fresh(&self) -> Option<Box<dyn Compiler>>;

    /// Forgets all code. Nobody may be executing it.
    fn clear(&mut self);

    /// In a forked process, before it opens or closes anything: keeps the code, but
    /// closes the files that the parent writes to. Later their numbers may be those
    /// of others.
    fn part(&mut self);

    /// In a forked process: counts the code in the `memory` of its new machine.
    fn settle(&mut self, memory: &Arc<CodeMemory>);

    /// Bytes of host code that there are.
    fn bytes(&self) -> usize;

    /// The op to stand in front of a block of `count` instructions at byte
    /// `offset` of its page, whose words are at `words`. Its link will lead
    /// to the block.
    fn header(&mut self, mode: Mode, offset: u16, words: u32, count: u8) -> Op;

    /// Compiles the block behind `header`, or leaves it to the interpreter for
    /// good: how many instructions it has compiled. All words of all blocks are in
    /// `words`. Whether the vCPU has recorded an `inexact` result by now says what code of
    /// floating point should be good at.
    ///
    /// # Safety
    /// `header` is of [`Compiler::header`], in front of a live block, and lives as
    /// long as what `place` places: until [`Compiler::clear`].
    unsafe fn compile(
        &mut self,
        header: *mut Op,
        words: &Words,
        place: &mut Place<'_>,
        inexact: bool,
    ) -> usize;
}

/// How often a block may yet be entered before it is compiled, and where its
/// words are: what the op in front of it has in its `imm`.
#[derive(Clone, Copy, Debug)]
pub struct Heat;

impl Heat {
    /// For `entries` entries.
    #[must_use]
    pub fn pack(entries: u32, words: u32) -> u64 {
        u64::from(entries) | u64::from(words) << 32
    }

    /// Where the words are.
    #[must_use]
    pub fn words(imm: u64) -> u32 {
        (imm >> 32) as u32
    }

    /// Counts one entry; false if it was the last.
    #[inline(always)]
    pub fn cool(imm: &mut u64) -> bool {
        *imm = imm.wrapping_sub(1);
        *imm as u32 != 0
    }
}

/// How much memory for host code the vCPUs of one machine have, in regions.
///
/// Each vCPU may have one region whatever the others have; what it has beyond
/// that is bounded for all of them together.
#[derive(Debug, Default)]
pub struct CodeMemory(AtomicUsize);

impl CodeMemory {
    /// Regions of a machine at most, beside the first of each vCPU.
    pub const MOST: usize = 64;

    /// Counts one more region; `None` if there are enough, unless it is to be
    /// `always`.
    pub fn take(self: &Arc<Self>, always: bool) -> Option<CodeShare> {
        let more = |now: usize| (always || now < Self::MOST).then_some(now + 1);
        let order = Ordering::Relaxed;
        self.0.fetch_update(order, order, more).ok()?;
        Some(CodeShare(Arc::clone(self)))
    }
}

/// One region in [`CodeMemory`].
#[derive(Debug)]
pub struct CodeShare(Arc<CodeMemory>);

impl Drop for CodeShare {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vcpu_gets_its_first_region_even_when_others_have_all() {
        let memory = Arc::new(CodeMemory::default());
        let mut shares: Vec<_> = (0..CodeMemory::MOST).map(|_| memory.take(false)).collect();
        assert!(shares.iter().all(Option::is_some));
        assert!(memory.take(false).is_none());
        let first = memory.take(true);
        assert!(first.is_some() && memory.take(false).is_none());
        shares.truncate(CodeMemory::MOST - 2);
        assert!(memory.take(false).is_some());
    }
}

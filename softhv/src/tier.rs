//! The seam to what compiles blocks.
//!
//! Where there is such a tier, each block has one op in front of it, which
//! everything that leads to the block leads to. It counts entries, then leads to
//! the compiled code; should that go, it counts again.

use crate::cpu::op::Op;
use crate::mode::Mode;
use crate::words::Words;

/// Keeps ops where they stay as long as the decoded code; `None` if there is no
/// room.
pub type Place<'a> = dyn FnMut(&mut Vec<Op>) -> Option<*mut Op> + 'a;

/// Compiles the blocks of one vCPU.
pub trait Compiler: Send {
    /// Another of the same kind, without any code.
    fn fresh(&self) -> Option<Box<dyn Compiler>>;

    /// Forgets all code. Nobody may be executing it.
    fn clear(&mut self);

    /// In a forked process: keeps the code, but writes nowhere that the parent
    /// does.
    fn settle(&mut self);

    /// The op to stand in front of a block of `count` instructions at byte
    /// `offset` of its page, whose words are at `words`. Its link will lead
    /// to the block.
    fn header(&mut self, mode: Mode, offset: u16, words: u32, count: u8) -> Op;

    /// Compiles the block behind `header`, or leaves it to the interpreter for
    /// good. All words of all blocks are in `words`.
    ///
    /// # Safety
    /// `header` is of [`Compiler::header`], in front of a live block, and lives as
    /// long as what `place` places: until [`Compiler::clear`].
    unsafe fn compile(&mut self, header: *mut Op, words: &Words, place: &mut Place<'_>);
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

//! What both decoders of floating point share.

use crate::cpu::op::{Handler, Op};

/// Bits `hi..=lo` of `word`.
#[inline]
pub(super) fn field(word: u32, hi: u32, lo: u32) -> u32 {
    word >> lo & (u32::MAX >> (31 - (hi - lo)))
}

/// An op on vector registers Rd, Rn and Rm.
pub(super) fn op(word: u32, run: Handler) -> Op {
    Op {
        rd: field(word, 4, 0) as u8,
        rn: field(word, 9, 5) as u8,
        rm: field(word, 20, 16) as u8,
        ..Op::new(run)
    }
}

//! Fields that AdvSIMD words have in common.

use super::bit;
use crate::insn::simd::{Arrangement, VecBinary, VecUnary};
use crate::insn::{Insn, VReg};

/// Whether the class is that of scalars.
pub fn is_scalar(word: u32) -> bool {
    bit(word, 28)
}

/// The lanes of `1 << size` bytes; a vector of one doubleword is reserved.
pub fn lanes(word: u32, size: u32) -> Option<Arrangement> {
    if is_scalar(word) {
        Some(Arrangement::scalar(size))
    } else if size == 3 && !bit(word, 30) {
        None
    } else {
        Some(halves(word, size))
    }
}

/// The lanes of `1 << size` bytes of an operand of which half a register is used, and
/// of scalars.
pub fn halves(word: u32, size: u32) -> Arrangement {
    if is_scalar(word) {
        Arrangement::scalar(size)
    } else {
        Arrangement::vector(size, bit(word, 30))
    }
}

pub fn rd(word: u32) -> VReg {
    VReg::new(word)
}

pub fn rn(word: u32) -> VReg {
    VReg::new(word >> 5)
}

pub fn rm(word: u32) -> VReg {
    VReg::new(word >> 16)
}

pub fn binary(word: u32, op: VecBinary, arrangement: Arrangement) -> Insn {
    Insn::VecBinary {
        op,
        arrangement,
        rd: rd(word),
        rn: rn(word),
        rm: rm(word),
    }
}

pub fn unary(word: u32, op: VecUnary, arrangement: Arrangement) -> Insn {
    Insn::VecUnary {
        op,
        arrangement,
        rd: rd(word),
        rn: rn(word),
    }
}

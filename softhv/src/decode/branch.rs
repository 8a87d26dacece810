//! Branches and exception generation (C4.1.93); system instructions go on.

use super::{bit, bits, signed, system};
use crate::insn::{BranchReg, Call, Cond, Insn, Reg, Width};

pub fn decode(word: u32) -> Insn {
    match bits(word, 29, 3) {
        0 | 4 => Insn::Branch {
            link: bit(word, 31),
            offset: signed(word, 0, 26) << 2,
        },
        1 | 5 if !bit(word, 25) => Insn::CompareBranch {
            nonzero: bit(word, 24),
            width: Width::of(bits(word, 31, 1)),
            rt: Reg::or_zr(word),
            offset: signed(word, 5, 19) << 2,
        },
        1 | 5 => Insn::TestBranch {
            set: bit(word, 24),
            rt: Reg::or_zr(word),
            bit: (bits(word, 31, 1) << 5 | bits(word, 19, 5)) as u8,
            offset: signed(word, 5, 14) << 2,
        },
        2 if bits(word, 24, 2) == 0 && !bit(word, 4) => Insn::BranchCond {
            cond: Cond::of(bits(word, 0, 4)),
            offset: signed(word, 5, 19) << 2,
        },
        6 if bits(word, 24, 2) == 0 => exception(word),
        6 if bits(word, 22, 4) == 4 => system::decode(word),
        6 if bit(word, 25) => register(word),
        _ => Insn::Undefined,
    }
}

fn exception(word: u32) -> Insn {
    let to = match (bits(word, 21, 3), bits(word, 0, 5)) {
        (0, 1) => Call::Svc,
        (0, 2) => Call::Hvc,
        (0, 3) => Call::Smc,
        (1, 0) => Call::Brk,
        _ => return Insn::Undefined,
    };
    Insn::Call {
        to,
        imm: bits(word, 5, 16) as u16,
    }
}

fn register(word: u32) -> Insn {
    // Pointer authentication forms have a non-zero op3 or op4.
    if bits(word, 16, 5) != 31 || bits(word, 10, 6) != 0 || bits(word, 0, 5) != 0 {
        return Insn::Undefined;
    }
    let how = match bits(word, 21, 4) {
        0 => BranchReg::Jump,
        1 => BranchReg::Call,
        2 => BranchReg::Return,
        4 if bits(word, 5, 5) == 31 => return Insn::ExceptionReturn,
        _ => return Insn::Undefined,
    };
    Insn::BranchReg {
        how,
        rn: Reg::or_zr(word >> 5),
    }
}

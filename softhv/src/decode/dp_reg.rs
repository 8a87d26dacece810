//! Data processing, register (C4.1.95).

use super::{bit, bits, width};
use crate::insn::{
    AddSub, Cond, Extend, Insn, Logic, OneSource, Reg, RegOrImm, Select, Shift, Size, TwoSource,
};

pub fn decode(word: u32) -> Insn {
    match (bit(word, 28), bits(word, 21, 4)) {
        (false, op) if op & 8 == 0 => logic(word),
        (false, op) if op & 1 == 0 => add_sub_shifted(word),
        (false, _) => add_sub_extended(word),
        (true, 0) => with_carry(word),
        (true, 2) => conditional_compare(word),
        (true, 4) => conditional_select(word),
        (true, 6) if bit(word, 30) => one_source(word),
        (true, 6) => two_source(word),
        (true, op) if op & 8 != 0 => three_source(word),
        _ => Insn::Undefined,
    }
}

/// Rd, Rn and Rm, 31 being XZR in each.
fn registers(word: u32) -> (Reg, Reg, Reg) {
    (
        Reg::or_zr(word),
        Reg::or_zr(word >> 5),
        Reg::or_zr(word >> 16),
    )
}

fn logic(word: u32) -> Insn {
    let amount = bits(word, 10, 6);
    if !bit(word, 31) && amount >= 32 {
        return Insn::Undefined;
    }
    let (rd, rn, rm) = registers(word);
    Insn::LogicShifted {
        op: Logic::of(bits(word, 29, 2)),
        invert: bit(word, 21),
        width: width(word),
        rd,
        rn,
        rm,
        shift: Shift::of(bits(word, 22, 2)),
        amount: amount as u8,
    }
}

fn add_sub_shifted(word: u32) -> Insn {
    let (kind, amount) = (bits(word, 22, 2), bits(word, 10, 6));
    if kind == 3 || (!bit(word, 31) && amount >= 32) {
        return Insn::Undefined;
    }
    let (rd, rn, rm) = registers(word);
    Insn::AddSubShifted {
        op: AddSub::of(bits(word, 29, 2)),
        width: width(word),
        rd,
        rn,
        rm,
        shift: Shift::of(kind),
        amount: amount as u8,
    }
}

fn add_sub_extended(word: u32) -> Insn {
    let amount = bits(word, 10, 3);
    if amount > 4 || bits(word, 22, 2) != 0 {
        return Insn::Undefined;
    }
    let op = AddSub::of(bits(word, 29, 2));
    Insn::AddSubExtended {
        op,
        width: width(word),
        rd: if op.sets_flags() {
            Reg::or_zr(word)
        } else {
            Reg::or_sp(word)
        },
        rn: Reg::or_sp(word >> 5),
        rm: Reg::or_zr(word >> 16),
        extend: Extend::of(bits(word, 13, 3)),
        amount: amount as u8,
    }
}

fn with_carry(word: u32) -> Insn {
    if bits(word, 10, 6) != 0 {
        return Insn::Undefined;
    }
    let (rd, rn, rm) = registers(word);
    Insn::AddSubCarry {
        op: AddSub::of(bits(word, 29, 2)),
        width: width(word),
        rd,
        rn,
        rm,
    }
}

fn conditional_compare(word: u32) -> Insn {
    if !bit(word, 29) || bit(word, 10) || bit(word, 4) {
        return Insn::Undefined;
    }
    Insn::CondCompare {
        op: if bit(word, 30) {
            AddSub::Subs
        } else {
            AddSub::Adds
        },
        width: width(word),
        rn: Reg::or_zr(word >> 5),
        with: if bit(word, 11) {
            RegOrImm::Imm(bits(word, 16, 5) as u8)
        } else {
            RegOrImm::Reg(Reg::or_zr(word >> 16))
        },
        nzcv: bits(word, 0, 4) as u8,
        cond: Cond::of(bits(word, 12, 4)),
    }
}

fn conditional_select(word: u32) -> Insn {
    let op = match (bits(word, 29, 2), bits(word, 10, 2)) {
        (0, 0) => Select::Plain,
        (0, 1) => Select::Increment,
        (2, 0) => Select::Invert,
        (2, 1) => Select::Negate,
        _ => return Insn::Undefined,
    };
    let (rd, rn, rm) = registers(word);
    Insn::CondSelect {
        op,
        width: width(word),
        rd,
        rn,
        rm,
        cond: Cond::of(bits(word, 12, 4)),
    }
}

fn one_source(word: u32) -> Insn {
    let wide = bit(word, 31);
    if bit(word, 29) || bits(word, 16, 5) != 0 {
        return Insn::Undefined;
    }
    let op = match bits(word, 10, 6) {
        0 => OneSource::Rbit,
        1 => OneSource::Rev16,
        2 if wide => OneSource::Rev32,
        2 => OneSource::Rev,
        3 if wide => OneSource::Rev,
        4 => OneSource::Clz,
        5 => OneSource::Cls,
        _ => return Insn::Undefined,
    };
    Insn::OneSource {
        op,
        width: width(word),
        rd: Reg::or_zr(word),
        rn: Reg::or_zr(word >> 5),
    }
}

fn two_source(word: u32) -> Insn {
    if bit(word, 29) {
        return Insn::Undefined;
    }
    let (rd, rn, rm) = registers(word);
    let opcode = bits(word, 10, 6);
    let op = match opcode {
        2 => TwoSource::Udiv,
        3 => TwoSource::Sdiv,
        8 => TwoSource::Lslv,
        9 => TwoSource::Lsrv,
        10 => TwoSource::Asrv,
        11 => TwoSource::Rorv,
        16..=23 if bit(word, 31) == (opcode & 3 == 3) => {
            return Insn::Crc32 {
                castagnoli: opcode & 4 != 0,
                size: Size::of(opcode & 3),
                rd,
                rn,
                rm,
            };
        }
        _ => return Insn::Undefined,
    };
    Insn::TwoSource {
        op,
        width: width(word),
        rd,
        rn,
        rm,
    }
}

fn three_source(word: u32) -> Insn {
    if bits(word, 29, 2) != 0 {
        return Insn::Undefined;
    }
    let (rd, rn, rm) = registers(word);
    let ra = Reg::or_zr(word >> 10);
    let (subtract, signed) = (bit(word, 15), !bit(word, 23));
    match bits(word, 21, 3) {
        0 => Insn::MultiplyAdd {
            subtract,
            width: width(word),
            rd,
            rn,
            rm,
            ra,
        },
        1 | 5 if bit(word, 31) => Insn::MultiplyAddLong {
            signed,
            subtract,
            rd,
            rn,
            rm,
            ra,
        },
        2 | 6 if bit(word, 31) && !subtract => Insn::MultiplyHigh { signed, rd, rn, rm },
        _ => Insn::Undefined,
    }
}

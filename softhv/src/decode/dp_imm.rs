//! Data processing, immediate (C4.1.92).

use super::{bit, bits, signed, width};
use crate::insn::{AddSub, Bitfield, Insn, Logic, Reg};

pub fn decode(word: u32) -> Insn {
    match bits(word, 23, 3) {
        0 | 1 => pc_relative(word),
        2 => add_sub(word),
        4 => logic(word),
        5 => move_wide(word),
        6 => bitfield(word),
        7 => extract(word),
        _ => Insn::Undefined,
    }
}

fn pc_relative(word: u32) -> Insn {
    let offset = signed(word, 5, 19) << 2 | bits(word, 29, 2) as i32;
    let rd = Reg::or_zr(word);
    if bit(word, 31) {
        Insn::Adrp {
            rd,
            offset: i64::from(offset) << 12,
        }
    } else {
        Insn::Adr { rd, offset }
    }
}

fn add_sub(word: u32) -> Insn {
    let op = AddSub::of(bits(word, 29, 2));
    Insn::AddSubImm {
        op,
        width: width(word),
        // What sets flags writes XZR: a comparison.
        rd: if op.sets_flags() {
            Reg::or_zr(word)
        } else {
            Reg::or_sp(word)
        },
        rn: Reg::or_sp(word >> 5),
        imm: bits(word, 10, 12) << if bit(word, 22) { 12 } else { 0 },
    }
}

/// DecodeBitMasks of the Arm ARM: the immediate of logical instructions.
pub fn bit_mask(n: u32, imms: u32, immr: u32, wide: bool) -> Option<u64> {
    let length = 31 - (n << 6 | !imms & 0x3f).leading_zeros().min(31);
    if length == 0 || n << 6 | (!imms & 0x3f) == 0 {
        return None;
    }
    let size = 1u32 << length;
    if !wide && size == 64 {
        return None;
    }
    let levels = size - 1;
    let (s, r) = (imms & levels, immr & levels);
    if s == levels {
        return None;
    }
    let ones = (1u64 << (s + 1)) - 1;
    let mask = if size == 64 {
        u64::MAX
    } else {
        (1 << size) - 1
    };
    let rotated = if r == 0 {
        ones
    } else {
        (ones >> r | ones << (size - r)) & mask
    };
    let mut value = rotated;
    let mut filled = size;
    while filled < 64 {
        value |= value << filled;
        filled *= 2;
    }
    Some(if wide { value } else { value & 0xffff_ffff })
}

fn logic(word: u32) -> Insn {
    let mask = bit_mask(
        bits(word, 22, 1),
        bits(word, 10, 6),
        bits(word, 16, 6),
        bit(word, 31),
    );
    let Some(imm) = mask else {
        return Insn::Undefined;
    };
    let op = Logic::of(bits(word, 29, 2));
    Insn::LogicImm {
        op,
        width: width(word),
        rd: if op == Logic::Ands {
            Reg::or_zr(word)
        } else {
            Reg::or_sp(word)
        },
        rn: Reg::or_zr(word >> 5),
        imm,
    }
}

fn move_wide(word: u32) -> Insn {
    let wide = bit(word, 31);
    let position = bits(word, 21, 2) * 16;
    if !wide && position >= 32 {
        return Insn::Undefined;
    }
    let (width, rd) = (width(word), Reg::or_zr(word));
    let imm = bits(word, 5, 16) as u16;
    let value = u64::from(imm) << position;
    let cut = if wide { u64::MAX } else { 0xffff_ffff };
    match bits(word, 29, 2) {
        0 => Insn::MoveImm {
            width,
            rd,
            value: !value & cut,
        },
        2 => Insn::MoveImm { width, rd, value },
        3 => Insn::MoveKeep {
            width,
            rd,
            imm,
            position: position as u8,
        },
        _ => Insn::Undefined,
    }
}

fn bitfield(word: u32) -> Insn {
    let wide = bit(word, 31);
    let (immr, imms) = (bits(word, 16, 6), bits(word, 10, 6));
    let op = bits(word, 29, 2);
    let fits = wide || immr < 32 && imms < 32;
    if op == 3 || bit(word, 22) != wide || !fits {
        return Insn::Undefined;
    }
    Insn::Bitfield {
        op: Bitfield::of(op),
        width: width(word),
        rd: Reg::or_zr(word),
        rn: Reg::or_zr(word >> 5),
        immr: immr as u8,
        imms: imms as u8,
    }
}

fn extract(word: u32) -> Insn {
    let wide = bit(word, 31);
    let lsb = bits(word, 10, 6);
    if bits(word, 29, 2) != 0 || bit(word, 21) || bit(word, 22) != wide || (!wide && lsb >= 32) {
        return Insn::Undefined;
    }
    Insn::Extract {
        width: width(word),
        rd: Reg::or_zr(word),
        rn: Reg::or_zr(word >> 5),
        rm: Reg::or_zr(word >> 16),
        lsb: lsb as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::bit_mask;

    #[test]
    fn logical_immediates_match_the_architecture() {
        assert_eq!(bit_mask(1, 0, 0, true), Some(1));
        assert_eq!(bit_mask(1, 0b11_1111, 0, true), None);
        assert_eq!(bit_mask(0, 0b11_1100, 0, true), Some(0x5555_5555_5555_5555));
        assert_eq!(bit_mask(0, 0b00_0111, 0, false), Some(0xff));
        assert_eq!(bit_mask(0, 0b00_0111, 4, false), Some(0xf000_000f));
        assert_eq!(bit_mask(1, 0b00_0111, 0, false), None);
        assert_eq!(bit_mask(0, 0b11_1110, 0, false), None);
        assert_eq!(bit_mask(1, 0b11_1110, 1, true), Some(0xbfff_ffff_ffff_ffff));
    }
}

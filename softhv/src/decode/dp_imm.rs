//! Data processing, immediate (C4.1.92).

use super::{Decoded, bit, bits, sf, signed, undefined};
use crate::cpu::op::{SP, dst, src};
use crate::exec::int;
use crate::pure_op;

pub fn decode(word: u32) -> Decoded {
    match bits(word, 23, 3) {
        0 | 1 => pc_relative(word),
        2 => add_sub(word),
        4 => logical(word),
        5 => move_wide(word),
        6 => bitfield(word),
        7 => extract(word),
        _ => undefined(),
    }
}

/// The slot of `r` where 31 is the stack pointer.
fn or_sp(r: u32) -> u8 {
    if r & 31 == 31 { SP } else { (r & 31) as u8 }
}

fn pc_relative(word: u32) -> Decoded {
    let imm = signed(word, 5, 19) << 2 | u64::from(bits(word, 29, 2));
    if bit(word, 31) {
        Decoded::new(pure_op!(int::adrp))
            .rd(dst(word))
            .imm(imm << 12)
    } else {
        Decoded::new(pure_op!(int::adr)).rd(dst(word)).imm(imm)
    }
}

fn add_sub(word: u32) -> Decoded {
    let wide = bit(word, 31);
    let imm = u64::from(bits(word, 10, 12)) << if bit(word, 22) { 12 } else { 0 };
    let rn = or_sp(word >> 5);
    match bits(word, 29, 2) {
        0 => Decoded::new(sf!(wide, add_imm)).rd(or_sp(word)).imm(imm),
        1 => Decoded::new(sf!(wide, adds_imm)).rd(dst(word)).imm(imm),
        2 => Decoded::new(sf!(wide, add_imm))
            .rd(or_sp(word))
            .imm(imm.wrapping_neg()),
        _ => Decoded::new(sf!(wide, subs_imm)).rd(dst(word)).imm(imm),
    }
    .rn(rn)
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

fn logical(word: u32) -> Decoded {
    let wide = bit(word, 31);
    let mask = bit_mask(
        bits(word, 22, 1),
        bits(word, 10, 6),
        bits(word, 16, 6),
        wide,
    );
    let Some(imm) = mask else {
        return undefined();
    };
    let rn = src(word >> 5);
    match bits(word, 29, 2) {
        0 => Decoded::new(sf!(wide, and_imm)).rd(or_sp(word)),
        1 if rn == crate::cpu::op::ZERO => Decoded::new(pure_op!(int::constant)).rd(or_sp(word)),
        1 => Decoded::new(sf!(wide, orr_imm)).rd(or_sp(word)),
        2 => Decoded::new(sf!(wide, eor_imm)).rd(or_sp(word)),
        _ => Decoded::new(sf!(wide, ands_imm)).rd(dst(word)),
    }
    .rn(rn)
    .imm(imm)
}

fn move_wide(word: u32) -> Decoded {
    let wide = bit(word, 31);
    let shift = bits(word, 21, 2) * 16;
    if !wide && shift >= 32 {
        return undefined();
    }
    let imm = u64::from(bits(word, 5, 16));
    let cut = if wide { u64::MAX } else { 0xffff_ffff };
    match bits(word, 29, 2) {
        0 => Decoded::new(pure_op!(int::constant)).imm(!(imm << shift) & cut),
        2 => Decoded::new(pure_op!(int::constant)).imm(imm << shift),
        3 => Decoded::new(sf!(wide, movk)).imm(imm).aux(shift as u16),
        _ => return undefined(),
    }
    .rd(dst(word))
}

fn bitfield(word: u32) -> Decoded {
    let wide = bit(word, 31);
    let size = if wide { 64 } else { 32 };
    let (r, s) = (bits(word, 16, 6), bits(word, 10, 6));
    if bit(word, 22) != wide || r >= size || s >= size {
        return undefined();
    }
    let ones = |count: u32| u64::MAX >> (64 - count);
    let decoded = match bits(word, 29, 2) {
        0 if s >= r => {
            let up = size - 1 - s;
            if up == 0 {
                Decoded::new(sf!(wide, asr_imm)).aux(r as u16)
            } else {
                Decoded::new(sf!(wide, sbfm)).aux((up | (up + r) << 8) as u16)
            }
        }
        0 => Decoded::new(sf!(wide, sbfm)).aux(((size - 1 - s) | (r - s - 1) << 8) as u16),
        1 if s >= r => Decoded::new(sf!(wide, bfm))
            .imm(ones(s - r + 1))
            .aux(r as u16),
        1 => Decoded::new(sf!(wide, bfm))
            .imm(ones(s + 1) << (size - r))
            .aux(r as u16),
        2 if s == size - 1 => Decoded::new(sf!(wide, lsr_imm)).aux(r as u16),
        2 if s + 1 == r => Decoded::new(sf!(wide, lsl_imm)).aux((size - r) as u16),
        2 if s >= r => Decoded::new(sf!(wide, ubfx))
            .imm(ones(s - r + 1))
            .aux(r as u16),
        2 => Decoded::new(sf!(wide, ubfiz))
            .imm(ones(s + 1))
            .aux((size - r) as u16),
        _ => return undefined(),
    };
    // BFM keeps bits of its destination, so XZR reads as what it is.
    let rd = dst(word);
    if bits(word, 29, 2) == 1 && rd == crate::cpu::op::SINK {
        return Decoded::new(pure_op!(int::nop));
    }
    decoded.rd(rd).rn(src(word >> 5))
}

fn extract(word: u32) -> Decoded {
    let wide = bit(word, 31);
    let lsb = bits(word, 10, 6);
    if bits(word, 29, 2) != 0 || bit(word, 21) || bit(word, 22) != wide || (!wide && lsb >= 32) {
        return undefined();
    }
    let (rn, rm) = (src(word >> 5), src(word >> 16));
    let run = if lsb == 0 {
        sf!(wide, mov)
    } else if rn == rm {
        sf!(wide, ror_imm)
    } else {
        sf!(wide, extr)
    };
    Decoded::new(run)
        .rd(dst(word))
        .rn(rn)
        .rm(rm)
        .aux(lsb as u16)
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

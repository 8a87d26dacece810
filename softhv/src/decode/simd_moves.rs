//! AdvSIMD moves, permutations, cryptography and immediates (C4.1.96).

use super::simd_fields::{binary, lanes, rd, rm, rn, unary};
use super::{bit, bits};
use crate::insn::simd::{Arrangement, VecBinary, VecImm, VecUnary};
use crate::insn::{Insn, Reg, Width};

/// ZIP, UZP, TRN.
pub fn zip(word: u32) -> Option<Insn> {
    let op = match bits(word, 12, 3) {
        1 => VecBinary::Uzp1,
        2 => VecBinary::Trn1,
        3 => VecBinary::Zip1,
        5 => VecBinary::Uzp2,
        6 => VecBinary::Trn2,
        7 => VecBinary::Zip2,
        _ => return None,
    };
    Some(binary(word, op, lanes(word, bits(word, 22, 2))?))
}

pub fn aes(word: u32) -> Option<Insn> {
    let op = match bits(word, 12, 5) {
        0b00100 => VecUnary::Aese,
        0b00101 => VecUnary::Aesd,
        0b00110 => VecUnary::Aesmc,
        0b00111 => VecUnary::Aesimc,
        _ => return None,
    };
    Some(unary(word, op, Arrangement::B16))
}

pub fn sha_three(word: u32) -> Option<Insn> {
    let op = match bits(word, 12, 3) {
        0 => VecBinary::Sha1c,
        1 => VecBinary::Sha1p,
        2 => VecBinary::Sha1m,
        3 => VecBinary::Sha1su0,
        4 => VecBinary::Sha256h,
        5 => VecBinary::Sha256h2,
        6 => VecBinary::Sha256su1,
        _ => return None,
    };
    Some(binary(word, op, Arrangement::S4))
}

pub fn sha_two(word: u32) -> Option<Insn> {
    let op = match bits(word, 12, 5) {
        0 => VecUnary::Sha1h,
        1 => VecUnary::Sha1su1,
        2 => VecUnary::Sha256su0,
        _ => return None,
    };
    Some(unary(word, op, Arrangement::S4))
}

/// EXT: bytes from the middle of Vm:Vn.
pub fn extract(word: u32) -> Option<Insn> {
    let (position, full) = (bits(word, 11, 4), bit(word, 30));
    if bits(word, 22, 2) != 0 || !full && position >= 8 {
        return None;
    }
    Some(Insn::VecExtract {
        full,
        rd: rd(word),
        rn: rn(word),
        rm: rm(word),
        position: position as u8,
    })
}

pub fn table(word: u32) -> Option<Insn> {
    (bits(word, 22, 2) == 0).then(|| Insn::VecTable {
        keep: bit(word, 12),
        full: bit(word, 30),
        registers: bits(word, 13, 2) as u8 + 1,
        rd: rd(word),
        rn: rn(word),
        rm: rm(word),
    })
}

/// log2 of the element bytes and the lane index in imm5: the lowest set bit gives
/// the size, the bits above it the index.
fn element(word: u32) -> Option<(u32, u8)> {
    let imm5 = bits(word, 16, 5);
    let size = imm5.trailing_zeros();
    (size <= 3).then(|| (size, (imm5 >> (size + 1)) as u8))
}

/// Moves of single elements.
pub fn copy(word: u32) -> Option<Insn> {
    let (size, index) = element(word)?;
    let (full, imm4) = (bit(word, 30), bits(word, 11, 4));
    let (rd, rn) = (rd(word), rn(word));
    let general = Reg::or_zr(word >> 5);
    let one = Arrangement::scalar(size);
    if bit(word, 29) {
        return full.then(|| Insn::VecInsert {
            element: one,
            rd,
            index,
            rn,
            from: (imm4 >> size) as u8,
        });
    }
    Some(match imm4 {
        0b0000 => Insn::VecDup {
            arrangement: lanes(word, size)?,
            rd,
            rn,
            index,
        },
        0b0001 => Insn::VecDupGeneral {
            arrangement: lanes(word, size)?,
            rd,
            rn: general,
        },
        0b0011 if full => Insn::VecInsertGeneral {
            element: one,
            rd,
            index,
            rn: general,
        },
        // SMOV to a W register of bytes and halfwords, to an X of words too;
        // UMOV: only the doubleword needs the X form.
        0b0101 | 0b0111 => {
            let signed = imm4 == 0b0101;
            let allocated = if signed {
                size < 2 || full && size == 2
            } else {
                full == (size == 3)
            };
            if !allocated {
                return None;
            }
            Insn::VecToGeneral {
                element: one,
                signed,
                width: Width::of(u32::from(full)),
                rd: Reg::or_zr(word),
                rn,
                index,
            }
        }
        _ => return None,
    })
}

/// DUP of an element to a scalar.
pub fn copy_scalar(word: u32) -> Option<Insn> {
    let (size, index) = element(word)?;
    (!bit(word, 29) && bits(word, 11, 4) == 0).then(|| Insn::VecDup {
        arrangement: Arrangement::scalar(size),
        rd: rd(word),
        rn: rn(word),
        index,
    })
}

/// The 64-bit pattern of `imm8` under `cmode` and `op`: AdvSIMDExpandImm.
fn expand(imm8: u64, cmode: u32, op: bool) -> u64 {
    let words = |word: u64| word << 32 | word;
    let halves = |half: u64| words(half << 16 | half);
    match cmode >> 1 {
        shift @ 0..=3 => words(imm8 << (8 * shift)),
        4 => halves(imm8),
        5 => halves(imm8 << 8),
        // shifting ones in
        6 if cmode & 1 == 0 => words(imm8 << 8 | 0xff),
        6 => words(imm8 << 16 | 0xffff),
        _ => match (cmode & 1, op) {
            (0, false) => halves(imm8 << 8 | imm8),
            // each bit becomes a byte
            (0, true) => (0..8).fold(0, |all, bit| all | ((imm8 >> bit & 1) * 0xff) << (8 * bit)),
            (_, false) => words(single(imm8)),
            (_, true) => double(imm8),
        },
    }
}

/// Sign, exponent of one inverted and repeated bit and two plain ones, and
/// four fraction bits, as a single.
fn single(imm8: u64) -> u64 {
    let exponent = if imm8 & 0x40 == 0 { 0x80 } else { 0x7c };
    (imm8 >> 7) << 31 | (exponent | imm8 >> 4 & 3) << 23 | (imm8 & 0xf) << 19
}

/// The same as a double.
fn double(imm8: u64) -> u64 {
    let exponent = if imm8 & 0x40 == 0 { 0x400 } else { 0x3fc };
    (imm8 >> 7) << 63 | (exponent | imm8 >> 4 & 3) << 52 | (imm8 & 0xf) << 48
}

/// MOVI, MVNI, FMOV (vector, immediate), ORR and BIC (vector, immediate): what has
/// zero where shifts have immh.
pub fn modified_imm(word: u32) -> Option<Insn> {
    let (cmode, inverted) = (bits(word, 12, 4), bit(word, 29));
    let full = bit(word, 30);
    // o2 is half-precision FMOV; a 64-bit FMOV needs the whole register.
    if bit(word, 11) || cmode == 0b1111 && inverted && !full {
        return None;
    }
    let imm8 = u64::from(bits(word, 16, 3) << 5 | bits(word, 5, 5));
    let value = expand(imm8, cmode, inverted);
    // Odd cmodes below 12 merge into the register.
    let merges = cmode < 12 && cmode & 1 == 1;
    let (op, bits) = match (merges, inverted) {
        (true, false) => (VecImm::Or, value),
        (true, true) => (VecImm::And, !value),
        (false, true) if cmode < 14 => (VecImm::Move, !value),
        (false, _) => (VecImm::Move, value),
    };
    Some(Insn::VecImm {
        op,
        full,
        rd: rd(word),
        bits,
    })
}

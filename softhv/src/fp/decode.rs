//! Decoding of the scalar floating-point instructions (Arm ARM C4.1.97), and
//! the entry point for the AdvSIMD ones.
//!
//! Half precision exists only as a format to convert from and to: FP16
//! arithmetic is not advertised, so its encodings are undefined.

use super::decode_simd;
use super::fields::{field, op};
use super::format::{Double, Half, Single};
use super::ops::{Add, Div, Max, MaxNum, Min, MinNum, Mul, NegMul, Sqrt, Sub};
use super::scalar;
use crate::cpu::op::{Op, dst, src};
use crate::pure_op;

/// Chooses between the single and the double instance of a generic handler.
macro_rules! by_type {
    ($double:expr, $f:ident, [$($before:ty),*] $(, $c:expr)*) => {
        if $double {
            pure_op!(scalar::$f::<$($before,)* Double $(, $c)*>)
        } else {
            pure_op!(scalar::$f::<$($before,)* Single $(, $c)*>)
        }
    };
}

/// Decodes a floating-point instruction, scalar or AdvSIMD; `None` if `word`
/// is none, or is unallocated, or belongs to an extension not advertised.
pub fn decode(word: u32) -> Option<Op> {
    match field(word, 28, 24) {
        // Bits 31, 30 and 29 are M or sf, 0 and S.
        0b11110 if word >> 29 & 3 == 0 => decode_scalar(word),
        0b11111 if word >> 29 == 0 => fused(word),
        _ => decode_simd::decode(word),
    }
}

/// Whether the type field says double; `None` for half and the reserved value.
fn is_double(word: u32) -> Option<bool> {
    match field(word, 23, 22) {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn decode_scalar(word: u32) -> Option<Op> {
    let wide = word >> 31 != 0;
    if word >> 21 & 1 == 0 {
        return fixed(word, wide);
    }
    if field(word, 15, 10) == 0 {
        return integer(word, wide);
    }
    if wide {
        return None;
    }
    match field(word, 11, 10) {
        0b01 => conditional_compare(word),
        0b10 => two_source(word),
        0b11 => {
            let run = by_type!(is_double(word)?, select, []);
            Some(Op {
                aux: field(word, 15, 12) as u16,
                ..op(word, run)
            })
        }
        _ if word >> 12 & 1 == 1 => immediate(word),
        _ if word >> 13 & 1 == 1 => compare(word),
        _ if word >> 14 & 1 == 1 => one_source(word),
        _ => None,
    }
}

fn fused(word: u32) -> Option<Op> {
    let double = is_double(word)?;
    let run = match (word >> 21 & 1, word >> 15 & 1) {
        (0, 0) => by_type!(double, fused, [], false, false),
        (0, _) => by_type!(double, fused, [], false, true),
        (_, 0) => by_type!(double, fused, [], true, true),
        _ => by_type!(double, fused, [], true, false),
    };
    Some(Op {
        ra: field(word, 14, 10) as u8,
        ..op(word, run)
    })
}

fn two_source(word: u32) -> Option<Op> {
    let double = is_double(word)?;
    let run = match field(word, 15, 12) {
        0 => by_type!(double, two, [Mul]),
        1 => by_type!(double, two, [Div]),
        2 => by_type!(double, two, [Add]),
        3 => by_type!(double, two, [Sub]),
        4 => by_type!(double, two, [Max]),
        5 => by_type!(double, two, [Min]),
        6 => by_type!(double, two, [MaxNum]),
        7 => by_type!(double, two, [MinNum]),
        8 => by_type!(double, two, [NegMul]),
        _ => return None,
    };
    Some(op(word, run))
}

fn one_source(word: u32) -> Option<Op> {
    let opcode = field(word, 20, 15);
    if let 4 | 5 | 7 = opcode {
        let run = match (field(word, 23, 22), opcode) {
            (0, 5) => pure_op!(scalar::widen),
            (0, 7) => pure_op!(scalar::convert::<Single, Half>),
            (1, 4) => pure_op!(scalar::narrow),
            (1, 7) => pure_op!(scalar::convert::<Double, Half>),
            (3, 4) => pure_op!(scalar::convert::<Half, Single>),
            (3, 5) => pure_op!(scalar::convert::<Half, Double>),
            _ => return None,
        };
        return Some(op(word, run));
    }
    let double = is_double(word)?;
    let run = match opcode {
        0 => by_type!(double, mov, []),
        1 => by_type!(double, abs, []),
        2 => by_type!(double, neg, []),
        3 => by_type!(double, one, [Sqrt]),
        8..=12 | 14 | 15 => by_type!(double, round, []),
        _ => return None,
    };
    let aux = match opcode {
        14 | 15 => scalar::CURRENT,
        // FRINTN, P, M, Z, A: the codes of FPCR.RMode, then ties away.
        opcode => opcode as u16 & 7,
    };
    Some(Op {
        aux,
        imm: u64::from(opcode == 14),
        ..op(word, run)
    })
}

fn compare(word: u32) -> Option<Op> {
    let double = is_double(word)?;
    if field(word, 15, 14) != 0 {
        return None;
    }
    let run = match field(word, 4, 0) {
        0b00000 => by_type!(double, cmp, [], false),
        0b01000 => by_type!(double, cmp_zero, [], false),
        0b10000 => by_type!(double, cmp, [], true),
        0b11000 => by_type!(double, cmp_zero, [], true),
        _ => return None,
    };
    Some(op(word, run))
}

fn conditional_compare(word: u32) -> Option<Op> {
    let double = is_double(word)?;
    let run = if word >> 4 & 1 == 0 {
        by_type!(double, ccmp, [], false)
    } else {
        by_type!(double, ccmp, [], true)
    };
    Some(Op {
        aux: field(word, 15, 12) as u16,
        imm: u64::from(word & 15) << 28,
        ..op(word, run)
    })
}

/// The number that an 8-bit immediate stands for (VFPExpandImm): sign, three
/// bits of exponent around one, four bits of fraction.
pub fn expand_imm(imm8: u64, double: bool) -> u64 {
    let sign = imm8 >> 7;
    let high = imm8 >> 6 & 1;
    let low = imm8 & 0x3f;
    if double {
        let exp = if high == 1 { 0x0ff << 54 } else { 1 << 62 };
        sign << 63 | exp | low << 48
    } else {
        let exp = if high == 1 { 0x1f << 25 } else { 1 << 30 };
        sign << 31 | exp | low << 19
    }
}

fn immediate(word: u32) -> Option<Op> {
    let double = is_double(word)?;
    if field(word, 9, 5) != 0 {
        return None;
    }
    Some(Op {
        imm: expand_imm(u64::from(field(word, 20, 13)), double),
        ..op(word, pure_op!(scalar::mov_imm))
    })
}

/// Chooses the instance for operand type, register width and signedness.
macro_rules! by_integer {
    ($double:expr, $wide:expr, $unsigned:expr, $f:ident) => {
        match ($wide, $unsigned) {
            (false, false) => by_type!($double, $f, [], false, false),
            (false, true) => by_type!($double, $f, [], false, true),
            (true, false) => by_type!($double, $f, [], true, false),
            (true, true) => by_type!($double, $f, [], true, true),
        }
    };
}

/// Conversion between a scalar and a fixed-point number in a general register.
fn fixed(word: u32, wide: bool) -> Option<Op> {
    let double = is_double(word)?;
    let scale = field(word, 15, 10);
    if !wide && scale < 32 {
        return None;
    }
    let imm = u64::from(64 - scale);
    let unsigned = word >> 16 & 1 == 1;
    match field(word, 20, 17) {
        0b0001 => Some(Op {
            rn: src(word >> 5),
            imm,
            ..op(word, by_integer!(double, wide, unsigned, from_gpr))
        }),
        0b1100 => Some(Op {
            rd: dst(word),
            imm,
            aux: 3,
            ..op(word, by_integer!(double, wide, unsigned, to_gpr))
        }),
        _ => None,
    }
}

/// Conversion between a scalar and an integer in a general register, and moves.
fn integer(word: u32, wide: bool) -> Option<Op> {
    let (rmode, opcode) = (field(word, 20, 19), field(word, 18, 16));
    if opcode >= 6 {
        return transfer(word, wide, rmode, opcode);
    }
    let double = is_double(word)?;
    let unsigned = opcode & 1 == 1;
    let (run, code) = match (rmode, opcode) {
        (0, 2 | 3) => {
            let run = by_integer!(double, wide, unsigned, from_int);
            return Some(Op {
                rn: src(word >> 5),
                ..op(word, run)
            });
        }
        (3, 0 | 1) => (by_integer!(double, wide, unsigned, truncate), 3),
        (_, 0 | 1) => (by_integer!(double, wide, unsigned, to_gpr), rmode),
        (0, 4 | 5) => (by_integer!(double, wide, unsigned, to_gpr), 4),
        _ => return None,
    };
    Some(Op {
        rd: dst(word),
        aux: code as u16,
        ..op(word, run)
    })
}

fn transfer(word: u32, wide: bool, rmode: u32, opcode: u32) -> Option<Op> {
    let to_gpr = opcode == 6;
    let run = match (wide, field(word, 23, 22), rmode, to_gpr) {
        (false, 0, 0, true) => pure_op!(scalar::bits_to_gpr::<Single>),
        (false, 0, 0, false) => pure_op!(scalar::bits_from_gpr::<Single>),
        (true, 1, 0, true) => pure_op!(scalar::bits_to_gpr::<Double>),
        (true, 1, 0, false) => pure_op!(scalar::bits_from_gpr::<Double>),
        (true, 2, 1, true) => pure_op!(scalar::top_to_gpr),
        (true, 2, 1, false) => pure_op!(scalar::top_from_gpr),
        (false, 1, 3, true) => pure_op!(scalar::javascript),
        _ => return None,
    };
    let op = op(word, run);
    Some(if to_gpr {
        Op {
            rd: dst(word),
            ..op
        }
    } else {
        Op {
            rn: src(word >> 5),
            ..op
        }
    })
}

//! Scalar floating point (C4.1.97).
//!
//! Half precision exists only as a format to convert from and to: FP16
//! arithmetic is not advertised, so its encodings are undefined.

use super::{bit, bits, width};
use crate::insn::{Cond, FpBinary, FpFormat, FpMove, FpUnary, Insn, Reg, Rounding, VReg};

/// Words with bits 28:24 as in scalar floating point and bit 30 clear.
pub fn decode(word: u32) -> Insn {
    // Bit 29 is S, which nothing here has.
    let insn = if bit(word, 29) {
        None
    } else if bit(word, 24) {
        multiply_add(word)
    } else if !bit(word, 21) {
        fixed(word)
    } else if bits(word, 10, 6) == 0 {
        integer(word)
    } else if bit(word, 31) {
        None
    } else {
        scalar(word)
    };
    insn.unwrap_or(Insn::Undefined)
}

/// The format of arithmetic; `None` for half and the reserved value.
fn format(word: u32) -> Option<FpFormat> {
    match bits(word, 22, 2) {
        0 => Some(FpFormat::S),
        1 => Some(FpFormat::D),
        _ => None,
    }
}

fn rd(word: u32) -> VReg {
    VReg::new(word)
}

fn rn(word: u32) -> VReg {
    VReg::new(word >> 5)
}

fn rm(word: u32) -> VReg {
    VReg::new(word >> 16)
}

fn scalar(word: u32) -> Option<Insn> {
    match bits(word, 10, 2) {
        0b01 => Some(Insn::FpCondCompare {
            signal: bit(word, 4),
            format: format(word)?,
            rn: rn(word),
            rm: rm(word),
            nzcv: bits(word, 0, 4) as u8,
            cond: Cond::of(bits(word, 12, 4)),
        }),
        0b10 => {
            let opcode = bits(word, 12, 4);
            let format = format(word)?;
            (opcode <= 8).then(|| Insn::FpBinary {
                op: FpBinary::of(opcode),
                format,
                rd: rd(word),
                rn: rn(word),
                rm: rm(word),
            })
        }
        0b11 => Some(Insn::FpSelect {
            format: format(word)?,
            rd: rd(word),
            rn: rn(word),
            rm: rm(word),
            cond: Cond::of(bits(word, 12, 4)),
        }),
        _ if bit(word, 12) => immediate(word),
        _ if bit(word, 13) => compare(word),
        _ if bit(word, 14) => one_source(word),
        _ => None,
    }
}

fn multiply_add(word: u32) -> Option<Insn> {
    if bit(word, 31) {
        return None;
    }
    let (negated, subtracted) = (bit(word, 21), bit(word, 15));
    Some(Insn::FpMultiplyAdd {
        negate_addend: negated,
        negate_product: negated != subtracted,
        format: format(word)?,
        rd: rd(word),
        rn: rn(word),
        rm: rm(word),
        ra: VReg::new(word >> 10),
    })
}

fn one_source(word: u32) -> Option<Insn> {
    let opcode = bits(word, 15, 6);
    let (rd, rn) = (rd(word), rn(word));
    if let 4 | 5 | 7 = opcode {
        use FpFormat::{D, H, S};
        let (from, to) = match (bits(word, 22, 2), opcode) {
            (0, 5) => (S, D),
            (0, 7) => (S, H),
            (1, 4) => (D, S),
            (1, 7) => (D, H),
            (3, 4) => (H, S),
            (3, 5) => (H, D),
            _ => return None,
        };
        return Some(Insn::FpConvert { from, to, rd, rn });
    }
    let format = format(word)?;
    Some(match opcode {
        0..=3 => Insn::FpUnary {
            op: FpUnary::of(opcode),
            format,
            rd,
            rn,
        },
        // N, P, M, Z, A; then X and I.
        8..=12 | 14 | 15 => Insn::FpRound {
            to: Rounding::of(opcode - 8),
            exact: opcode == 14,
            format,
            rd,
            rn,
        },
        _ => return None,
    })
}

fn compare(word: u32) -> Option<Insn> {
    if bits(word, 14, 2) != 0 || bits(word, 0, 3) != 0 {
        return None;
    }
    Some(Insn::FpCompare {
        signal: bit(word, 4),
        format: format(word)?,
        rn: rn(word),
        rm: (!bit(word, 3)).then(|| rm(word)),
    })
}

/// The number that an 8-bit immediate stands for (VFPExpandImm): sign, three
/// bits of exponent around one, four bits of fraction.
pub fn expand_imm(imm8: u64, format: FpFormat) -> u64 {
    let sign = imm8 >> 7;
    let high = imm8 >> 6 & 1;
    let low = imm8 & 0x3f;
    if format == FpFormat::D {
        let exp = if high == 1 { 0x0ff << 54 } else { 1 << 62 };
        sign << 63 | exp | low << 48
    } else {
        let exp = if high == 1 { 0x1f << 25 } else { 1 << 30 };
        sign << 31 | exp | low << 19
    }
}

fn immediate(word: u32) -> Option<Insn> {
    let format = format(word)?;
    (bits(word, 5, 5) == 0).then(|| Insn::FpImm {
        format,
        rd: rd(word),
        bits: expand_imm(u64::from(bits(word, 13, 8)), format),
    })
}

/// Conversion between a scalar and a fixed-point number in a general register.
fn fixed(word: u32) -> Option<Insn> {
    let format = format(word)?;
    let scale = bits(word, 10, 6);
    if !bit(word, 31) && scale < 32 {
        return None;
    }
    let fraction = 64 - scale as u8;
    let signed = !bit(word, 16);
    match bits(word, 17, 4) {
        0b0001 => Some(Insn::FpFromInt {
            format,
            width: width(word),
            signed,
            fraction,
            rd: rd(word),
            rn: Reg::or_zr(word >> 5),
        }),
        0b1100 => Some(Insn::FpToInt {
            format,
            width: width(word),
            signed,
            rounding: Rounding::Zero,
            fraction,
            rd: Reg::or_zr(word),
            rn: rn(word),
        }),
        _ => None,
    }
}

/// Conversion between a scalar and an integer in a general register, and moves.
fn integer(word: u32) -> Option<Insn> {
    let (rmode, opcode) = (bits(word, 19, 2), bits(word, 16, 3));
    if opcode >= 6 {
        return transfer(word, rmode, opcode == 6);
    }
    let format = format(word)?;
    let signed = opcode & 1 == 0;
    let rounding = match (rmode, opcode) {
        (0, 2 | 3) => {
            return Some(Insn::FpFromInt {
                format,
                width: width(word),
                signed,
                fraction: 0,
                rd: rd(word),
                rn: Reg::or_zr(word >> 5),
            });
        }
        (_, 0 | 1) => Rounding::of(rmode),
        (0, 4 | 5) => Rounding::Away,
        _ => return None,
    };
    Some(Insn::FpToInt {
        format,
        width: width(word),
        signed,
        rounding,
        fraction: 0,
        rd: Reg::or_zr(word),
        rn: rn(word),
    })
}

fn transfer(word: u32, rmode: u32, to_general: bool) -> Option<Insn> {
    let (rd, rn) = (Reg::or_zr(word), rn(word));
    let part = match (bit(word, 31), bits(word, 22, 2), rmode) {
        (false, 0, 0) => FpMove::S,
        (true, 1, 0) => FpMove::D,
        (true, 2, 1) => FpMove::Top,
        (false, 1, 3) if to_general => return Some(Insn::FpToIntJs { rd, rn }),
        _ => return None,
    };
    Some(if to_general {
        Insn::FpToGeneral { part, rd, rn }
    } else {
        Insn::FpFromGeneral {
            part,
            rd: VReg::new(word),
            rn: Reg::or_zr(word >> 5),
        }
    })
}

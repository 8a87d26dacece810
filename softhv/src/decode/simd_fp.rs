//! AdvSIMD floating-point arithmetic, vector and scalar (C4.1.96).

use super::{bit, bits};
use crate::insn::simd::{Arrangement, VecFpBinary, VecFpUnary};
use crate::insn::{Insn, Rounding, VReg};

pub fn decode(word: u32) -> Option<Insn> {
    let scalar = bit(word, 28);
    if bit(word, 31) || scalar && !bit(word, 30) {
        return None;
    }
    match (bits(word, 24, 4), bit(word, 10)) {
        (0b1110, true) if bit(word, 21) => three_same(word),
        (0b1110, false) => match (bits(word, 17, 5), bit(word, 11)) {
            (0b10000, true) => two_registers(word),
            (0b11000, true) => reduce(word, scalar),
            _ => None,
        },
        (0b1111, false) => by_element(word),
        (0b1111, true) if !bit(word, 23) => fixed(word),
        _ => None,
    }
}

/// The lanes, double or not; one double in a 64-bit vector is reserved.
fn lanes(word: u32, double: bool) -> Option<Arrangement> {
    let size = 2 + u32::from(double);
    let full = bit(word, 30);
    match (bit(word, 28), full, double) {
        (true, ..) => Some(Arrangement::scalar(size)),
        (false, false, true) => None,
        _ => Some(Arrangement::vector(size, full)),
    }
}

/// U, the upper size bit and the opcode, as one number to match on.
fn code(word: u32, opcode: u32) -> u32 {
    bits(word, 29, 1) << 9 | bits(word, 23, 1) << 8 | opcode
}

const U: u32 = 1 << 9;
const O: u32 = 1 << 8;

fn rd(word: u32) -> VReg {
    VReg::new(word)
}

fn rn(word: u32) -> VReg {
    VReg::new(word >> 5)
}

fn three_same(word: u32) -> Option<Insn> {
    const U_O: u32 = U | O;
    let opcode = bits(word, 11, 5);
    // Lower opcodes are integer operations.
    if opcode < 0b11000 {
        return None;
    }
    let arrangement = lanes(word, bit(word, 22))?;
    let low = opcode & 7;
    let op = match code(word, 0) {
        0 => match low {
            0 => VecFpBinary::MaxNum,
            1 => VecFpBinary::Mla,
            2 => VecFpBinary::Add,
            3 => VecFpBinary::MulX,
            4 => VecFpBinary::CmpEq,
            6 => VecFpBinary::Max,
            7 => VecFpBinary::RecipStep,
            _ => return None,
        },
        O => match low {
            0 => VecFpBinary::MinNum,
            1 => VecFpBinary::Mls,
            2 => VecFpBinary::Sub,
            6 => VecFpBinary::Min,
            7 => VecFpBinary::RootStep,
            _ => return None,
        },
        U => match low {
            0 => VecFpBinary::MaxNumPair,
            2 => VecFpBinary::AddPair,
            3 => VecFpBinary::Mul,
            4 => VecFpBinary::CmpGe,
            5 => VecFpBinary::AbsGe,
            6 => VecFpBinary::MaxPair,
            7 => VecFpBinary::Div,
            _ => return None,
        },
        U_O => match low {
            0 => VecFpBinary::MinNumPair,
            2 => VecFpBinary::AbsDiff,
            4 => VecFpBinary::CmpGt,
            5 => VecFpBinary::AbsGt,
            6 => VecFpBinary::MinPair,
            _ => return None,
        },
        _ => return None,
    };
    (op.has_scalar() || !arrangement.is_scalar()).then(|| Insn::VecFpBinary {
        op,
        arrangement,
        rd: rd(word),
        rn: rn(word),
        rm: VReg::new(word >> 16),
    })
}

fn unary(word: u32, op: VecFpUnary, arrangement: Arrangement) -> Insn {
    Insn::VecFpUnary {
        op,
        arrangement,
        rd: rd(word),
        rn: rn(word),
    }
}

fn two_registers(word: u32) -> Option<Insn> {
    let opcode = bits(word, 12, 5);
    let key = code(word, opcode);
    if let 0b10110 | 0b10111 = opcode {
        return resize(word, key);
    }
    // Compare with zero is in 011xx, the rest in 11xxx.
    if !matches!(opcode, 0b01100..=0b01111 | 0b11000..=0b11111) {
        return None;
    }
    let arrangement = lanes(word, bit(word, 22))?;
    if let Some(insn) = rounding(word, key, arrangement) {
        return Some(insn);
    }
    let (rd, rn) = (rd(word), rn(word));
    const GT: u32 = O | 0b01100;
    const EQ: u32 = O | 0b01101;
    const LT: u32 = O | 0b01110;
    const ABS: u32 = O | 0b01111;
    const GE: u32 = U | O | 0b01100;
    const LE: u32 = U | O | 0b01101;
    const NEG: u32 = U | O | 0b01111;
    const SCVTF: u32 = 0b11101;
    const UCVTF: u32 = U | 0b11101;
    const URECPE: u32 = O | 0b11100;
    const URSQRTE: u32 = U | O | 0b11100;
    const FRECPE: u32 = O | 0b11101;
    const FRSQRTE: u32 = U | O | 0b11101;
    const FRECPX: u32 = O | 0b11111;
    const FSQRT: u32 = U | O | 0b11111;
    let scalar = arrangement.is_scalar();
    let double = arrangement.size() == 3;
    let op = match key {
        GT => VecFpUnary::CmpGtZero,
        EQ => VecFpUnary::CmpEqZero,
        LT => VecFpUnary::CmpLtZero,
        GE => VecFpUnary::CmpGeZero,
        LE => VecFpUnary::CmpLeZero,
        ABS if !scalar => VecFpUnary::Abs,
        NEG if !scalar => VecFpUnary::Neg,
        FSQRT if !scalar => VecFpUnary::Sqrt,
        FRECPE => VecFpUnary::RecipEstimate,
        FRSQRTE => VecFpUnary::RootEstimate,
        FRECPX if scalar => VecFpUnary::RecipExponent,
        URECPE if !scalar && !double => VecFpUnary::UnsignedRecipEstimate,
        URSQRTE if !scalar && !double => VecFpUnary::UnsignedRootEstimate,
        SCVTF | UCVTF => {
            return Some(Insn::VecFpFromInt {
                signed: key == SCVTF,
                fraction: 0,
                arrangement,
                rd,
                rn,
            });
        }
        _ => return None,
    };
    Some(unary(word, op, arrangement))
}

/// FRINT* and FCVT* to integers: the members that differ by rounding.
fn rounding(word: u32, key: u32, arrangement: Arrangement) -> Option<Insn> {
    let unsigned = key & U != 0;
    let opcode = key & 0x1f;
    let upper = key & O != 0;
    let (rd, rn) = (rd(word), rn(word));
    let coded = Rounding::of((opcode & 1) << 1 | u32::from(upper));
    let (to, exact) = match (opcode, unsigned, upper) {
        // FRINTA, FRINTX and FRINTI are the U forms.
        (0b11000, true, false) => (Rounding::Away, false),
        (0b11001, true, _) => (Rounding::Current, !upper),
        (0b11000 | 0b11001, false, _) => (coded, false),
        (0b11010 | 0b11011, ..) | (0b11100, _, false) => {
            let rounding = match opcode {
                0b11100 => Rounding::Away,
                _ => coded,
            };
            return Some(Insn::VecFpToInt {
                signed: !unsigned,
                rounding,
                fraction: 0,
                arrangement,
                rd,
                rn,
            });
        }
        _ => return None,
    };
    (!arrangement.is_scalar()).then_some(Insn::VecFpRound {
        to,
        exact,
        arrangement,
        rd,
        rn,
    })
}

/// FCVTL, FCVTN, FCVTXN.
fn resize(word: u32, key: u32) -> Option<Insn> {
    const FCVTN: u32 = 0b10110;
    const FCVTL: u32 = 0b10111;
    const FCVTXN: u32 = U | 0b10110;
    let (scalar, double) = (bit(word, 28), bit(word, 22));
    let narrow = 1 + u32::from(double);
    let vector = Arrangement::vector(narrow, bit(word, 30));
    let (op, arrangement) = match (key, scalar, double) {
        (FCVTN, false, _) => (VecFpUnary::Narrow, vector),
        (FCVTL, false, _) => (VecFpUnary::Widen, vector),
        (FCVTXN, false, true) => (VecFpUnary::NarrowOdd, vector),
        (FCVTXN, true, true) => (VecFpUnary::NarrowOdd, Arrangement::S),
        _ => return None,
    };
    Some(unary(word, op, arrangement))
}

/// Minimum and maximum across a vector, and the scalar pairwise forms.
fn reduce(word: u32, scalar: bool) -> Option<Insn> {
    const MAX_NUM: u32 = U | 0b01100;
    const ADD: u32 = U | 0b01101;
    const MAX: u32 = U | 0b01111;
    const MIN_NUM: u32 = U | O | 0b01100;
    const MIN: u32 = U | O | 0b01111;
    let key = code(word, bits(word, 12, 5));
    let double = bit(word, 22);
    if scalar {
        let op = match key {
            MAX_NUM => VecFpUnary::MaxNumPair,
            ADD => VecFpUnary::AddPair,
            MAX => VecFpUnary::MaxPair,
            MIN_NUM => VecFpUnary::MinNumPair,
            MIN => VecFpUnary::MinPair,
            _ => return None,
        };
        let pair = if double {
            Arrangement::D2
        } else {
            Arrangement::S2
        };
        return Some(unary(word, op, pair));
    }
    // Only four singles can be reduced.
    if !bit(word, 30) || double {
        return None;
    }
    let op = match key {
        MAX_NUM => VecFpUnary::MaxNumAcross,
        MAX => VecFpUnary::MaxAcross,
        MIN_NUM => VecFpUnary::MinNumAcross,
        MIN => VecFpUnary::MinAcross,
        _ => return None,
    };
    Some(unary(word, op, Arrangement::S4))
}

fn by_element(word: u32) -> Option<Insn> {
    let (high, low) = (bits(word, 11, 1), bits(word, 21, 1));
    let op = match bits(word, 29, 1) << 4 | bits(word, 12, 4) {
        0b0001 => VecFpBinary::Mla,
        0b0101 => VecFpBinary::Mls,
        0b1001 => VecFpBinary::Mul,
        0b1_1001 => VecFpBinary::MulX,
        _ => return None,
    };
    let (double, index) = match (bits(word, 22, 2), low) {
        (2, _) => (false, high << 1 | low),
        (3, 0) => (true, high),
        _ => return None,
    };
    Some(Insn::VecFpElement {
        op,
        arrangement: lanes(word, double)?,
        rd: rd(word),
        rn: rn(word),
        rm: VReg::new(word >> 16),
        index: index as u8,
    })
}

/// Conversions between lanes and fixed-point lanes, among the shifts by immediate:
/// the amount is twice the lane width minus the fraction bits.
fn fixed(word: u32) -> Option<Insn> {
    let opcode = bits(word, 11, 5);
    if opcode != 0b11100 && opcode != 0b11111 {
        return None;
    }
    let amount = bits(word, 16, 7);
    let (double, width) = match amount {
        64.. => (true, 64),
        32.. => (false, 32),
        // Bytes do not exist, halves need FP16.
        _ => return None,
    };
    let arrangement = lanes(word, double)?;
    let signed = !bit(word, 29);
    let fraction = (2 * width - amount) as u8;
    let (rd, rn) = (rd(word), rn(word));
    Some(if opcode == 0b11100 {
        Insn::VecFpFromInt {
            signed,
            fraction,
            arrangement,
            rd,
            rn,
        }
    } else {
        Insn::VecFpToInt {
            signed,
            rounding: Rounding::Zero,
            fraction,
            arrangement,
            rd,
            rn,
        }
    })
}

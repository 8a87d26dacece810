//! Decoding of the AdvSIMD floating-point instructions, vector and scalar
//! (Arm ARM C4.1.96).

use super::fields::{field, op};
use super::format::{Double, Single};
use super::ops::{
    AbsDiff, AbsGe, AbsGt, Add, CmpEq, CmpGe, CmpGt, Div, Estimate, Exponent, Max, MaxNum, Min,
    MinNum, Mul, MulX, RecipStep, RootEstimate, RootStep, Sqrt, Sub,
};
use super::scalar::CURRENT;
use super::vector;
use crate::cpu::op::{Handler, Op};
use crate::pure_op;

/// Lane type and count.
#[derive(Clone, Copy)]
enum Shape {
    /// One single, scalar.
    S1,
    /// One double, scalar.
    D1,
    /// Two singles.
    S2,
    /// Four singles.
    S4,
    /// Two doubles.
    D2,
}

/// Chooses the instance of a generic handler for a shape.
macro_rules! shaped {
    ($shape:expr, $f:ident, [$($o:ty),*] $(, $c:expr)*) => {
        match $shape {
            Shape::S1 => pure_op!(vector::$f::<$($o,)* Single, 1 $(, $c)*>),
            Shape::D1 => pure_op!(vector::$f::<$($o,)* Double, 1 $(, $c)*>),
            Shape::S2 => pure_op!(vector::$f::<$($o,)* Single, 2 $(, $c)*>),
            Shape::S4 => pure_op!(vector::$f::<$($o,)* Single, 4 $(, $c)*>),
            Shape::D2 => pure_op!(vector::$f::<$($o,)* Double, 2 $(, $c)*>),
        }
    };
}

/// The same for operations that have no scalar form.
macro_rules! vectors {
    ($shape:expr, $f:ident, [$($o:ty),*] $(, $c:expr)*) => {
        match $shape {
            Shape::S2 => pure_op!(vector::$f::<$($o,)* Single, 2 $(, $c)*>),
            Shape::S4 => pure_op!(vector::$f::<$($o,)* Single, 4 $(, $c)*>),
            Shape::D2 => pure_op!(vector::$f::<$($o,)* Double, 2 $(, $c)*>),
            Shape::S1 | Shape::D1 => return None,
        }
    };
}

/// The shape for lane size bit `double`; one double in a 64-bit vector is
/// reserved.
fn shape(word: u32, double: bool) -> Option<Shape> {
    let scalar = word >> 28 & 1 == 1;
    let quad = word >> 30 & 1 == 1;
    match (scalar, quad, double) {
        (true, _, false) => Some(Shape::S1),
        (true, _, true) => Some(Shape::D1),
        (false, false, false) => Some(Shape::S2),
        (false, true, false) => Some(Shape::S4),
        (false, true, true) => Some(Shape::D2),
        (false, false, true) => None,
    }
}

/// Decodes an AdvSIMD floating-point instruction, else `None`.
#[must_use]
pub fn decode(word: u32) -> Option<Op> {
    let scalar = word >> 28 & 1 == 1;
    if word >> 31 != 0 || scalar && word >> 30 & 1 == 0 {
        return None;
    }
    match (field(word, 27, 24), word >> 10 & 1) {
        (0b1110, 1) if word >> 21 & 1 == 1 => three_same(word),
        (0b1110, 0) => match (field(word, 21, 17), word >> 11 & 1) {
            (0b10000, 1) => two_misc(word),
            (0b11000, 1) => reduce(word, scalar),
            _ => None,
        },
        (0b1111, 0) => by_element(word),
        (0b1111, 1) if word >> 23 & 1 == 0 => fixed(word),
        _ => None,
    }
}

/// U, the upper size bit and the opcode, as one number to match on.
fn code(word: u32, opcode: u32) -> u32 {
    (word >> 29 & 1) << 9 | (word >> 23 & 1) << 8 | opcode
}

const U: u32 = 1 << 9;
const O: u32 = 1 << 8;

fn three_same(word: u32) -> Option<Op> {
    let shape = shape(word, word >> 22 & 1 == 1);
    let opcode = field(word, 15, 11);
    // Lower opcodes are integer operations.
    if opcode < 0b11000 {
        return None;
    }
    let shape = shape?;
    const U_O: u32 = U | O;
    let low = opcode & 7;
    let run = match code(word, 0) {
        0 => match low {
            0 => vectors!(shape, two, [MaxNum]),
            1 => vectors!(shape, fused, [], false, false),
            2 => vectors!(shape, two, [Add]),
            3 => shaped!(shape, two, [MulX]),
            4 => shaped!(shape, two, [CmpEq]),
            6 => vectors!(shape, two, [Max]),
            7 => shaped!(shape, two, [RecipStep]),
            _ => return None,
        },
        O => match low {
            0 => vectors!(shape, two, [MinNum]),
            1 => vectors!(shape, fused, [], true, false),
            2 => vectors!(shape, two, [Sub]),
            6 => vectors!(shape, two, [Min]),
            7 => shaped!(shape, two, [RootStep]),
            _ => return None,
        },
        U => match low {
            0 => vectors!(shape, pairwise, [MaxNum]),
            2 => vectors!(shape, pairwise, [Add]),
            3 => vectors!(shape, two, [Mul]),
            4 => shaped!(shape, two, [CmpGe]),
            5 => shaped!(shape, two, [AbsGe]),
            6 => vectors!(shape, pairwise, [Max]),
            7 => vectors!(shape, two, [Div]),
            _ => return None,
        },
        U_O => match low {
            0 => vectors!(shape, pairwise, [MinNum]),
            2 => shaped!(shape, two, [AbsDiff]),
            4 => shaped!(shape, two, [CmpGt]),
            5 => shaped!(shape, two, [AbsGt]),
            6 => vectors!(shape, pairwise, [Min]),
            _ => return None,
        },
        _ => return None,
    };
    Some(op(word, run))
}

fn two_misc(word: u32) -> Option<Op> {
    let opcode = field(word, 16, 12);
    let key = code(word, opcode);
    if let 0b10110 | 0b10111 = opcode {
        return resize(word, key);
    }
    // Compare with zero is in 011xx, the rest in 11xxx.
    if !matches!(opcode, 0b01100..=0b01111 | 0b11000..=0b11111) {
        return None;
    }
    let shape = shape(word, word >> 22 & 1 == 1)?;
    if let Some(op) = rounding(word, key, shape) {
        return Some(op);
    }
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
    let run = match key {
        GT => shaped!(shape, with_zero, [CmpGt], false),
        EQ => shaped!(shape, with_zero, [CmpEq], false),
        LT => shaped!(shape, with_zero, [CmpGt], true),
        GE => shaped!(shape, with_zero, [CmpGe], false),
        LE => shaped!(shape, with_zero, [CmpGe], true),
        ABS => vectors!(shape, abs, []),
        NEG => vectors!(shape, neg, []),
        SCVTF => shaped!(shape, from_int, [], false),
        UCVTF => shaped!(shape, from_int, [], true),
        FRECPE => shaped!(shape, one, [Estimate]),
        FRSQRTE => shaped!(shape, one, [RootEstimate]),
        FSQRT => vectors!(shape, one, [Sqrt]),
        FRECPX => match shape {
            Shape::S1 => pure_op!(vector::one::<Exponent, Single, 1>),
            Shape::D1 => pure_op!(vector::one::<Exponent, Double, 1>),
            _ => return None,
        },
        URECPE => match shape {
            Shape::S2 => pure_op!(vector::unsigned_estimate::<2>),
            Shape::S4 => pure_op!(vector::unsigned_estimate::<4>),
            _ => return None,
        },
        URSQRTE => match shape {
            Shape::S2 => pure_op!(vector::unsigned_root_estimate::<2>),
            Shape::S4 => pure_op!(vector::unsigned_root_estimate::<4>),
            _ => return None,
        },
        _ => return None,
    };
    Some(op(word, run))
}

/// FRINT* and FCVT* to integers: the members that differ by rounding.
fn rounding(word: u32, key: u32, shape: Shape) -> Option<Op> {
    let unsigned = key & U != 0;
    let opcode = key & 0x1f;
    let upper = key & O != 0;
    let with = |run: Handler, aux: u16, imm: u64| {
        Some(Op {
            aux,
            imm,
            ..op(word, run)
        })
    };
    match (opcode, unsigned, upper) {
        // FRINTA, FRINTX and FRINTI are the U forms.
        (0b11000, true, false) => with(vectors!(shape, round, []), 4, 0),
        (0b11001, true, false) => with(vectors!(shape, round, []), CURRENT, 1),
        (0b11001, true, true) => with(vectors!(shape, round, []), CURRENT, 0),
        (0b11000 | 0b11001, false, _) => {
            let code = (opcode as u16 & 1) << 1 | u16::from(upper);
            with(vectors!(shape, round, []), code, 0)
        }
        (0b11010 | 0b11011, ..) | (0b11100, _, false) => {
            let code = match opcode {
                0b11100 => 4,
                _ => (opcode as u16 & 1) << 1 | u16::from(upper),
            };
            let run = if unsigned {
                shaped!(shape, to_int, [], true)
            } else {
                shaped!(shape, to_int, [], false)
            };
            with(run, code, 0)
        }
        _ => None,
    }
}

/// FCVTL, FCVTN, FCVTXN.
fn resize(word: u32, key: u32) -> Option<Op> {
    const FCVTN: u32 = 0b10110;
    const FCVTL: u32 = 0b10111;
    const FCVTXN: u32 = U | 0b10110;
    let scalar = word >> 28 & 1 == 1;
    let double = word >> 22 & 1 == 1;
    let run = match (key, scalar, double) {
        (FCVTN, false, false) => pure_op!(vector::narrow_single),
        (FCVTN, false, true) => pure_op!(vector::narrow_double),
        (FCVTL, false, false) => pure_op!(vector::widen_half),
        (FCVTL, false, true) => pure_op!(vector::widen_single),
        (FCVTXN, false, true) => pure_op!(vector::narrow_odd::<2>),
        (FCVTXN, true, true) => pure_op!(vector::narrow_odd::<1>),
        _ => return None,
    };
    Some(Op {
        aux: if scalar { 0 } else { (word >> 30 & 1) as u16 },
        ..op(word, run)
    })
}

/// Minimum and maximum across a vector, and the scalar pairwise forms.
fn reduce(word: u32, scalar: bool) -> Option<Op> {
    macro_rules! pair {
        ($o:ty) => {
            if word >> 22 & 1 == 1 {
                pure_op!(vector::pair::<$o, Double>)
            } else {
                pure_op!(vector::pair::<$o, Single>)
            }
        };
    }
    const MAX_NUM: u32 = U | 0b01100;
    const ADD: u32 = U | 0b01101;
    const MAX: u32 = U | 0b01111;
    const MIN_NUM: u32 = U | O | 0b01100;
    const MIN: u32 = U | O | 0b01111;
    let key = code(word, field(word, 16, 12));
    if scalar {
        let run = match key {
            MAX_NUM => pair!(MaxNum),
            ADD => pair!(Add),
            MAX => pair!(Max),
            MIN_NUM => pair!(MinNum),
            MIN => pair!(Min),
            _ => return None,
        };
        return Some(op(word, run));
    }
    // Only four singles can be reduced.
    if word >> 30 & 1 == 0 || word >> 22 & 1 == 1 {
        return None;
    }
    let run = match key {
        MAX_NUM => pure_op!(vector::across::<MaxNum>),
        MAX => pure_op!(vector::across::<Max>),
        MIN_NUM => pure_op!(vector::across::<MinNum>),
        MIN => pure_op!(vector::across::<Min>),
        _ => return None,
    };
    Some(op(word, run))
}

fn by_element(word: u32) -> Option<Op> {
    let (high, low) = (word >> 11 & 1, word >> 21 & 1);
    let key = (word >> 29 & 1) << 4 | field(word, 15, 12);
    if !matches!(key, 0b0001 | 0b0101 | 0b1001 | 0b1_1001) {
        return None;
    }
    let (double, index) = match (field(word, 23, 22), low) {
        (2, _) => (false, high << 1 | low),
        (3, 0) => (true, high),
        _ => return None,
    };
    let shape = shape(word, double)?;
    let run = match key {
        0b0001 => shaped!(shape, fused, [], false, true),
        0b0101 => shaped!(shape, fused, [], true, true),
        0b1001 => shaped!(shape, two_element, [Mul]),
        _ => shaped!(shape, two_element, [MulX]),
    };
    Some(Op {
        aux: index as u16,
        ..op(word, run)
    })
}

/// Conversions between lanes and fixed-point lanes, among the shifts by
/// immediate: the amount is twice the lane width minus the fraction bits.
fn fixed(word: u32) -> Option<Op> {
    let opcode = field(word, 15, 11);
    if opcode != 0b11100 && opcode != 0b11111 {
        return None;
    }
    let amount = field(word, 22, 16);
    let (double, width) = match amount {
        64.. => (true, 64),
        32.. => (false, 32),
        // Bytes do not exist, halves need FP16.
        _ => return None,
    };
    let shape = shape(word, double)?;
    let unsigned = word >> 29 & 1 == 1;
    let run = match (opcode, unsigned) {
        (0b11100, false) => shaped!(shape, from_int, [], false),
        (0b11100, true) => shaped!(shape, from_int, [], true),
        (_, false) => shaped!(shape, to_int, [], false),
        (_, true) => shaped!(shape, to_int, [], true),
    };
    Some(Op {
        imm: u64::from(2 * width - amount),
        aux: 3,
        ..op(word, run)
    })
}

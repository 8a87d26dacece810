//! From the AdvSIMD floating-point instructions, vector and scalar, to their handlers.

use super::format::{Double, Single};
use super::ops::{
    AbsDiff, AbsGe, AbsGt, Add, CmpEq, CmpGe, CmpGt, Div, Estimate, Exponent, Max, MaxNum, Min,
    MinNum, Mul, MulX, RecipStep, RootEstimate, RootStep, Sqrt, Sub,
};
use super::vector;
use crate::cpu::op::{Handler, Op};
use crate::insn::simd::{Arrangement, VecFpBinary, VecFpUnary};
use crate::insn::{Insn, VReg};
use crate::pure_op;

/// By lanes: one single, one double, two and four singles, two doubles.
type Shapes = [Handler; 5];

/// The instances of a generic handler.
macro_rules! shaped {
    ($f:ident, [$($o:ty),*] $(, $c:expr)*) => {
        [
            pure_op!(vector::$f::<$($o,)* Single, 1 $(, $c)*>),
            pure_op!(vector::$f::<$($o,)* Double, 1 $(, $c)*>),
            pure_op!(vector::$f::<$($o,)* Single, 2 $(, $c)*>),
            pure_op!(vector::$f::<$($o,)* Single, 4 $(, $c)*>),
            pure_op!(vector::$f::<$($o,)* Double, 2 $(, $c)*>),
        ]
    };
}

/// The same for operations that have no scalar form.
macro_rules! vectors {
    ($f:ident, [$($o:ty),*] $(, $c:expr)*) => {
        [
            pure_op!(vector::$f::<$($o,)* Single, 2 $(, $c)*>),
            pure_op!(vector::$f::<$($o,)* Single, 4 $(, $c)*>),
            pure_op!(vector::$f::<$($o,)* Double, 2 $(, $c)*>),
        ]
    };
}

/// Where a shape's handler is.
fn shape(arrangement: Arrangement) -> Option<usize> {
    Some(match arrangement {
        Arrangement::S => 0,
        Arrangement::D => 1,
        Arrangement::S2 => 2,
        Arrangement::S4 => 3,
        Arrangement::D2 => 4,
        _ => return None,
    })
}

/// Chooses among instances of all shapes, or of the vectors.
fn choose(runs: &[Handler], arrangement: Arrangement) -> Option<Handler> {
    let without = 5_usize.checked_sub(runs.len())?;
    let at = shape(arrangement)?.checked_sub(without)?;
    runs.get(at).copied()
}

fn op(run: Handler, rd: VReg, rn: VReg, rm: VReg) -> Op {
    Op {
        rd: rd.number(),
        rn: rn.number(),
        rm: rm.number(),
        ..Op::new(run)
    }
}

/// The op of an AdvSIMD floating-point instruction; `None` if `insn` is none.
#[must_use]
pub fn bind(insn: &Insn) -> Option<Op> {
    Some(match *insn {
        Insn::VecFpBinary {
            op: what,
            arrangement,
            rd,
            rn,
            rm,
        } => op(choose(binary(what), arrangement)?, rd, rn, rm),
        Insn::VecFpElement {
            op: what,
            arrangement,
            rd,
            rn,
            rm,
            index,
        } => Op {
            aux: index.into(),
            ..op(choose(by_element(what)?, arrangement)?, rd, rn, rm)
        },
        Insn::VecFpUnary {
            op: what,
            arrangement,
            rd,
            rn,
        } => return unary(what, arrangement, rd, rn),
        Insn::VecFpRound {
            to,
            exact,
            arrangement,
            rd,
            rn,
        } => {
            static RUN: [Handler; 3] = vectors!(round, []);
            Op {
                aux: to as u16,
                imm: exact.into(),
                ..op(choose(&RUN, arrangement)?, rd, rn, rn)
            }
        }
        Insn::VecFpToInt {
            signed,
            rounding,
            fraction,
            arrangement,
            rd,
            rn,
        } => {
            static RUN: [Shapes; 2] = [shaped!(to_int, [], true), shaped!(to_int, [], false)];
            Op {
                aux: rounding as u16,
                imm: fraction.into(),
                ..op(choose(&RUN[usize::from(signed)], arrangement)?, rd, rn, rn)
            }
        }
        Insn::VecFpFromInt {
            signed,
            fraction,
            arrangement,
            rd,
            rn,
        } => {
            static RUN: [Shapes; 2] = [shaped!(from_int, [], true), shaped!(from_int, [], false)];
            Op {
                imm: fraction.into(),
                ..op(choose(&RUN[usize::from(signed)], arrangement)?, rd, rn, rn)
            }
        }
        _ => return None,
    })
}

fn binary(what: VecFpBinary) -> &'static [Handler] {
    macro_rules! list {
        ($($op:ident: $kind:ident!($($args:tt)*);)*) => {
            match what {
                $(VecFpBinary::$op => {
                    static RUN: &[Handler] = &$kind!($($args)*);
                    RUN
                })*
            }
        };
    }
    list! {
        MaxNum: vectors!(two, [MaxNum]);
        Mla: vectors!(fused, [], false, false);
        Add: vectors!(two, [Add]);
        MulX: shaped!(two, [MulX]);
        CmpEq: shaped!(two, [CmpEq]);
        Max: vectors!(two, [Max]);
        RecipStep: shaped!(two, [RecipStep]);
        MinNum: vectors!(two, [MinNum]);
        Mls: vectors!(fused, [], true, false);
        Sub: vectors!(two, [Sub]);
        Min: vectors!(two, [Min]);
        RootStep: shaped!(two, [RootStep]);
        MaxNumPair: vectors!(pairwise, [MaxNum]);
        AddPair: vectors!(pairwise, [Add]);
        Mul: vectors!(two, [Mul]);
        CmpGe: shaped!(two, [CmpGe]);
        AbsGe: shaped!(two, [AbsGe]);
        MaxPair: vectors!(pairwise, [Max]);
        Div: vectors!(two, [Div]);
        MinNumPair: vectors!(pairwise, [MinNum]);
        AbsDiff: shaped!(two, [AbsDiff]);
        CmpGt: shaped!(two, [CmpGt]);
        AbsGt: shaped!(two, [AbsGt]);
        MinPair: vectors!(pairwise, [Min]);
    }
}

fn by_element(what: VecFpBinary) -> Option<&'static [Handler]> {
    static MLA: Shapes = shaped!(fused, [], false, true);
    static MLS: Shapes = shaped!(fused, [], true, true);
    static MUL: Shapes = shaped!(two_element, [Mul]);
    static MUL_X: Shapes = shaped!(two_element, [MulX]);
    Some(match what {
        VecFpBinary::Mla => &MLA,
        VecFpBinary::Mls => &MLS,
        VecFpBinary::Mul => &MUL,
        VecFpBinary::MulX => &MUL_X,
        _ => return None,
    })
}

fn unary(what: VecFpUnary, arrangement: Arrangement, rd: VReg, rn: VReg) -> Option<Op> {
    let run = lane_by_lane(what, arrangement)
        .or_else(|| resizing(what, arrangement))
        .or_else(|| reduction(what, arrangement))?;
    let narrow = matches!(
        what,
        VecFpUnary::Widen | VecFpUnary::Narrow | VecFpUnary::NarrowOdd
    );
    Some(Op {
        // The half of the narrow operand.
        aux: u16::from(narrow && arrangement.is_full()),
        ..op(run, rd, rn, rn)
    })
}

fn lane_by_lane(what: VecFpUnary, arrangement: Arrangement) -> Option<Handler> {
    static GT: Shapes = shaped!(with_zero, [CmpGt], false);
    static EQ: Shapes = shaped!(with_zero, [CmpEq], false);
    static LT: Shapes = shaped!(with_zero, [CmpGt], true);
    static GE: Shapes = shaped!(with_zero, [CmpGe], false);
    static LE: Shapes = shaped!(with_zero, [CmpGe], true);
    static ABS: [Handler; 3] = vectors!(abs, []);
    static NEG: [Handler; 3] = vectors!(neg, []);
    static SQRT: [Handler; 3] = vectors!(one, [Sqrt]);
    static ESTIMATE: Shapes = shaped!(one, [Estimate]);
    static ROOT: Shapes = shaped!(one, [RootEstimate]);
    let runs: &[Handler] = match what {
        VecFpUnary::CmpGtZero => &GT,
        VecFpUnary::CmpEqZero => &EQ,
        VecFpUnary::CmpLtZero => &LT,
        VecFpUnary::CmpGeZero => &GE,
        VecFpUnary::CmpLeZero => &LE,
        VecFpUnary::Abs => &ABS,
        VecFpUnary::Neg => &NEG,
        VecFpUnary::Sqrt => &SQRT,
        VecFpUnary::RecipEstimate => &ESTIMATE,
        VecFpUnary::RootEstimate => &ROOT,
        _ => return None,
    };
    choose(runs, arrangement)
}

/// What has few shapes: of other sizes, or of scalars alone.
fn resizing(what: VecFpUnary, arrangement: Arrangement) -> Option<Handler> {
    let to_half = arrangement.size() == 1;
    Some(match (what, arrangement) {
        (VecFpUnary::RecipExponent, Arrangement::S) => {
            pure_op!(vector::one::<Exponent, Single, 1>)
        }
        (VecFpUnary::RecipExponent, Arrangement::D) => {
            pure_op!(vector::one::<Exponent, Double, 1>)
        }
        (VecFpUnary::UnsignedRecipEstimate, Arrangement::S2) => {
            pure_op!(vector::unsigned_estimate::<2>)
        }
        (VecFpUnary::UnsignedRecipEstimate, Arrangement::S4) => {
            pure_op!(vector::unsigned_estimate::<4>)
        }
        (VecFpUnary::UnsignedRootEstimate, Arrangement::S2) => {
            pure_op!(vector::unsigned_root_estimate::<2>)
        }
        (VecFpUnary::UnsignedRootEstimate, Arrangement::S4) => {
            pure_op!(vector::unsigned_root_estimate::<4>)
        }
        (VecFpUnary::Widen, _) if to_half => pure_op!(vector::widen_half),
        (VecFpUnary::Widen, _) => pure_op!(vector::widen_single),
        (VecFpUnary::Narrow, _) if to_half => pure_op!(vector::narrow_single),
        (VecFpUnary::Narrow, _) => pure_op!(vector::narrow_double),
        (VecFpUnary::NarrowOdd, Arrangement::S) => pure_op!(vector::narrow_odd::<1>),
        (VecFpUnary::NarrowOdd, _) => pure_op!(vector::narrow_odd::<2>),
        _ => return None,
    })
}

/// From a vector, or from two lanes, to one.
fn reduction(what: VecFpUnary, arrangement: Arrangement) -> Option<Handler> {
    macro_rules! pair {
        ($o:ty) => {
            if arrangement.size() == 3 {
                pure_op!(vector::pair::<$o, Double>)
            } else {
                pure_op!(vector::pair::<$o, Single>)
            }
        };
    }
    Some(match what {
        VecFpUnary::MaxNumAcross => pure_op!(vector::across::<MaxNum>),
        VecFpUnary::MinNumAcross => pure_op!(vector::across::<MinNum>),
        VecFpUnary::MaxAcross => pure_op!(vector::across::<Max>),
        VecFpUnary::MinAcross => pure_op!(vector::across::<Min>),
        VecFpUnary::MaxNumPair => pair!(MaxNum),
        VecFpUnary::MinNumPair => pair!(MinNum),
        VecFpUnary::AddPair => pair!(Add),
        VecFpUnary::MaxPair => pair!(Max),
        VecFpUnary::MinPair => pair!(Min),
        _ => return None,
    })
}

//! From the scalar floating-point instructions to their handlers.

use super::format::{Double, Half, Single};
use super::ops::{Add, Div, Max, MaxNum, Min, MinNum, Mul, NegMul, Sqrt, Sub};
use super::scalar;
use crate::cpu::op::{Handler, Op, destination, source};
use crate::insn::{FpBinary, FpFormat, FpMove, FpUnary, Insn, Rounding, VReg, Width};
use crate::pure_op;

/// The single and the double instance of a generic handler.
macro_rules! formats {
    ($f:ident, [$($before:ty),*] $(, $c:expr)*) => {
        [
            pure_op!(scalar::$f::<$($before,)* Single $(, $c)*>),
            pure_op!(scalar::$f::<$($before,)* Double $(, $c)*>),
        ]
    };
}

/// By format, single first.
type Formats = [Handler; 2];

fn of(formats: &Formats, format: FpFormat) -> Handler {
    formats[usize::from(format == FpFormat::D)]
}

/// An op on vector registers.
fn vectors(run: Handler, rd: VReg, rn: VReg, rm: VReg) -> Op {
    Op {
        rd: rd.number(),
        rn: rn.number(),
        rm: rm.number(),
        ..Op::new(run)
    }
}

/// The op of a scalar floating-point instruction; `None` if `insn` is none.
#[must_use]
pub fn bind(insn: &Insn) -> Option<Op> {
    Some(match *insn {
        Insn::FpUnary { op, format, rd, rn } => vectors(unary(op, format), rd, rn, rn),
        Insn::FpRound {
            to,
            exact,
            format,
            rd,
            rn,
        } => {
            static RUN: Formats = formats!(round, []);
            Op {
                aux: to as u16,
                imm: u64::from(exact),
                ..vectors(of(&RUN, format), rd, rn, rn)
            }
        }
        Insn::FpConvert { from, to, rd, rn } => vectors(convert(from, to)?, rd, rn, rn),
        Insn::FpBinary {
            op,
            format,
            rd,
            rn,
            rm,
        } => vectors(binary(op, format), rd, rn, rm),
        Insn::FpMultiplyAdd {
            negate_addend,
            negate_product,
            format,
            rd,
            rn,
            rm,
            ra,
        } => {
            static RUN: [[Formats; 2]; 2] = [
                [
                    formats!(fused, [], false, false),
                    formats!(fused, [], false, true),
                ],
                [
                    formats!(fused, [], true, false),
                    formats!(fused, [], true, true),
                ],
            ];
            let formats = &RUN[usize::from(negate_addend)][usize::from(negate_product)];
            Op {
                ra: ra.number(),
                ..vectors(of(formats, format), rd, rn, rm)
            }
        }
        Insn::FpSelect {
            format,
            rd,
            rn,
            rm,
            cond,
        } => {
            static RUN: Formats = formats!(select, []);
            Op {
                aux: cond as u16,
                ..vectors(of(&RUN, format), rd, rn, rm)
            }
        }
        Insn::FpImm { rd, bits, .. } => Op {
            rd: rd.number(),
            imm: bits,
            ..Op::new(pure_op!(scalar::mov_imm))
        },
        Insn::FpCompare { .. } | Insn::FpCondCompare { .. } => return comparison(insn),
        _ => return with_general(insn),
    })
}

fn unary(op: FpUnary, format: FpFormat) -> Handler {
    static RUN: [Formats; 4] = [
        formats!(mov, []),
        formats!(abs, []),
        formats!(neg, []),
        formats!(one, [Sqrt]),
    ];
    of(&RUN[op as usize], format)
}

fn binary(op: FpBinary, format: FpFormat) -> Handler {
    static RUN: [Formats; 9] = [
        formats!(two, [Mul]),
        formats!(two, [Div]),
        formats!(two, [Add]),
        formats!(two, [Sub]),
        formats!(two, [Max]),
        formats!(two, [Min]),
        formats!(two, [MaxNum]),
        formats!(two, [MinNum]),
        formats!(two, [NegMul]),
    ];
    of(&RUN[op as usize], format)
}

fn convert(from: FpFormat, to: FpFormat) -> Option<Handler> {
    use FpFormat::{D, H, S};
    Some(match (from, to) {
        (S, D) => pure_op!(scalar::widen),
        (S, H) => pure_op!(scalar::convert::<Single, Half>),
        (D, S) => pure_op!(scalar::narrow),
        (D, H) => pure_op!(scalar::convert::<Double, Half>),
        (H, S) => pure_op!(scalar::convert::<Half, Single>),
        (H, D) => pure_op!(scalar::convert::<Half, Double>),
        (S, S) | (D, D) | (H, H) => return None,
    })
}

fn comparison(insn: &Insn) -> Option<Op> {
    static WITH: [Formats; 2] = [formats!(cmp, [], false), formats!(cmp, [], true)];
    static ZERO: [Formats; 2] = [formats!(cmp_zero, [], false), formats!(cmp_zero, [], true)];
    static COND: [Formats; 2] = [formats!(ccmp, [], false), formats!(ccmp, [], true)];
    Some(match *insn {
        Insn::FpCompare {
            signal,
            format,
            rn,
            rm,
        } => {
            let runs = if rm.is_some() { &WITH } else { &ZERO };
            let run = of(&runs[usize::from(signal)], format);
            vectors(run, rn, rn, rm.unwrap_or(rn))
        }
        Insn::FpCondCompare {
            signal,
            format,
            rn,
            rm,
            nzcv,
            cond,
        } => Op {
            aux: cond as u16,
            imm: u64::from(nzcv & 15) << 28,
            ..vectors(of(&COND[usize::from(signal)], format), rn, rn, rm)
        },
        _ => return None,
    })
}

/// By signedness (unsigned last), width of the general register, and format.
type Integers = [[Formats; 2]; 2];

macro_rules! integers {
    ($f:ident) => {
        [
            [
                formats!($f, [], false, false),
                formats!($f, [], true, false),
            ],
            [formats!($f, [], false, true), formats!($f, [], true, true)],
        ]
    };
}

fn by_integer(runs: &Integers, format: FpFormat, width: Width, signed: bool) -> Handler {
    of(&runs[usize::from(!signed)][width as usize], format)
}

/// Conversions and moves between vector and general registers.
fn with_general(insn: &Insn) -> Option<Op> {
    static FROM_INT: Integers = integers!(from_int);
    static FROM_FIXED: Integers = integers!(from_gpr);
    static TRUNCATE: Integers = integers!(truncate);
    static TO_FIXED: Integers = integers!(to_gpr);
    Some(match *insn {
        Insn::FpFromInt {
            format,
            width,
            signed,
            fraction,
            rd,
            rn,
        } => {
            let runs = if fraction == 0 {
                &FROM_INT
            } else {
                &FROM_FIXED
            };
            Op {
                rd: rd.number(),
                rn: source(rn),
                imm: u64::from(fraction),
                ..Op::new(by_integer(runs, format, width, signed))
            }
        }
        Insn::FpToInt {
            format,
            width,
            signed,
            rounding,
            fraction,
            rd,
            rn,
        } => {
            let plain = fraction == 0 && rounding == Rounding::Zero;
            let runs = if plain { &TRUNCATE } else { &TO_FIXED };
            Op {
                rd: destination(rd),
                rn: rn.number(),
                imm: u64::from(fraction),
                aux: rounding as u16,
                ..Op::new(by_integer(runs, format, width, signed))
            }
        }
        Insn::FpToIntJs { rd, rn } => Op {
            rd: destination(rd),
            rn: rn.number(),
            ..Op::new(pure_op!(scalar::javascript))
        },
        Insn::FpToGeneral { part, rd, rn } => Op {
            rd: destination(rd),
            rn: rn.number(),
            ..Op::new(match part {
                FpMove::S => pure_op!(scalar::bits_to_gpr::<Single>),
                FpMove::D => pure_op!(scalar::bits_to_gpr::<Double>),
                FpMove::Top => pure_op!(scalar::top_to_gpr),
            })
        },
        Insn::FpFromGeneral { part, rd, rn } => Op {
            rd: rd.number(),
            rn: source(rn),
            ..Op::new(match part {
                FpMove::S => pure_op!(scalar::bits_from_gpr::<Single>),
                FpMove::D => pure_op!(scalar::bits_from_gpr::<Double>),
                FpMove::Top => pure_op!(scalar::top_from_gpr),
            })
        },
        _ => return None,
    })
}

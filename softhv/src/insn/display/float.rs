//! Text of scalar floating-point instructions.

use super::{General, Scalar, w, x};
use crate::insn::{FpFormat, FpMove, FpUnary, Insn, Rounding, VReg, VSize};
use std::fmt::{self, Display, Formatter};

/// A register as a number of a format.
fn number(reg: VReg, format: FpFormat) -> Scalar {
    Scalar(
        reg,
        match format {
            FpFormat::H => VSize::H,
            FpFormat::S => VSize::S,
            FpFormat::D => VSize::D,
        },
    )
}

/// The letter of a rounding in names.
fn letter(rounding: Rounding, exact: bool) -> char {
    match rounding {
        Rounding::Nearest => 'n',
        Rounding::Up => 'p',
        Rounding::Down => 'm',
        Rounding::Zero => 'z',
        Rounding::Away => 'a',
        Rounding::Current if exact => 'x',
        Rounding::Current => 'i',
    }
}

/// The number of fraction bits of a fixed-point number.
struct Fraction(u8);

impl Display for Fraction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            bits => write!(f, ", #{bits}"),
        }
    }
}

pub fn write(insn: &Insn, f: &mut Formatter<'_>) -> fmt::Result {
    match *insn {
        Insn::FpUnary { op, format, rd, rn } => {
            let name = match op {
                FpUnary::Mov => "fmov",
                FpUnary::Abs => "fabs",
                FpUnary::Neg => "fneg",
                FpUnary::Sqrt => "fsqrt",
            };
            write!(f, "{name} {}, {}", number(rd, format), number(rn, format))
        }
        Insn::FpRound {
            to,
            exact,
            format,
            rd,
            rn,
        } => {
            let (rd, rn) = (number(rd, format), number(rn, format));
            write!(f, "frint{} {rd}, {rn}", letter(to, exact))
        }
        Insn::FpConvert { from, to, rd, rn } => {
            write!(f, "fcvt {}, {}", number(rd, to), number(rn, from))
        }
        Insn::FpBinary {
            op,
            format,
            rd,
            rn,
            rm,
        } => {
            const NAMES: [&str; 9] = [
                "fmul", "fdiv", "fadd", "fsub", "fmax", "fmin", "fmaxnm", "fminnm", "fnmul",
            ];
            let [rd, rn, rm] = [rd, rn, rm].map(|reg| number(reg, format));
            write!(f, "{} {rd}, {rn}, {rm}", NAMES[op as usize])
        }
        Insn::FpMultiplyAdd {
            negate_addend,
            negate_product,
            format,
            rd,
            rn,
            rm,
            ra,
        } => {
            let name = match (negate_addend, negate_product) {
                (false, false) => "fmadd",
                (false, true) => "fmsub",
                (true, true) => "fnmadd",
                (true, false) => "fnmsub",
            };
            let [rd, rn, rm, ra] = [rd, rn, rm, ra].map(|reg| number(reg, format));
            write!(f, "{name} {rd}, {rn}, {rm}, {ra}")
        }
        Insn::FpSelect {
            format,
            rd,
            rn,
            rm,
            cond,
        } => {
            let [rd, rn, rm] = [rd, rn, rm].map(|reg| number(reg, format));
            write!(f, "fcsel {rd}, {rn}, {rm}, {cond}")
        }
        Insn::FpImm { format, rd, bits } => {
            let value = match format {
                FpFormat::D => f64::from_bits(bits),
                _ => f32::from_bits(bits as u32).into(),
            };
            write!(f, "fmov {}, #{value}", number(rd, format))
        }
        Insn::FpCompare { .. } | Insn::FpCondCompare { .. } => comparison(insn, f),
        _ => with_general(insn, f),
    }
}

fn comparison(insn: &Insn, f: &mut Formatter<'_>) -> fmt::Result {
    let signals = |signal: bool| if signal { "e" } else { "" };
    match *insn {
        Insn::FpCompare {
            signal,
            format,
            rn,
            rm,
        } => {
            write!(f, "fcmp{} {}, ", signals(signal), number(rn, format))?;
            match rm {
                Some(rm) => write!(f, "{}", number(rm, format)),
                None => f.write_str("#0.0"),
            }
        }
        Insn::FpCondCompare {
            signal,
            format,
            rn,
            rm,
            nzcv,
            cond,
        } => {
            let (rn, rm) = (number(rn, format), number(rm, format));
            write!(f, "fccmp{} {rn}, {rm}, #{nzcv:#x}, {cond}", signals(signal))
        }
        _ => Ok(()),
    }
}

/// Conversions and moves between vector and general registers.
fn with_general(insn: &Insn, f: &mut Formatter<'_>) -> fmt::Result {
    let sign = |signed: bool| if signed { 's' } else { 'u' };
    match *insn {
        Insn::FpFromInt {
            format,
            width,
            signed,
            fraction,
            rd,
            rn,
        } => {
            let (rd, rn) = (number(rd, format), General(rn, width));
            let (sign, fraction) = (sign(signed), Fraction(fraction));
            write!(f, "{sign}cvtf {rd}, {rn}{fraction}")
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
            let (rd, rn) = (General(rd, width), number(rn, format));
            let (sign, fraction) = (sign(signed), Fraction(fraction));
            write!(
                f,
                "fcvt{}{sign} {rd}, {rn}{fraction}",
                letter(rounding, false)
            )
        }
        Insn::FpToIntJs { rd, rn } => {
            write!(f, "fjcvtzs {}, {}", w(rd), number(rn, FpFormat::D))
        }
        Insn::FpToGeneral { part, rd, rn } => match part {
            FpMove::S => write!(f, "fmov {}, {}", w(rd), number(rn, FpFormat::S)),
            FpMove::D => write!(f, "fmov {}, {}", x(rd), number(rn, FpFormat::D)),
            FpMove::Top => write!(f, "fmov {}, v{}.d[1]", x(rd), rn.number()),
        },
        Insn::FpFromGeneral { part, rd, rn } => match part {
            FpMove::S => write!(f, "fmov {}, {}", number(rd, FpFormat::S), w(rn)),
            FpMove::D => write!(f, "fmov {}, {}", number(rd, FpFormat::D), x(rn)),
            FpMove::Top => write!(f, "fmov v{}.d[1], {}", rd.number(), x(rn)),
        },
        _ => Ok(()),
    }
}

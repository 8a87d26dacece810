//! Instructions as text, in the syntax of GNU assemblers without aliases: for tests,
//! and for people.
//!
//! Where a value does not keep how it was encoded, the text is one of the forms that
//! mean the same: MOVZ and MOVN are `mov`, unscaled offsets are offsets, and places
//! are relative to the instruction (`.+8`).

mod float;
mod memory;
mod system;

use super::{
    AddSub, BranchReg, Cond, Extend, Insn, Logic, OneSource, Reg, RegOrImm, Select, Shift, Size,
    TwoSource, VReg, VSize, Width,
};
use std::fmt::{self, Display, Formatter};

/// A general register of a width.
struct General(Reg, Width);

impl Display for General {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(reg, width) = *self;
        let letter = if width.is_x() { 'x' } else { 'w' };
        match reg {
            Reg::SP if width.is_x() => f.write_str("sp"),
            Reg::SP => f.write_str("wsp"),
            Reg::ZR => write!(f, "{letter}zr"),
            _ => write!(f, "{letter}{}", reg.number()),
        }
    }
}

/// An X register.
fn x(reg: Reg) -> General {
    General(reg, Width::X)
}

/// A W register.
fn w(reg: Reg) -> General {
    General(reg, Width::W)
}

/// A vector register's scalar of a size.
struct Scalar(VReg, VSize);

impl Display for Scalar {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let letter = ["b", "h", "s", "d", "q"][self.1 as usize];
        write!(f, "{letter}{}", self.0.number())
    }
}

/// A place, relative to the instruction.
struct Place(i64);

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, ".{:+}", self.0)
    }
}

impl Display for Cond {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 16] = [
            "eq", "ne", "cs", "cc", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le",
            "al", "nv",
        ];
        f.write_str(NAMES[*self as usize])
    }
}

impl Display for Extend {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = [
            "uxtb", "uxth", "uxtw", "uxtx", "sxtb", "sxth", "sxtw", "sxtx",
        ];
        f.write_str(NAMES[*self as usize])
    }
}

/// How a register operand is shifted, nothing if it is not.
struct Shifted(Shift, u8);

impl Display for Shifted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = ["lsl", "lsr", "asr", "ror"][self.0 as usize];
        match (self.0, self.1) {
            (Shift::Lsl, 0) => Ok(()),
            (_, amount) => write!(f, ", {name} #{amount}"),
        }
    }
}

fn add_sub(op: AddSub) -> &'static str {
    ["add", "adds", "sub", "subs"][op as usize]
}

fn logic(op: Logic, invert: bool) -> &'static str {
    match (op, invert) {
        (Logic::And, false) => "and",
        (Logic::And, true) => "bic",
        (Logic::Orr, false) => "orr",
        (Logic::Orr, true) => "orn",
        (Logic::Eor, false) => "eor",
        (Logic::Eor, true) => "eon",
        (Logic::Ands, false) => "ands",
        (Logic::Ands, true) => "bics",
    }
}

impl Display for Insn {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Undefined => f.write_str("undefined"),
            Self::Word(word) => write!(f, "word {word:#010x}"),
            Self::Adr { rd, offset } => write!(f, "adr {}, {}", x(rd), Place(offset.into())),
            Self::Adrp { rd, offset } => write!(f, "adrp {}, {}", x(rd), Place(offset)),
            Self::MoveImm { width, rd, value } => {
                write!(f, "mov {}, #{value:#x}", General(rd, width))
            }
            Self::MoveKeep {
                width,
                rd,
                imm,
                position,
            } => {
                let by = Shifted(Shift::Lsl, position);
                write!(f, "movk {}, #{imm:#x}{by}", General(rd, width))
            }
            _ if self.is_memory() => memory::write(self, f),
            _ if self.is_vector() => float::write(self, f),
            Self::Branch { .. }
            | Self::BranchCond { .. }
            | Self::CompareBranch { .. }
            | Self::TestBranch { .. }
            | Self::BranchReg { .. } => branch(self, f),
            Self::AddSubImm { .. }
            | Self::AddSubShifted { .. }
            | Self::AddSubExtended { .. }
            | Self::LogicImm { .. }
            | Self::LogicShifted { .. } => two_operands(self, f),
            Self::CondCompare { .. } | Self::CondSelect { .. } => conditional(self, f),
            _ => registers(self, f),
        }
    }
}

fn branch(insn: &Insn, f: &mut Formatter<'_>) -> fmt::Result {
    match *insn {
        Insn::Branch { link, offset } => {
            let name = if link { "bl" } else { "b" };
            write!(f, "{name} {}", Place(offset.into()))
        }
        Insn::BranchCond { cond, offset } => write!(f, "b.{cond} {}", Place(offset.into())),
        Insn::CompareBranch {
            nonzero,
            width,
            rt,
            offset,
        } => {
            let name = if nonzero { "cbnz" } else { "cbz" };
            write!(f, "{name} {}, {}", General(rt, width), Place(offset.into()))
        }
        Insn::TestBranch {
            set,
            rt,
            bit,
            offset,
        } => {
            let name = if set { "tbnz" } else { "tbz" };
            let width = if bit < 32 { Width::W } else { Width::X };
            write!(
                f,
                "{name} {}, #{bit}, {}",
                General(rt, width),
                Place(offset.into())
            )
        }
        Insn::BranchReg { how, rn } => {
            let name = match how {
                BranchReg::Jump => "br",
                BranchReg::Call => "blr",
                BranchReg::Return => "ret",
            };
            write!(f, "{name} {}", x(rn))
        }
        _ => system::write(insn, f),
    }
}

/// Additions, subtractions and bitwise operations.
fn two_operands(insn: &Insn, f: &mut Formatter<'_>) -> fmt::Result {
    match *insn {
        Insn::AddSubImm {
            op,
            width,
            rd,
            rn,
            imm,
        } => {
            let (rd, rn) = (General(rd, width), General(rn, width));
            match imm {
                0..=0xfff => write!(f, "{} {rd}, {rn}, #{imm:#x}", add_sub(op)),
                _ => write!(f, "{} {rd}, {rn}, #{:#x}, lsl #12", add_sub(op), imm >> 12),
            }
        }
        Insn::AddSubShifted {
            op,
            width,
            rd,
            rn,
            rm,
            shift,
            amount,
        } => {
            let [rd, rn, rm] = [rd, rn, rm].map(|reg| General(reg, width));
            write!(
                f,
                "{} {rd}, {rn}, {rm}{}",
                add_sub(op),
                Shifted(shift, amount)
            )
        }
        Insn::AddSubExtended {
            op,
            width,
            rd,
            rn,
            rm,
            extend,
            amount,
        } => {
            let whole = matches!(extend, Extend::Uxtx | Extend::Sxtx);
            let rm = General(rm, if whole { width } else { Width::W });
            let plain = match width {
                Width::W => Extend::Uxtw,
                Width::X => Extend::Uxtx,
            };
            let name = add_sub(op);
            let on_stack = rd.is_sp() || rn.is_sp();
            let (rd, rn) = (General(rd, width), General(rn, width));
            write!(f, "{name} {rd}, {rn}, {rm}")?;
            match amount {
                _ if on_stack && extend == plain => {
                    write!(f, "{}", Shifted(Shift::Lsl, amount))
                }
                0 => write!(f, ", {extend}"),
                _ => write!(f, ", {extend} #{amount}"),
            }
        }
        Insn::LogicImm {
            op,
            width,
            rd,
            rn,
            imm,
        } => {
            let (rd, rn) = (General(rd, width), General(rn, width));
            write!(f, "{} {rd}, {rn}, #{imm:#x}", logic(op, false))
        }
        Insn::LogicShifted {
            op,
            invert,
            width,
            rd,
            rn,
            rm,
            shift,
            amount,
        } => {
            let [rd, rn, rm] = [rd, rn, rm].map(|reg| General(reg, width));
            let name = logic(op, invert);
            write!(f, "{name} {rd}, {rn}, {rm}{}", Shifted(shift, amount))
        }
        _ => Ok(()),
    }
}

fn conditional(insn: &Insn, f: &mut Formatter<'_>) -> fmt::Result {
    match *insn {
        Insn::CondCompare {
            op,
            width,
            rn,
            with,
            nzcv,
            cond,
        } => {
            let name = if op.is_sub() { "ccmp" } else { "ccmn" };
            write!(f, "{name} {}, ", General(rn, width))?;
            match with {
                RegOrImm::Reg(rm) => write!(f, "{}", General(rm, width))?,
                RegOrImm::Imm(imm) => write!(f, "#{imm:#x}")?,
            }
            write!(f, ", #{nzcv:#x}, {cond}")
        }
        Insn::CondSelect {
            op,
            width,
            rd,
            rn,
            rm,
            cond,
        } => {
            let name = match op {
                Select::Plain => "csel",
                Select::Increment => "csinc",
                Select::Invert => "csinv",
                Select::Negate => "csneg",
            };
            let [rd, rn, rm] = [rd, rn, rm].map(|reg| General(reg, width));
            write!(f, "{name} {rd}, {rn}, {rm}, {cond}")
        }
        _ => Ok(()),
    }
}

/// The rest of integer data processing.
fn registers(insn: &Insn, f: &mut Formatter<'_>) -> fmt::Result {
    match *insn {
        Insn::AddSubCarry {
            op,
            width,
            rd,
            rn,
            rm,
        } => {
            let name = ["adc", "adcs", "sbc", "sbcs"][op as usize];
            let [rd, rn, rm] = [rd, rn, rm].map(|reg| General(reg, width));
            write!(f, "{name} {rd}, {rn}, {rm}")
        }
        Insn::Bitfield {
            op,
            width,
            rd,
            rn,
            immr,
            imms,
        } => {
            let name = ["sbfm", "bfm", "ubfm"][op as usize];
            let (rd, rn) = (General(rd, width), General(rn, width));
            write!(f, "{name} {rd}, {rn}, #{immr}, #{imms}")
        }
        Insn::Extract {
            width,
            rd,
            rn,
            rm,
            lsb,
        } => {
            let [rd, rn, rm] = [rd, rn, rm].map(|reg| General(reg, width));
            write!(f, "extr {rd}, {rn}, {rm}, #{lsb}")
        }
        Insn::OneSource { op, width, rd, rn } => {
            let name = match op {
                OneSource::Rbit => "rbit",
                OneSource::Rev16 => "rev16",
                OneSource::Rev32 => "rev32",
                OneSource::Rev => "rev",
                OneSource::Clz => "clz",
                OneSource::Cls => "cls",
            };
            write!(f, "{name} {}, {}", General(rd, width), General(rn, width))
        }
        Insn::TwoSource {
            op,
            width,
            rd,
            rn,
            rm,
        } => {
            let name = match op {
                TwoSource::Udiv => "udiv",
                TwoSource::Sdiv => "sdiv",
                TwoSource::Lslv => "lslv",
                TwoSource::Lsrv => "lsrv",
                TwoSource::Asrv => "asrv",
                TwoSource::Rorv => "rorv",
            };
            let [rd, rn, rm] = [rd, rn, rm].map(|reg| General(reg, width));
            write!(f, "{name} {rd}, {rn}, {rm}")
        }
        Insn::Crc32 {
            castagnoli,
            size,
            rd,
            rn,
            rm,
        } => {
            let kind = if castagnoli { "c" } else { "" };
            let letter = ["b", "h", "w", "x"][size as usize];
            let width = Width::of(u32::from(size == Size::X));
            let (rd, rn, rm) = (w(rd), w(rn), General(rm, width));
            write!(f, "crc32{kind}{letter} {rd}, {rn}, {rm}")
        }
        _ => multiply(insn, f),
    }
}

fn multiply(insn: &Insn, f: &mut Formatter<'_>) -> fmt::Result {
    match *insn {
        Insn::MultiplyAdd {
            subtract,
            width,
            rd,
            rn,
            rm,
            ra,
        } => {
            let name = if subtract { "msub" } else { "madd" };
            let [rd, rn, rm, ra] = [rd, rn, rm, ra].map(|reg| General(reg, width));
            write!(f, "{name} {rd}, {rn}, {rm}, {ra}")
        }
        Insn::MultiplyAddLong {
            signed,
            subtract,
            rd,
            rn,
            rm,
            ra,
        } => {
            let sign = if signed { 's' } else { 'u' };
            let name = if subtract { "msubl" } else { "maddl" };
            write!(f, "{sign}{name} {}, {}, {}, {}", x(rd), w(rn), w(rm), x(ra))
        }
        Insn::MultiplyHigh { signed, rd, rn, rm } => {
            let name = if signed { "smulh" } else { "umulh" };
            write!(f, "{name} {}, {}, {}", x(rd), x(rn), x(rm))
        }
        _ => system::write(insn, f),
    }
}

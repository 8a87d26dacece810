//! Text of system instructions.

use super::x;
use crate::insn::{Barrier, Call, Insn, PstateField, Reg};
use std::fmt::{self, Display, Formatter};

/// The name of a system register by its encoding.
struct Register(u16);

impl Display for Register {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let field = |low: u16, bits: u16| self.0 >> low & ((1 << bits) - 1);
        let (op0, op1) = (field(14, 2), field(11, 3));
        let (crn, crm, op2) = (field(7, 4), field(3, 4), field(0, 3));
        write!(f, "s{op0}_{op1}_c{crn}_c{crm}_{op2}")
    }
}

pub fn write(insn: &Insn, f: &mut Formatter<'_>) -> fmt::Result {
    match *insn {
        Insn::ExceptionReturn => f.write_str("eret"),
        Insn::Call { to, imm } => {
            let name = match to {
                Call::Svc => "svc",
                Call::Hvc => "hvc",
                Call::Smc => "smc",
                Call::Brk => "brk",
            };
            write!(f, "{name} #{imm:#x}")
        }
        Insn::Hint { number } => write!(f, "hint #{number:#x}"),
        Insn::ClearExclusive => f.write_str("clrex"),
        Insn::Barrier { what, option } => {
            let name = match what {
                Barrier::Dsb => "dsb",
                Barrier::Dmb => "dmb",
                Barrier::Isb => "isb",
            };
            write!(f, "{name} #{option:#x}")
        }
        Insn::WritePstate { field, imm } => {
            let name = match field {
                PstateField::SpSel => "spsel",
                PstateField::Pan => "pan",
                PstateField::DaifSet => "daifset",
                PstateField::DaifClr => "daifclr",
            };
            write!(f, "msr {name}, #{imm:#x}")
        }
        Insn::ReadSys { key, rt } => write!(f, "mrs {}, {}", x(rt), Register(key)),
        Insn::WriteSys { key, rt } => write!(f, "msr {}, {}", Register(key), x(rt)),
        Insn::Sys { key, rt, .. } => {
            let field = |low: u16, bits: u16| key >> low & ((1 << bits) - 1);
            let (op1, op2) = (field(11, 3), field(0, 3));
            let (crn, crm) = (field(7, 4), field(3, 4));
            write!(f, "sys #{op1}, C{crn}, C{crm}, #{op2}")?;
            // Left out where it does not matter.
            match rt {
                Reg::ZR => Ok(()),
                _ => write!(f, ", {}", x(rt)),
            }
        }
        _ => Ok(()),
    }
}

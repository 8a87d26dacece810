//! System instructions (C4.1.93, "System instructions" and its siblings).

use super::{bit, bits};
use crate::insn::{Barrier, ByTlb, Insn, PstateField, Reg, SysOp};
use crate::sysreg_key::key_of;

pub fn decode(word: u32) -> Insn {
    let read = bit(word, 21);
    let rt = Reg::or_zr(word);
    match bits(word, 19, 2) {
        0 if !read => special(word),
        1 if !read => operation(word).map_or(Insn::Undefined, |op| Insn::Sys {
            op,
            key: key_of(word),
            rt,
        }),
        2 | 3 if read => Insn::ReadSys {
            key: key_of(word),
            rt,
        },
        2 | 3 => Insn::WriteSys {
            key: key_of(word),
            rt,
        },
        _ => Insn::Undefined,
    }
}

fn special(word: u32) -> Insn {
    if bits(word, 0, 5) != 31 {
        return Insn::Undefined;
    }
    let (op1, crm, op2) = (bits(word, 16, 3), bits(word, 8, 4), bits(word, 5, 3));
    match (op1, bits(word, 12, 4)) {
        (3, 2) => Insn::Hint {
            number: (crm << 3 | op2) as u8,
        },
        (3, 3) => barrier(crm, op2),
        (_, 4) => pstate(op1, op2, crm),
        _ => Insn::Undefined,
    }
}

fn barrier(crm: u32, op2: u32) -> Insn {
    let what = match op2 {
        2 => return Insn::ClearExclusive,
        4 => Barrier::Dsb,
        5 => Barrier::Dmb,
        6 => Barrier::Isb,
        _ => return Insn::Undefined,
    };
    Insn::Barrier {
        what,
        option: crm as u8,
    }
}

fn pstate(op1: u32, op2: u32, crm: u32) -> Insn {
    let field = match (op1, op2) {
        (0, 4) => PstateField::Pan,
        (0, 5) => PstateField::SpSel,
        (3, 6) => PstateField::DaifSet,
        (3, 7) => PstateField::DaifClr,
        _ => return Insn::Undefined,
    };
    Insn::WritePstate {
        field,
        imm: crm as u8,
    }
}

/// SYS: cache, TLB and address translation instructions.
fn operation(word: u32) -> Option<SysOp> {
    let (op1, crn) = (bits(word, 16, 3), bits(word, 12, 4));
    let (crm, op2) = (bits(word, 8, 4), bits(word, 5, 3));
    Some(match (op1, crn, crm, op2) {
        (3, 7, 4, 1) => SysOp::ZeroBlock,
        (3, 7, 10..=12 | 14, 1) => SysOp::CleanData,
        (3, 7, 5, 1) => SysOp::InvalidateCode,
        (0, 7, 6, 1) => SysOp::InvalidateData,
        (0, 7, 6 | 10 | 14, 2) => SysOp::DataBySet,
        (0, 7, 1 | 5, 0) => SysOp::InvalidateAllCode,
        (0, 7, 8, 0..=3) => SysOp::Translate {
            write: op2 & 1 != 0,
            user: op2 & 2 != 0,
        },
        (0, 8, _, _) => return tlb(crm, op2),
        _ => return None,
    })
}

fn tlb(crm: u32, op2: u32) -> Option<SysOp> {
    // Outer shareable counts as inner here: there is nothing further out.
    let (shared, range) = match crm {
        1 | 3 => (true, false),
        7 => (false, false),
        2 | 5 => (true, true),
        6 => (false, true),
        _ => return None,
    };
    let by = match op2 {
        0 if !range => ByTlb::All,
        1 | 5 => ByTlb::Va,
        2 if !range => ByTlb::Asid,
        3 | 7 => ByTlb::VaAllAsids,
        _ => return None,
    };
    Some(SysOp::InvalidateTlb { by, range, shared })
}

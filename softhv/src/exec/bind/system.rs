//! System instructions.

use super::{Bound, Context, undefined};
use crate::cpu::op::{Handler, SP, destination, source};
use crate::exec::int::nop;
use crate::exec::maintenance::{self, tlbi};
use crate::exec::system as exec;
use crate::insn::{Barrier, Insn, PstateField, Reg, SysOp};
use crate::pure_op;
use crate::sysreg::{self, Lookup, UserAccess};
use crate::sysreg_key::key;

#[inline(always)]
pub fn bind(insn: &Insn, context: Context) -> Bound {
    match *insn {
        Insn::Hint { number } => match number {
            1 => Bound::new(exec::give_way),
            2 => Bound::end(exec::wait).aux(1),
            3 => Bound::end(exec::wait),
            _ => Bound::new(pure_op!(nop)),
        },
        Insn::ClearExclusive => Bound::new(exec::clrex),
        Insn::Barrier { what, option } => match what {
            Barrier::Dsb => Bound::new(exec::dsb),
            // Bits 1:0 of the option: loads, stores, or both.
            Barrier::Dmb if matches!(option & 3, 1 | 2) => Bound::new(exec::dmb_weak),
            Barrier::Dmb => Bound::new(exec::dmb),
            Barrier::Isb => Bound::end(exec::isb),
        },
        Insn::WritePstate { field, imm } => pstate(field, imm, context),
        Insn::ReadSys { key, rt } => move_from(key, rt, context),
        Insn::WriteSys { key, rt } => move_to(key, rt, context),
        Insn::Sys { op, key, rt } => operation(op, key, rt, context),
        _ => undefined(),
    }
}

/// The word of an MRS, if `read`, or of an MSR (register) or SYS.
fn word(read: bool, key: u16, rt: Reg) -> u64 {
    u64::from(0xd500_0000 | u32::from(read) << 21 | u32::from(key) << 5 | rt.field())
}

fn pstate(field: PstateField, imm: u8, context: Context) -> Bound {
    let daif = u64::from(imm & 15) << 6;
    // What a trap of this instruction reports, besides op0 and Rt.
    let encoded = |op1, op2| key(0, op1, 4, u16::from(imm & 15), op2);
    match field {
        PstateField::DaifSet => Bound::new(exec::daif_set).imm(daif).aux(encoded(3, 6)),
        PstateField::DaifClr => Bound::new(exec::daif_clear).imm(daif).aux(encoded(3, 7)),
        _ if context.mode.user => undefined(),
        PstateField::Pan => Bound::new(exec::set_pan).imm(u64::from(imm & 1)),
        // Says that the stack pointer is another one.
        PstateField::SpSel => Bound::new(exec::set_sp_sel).imm(u64::from(imm & 1)).rd(SP),
    }
}

/// Cache, TLB and address translation instructions.
fn operation(op: SysOp, key: u16, rt: Reg, context: Context) -> Bound {
    let user = context.mode.user;
    let on_address = |run: Handler| Bound::new(run).rd(source(rt)).imm(word(false, key, rt));
    match op {
        SysOp::ZeroBlock if user => on_address(maintenance::zero_block_user),
        SysOp::ZeroBlock => on_address(crate::exec::ldst::zero_block),
        SysOp::CleanData => on_address(maintenance::data_cache),
        SysOp::InvalidateCode => {
            let mut bound = on_address(maintenance::instruction_cache);
            bound.ends = true;
            bound
        }
        _ if user => undefined(),
        SysOp::InvalidateData => on_address(maintenance::data_cache).aux(1),
        // Caches are not modelled, nothing to do.
        SysOp::DataBySet => Bound::new(pure_op!(nop)),
        SysOp::InvalidateAllCode => Bound::end(maintenance::instruction_cache_all),
        SysOp::Translate { write, user } => {
            on_address(maintenance::translate_address).aux(u16::from(write) | u16::from(user) << 1)
        }
        SysOp::InvalidateTlb { by, range, shared } => Bound::end(maintenance::tlb_maintenance)
            .rd(source(rt))
            .aux(by as u16 | if range { tlbi::RANGE } else { 0 })
            .imm(u64::from(shared)),
    }
}

const NZCV: u16 = key(3, 3, 4, 2, 0);
const DAIF: u16 = key(3, 3, 4, 2, 1);
const FPCR: u16 = key(3, 3, 4, 4, 0);
const FPSR: u16 = key(3, 3, 4, 4, 1);
const CNTVCT: u16 = key(3, 3, 14, 0, 2);

fn fp_trap() -> Bound {
    Bound::end(exec::fp_trap)
}

/// The offset of a register whose access is a plain move at this level.
fn plain(key: u16, write: bool, context: Context) -> Option<u64> {
    let Lookup::Known(register) = sysreg::lookup(key) else {
        return None;
    };
    let allowed = !context.mode.user
        || register.user == UserAccess::ReadWrite
        || (register.user == UserAccess::Read && !write);
    register.plain.filter(|_| allowed).map(|at| at as u64)
}

fn move_from(key: u16, rt: Reg, context: Context) -> Bound {
    let rd = destination(rt);
    if let Some(at) = plain(key, false, context) {
        return Bound::new(exec::mrs_plain).rd(rd).imm(at);
    }
    let run = match key {
        FPCR | FPSR if context.mode.fp_traps => return fp_trap(),
        FPCR => exec::mrs_fpcr as Handler,
        FPSR => exec::mrs_fpsr,
        NZCV => exec::mrs_nzcv,
        DAIF if !context.mode.user => exec::mrs_daif,
        CNTVCT => exec::mrs_cntvct,
        _ => exec::mrs,
    };
    Bound::new(run).rd(rd).imm(word(true, key, rt))
}

fn move_to(key: u16, rt: Reg, context: Context) -> Bound {
    let slot = source(rt);
    if let Some(at) = plain(key, true, context) {
        return Bound::new(exec::msr_plain).rd(slot).imm(at);
    }
    let run = match key {
        FPCR | FPSR if context.mode.fp_traps => return fp_trap(),
        FPCR => exec::msr_fpcr as Handler,
        FPSR => exec::msr_fpsr,
        NZCV => exec::msr_nzcv,
        DAIF if !context.mode.user => exec::msr_daif,
        _ => return Bound::end(exec::msr).rd(slot).imm(word(false, key, rt)),
    };
    Bound::new(run).rd(slot)
}

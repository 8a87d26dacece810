//! System instructions (C4.1.93, "System instructions" and its siblings).

use super::{Context, Decoded, bit, bits, undefined};
use crate::cpu::op::{Handler, dst, src};
use crate::exec::int::nop;
use crate::exec::maintenance::{self, tlbi};
use crate::exec::system as exec;
use crate::pure_op;
use crate::sysreg::{self, Lookup, UserAccess};
use crate::sysreg_key::{self, key};

pub fn decode(word: u32, context: Context) -> Decoded {
    let read = bit(word, 21);
    match bits(word, 19, 2) {
        0 if !read => special(word, context),
        1 if !read => operations(word, context),
        2 | 3 if read => move_from(word, context),
        2 | 3 => move_to(word, context),
        _ => undefined(),
    }
}

fn special(word: u32, context: Context) -> Decoded {
    if bits(word, 0, 5) != 31 {
        return undefined();
    }
    let (op1, crm, op2) = (bits(word, 16, 3), bits(word, 8, 4), bits(word, 5, 3));
    match (op1, bits(word, 12, 4)) {
        (3, 2) => hint(crm << 3 | op2),
        (3, 3) => barrier(crm, op2),
        (_, 4) => pstate(op1, op2, crm, context),
        _ => undefined(),
    }
}

fn hint(number: u32) -> Decoded {
    match number {
        1 => Decoded::new(exec::give_way),
        2 => Decoded::end(exec::wait).aux(1),
        3 => Decoded::end(exec::wait),
        _ => Decoded::new(pure_op!(nop)),
    }
}

fn barrier(crm: u32, op2: u32) -> Decoded {
    match op2 {
        2 => Decoded::new(exec::clrex),
        4 => Decoded::new(exec::dsb),
        // Bits 1:0 of the option: loads, stores, or both.
        5 if crm & 3 == 1 || crm & 3 == 2 => Decoded::new(exec::dmb_weak),
        5 => Decoded::new(exec::dmb),
        6 => Decoded::end(exec::isb),
        _ => undefined(),
    }
}

fn pstate(op1: u32, op2: u32, crm: u32, context: Context) -> Decoded {
    let daif = u64::from(crm) << 6;
    // What a trap of this instruction reports, besides op0 and Rt.
    let encoded = (op1 << 11 | 4 << 7 | crm << 3 | op2) as u16;
    match (op1, op2) {
        (3, 6) => Decoded::new(exec::daif_set).imm(daif).aux(encoded),
        (3, 7) => Decoded::new(exec::daif_clear).imm(daif).aux(encoded),
        _ if context.mode.user => undefined(),
        (0, 4) => Decoded::new(exec::set_pan).imm(u64::from(crm & 1)),
        (0, 5) => Decoded::new(exec::set_sp_sel).imm(u64::from(crm & 1)),
        _ => undefined(),
    }
}

/// SYS: cache, TLB and address translation instructions.
fn operations(word: u32, context: Context) -> Decoded {
    let (op1, crn) = (bits(word, 16, 3), bits(word, 12, 4));
    let (crm, op2) = (bits(word, 8, 4), bits(word, 5, 3));
    let user = context.mode.user;
    let on_address = |run: Handler| Decoded::new(run).rd(src(word)).imm(u64::from(word));
    match (op1, crn, crm, op2) {
        (3, 7, 4, 1) if user => on_address(maintenance::zero_block_user),
        (3, 7, 4, 1) => on_address(crate::exec::ldst::zero_block),
        (3, 7, 10..=12 | 14, 1) => on_address(maintenance::data_cache),
        (3, 7, 5, 1) => {
            let mut decoded = on_address(maintenance::instruction_cache);
            decoded.ends = true;
            decoded
        }
        _ if user => undefined(),
        (0, 7, 6, 1) => on_address(maintenance::data_cache).aux(1),
        // By set and way: caches are not modelled, nothing to do.
        (0, 7, 6 | 10 | 14, 2) => Decoded::new(pure_op!(nop)),
        (0, 7, 1 | 5, 0) => Decoded::end(maintenance::instruction_cache_all),
        (0, 7, 8, 0..=3) => on_address(maintenance::translate_address).aux(op2 as u16),
        (0, 8, _, _) => tlb(word, crm, op2),
        _ => undefined(),
    }
}

fn tlb(word: u32, crm: u32, op2: u32) -> Decoded {
    // Outer shareable counts as inner here: there is nothing further out.
    let (shared, range) = match crm {
        1 | 3 => (true, false),
        7 => (false, false),
        2 | 5 => (true, true),
        6 => (false, true),
        _ => return undefined(),
    };
    let what = match op2 {
        0 if !range => tlbi::ALL,
        1 | 5 => tlbi::VA,
        2 if !range => tlbi::ASID,
        3 | 7 => tlbi::VA_ALL_ASIDS,
        _ => return undefined(),
    };
    Decoded::end(maintenance::tlb_maintenance)
        .rd(src(word))
        .aux(what | if range { tlbi::RANGE } else { 0 })
        .imm(u64::from(shared))
}

const NZCV: u16 = key(3, 3, 4, 2, 0);
const DAIF: u16 = key(3, 3, 4, 2, 1);
const FPCR: u16 = key(3, 3, 4, 4, 0);
const FPSR: u16 = key(3, 3, 4, 4, 1);
const CNTVCT: u16 = key(3, 3, 14, 0, 2);

fn fp_trap() -> Decoded {
    Decoded::end(exec::fp_trap)
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

fn move_from(word: u32, context: Context) -> Decoded {
    let key = sysreg_key::key_of(word);
    let run = match key {
        FPCR | FPSR if context.mode.fp_traps => return fp_trap(),
        FPCR => exec::mrs_fpcr as Handler,
        FPSR => exec::mrs_fpsr,
        NZCV => exec::mrs_nzcv,
        DAIF if !context.mode.user => exec::mrs_daif,
        CNTVCT => exec::mrs_cntvct,
        _ => exec::mrs,
    };
    let decoded = Decoded::new(run).rd(dst(word)).imm(u64::from(word));
    match plain(key, false, context) {
        Some(at) => Decoded::new(exec::mrs_plain).rd(dst(word)).imm(at),
        None => decoded,
    }
}

fn move_to(word: u32, context: Context) -> Decoded {
    let key = sysreg_key::key_of(word);
    let rt = src(word);
    if let Some(at) = plain(key, true, context) {
        return Decoded::new(exec::msr_plain).rd(rt).imm(at);
    }
    let run = match key {
        FPCR | FPSR if context.mode.fp_traps => return fp_trap(),
        FPCR => exec::msr_fpcr as Handler,
        FPSR => exec::msr_fpsr,
        NZCV => exec::msr_nzcv,
        DAIF if !context.mode.user => exec::msr_daif,
        _ => return Decoded::end(exec::msr).rd(rt).imm(u64::from(word)),
    };
    Decoded::new(run).rd(rt)
}

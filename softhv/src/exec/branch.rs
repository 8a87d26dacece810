//! Branches: chaining inside a page, the jump cache everywhere else.

use crate::cpu::Cpu;
use crate::cpu::op::Op;
use crate::dispatch::go_on;
use crate::jump::{JUMP_ENTRIES, jump_index};
use crate::next_op;
use crate::page::PAGE_MASK;
use std::sync::atomic::Ordering;

/// Target later in the same page: chained without a look at the attention word.
pub const NEAR: u8 = 0;
/// Target earlier in the same page: chained, attention checked.
pub const BACK: u8 = 1;
/// Target in another page: through the jump cache.
pub const FAR: u8 = 2;

const X30: usize = 30;

/// The virtual address of the instruction at `op`.
///
/// # Safety
/// `cpu` and `op` as for a handler.
#[inline(always)]
pub unsafe fn pc_of(cpu: *mut Cpu, op: *const Op) -> u64 {
    // SAFETY: by the contract.
    unsafe { (*cpu).regs.page + u64::from((*op).pc_offset) }
}

/// The virtual address of the instruction after the one at `op`, which is 0 after
/// the last there is.
///
/// # Safety
/// `cpu` and `op` as for a handler.
#[inline(always)]
pub unsafe fn pc_after(cpu: *mut Cpu, op: *const Op) -> u64 {
    // SAFETY: by the contract.
    unsafe { pc_of(cpu, op).wrapping_add(4) }
}

/// Whether the run loop wants control, or the host stack needs it to have it.
///
/// # Safety
/// `cpu` as for a handler.
#[inline(always)]
unsafe fn wanted(cpu: *mut Cpu) -> bool {
    // SAFETY: the word lives in the shared part that the vCPU holds.
    unsafe { (*(*cpu).attention).load(Ordering::Relaxed) != 0 || (*cpu).stack_limit.is_passed() }
}

/// Continues at `target`, wherever that is. Last expression of a handler.
///
/// # Safety
/// `cpu` as for a handler.
#[inline(always)]
pub unsafe fn jump(cpu: *mut Cpu, target: u64) {
    // SAFETY: both indices are inside the jump cache; an entry of the current
    // context leads to a live block of this vCPU.
    unsafe {
        let context = (*cpu).context[(target >> 63) as usize];
        let mut entry = (*cpu).jump.add(jump_index(target, context));
        if !(*entry).is_of(target, context) {
            entry = entry.add(JUMP_ENTRIES);
        }
        if (*entry).is_of(target, context) && !wanted(cpu) {
            (*cpu).regs.page = target & PAGE_MASK;
            go_on(cpu, (*entry).op)
        } else {
            (*cpu).pc = target;
        }
    }
}

/// Takes the direct branch at `op` by its `imm`.
///
/// # Safety
/// As for a handler.
#[inline(always)]
pub unsafe fn take<const KIND: u8>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: a link leads to a live block of this vCPU in the same page.
    unsafe {
        if KIND == FAR {
            return jump(cpu, pc_of(cpu, op).wrapping_add((*op).imm));
        }
        let link = (*op).link.get();
        if link.is_null() || (KIND == BACK && wanted(cpu)) {
            (*cpu).pc = pc_of(cpu, op).wrapping_add((*op).imm);
            (*cpu).link_from = op;
        } else {
            go_on(cpu, link)
        }
    }
}

macro_rules! handler {
    ($(#[$doc:meta])* $name:ident $(<$(const $p:ident: $t:ty),+>)?, |$cpu:ident, $op:ident| $body:block) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Called by the run loop or another handler, with a vCPU that this
        /// thread owns and an op of one of its live blocks.
        pub unsafe extern "C" fn $name$(<$(const $p: $t),+>)?($cpu: *mut Cpu, $op: *const Op) {
            // SAFETY: by the contract above.
            unsafe { $body }
        }
    };
}
pub(crate) use handler;

handler!(
    /// B.
    b<const KIND: u8>, |cpu, op| { take::<KIND>(cpu, op) }
);

handler!(
    /// BL.
    bl<const KIND: u8>, |cpu, op| {
        (*cpu).regs.x[X30] = pc_after(cpu, op);
        take::<KIND>(cpu, op)
    }
);

handler!(
    /// B.cond.
    b_cond<const COND: u16, const KIND: u8>, |cpu, op| {
        if (*cpu).regs.cond_holds(COND) {
            take::<KIND>(cpu, op)
        } else {
            next_op!(cpu, op)
        }
    }
);

handler!(
    /// CBZ and CBNZ.
    cbz<const WIDE: bool, const NONZERO: bool, const KIND: u8>, |cpu, op| {
        let value = (*cpu).regs.get((*op).rn);
        let zero = if WIDE { value == 0 } else { value as u32 == 0 };
        if zero != NONZERO {
            take::<KIND>(cpu, op)
        } else {
            next_op!(cpu, op)
        }
    }
);

handler!(
    /// TBZ and TBNZ; the bit's number is in `aux`.
    tbz<const NONZERO: bool, const KIND: u8>, |cpu, op| {
        let set = (*cpu).regs.get((*op).rn) >> (*op).aux & 1 != 0;
        if set == NONZERO {
            take::<KIND>(cpu, op)
        } else {
            next_op!(cpu, op)
        }
    }
);

handler!(
    /// BR and RET.
    br, |cpu, op| {
        let target = (*cpu).regs.get((*op).rn);
        jump(cpu, target)
    }
);

handler!(
    /// BLR.
    blr, |cpu, op| {
        let target = (*cpu).regs.get((*op).rn);
        (*cpu).regs.x[X30] = pc_after(cpu, op);
        jump(cpu, target)
    }
);

handler!(
    /// The end of a block that just continues, at `imm` from its last op.
    fall_through<const KIND: u8>, |cpu, op| { take::<KIND>(cpu, op) }
);

handler!(
    /// The entry of a block that went stale: back to the run loop, which finds
    /// or decodes what is there now.
    stale, |cpu, op| {
        let pc = pc_of(cpu, op);
        let context = (*cpu).context[(pc >> 63) as usize];
        (*cpu).code.jumps().forget(pc, context);
        (*cpu).pc = pc
    }
);

//! Loads and stores of one register or a pair.
//!
//! A handler probes the TLB inline; what the probe does not cover it hands to a
//! cold handler by a tail call, so that the fast path needs no stack frame.

use super::branch::{handler, pc_of};
use super::transfer::{Kind, Mode, Offset};
use crate::cpu::Cpu;
use crate::cpu::op::{Op, SINK};
use crate::mem::{self, Request, Transfer, probe_read, probe_write};
use crate::next_op;
use crate::walk::Access;

fn transfer<M: Mode, K: Kind>(op: &Op) -> Option<Transfer> {
    (M::PLAIN && K::GENERAL).then_some(Transfer {
        register: if op.rd >= SINK - 1 { 31 } else { op.rd },
        size: K::SIZE,
        signed: K::SIGNED,
        wide: K::WIDE,
        ordered: false,
    })
}

const fn bytes_of<K: Kind>() -> u64 {
    1 << K::SIZE
}

/// # Safety
/// As for a handler.
unsafe fn request<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op, access: Access) -> Request {
    // SAFETY: by the contract.
    unsafe {
        Request {
            pc: pc_of(cpu, op),
            va: M::address(&(*cpu).regs, &*op),
            bytes: 1 << K::SIZE,
            access,
            user: (*cpu).pstate.el == 0,
            aligned: false,
            transfer: transfer::<M, K>(&*op),
        }
    }
}

/// LDR and its kin.
///
/// # Safety
/// As for a handler.
pub unsafe extern "C" fn load<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        if load_fast::<M, K>(cpu, op) {
            next_op!(cpu, op)
        } else {
            load_slow::<M, K>(cpu, op)
        }
    }
}

/// Loads if the TLB has the page; else nothing changed.
///
/// # Safety
/// As for a handler.
#[inline(always)]
pub unsafe fn load_fast<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op) -> bool {
    // SAFETY: by the contract.
    unsafe {
        let va = M::address(&(*cpu).regs, &*op);
        let Some(host) = probe_read((*cpu).tlb, va, bytes_of::<K>()) else {
            return false;
        };
        K::put(&mut (*cpu).regs, (*op).rd, mem::read(host));
        M::writeback(&mut (*cpu).regs, &*op);
        true
    }
}

/// The same through the walker, and what follows.
///
/// # Safety
/// As for a handler.
#[cold]
#[inline(never)]
pub unsafe extern "C" fn load_slow<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        if load_into::<M, K>(cpu, op, false) {
            next_op!(cpu, op)
        }
    }
}

/// # Safety
/// As for a handler.
#[inline(never)]
unsafe fn load_into<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op, user: bool) -> bool {
    // SAFETY: by the contract.
    unsafe {
        let mut request = request::<M, K>(cpu, op, Access::Read);
        request.user |= user;
        let mut bytes = [0; 16];
        let bytes = &mut bytes[..1 << K::SIZE];
        if (*cpu).load(&request, bytes).is_err() {
            return false;
        }
        K::put(&mut (*cpu).regs, (*op).rd, K::from_bytes(bytes));
        // A literal's or an index's writeback is empty; Pre and Post move the
        // base by the same rule whatever was loaded.
        M::writeback(&mut (*cpu).regs, &*op);
        true
    }
}

/// STR and its kin.
///
/// # Safety
/// As for a handler.
pub unsafe extern "C" fn store<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        if store_fast::<M, K>(cpu, op) {
            next_op!(cpu, op)
        } else {
            store_slow::<M, K>(cpu, op)
        }
    }
}

/// Stores if the TLB has the page; else nothing changed.
///
/// # Safety
/// As for a handler.
#[inline(always)]
pub unsafe fn store_fast<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op) -> bool {
    // SAFETY: by the contract.
    unsafe {
        let va = M::address(&(*cpu).regs, &*op);
        let Some(host) = probe_write((*cpu).tlb, va, bytes_of::<K>()) else {
            return false;
        };
        mem::write(host, K::get(&(*cpu).regs, (*op).rd));
        M::writeback(&mut (*cpu).regs, &*op);
        true
    }
}

/// The same through the walker, and what follows.
///
/// # Safety
/// As for a handler.
#[cold]
#[inline(never)]
pub unsafe extern "C" fn store_slow<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        if store_from::<M, K>(cpu, op, false) {
            next_op!(cpu, op)
        }
    }
}

/// # Safety
/// As for a handler.
#[inline(never)]
unsafe fn store_from<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op, user: bool) -> bool {
    // SAFETY: by the contract.
    unsafe {
        let mut request = request::<M, K>(cpu, op, Access::Write);
        request.user |= user;
        let mut bytes = [0; 16];
        let bytes = &mut bytes[..1 << K::SIZE];
        K::to_bytes(K::get(&(*cpu).regs, (*op).rd), bytes);
        if (*cpu).store(&request, bytes).is_err() {
            return false;
        }
        M::writeback(&mut (*cpu).regs, &*op);
        true
    }
}

/// LDTR and its kin at EL1: with EL0 rights.
///
/// # Safety
/// As for a handler.
pub unsafe extern "C" fn load_user<K: Kind>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        let va = Offset::address(&(*cpu).regs, &*op);
        match probe_read((*cpu).tlb_user, va, bytes_of::<K>()) {
            Some(host) => {
                K::put(&mut (*cpu).regs, (*op).rd, mem::read(host));
                next_op!(cpu, op)
            }
            None => {
                if load_into::<Offset, K>(cpu, op, true) {
                    next_op!(cpu, op)
                }
            }
        }
    }
}

/// STTR and its kin at EL1: with EL0 rights.
///
/// # Safety
/// As for a handler.
pub unsafe extern "C" fn store_user<K: Kind>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        let va = Offset::address(&(*cpu).regs, &*op);
        match probe_write((*cpu).tlb_user, va, bytes_of::<K>()) {
            Some(host) => {
                mem::write(host, K::get(&(*cpu).regs, (*op).rd));
                next_op!(cpu, op)
            }
            None => {
                if store_from::<Offset, K>(cpu, op, true) {
                    next_op!(cpu, op)
                }
            }
        }
    }
}

/// LDP and LDNP; the second register is `ra`.
///
/// # Safety
/// As for a handler.
pub unsafe extern "C" fn load_pair<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        if load_pair_fast::<M, K>(cpu, op) {
            next_op!(cpu, op)
        } else {
            load_pair_slow::<M, K>(cpu, op)
        }
    }
}

/// Loads a pair if the TLB has the page; else nothing changed.
///
/// # Safety
/// As for a handler.
#[inline(always)]
pub unsafe fn load_pair_fast<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op) -> bool {
    // SAFETY: by the contract.
    unsafe {
        let va = M::address(&(*cpu).regs, &*op);
        let Some(host) = probe_read((*cpu).tlb, va, 2 * bytes_of::<K>()) else {
            return false;
        };
        let (first, second) = (mem::read(host), mem::read(host + bytes_of::<K>()));
        K::put(&mut (*cpu).regs, (*op).rd, first);
        K::put(&mut (*cpu).regs, (*op).ra, second);
        M::writeback(&mut (*cpu).regs, &*op);
        true
    }
}

/// The same through the walker, and what follows.
///
/// # Safety
/// As for a handler.
#[cold]
#[inline(never)]
pub unsafe extern "C" fn load_pair_slow<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        if load_pair_into::<M, K>(cpu, op) {
            next_op!(cpu, op)
        }
    }
}

/// # Safety
/// As for a handler.
#[inline(never)]
unsafe fn load_pair_into<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op) -> bool {
    // SAFETY: by the contract.
    unsafe {
        let half = 1usize << K::SIZE;
        let request = Request {
            bytes: 2 << K::SIZE,
            transfer: None,
            ..request::<M, K>(cpu, op, Access::Read)
        };
        let mut bytes = [0; 32];
        let bytes = &mut bytes[..2 * half];
        if (*cpu).load(&request, bytes).is_err() {
            return false;
        }
        K::put(&mut (*cpu).regs, (*op).rd, K::from_bytes(&bytes[..half]));
        K::put(&mut (*cpu).regs, (*op).ra, K::from_bytes(&bytes[half..]));
        M::writeback(&mut (*cpu).regs, &*op);
        true
    }
}

/// STP and STNP; the second register is `ra`.
///
/// # Safety
/// As for a handler.
pub unsafe extern "C" fn store_pair<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        if store_pair_fast::<M, K>(cpu, op) {
            next_op!(cpu, op)
        } else {
            store_pair_slow::<M, K>(cpu, op)
        }
    }
}

/// Stores a pair if the TLB has the page; else nothing changed.
///
/// # Safety
/// As for a handler.
#[inline(always)]
pub unsafe fn store_pair_fast<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op) -> bool {
    // SAFETY: by the contract.
    unsafe {
        let va = M::address(&(*cpu).regs, &*op);
        let Some(host) = probe_write((*cpu).tlb, va, 2 * bytes_of::<K>()) else {
            return false;
        };
        mem::write(host, K::get(&(*cpu).regs, (*op).rd));
        mem::write(host + bytes_of::<K>(), K::get(&(*cpu).regs, (*op).ra));
        M::writeback(&mut (*cpu).regs, &*op);
        true
    }
}

/// The same through the walker, and what follows.
///
/// # Safety
/// As for a handler.
#[cold]
#[inline(never)]
pub unsafe extern "C" fn store_pair_slow<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        if store_pair_from::<M, K>(cpu, op) {
            next_op!(cpu, op)
        }
    }
}

/// # Safety
/// As for a handler.
#[inline(never)]
unsafe fn store_pair_from<M: Mode, K: Kind>(cpu: *mut Cpu, op: *const Op) -> bool {
    // SAFETY: by the contract.
    unsafe {
        let half = 1usize << K::SIZE;
        let request = Request {
            bytes: 2 << K::SIZE,
            transfer: None,
            ..request::<M, K>(cpu, op, Access::Write)
        };
        let mut bytes = [0; 32];
        let bytes = &mut bytes[..2 * half];
        K::to_bytes(K::get(&(*cpu).regs, (*op).rd), &mut bytes[..half]);
        K::to_bytes(K::get(&(*cpu).regs, (*op).ra), &mut bytes[half..]);
        if (*cpu).store(&request, bytes).is_err() {
            return false;
        }
        M::writeback(&mut (*cpu).regs, &*op);
        true
    }
}

/// Bytes that DC ZVA zeroes, as DCZID_EL0 says.
const ZVA_BYTES: u64 = 64;

handler!(
    /// DC ZVA.
    zero_block, |cpu, op| {
        let va = (*cpu).regs.get((*op).rd) & !(ZVA_BYTES - 1);
        match probe_write((*cpu).tlb, va, ZVA_BYTES) {
            Some(host) => {
                mem::write(host, [0u64; 8]);
                next_op!(cpu, op)
            }
            None => {
                if zero_block_slow(cpu, op, va) {
                    next_op!(cpu, op)
                }
            }
        }
    }
);

/// # Safety
/// As for a handler.
#[cold]
#[inline(never)]
unsafe fn zero_block_slow(cpu: *mut Cpu, op: *const Op, va: u64) -> bool {
    // SAFETY: by the contract.
    unsafe {
        let request = Request {
            pc: pc_of(cpu, op),
            va,
            bytes: ZVA_BYTES as u32,
            access: Access::Write,
            user: (*cpu).pstate.el == 0,
            aligned: false,
            transfer: None,
        };
        let stored = (*cpu).store(&request, &[0; ZVA_BYTES as usize]).is_ok();
        if !stored && (*cpu).exit.is_none() {
            // FAR_EL1 has the address of the register, not of the block.
            (*cpu).sys.far = (*cpu).regs.get((*op).rd);
        }
        stored
    }
}

//! Exclusives, acquire/release accesses and the LSE atomics.
//!
//! The host is at least as strongly ordered as the guest: every
//! read-modify-write is sequentially consistent, whatever its A and L bits.

use super::branch::pc_of;
use crate::cpu::op::{Op, SINK};
use crate::cpu::{Cpu, Monitor};
use crate::mem::{self, Request, Transfer, probe_read, probe_write};
use crate::next_op;
use crate::walk::Access;
use std::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst, compiler_fence, fence,
};

/// An operand size that memory can be updated in atomically.
pub trait Atom: Copy {
    /// Bytes.
    const BYTES: u64;
    /// From a register.
    fn from_reg(value: u64) -> Self;
    /// To a register, zero-extended.
    fn to_reg(self) -> u64;
    /// Compare and swap; returns what was there.
    ///
    /// # Safety
    /// `host` is valid for atomic access of this size.
    unsafe fn cas(host: u64, old: Self, new: Self) -> Self;
    /// Updates by the operation `WHAT`; returns what was there.
    ///
    /// # Safety
    /// As for [`Atom::cas`].
    unsafe fn update<const WHAT: u8>(host: u64, operand: Self) -> Self;
}

/// Operations of LDADD and its kin: o3:opc of the encoding.
#[allow(missing_docs)]
pub mod what {
    pub const ADD: u8 = 0;
    pub const CLR: u8 = 1;
    pub const EOR: u8 = 2;
    pub const SET: u8 = 3;
    pub const SMAX: u8 = 4;
    pub const SMIN: u8 = 5;
    pub const UMAX: u8 = 6;
    pub const UMIN: u8 = 7;
    pub const SWP: u8 = 8;
}

macro_rules! atom {
    ($t:ty, $signed:ty, $atomic:ty) => {
        impl Atom for $t {
            const BYTES: u64 = size_of::<$t>() as u64;
            fn from_reg(value: u64) -> Self {
                value as $t
            }
            fn to_reg(self) -> u64 {
                u64::from(self)
            }
            unsafe fn cas(host: u64, old: Self, new: Self) -> Self {
                // SAFETY: by the contract.
                let cell = unsafe { &*(host as *const $atomic) };
                match cell.compare_exchange(old, new, SeqCst, SeqCst) {
                    Ok(was) | Err(was) => was,
                }
            }
            #[inline(always)]
            unsafe fn update<const WHAT: u8>(host: u64, operand: Self) -> Self {
                // SAFETY: by the contract.
                let cell = unsafe { &*(host as *const $atomic) };
                let signed = |pick: fn($signed, $signed) -> $signed| {
                    let mut was = cell.load(SeqCst);
                    loop {
                        let new = pick(was as $signed, operand as $signed) as $t;
                        match cell.compare_exchange(was, new, SeqCst, SeqCst) {
                            Ok(was) => return was,
                            Err(now) => was = now,
                        }
                    }
                };
                match WHAT {
                    what::ADD => cell.fetch_add(operand, SeqCst),
                    what::CLR => cell.fetch_and(!operand, SeqCst),
                    what::EOR => cell.fetch_xor(operand, SeqCst),
                    what::SET => cell.fetch_or(operand, SeqCst),
                    what::SMAX => signed(<$signed>::max),
                    what::SMIN => signed(<$signed>::min),
                    what::UMAX => cell.fetch_max(operand, SeqCst),
                    what::UMIN => cell.fetch_min(operand, SeqCst),
                    _ => cell.swap(operand, SeqCst),
                }
            }
        }
    };
}

atom!(u8, i8, AtomicU8);
atom!(u16, i16, AtomicU16);
atom!(u32, i32, AtomicU32);
atom!(u64, i64, AtomicU64);

/// Compares and swaps 16 bytes; returns what was there.
///
/// # Safety
/// `host` is a multiple of 16 and valid for atomic access.
#[cfg(target_arch = "x86_64")]
unsafe fn cas_pair(host: u64, old: [u64; 2], new: [u64; 2]) -> [u64; 2] {
    let (mut low, mut high) = (old[0], old[1]);
    // The standard library's 16-byte operation may be inlined into a caller
    // without the target feature, which then calls a library that is not there.
    // SAFETY: by the contract; rbx, which the compiler reserves, is put back.
    // Hosts without CMPXCHG16B predate everything this crate runs on.
    unsafe {
        std::arch::asm!(
            "xchg rsi, rbx",
            "lock cmpxchg16b [rdi]",
            "mov rbx, rsi",
            in("rdi") host,
            inout("rsi") new[0] => _,
            in("rcx") new[1],
            inout("rax") low, inout("rdx") high,
        );
    }
    [low, high]
}

/// Compares and swaps 16 bytes; returns what was there.
///
/// # Safety
/// `host` is a multiple of 16 and valid for atomic access.
#[cfg(target_arch = "aarch64")]
unsafe fn cas_pair(host: u64, old: [u64; 2], new: [u64; 2]) -> [u64; 2] {
    let (mut low, mut high) = (old[0], old[1]);
    // SAFETY: by the contract; hosts of this architecture have LSE.
    unsafe {
        std::arch::asm!(
            ".arch_extension lse",
            "caspal x4, x5, x6, x7, [{at}]",
            at = in(reg) host,
            inout("x4") low, inout("x5") high,
            in("x6") new[0], in("x7") new[1],
        );
    }
    [low, high]
}

/// # Safety
/// As for a handler.
unsafe fn request(cpu: *mut Cpu, op: *const Op, bytes: u64, access: Access) -> Request {
    // SAFETY: by the contract.
    unsafe {
        Request {
            pc: pc_of(cpu, op),
            va: (*cpu).regs.get((*op).rn).wrapping_add((*op).imm),
            bytes: bytes as u32,
            access,
            user: (*cpu).pstate.el == 0,
            aligned: true,
            transfer: None,
        }
    }
}

/// The host address of an aligned access to RAM, or the exception taken.
///
/// # Safety
/// As for a handler.
#[inline(always)]
unsafe fn locate(cpu: *mut Cpu, op: *const Op, bytes: u64, access: Access) -> Option<u64> {
    // SAFETY: by the contract.
    unsafe {
        let va = (*cpu).regs.get((*op).rn).wrapping_add((*op).imm);
        if va & (bytes - 1) == 0 {
            let hit = match access {
                Access::Write => probe_write((*cpu).tlb, va, bytes),
                _ => probe_read((*cpu).tlb, va, bytes),
            };
            if hit.is_some() {
                return hit;
            }
        }
        locate_slow(cpu, op, bytes, access)
    }
}

/// # Safety
/// As for a handler.
#[cold]
#[inline(never)]
unsafe fn locate_slow(cpu: *mut Cpu, op: *const Op, bytes: u64, access: Access) -> Option<u64> {
    // SAFETY: by the contract.
    unsafe {
        let request = request(cpu, op, bytes, access);
        (*cpu).locate(&request).ok()
    }
}

/// As [`locate`] for writing, for an instruction that reads first: a misaligned
/// address is the read's fault (WnR = 0, Arm ARM D24.2.40).
///
/// # Safety
/// As for a handler.
#[inline(always)]
unsafe fn locate_update(cpu: *mut Cpu, op: *const Op, bytes: u64) -> Option<u64> {
    // SAFETY: by the contract.
    unsafe {
        let va = (*cpu).regs.get((*op).rn).wrapping_add((*op).imm);
        if va & (bytes - 1) == 0 {
            locate(cpu, op, bytes, Access::Write)
        } else {
            locate_slow(cpu, op, bytes, Access::Read)
        }
    }
}

macro_rules! generic {
    ($(#[$doc:meta])* $name:ident<$t:ident $(, $(const $p:ident: $c:ty),+)?>, |$cpu:ident, $op:ident| $body:block) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As for a handler.
        pub unsafe extern "C" fn $name<$t: Atom $(, $(const $p: $c),+)?>($cpu: *mut Cpu, $op: *const Op) {
            // SAFETY: called by the run loop or another handler, with a vCPU
            // that this thread owns and an op of one of its live blocks.
            unsafe { $body }
        }
    };
}

generic!(
    /// LDXR and LDAXR.
    load_exclusive<T>, |cpu, op| {
        if let Some(host) = locate(cpu, op, T::BYTES, Access::Read) {
            let value = mem::read::<T>(host).to_reg();
            fence(SeqCst);
            (*cpu).monitor = Monitor { host, size: T::BYTES as u8, value: [value, 0] };
            (*cpu).regs.set((*op).rd, value);
            next_op!(cpu, op)
        }
    }
);

generic!(
    /// STXR and STLXR; the status register is `rm`.
    store_exclusive<T>, |cpu, op| {
        if let Some(host) = locate(cpu, op, T::BYTES, Access::Write) {
            let monitor = (*cpu).monitor;
            (*cpu).monitor.host = 0;
            let failed = monitor.host != host || u64::from(monitor.size) != T::BYTES || {
                let new = T::from_reg((*cpu).regs.get((*op).rd));
                T::cas(host, T::from_reg(monitor.value[0]), new).to_reg() != monitor.value[0]
            };
            (*cpu).regs.set((*op).rm, u64::from(failed));
            next_op!(cpu, op)
        }
    }
);

generic!(
    /// LDXP and LDAXP; the second register is `ra`.
    load_exclusive_pair<T>, |cpu, op| {
        if let Some(host) = locate(cpu, op, 2 * T::BYTES, Access::Read) {
            // One 16-byte read that does not tear: a compare-and-swap of equal
            // values would need write rights, so read until stable.
            let value = loop {
                let first = [mem::read::<T>(host).to_reg(), mem::read::<T>(host + T::BYTES).to_reg()];
                compiler_fence(SeqCst);
                let again = [mem::read::<T>(host).to_reg(), mem::read::<T>(host + T::BYTES).to_reg()];
                if first == again {
                    break first;
                }
            };
            fence(SeqCst);
            (*cpu).monitor = Monitor { host, size: 2 * T::BYTES as u8, value };
            (*cpu).regs.set((*op).rd, value[0]);
            (*cpu).regs.set((*op).ra, value[1]);
            next_op!(cpu, op)
        }
    }
);

/// Compares and swaps a pair of `T`; returns what was there.
///
/// # Safety
/// `host` is a multiple of the pair's size and valid for atomic access.
unsafe fn cas_two<T: Atom>(host: u64, old: [u64; 2], new: [u64; 2]) -> [u64; 2] {
    // SAFETY: by the contract.
    unsafe {
        if T::BYTES == 8 {
            return cas_pair(host, old, new);
        }
        let join = |v: [u64; 2]| v[0] & 0xffff_ffff | v[1] << 32;
        let was = u64::cas(host, join(old), join(new));
        [was & 0xffff_ffff, was >> 32]
    }
}

generic!(
    /// STXP and STLXP; data in `rd` and `ra`, status in `rm`.
    store_exclusive_pair<T>, |cpu, op| {
        if let Some(host) = locate(cpu, op, 2 * T::BYTES, Access::Write) {
            let monitor = (*cpu).monitor;
            (*cpu).monitor.host = 0;
            let same = monitor.host == host && u64::from(monitor.size) == 2 * T::BYTES;
            let new = [(*cpu).regs.get((*op).rd), (*cpu).regs.get((*op).ra)];
            let failed = !same || cas_two::<T>(host, monitor.value, new) != monitor.value;
            (*cpu).regs.set((*op).rm, u64::from(failed));
            next_op!(cpu, op)
        }
    }
);

/// # Safety
/// As for a handler.
#[cold]
#[inline(never)]
unsafe fn ordered_device<T: Atom>(cpu: *mut Cpu, op: *const Op, access: Access) -> bool {
    // SAFETY: by the contract.
    unsafe {
        let request = Request {
            transfer: Some(Transfer {
                register: if (*op).rd >= SINK - 1 { 31 } else { (*op).rd },
                size: T::BYTES.trailing_zeros() as u8,
                signed: false,
                wide: T::BYTES == 8,
                ordered: true,
            }),
            ..request(cpu, op, T::BYTES, access)
        };
        let mut bytes = [0; 8];
        if access == Access::Write {
            bytes = (*cpu).regs.get((*op).rd).to_le_bytes();
            return (*cpu).store(&request, &bytes[..T::BYTES as usize]).is_ok();
        }
        if (*cpu)
            .load(&request, &mut bytes[..T::BYTES as usize])
            .is_err()
        {
            return false;
        }
        (*cpu).regs.set((*op).rd, u64::from_le_bytes(bytes));
        true
    }
}

generic!(
    /// LDAR, LDAPR and LDLAR.
    load_acquire<T>, |cpu, op| {
        let va = (*cpu).regs.get((*op).rn);
        match probe_read((*cpu).tlb, va, T::BYTES) {
            Some(host) if va & (T::BYTES - 1) == 0 => {
                let value = mem::read::<T>(host).to_reg();
                fence(std::sync::atomic::Ordering::Acquire);
                (*cpu).regs.set((*op).rd, value);
                next_op!(cpu, op)
            }
            _ => {
                if ordered_device::<T>(cpu, op, Access::Read) {
                    next_op!(cpu, op)
                }
            }
        }
    }
);

generic!(
    /// STLR and STLLR.
    store_release<T>, |cpu, op| {
        let va = (*cpu).regs.get((*op).rn);
        match probe_write((*cpu).tlb, va, T::BYTES) {
            Some(host) if va & (T::BYTES - 1) == 0 => {
                fence(std::sync::atomic::Ordering::Release);
                mem::write(host, T::from_reg((*cpu).regs.get((*op).rd)));
                // A later LDAR must not overtake this (RCsc).
                fence(SeqCst);
                next_op!(cpu, op)
            }
            _ => {
                if ordered_device::<T>(cpu, op, Access::Write) {
                    next_op!(cpu, op)
                }
            }
        }
    }
);

generic!(
    /// LDADD, LDCLR, LDEOR, LDSET, LDSMAX, LDSMIN, LDUMAX, LDUMIN, SWP; operand `rm`.
    update<T, const WHAT: u8>, |cpu, op| {
        if let Some(host) = locate_update(cpu, op, T::BYTES) {
            let operand = T::from_reg((*cpu).regs.get((*op).rm));
            let was = T::update::<WHAT>(host, operand);
            (*cpu).regs.set((*op).rd, was.to_reg());
            next_op!(cpu, op)
        }
    }
);

generic!(
    /// CAS; compared and result `rm`, new value `rd`.
    cas<T>, |cpu, op| {
        if let Some(host) = locate_update(cpu, op, T::BYTES) {
            let old = T::from_reg((*cpu).regs.get((*op).ra));
            let new = T::from_reg((*cpu).regs.get((*op).rd));
            let was = T::cas(host, old, new);
            (*cpu).regs.set((*op).rm, was.to_reg());
            next_op!(cpu, op)
        }
    }
);

/// XZR as the second of a pair is slot SINK or ZERO; else the next register.
fn second(slot: u8) -> u8 {
    // Pairs start at even registers, so slot 30 pairs with XZR.
    if slot == 30 { SINK } else { slot + 1 }
}

generic!(
    /// CASP; compared and result `rm` and the next, new value `rd` and the next.
    cas_two_registers<T>, |cpu, op| {
        if let Some(host) = locate_update(cpu, op, 2 * T::BYTES) {
            let regs = &mut (*cpu).regs;
            let mask = if T::BYTES == 8 { u64::MAX } else { 0xffff_ffff };
            // The sink may hold anything: as a source it is XZR.
            let high = |regs: &crate::regs::Regs, slot: u8| {
                if slot == 30 { 0 } else { regs.get(slot + 1) & mask }
            };
            let old = [regs.get((*op).rm) & mask, high(regs, (*op).rm)];
            let new = [regs.get((*op).rd) & mask, high(regs, (*op).rd)];
            let was = cas_two::<T>(host, old, new);
            regs.set((*op).rm, was[0]);
            regs.set(second((*op).rm), was[1]);
            next_op!(cpu, op)
        }
    }
);

//! Loads and stores of one register or a pair.
//!
//! A handler probes the TLB inline; what the probe does not cover it hands to a
//! cold handler by a tail call, so that the fast path needs no stack frame.

use super::branch::{handler, pc_of};
use super::int::extend;
use crate::cpu::Cpu;
use crate::mem::{self, Request, Transfer, probe_read, probe_write};
use crate::next_op;
use crate::op::{Op, SINK};
use crate::regs::{Regs, V};
use crate::walk::Access;

/// How an address is formed.
pub trait Mode {
    /// The address, before any writeback.
    fn address(regs: &Regs, op: &Op) -> u64;
    /// Updates the base register.
    #[inline(always)]
    fn writeback(_regs: &mut Regs, _op: &Op) {}
    /// The monitor can be told the register: no writeback.
    const PLAIN: bool = true;
}

/// `[Xn, #imm]`.
pub struct Offset;
impl Mode for Offset {
    #[inline(always)]
    fn address(regs: &Regs, op: &Op) -> u64 {
        regs.get(op.rn).wrapping_add(op.imm)
    }
}

/// `[Xn, #imm]!`.
pub struct Pre;
impl Mode for Pre {
    #[inline(always)]
    fn address(regs: &Regs, op: &Op) -> u64 {
        regs.get(op.rn).wrapping_add(op.imm)
    }
    #[inline(always)]
    fn writeback(regs: &mut Regs, op: &Op) {
        let base = regs.get(op.rn).wrapping_add(op.imm);
        regs.set(op.rn, base);
    }
    const PLAIN: bool = false;
}

/// `[Xn], #imm`.
pub struct Post;
impl Mode for Post {
    #[inline(always)]
    fn address(regs: &Regs, op: &Op) -> u64 {
        regs.get(op.rn)
    }
    #[inline(always)]
    fn writeback(regs: &mut Regs, op: &Op) {
        let base = regs.get(op.rn).wrapping_add(op.imm);
        regs.set(op.rn, base);
    }
    const PLAIN: bool = false;
}

/// `[Xn, Rm, extend #aux]`.
pub struct Index<const EXTEND: u8>;
impl<const EXTEND: u8> Mode for Index<EXTEND> {
    #[inline(always)]
    fn address(regs: &Regs, op: &Op) -> u64 {
        let index = extend::<EXTEND>(regs.get(op.rm)) << op.aux;
        regs.get(op.rn).wrapping_add(index)
    }
}

/// `label`.
pub struct Literal;
impl Mode for Literal {
    #[inline(always)]
    fn address(regs: &Regs, op: &Op) -> u64 {
        (regs.page + u64::from(op.pc_offset)).wrapping_add(op.imm)
    }
}

/// What moves between a register and memory.
pub trait Kind {
    /// The bytes in memory.
    type Raw: Copy;
    /// log2 of their number.
    const SIZE: u8;
    /// Sign-extends when loaded.
    const SIGNED: bool;
    /// The register is 64 bits wide.
    const WIDE: bool;
    /// A general register, which the monitor can be told.
    const GENERAL: bool;
    /// Writes what was loaded to register slot `slot`.
    fn put(regs: &mut Regs, slot: u8, raw: Self::Raw);
    /// Takes what is stored from register slot `slot`.
    fn get(regs: &Regs, slot: u8) -> Self::Raw;
    /// From bytes; `bytes` has the length of `Raw`.
    fn from_bytes(bytes: &[u8]) -> Self::Raw;
    /// To bytes; `bytes` has the length of `Raw`.
    fn to_bytes(raw: Self::Raw, bytes: &mut [u8]);
}

macro_rules! integer_bytes {
    ($t:ty) => {
        #[inline(always)]
        fn from_bytes(bytes: &[u8]) -> $t {
            let mut value = [0; size_of::<$t>()];
            value.copy_from_slice(bytes);
            <$t>::from_le_bytes(value)
        }
        #[inline(always)]
        fn to_bytes(raw: $t, bytes: &mut [u8]) {
            bytes.copy_from_slice(&raw.to_le_bytes());
        }
    };
}

macro_rules! general {
    ($name:ident, $t:ty, $size:literal, $signed:literal, $wide:literal, |$raw:ident| $extend:expr) => {
        /// General register transfer.
        pub struct $name;
        impl Kind for $name {
            type Raw = $t;
            const SIZE: u8 = $size;
            const SIGNED: bool = $signed;
            const WIDE: bool = $wide;
            const GENERAL: bool = true;
            #[inline(always)]
            fn put(regs: &mut Regs, slot: u8, $raw: $t) {
                regs.set(slot, $extend);
            }
            #[inline(always)]
            fn get(regs: &Regs, slot: u8) -> $t {
                regs.get(slot) as $t
            }
            integer_bytes!($t);
        }
    };
}

general!(B, u8, 0, false, false, |raw| u64::from(raw));
general!(H, u16, 1, false, false, |raw| u64::from(raw));
general!(W, u32, 2, false, false, |raw| u64::from(raw));
general!(X, u64, 3, false, true, |raw| raw);
general!(SbW, u8, 0, true, false, |raw| u64::from(raw as i8 as u32));
general!(SbX, u8, 0, true, true, |raw| raw as i8 as u64);
general!(ShW, u16, 1, true, false, |raw| u64::from(raw as i16 as u32));
general!(ShX, u16, 1, true, true, |raw| raw as i16 as u64);
general!(SwX, u32, 2, true, true, |raw| raw as i32 as u64);

macro_rules! vector {
    ($name:ident, $t:ty, $size:literal) => {
        /// Vector register transfer, zeroing the rest of the register.
        pub struct $name;
        impl Kind for $name {
            type Raw = $t;
            const SIZE: u8 = $size;
            const SIGNED: bool = false;
            const WIDE: bool = false;
            const GENERAL: bool = false;
            #[inline(always)]
            fn put(regs: &mut Regs, slot: u8, raw: $t) {
                regs.v[usize::from(slot & 31)] = V([u64::from(raw), 0]);
            }
            #[inline(always)]
            fn get(regs: &Regs, slot: u8) -> $t {
                regs.v[usize::from(slot & 31)].0[0] as $t
            }
            integer_bytes!($t);
        }
    };
}

vector!(Vb, u8, 0);
vector!(Vh, u16, 1);
vector!(Vs, u32, 2);
vector!(Vd, u64, 3);

/// A whole vector register.
pub struct Vq;
impl Kind for Vq {
    type Raw = [u64; 2];
    const SIZE: u8 = 4;
    const SIGNED: bool = false;
    const WIDE: bool = false;
    const GENERAL: bool = false;
    #[inline(always)]
    fn put(regs: &mut Regs, slot: u8, raw: [u64; 2]) {
        regs.v[usize::from(slot & 31)] = V(raw);
    }
    #[inline(always)]
    fn get(regs: &Regs, slot: u8) -> [u64; 2] {
        regs.v[usize::from(slot & 31)].0
    }
    #[inline(always)]
    fn from_bytes(bytes: &[u8]) -> [u64; 2] {
        [X::from_bytes(&bytes[..8]), X::from_bytes(&bytes[8..])]
    }
    #[inline(always)]
    fn to_bytes(raw: [u64; 2], bytes: &mut [u8]) {
        bytes[..8].copy_from_slice(&raw[0].to_le_bytes());
        bytes[8..].copy_from_slice(&raw[1].to_le_bytes());
    }
}

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

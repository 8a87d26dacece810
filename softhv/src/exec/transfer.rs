//! What loads and stores transfer, and how they form addresses.

use super::int::extend;
use crate::cpu::op::Op;
use crate::regs::{Regs, V};

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

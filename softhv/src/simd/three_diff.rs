//! Three registers of different lanes: long, wide and narrowing arithmetic.
//! Arm ARM C4.1.96, "Advanced SIMD three different" and its scalar twin.

use super::forms::{Lanes2, Lanes2Sat, Lanes3, Lanes3Sat, Long, Wide};
use super::lane_ops::*;
use super::ops::by_size;
use super::reshape::{Floor, HighNarrow, Nearest};
use super::{crypto, run};
use crate::cpu::op::Handler;
use crate::insn::simd::VecBinary;

/// The handler of `op` on narrow lanes of `1 << size` bytes.
pub fn run_of(op: VecBinary, size: u32) -> Option<Handler> {
    match op {
        VecBinary::Saddl => by_size!(size, Lanes2<Add, Long>, 0: i8 i16 i32),
        VecBinary::Uaddl => by_size!(size, Lanes2<Add, Long>, 0: u8 u16 u32),
        VecBinary::Saddw => by_size!(size, Lanes2<Add, Wide>, 0: i8 i16 i32),
        VecBinary::Uaddw => by_size!(size, Lanes2<Add, Wide>, 0: u8 u16 u32),
        VecBinary::Ssubl => by_size!(size, Lanes2<Sub, Long>, 0: i8 i16 i32),
        VecBinary::Usubl => by_size!(size, Lanes2<Sub, Long>, 0: u8 u16 u32),
        VecBinary::Ssubw => by_size!(size, Lanes2<Sub, Wide>, 0: i8 i16 i32),
        VecBinary::Usubw => by_size!(size, Lanes2<Sub, Wide>, 0: u8 u16 u32),
        VecBinary::Addhn | VecBinary::Raddhn | VecBinary::Subhn | VecBinary::Rsubhn => {
            high_narrow(op, size)
        }
        VecBinary::Sabal => by_size!(size, Lanes3<Aba, Long>, 0: i8 i16 i32),
        VecBinary::Uabal => by_size!(size, Lanes3<Aba, Long>, 0: u8 u16 u32),
        VecBinary::Sabdl => by_size!(size, Lanes2<Abd, Long>, 0: i8 i16 i32),
        VecBinary::Uabdl => by_size!(size, Lanes2<Abd, Long>, 0: u8 u16 u32),
        VecBinary::Smlal => by_size!(size, Lanes3<Mla, Long>, 0: i8 i16 i32),
        VecBinary::Umlal => by_size!(size, Lanes3<Mla, Long>, 0: u8 u16 u32),
        VecBinary::Smlsl => by_size!(size, Lanes3<Mls, Long>, 0: i8 i16 i32),
        VecBinary::Umlsl => by_size!(size, Lanes3<Mls, Long>, 0: u8 u16 u32),
        VecBinary::Smull => by_size!(size, Lanes2<Mul, Long>, 0: i8 i16 i32),
        VecBinary::Umull => by_size!(size, Lanes2<Mul, Long>, 0: u8 u16 u32),
        VecBinary::Pmull if size == 0 => Some(run::<Lanes2<Pmul, Long<u8>>>()),
        VecBinary::Pmull if size == 3 => Some(crypto::multiply_64()),
        _ => saturating(op, size),
    }
}

/// SQDMLAL, SQDMLSL, SQDMULL.
fn saturating(op: VecBinary, size: u32) -> Option<Handler> {
    match op {
        VecBinary::Sqdmlal => by_size!(size, Lanes3Sat<Qdmlal, Long>, 1: i16 i32),
        VecBinary::Sqdmlsl => by_size!(size, Lanes3Sat<Qdmlsl, Long>, 1: i16 i32),
        VecBinary::Sqdmull => by_size!(size, Lanes2Sat<Qdmull, Long>, 1: i16 i32),
        _ => None,
    }
}

/// ADDHN, RADDHN, SUBHN, RSUBHN.
fn high_narrow(op: VecBinary, size: u32) -> Option<Handler> {
    macro_rules! of {
        ($f:ty, $rounding:ty) => {
            [
                run::<HighNarrow<$f, u16, u8, $rounding>>(),
                run::<HighNarrow<$f, u32, u16, $rounding>>(),
                run::<HighNarrow<$f, u64, u32, $rounding>>(),
            ]
        };
    }
    let table = match op {
        VecBinary::Addhn => of!(Add, Floor),
        VecBinary::Raddhn => of!(Add, Nearest),
        VecBinary::Subhn => of!(Sub, Floor),
        _ => of!(Sub, Nearest),
    };
    table.get(size as usize).copied()
}

//! Three registers of different lanes: long, wide and narrowing arithmetic.
//! Arm ARM C4.1.96, "Advanced SIMD three different" and its scalar twin.

use super::forms::{Lanes2, Lanes2Sat, Lanes3, Lanes3Sat, Long, Wide};
use super::lane_ops::*;
use super::reshape::{Floor, HighNarrow, Nearest};
use super::word::{Word, by_size};
use super::{crypto, run};
use crate::cpu::op::{Handler, Op};

/// Vector form, by `opcode << 1 | U`.
pub fn vector(w: Word) -> Option<Op> {
    let (code, size) = (w.code(12, 4), w.size());
    let run = match code {
        0b0000_0 => by_size!(size, Lanes2<Add, Long>, 0: i8 i16 i32),
        0b0000_1 => by_size!(size, Lanes2<Add, Long>, 0: u8 u16 u32),
        0b0001_0 => by_size!(size, Lanes2<Add, Wide>, 0: i8 i16 i32),
        0b0001_1 => by_size!(size, Lanes2<Add, Wide>, 0: u8 u16 u32),
        0b0010_0 => by_size!(size, Lanes2<Sub, Long>, 0: i8 i16 i32),
        0b0010_1 => by_size!(size, Lanes2<Sub, Long>, 0: u8 u16 u32),
        0b0011_0 => by_size!(size, Lanes2<Sub, Wide>, 0: i8 i16 i32),
        0b0011_1 => by_size!(size, Lanes2<Sub, Wide>, 0: u8 u16 u32),
        0b0100_0 | 0b0100_1 | 0b0110_0 | 0b0110_1 => high_narrow(code, size),
        0b0101_0 => by_size!(size, Lanes3<Aba, Long>, 0: i8 i16 i32),
        0b0101_1 => by_size!(size, Lanes3<Aba, Long>, 0: u8 u16 u32),
        0b0111_0 => by_size!(size, Lanes2<Abd, Long>, 0: i8 i16 i32),
        0b0111_1 => by_size!(size, Lanes2<Abd, Long>, 0: u8 u16 u32),
        0b1000_0 => by_size!(size, Lanes3<Mla, Long>, 0: i8 i16 i32),
        0b1000_1 => by_size!(size, Lanes3<Mla, Long>, 0: u8 u16 u32),
        0b1010_0 => by_size!(size, Lanes3<Mls, Long>, 0: i8 i16 i32),
        0b1010_1 => by_size!(size, Lanes3<Mls, Long>, 0: u8 u16 u32),
        0b1100_0 => by_size!(size, Lanes2<Mul, Long>, 0: i8 i16 i32),
        0b1100_1 => by_size!(size, Lanes2<Mul, Long>, 0: u8 u16 u32),
        0b1110_0 if size == 0 => Some(run::<Lanes2<Pmul, Long<u8>>>()),
        0b1110_0 if size == 3 => Some(crypto::multiply_64()),
        _ => saturating(code, size),
    };
    Some(w.half_op(run?))
}

/// Scalar form: the doubling multiplies only.
pub fn scalar(w: Word) -> Option<Op> {
    let size = w.size();
    Some(w.scalar_op(saturating(w.code(12, 4), size)?, size + 1))
}

/// SQDMLAL, SQDMLSL, SQDMULL.
fn saturating(code: u32, size: u32) -> Option<Handler> {
    match code {
        0b1001_0 => by_size!(size, Lanes3Sat<Qdmlal, Long>, 1: i16 i32),
        0b1011_0 => by_size!(size, Lanes3Sat<Qdmlsl, Long>, 1: i16 i32),
        0b1101_0 => by_size!(size, Lanes2Sat<Qdmull, Long>, 1: i16 i32),
        _ => None,
    }
}

/// ADDHN, RADDHN, SUBHN, RSUBHN.
fn high_narrow(code: u32, size: u32) -> Option<Handler> {
    macro_rules! of {
        ($f:ty, $rounding:ty) => {
            [
                run::<HighNarrow<$f, u16, u8, $rounding>>(),
                run::<HighNarrow<$f, u32, u16, $rounding>>(),
                run::<HighNarrow<$f, u64, u32, $rounding>>(),
            ]
        };
    }
    let table = match code {
        0b0100_0 => of!(Add, Floor),
        0b0100_1 => of!(Add, Nearest),
        0b0110_0 => of!(Sub, Floor),
        _ => of!(Sub, Nearest),
    };
    table.get(size as usize).copied()
}

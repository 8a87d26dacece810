//! One source register. Arm ARM C4.1.96, "Advanced SIMD two-register
//! miscellaneous", "across lanes", "scalar pairwise" and the scalar twins.

use super::forms::{self, Accumulate, Keep, Lanes1, Lanes1Sat, Lanes2Sat};
use super::int::Int;
use super::lane_ops::*;
use super::reshape::{
    Across, AcrossHalf, AcrossSum, Clamp, PairSum, PairSumAdd, Truncate, Unshifted, WidenShift,
};
use super::word::{Word, by_size, with_imm};
use super::{Pure, run};
use crate::cpu::op::{Handler, Op};
use crate::regs::{Regs, V};
use std::marker::PhantomData;

/// Vector form.
pub fn vector(w: Word) -> Option<Op> {
    let (code, size) = (w.code(12, 5), w.size());
    match code >> 1 {
        // XTN, SQXTN, UQXTN, SQXTUN, SHLL
        0b10010 | 0b10100 => return narrowing(code, size).map(|run| w.half_op(run)),
        0b10011 if w.u() => {
            let run = by_size!(size, WidenShift, 0: u8 u16 u32)?;
            return Some(with_imm(w.half_op(run), 8 << size));
        }
        _ => {}
    }
    if w.is_1d(size) {
        return None;
    }
    lanes(code, size)
        .or_else(|| vector_only(code, size))
        .map(|run| w.vector_op(run))
}

/// Scalar form.
pub fn scalar(w: Word) -> Option<Op> {
    let (code, size) = (w.code(12, 5), w.size());
    match code >> 1 {
        // XTN alone has no scalar form
        0b10010 | 0b10100 if code != 0b10010_0 => {
            return narrowing(code, size).map(|run| w.scalar_op(run, size + 1));
        }
        0b00011 | 0b00111 => {}
        _ if size != 3 => return None,
        _ => {}
    }
    lanes(code, size).map(|run| w.scalar_op(run, size))
}

/// Operations that the vector and the scalar form share, by `opcode << 1 | U`.
fn lanes(code: u32, size: u32) -> Option<Handler> {
    match code {
        0b00011_0 => by_size!(size, Lanes2Sat<QaddMixed, Accumulate>, 0: u8 u16 u32 u64),
        0b00011_1 => by_size!(size, Lanes2Sat<QaddMixed, Accumulate>, 0: i8 i16 i32 i64),
        0b00111_0 => by_size!(size, Lanes1Sat<Qabs>, 0: i8 i16 i32 i64),
        0b00111_1 => by_size!(size, Lanes1Sat<Qneg>, 0: i8 i16 i32 i64),
        0b01000_0 => by_size!(size, Lanes1<GtZero>, 0: i8 i16 i32 i64),
        0b01000_1 => by_size!(size, Lanes1<GeZero>, 0: i8 i16 i32 i64),
        0b01001_0 => by_size!(size, Lanes1<EqZero>, 0: i8 i16 i32 i64),
        0b01001_1 => by_size!(size, Lanes1<LeZero>, 0: i8 i16 i32 i64),
        0b01010_0 => by_size!(size, Lanes1<LtZero>, 0: i8 i16 i32 i64),
        0b01011_0 => by_size!(size, Lanes1<Abs>, 0: i8 i16 i32 i64),
        0b01011_1 => by_size!(size, Lanes1<Neg>, 0: i8 i16 i32 i64),
        _ => None,
    }
}

/// Operations without a scalar form, by `opcode << 1 | U`.
fn vector_only(code: u32, size: u32) -> Option<Handler> {
    match code {
        0b00000_0 => by_size!(size, Reverse<Of8>, 0: u8 u16 u32),
        0b00000_1 => by_size!(size, Reverse<Of4>, 0: u8 u16),
        0b00001_0 => by_size!(size, Reverse<Of2>, 0: u8),
        0b00010_0 => by_size!(size, PairSum, 0: i8 i16 i32),
        0b00010_1 => by_size!(size, PairSum, 0: u8 u16 u32),
        0b00100_0 => by_size!(size, Lanes1<Cls>, 0: i8 i16 i32),
        0b00100_1 => by_size!(size, Lanes1<Clz>, 0: u8 u16 u32),
        0b00101_0 => by_size!(size, Lanes1<Cnt>, 0: u8),
        0b00101_1 => [run::<Lanes1<NotLane, u64>>(), run::<Lanes1<Rbit, u8>>()]
            .get(size as usize)
            .copied(),
        0b00110_0 => by_size!(size, PairSumAdd, 0: i8 i16 i32),
        0b00110_1 => by_size!(size, PairSumAdd, 0: u8 u16 u32),
        _ => None,
    }
}

/// XTN, SQXTUN, SQXTN, UQXTN: narrowing shifts by nothing.
fn narrowing(code: u32, size: u32) -> Option<Handler> {
    let table = match code {
        0b10010_0 => [
            run::<Truncate<u16, u8, Unshifted>>(),
            run::<Truncate<u32, u16, Unshifted>>(),
            run::<Truncate<u64, u32, Unshifted>>(),
        ],
        0b10010_1 => [
            run::<Clamp<i16, u8, Unshifted>>(),
            run::<Clamp<i32, u16, Unshifted>>(),
            run::<Clamp<i64, u32, Unshifted>>(),
        ],
        0b10100_0 => [
            run::<Clamp<i16, i8, Unshifted>>(),
            run::<Clamp<i32, i16, Unshifted>>(),
            run::<Clamp<i64, i32, Unshifted>>(),
        ],
        _ => [
            run::<Clamp<u16, u8, Unshifted>>(),
            run::<Clamp<u32, u16, Unshifted>>(),
            run::<Clamp<u64, u32, Unshifted>>(),
        ],
    };
    table.get(size as usize).copied()
}

/// Reductions over all lanes.
pub fn across(w: Word) -> Option<Op> {
    let (code, size) = (w.code(12, 5), w.size());
    if size == 2 && !w.q() {
        return None;
    }
    let run = match (code, w.q()) {
        (0b00011_0, _) => by_size!(size, AcrossSum, 0: i8 i16 i32),
        (0b00011_1, _) => by_size!(size, AcrossSum, 0: u8 u16 u32),
        (0b01010_0, true) => by_size!(size, Across<Max>, 0: i8 i16 i32),
        (0b01010_1, true) => by_size!(size, Across<Max>, 0: u8 u16 u32),
        (0b11010_0, true) => by_size!(size, Across<Min>, 0: i8 i16 i32),
        (0b11010_1, true) => by_size!(size, Across<Min>, 0: u8 u16 u32),
        (0b11011_0, true) => by_size!(size, Across<Add>, 0: u8 u16 u32),
        (0b01010_0, false) => by_size!(size, AcrossHalf<Max>, 0: i8 i16),
        (0b01010_1, false) => by_size!(size, AcrossHalf<Max>, 0: u8 u16),
        (0b11010_0, false) => by_size!(size, AcrossHalf<Min>, 0: i8 i16),
        (0b11010_1, false) => by_size!(size, AcrossHalf<Min>, 0: u8 u16),
        (0b11011_0, false) => by_size!(size, AcrossHalf<Add>, 0: u8 u16),
        _ => None,
    };
    Some(w.vector_op(run?))
}

/// ADDP of the two doublewords of Vn.
pub fn pairwise(w: Word) -> Option<Op> {
    let is_addp = w.code(12, 5) == 0b11011_0 && w.size() == 3;
    is_addp.then(|| w.op(run::<Across<Add, u64>>(), Keep::Q))
}

/// Bytes of the groups that REV16, REV32, REV64 reverse the lanes of.
trait Group {
    const BYTES: usize;
}
struct Of2;
struct Of4;
struct Of8;
impl Group for Of2 {
    const BYTES: usize = 2;
}
impl Group for Of4 {
    const BYTES: usize = 4;
}
impl Group for Of8 {
    const BYTES: usize = 8;
}

/// Vd = lanes of Vn in opposite order within each group.
struct Reverse<G, T>(PhantomData<(G, T)>);

impl<G: Group, T: Int> Pure for Reverse<G, T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let lanes_per_group = G::BYTES * 8 / T::BITS as usize;
        let lanes = forms::n(regs, op).lanes::<T>();
        let reversed = V::build::<T>(|i| lanes.as_ref()[i ^ (lanes_per_group - 1)]);
        forms::put(regs, op, forms::keep(op, reversed));
    }
}

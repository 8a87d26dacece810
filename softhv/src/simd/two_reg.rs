//! One source register. Arm ARM C4.1.96, "Advanced SIMD two-register
//! miscellaneous", "across lanes", "scalar pairwise" and the scalar twins.

use super::forms::{self, Accumulate, Lanes1, Lanes1Sat, Lanes2Sat};
use super::int::Int;
use super::lane_ops::*;
use super::ops::by_size;
use super::reshape::{
    Across, AcrossHalf, AcrossSum, Clamp, PairSum, PairSumAdd, Truncate, Unshifted, WidenShift,
};
use super::{Pure, run};
use crate::cpu::op::{Handler, Op};
use crate::insn::simd::{Arrangement, VecUnary};
use crate::regs::{Regs, V};
use std::marker::PhantomData;

/// The handler of `op`, if this file has it.
pub fn run_of(op: VecUnary, arrangement: Arrangement) -> Option<Handler> {
    let size = arrangement.size();
    lanes(op, size)
        .or_else(|| vector_only(op, size))
        .or_else(|| resizing(op, size))
        .or_else(|| across(op, arrangement))
}

/// Operations that the vector and the scalar form share.
fn lanes(op: VecUnary, size: u32) -> Option<Handler> {
    match op {
        VecUnary::Suqadd => by_size!(size, Lanes2Sat<QaddMixed, Accumulate>, 0: u8 u16 u32 u64),
        VecUnary::Usqadd => by_size!(size, Lanes2Sat<QaddMixed, Accumulate>, 0: i8 i16 i32 i64),
        VecUnary::Sqabs => by_size!(size, Lanes1Sat<Qabs>, 0: i8 i16 i32 i64),
        VecUnary::Sqneg => by_size!(size, Lanes1Sat<Qneg>, 0: i8 i16 i32 i64),
        VecUnary::CmgtZero => by_size!(size, Lanes1<GtZero>, 0: i8 i16 i32 i64),
        VecUnary::CmgeZero => by_size!(size, Lanes1<GeZero>, 0: i8 i16 i32 i64),
        VecUnary::CmeqZero => by_size!(size, Lanes1<EqZero>, 0: i8 i16 i32 i64),
        VecUnary::CmleZero => by_size!(size, Lanes1<LeZero>, 0: i8 i16 i32 i64),
        VecUnary::CmltZero => by_size!(size, Lanes1<LtZero>, 0: i8 i16 i32 i64),
        VecUnary::Abs => by_size!(size, Lanes1<Abs>, 0: i8 i16 i32 i64),
        VecUnary::Neg => by_size!(size, Lanes1<Neg>, 0: i8 i16 i32 i64),
        _ => None,
    }
}

/// Operations without a scalar form.
fn vector_only(op: VecUnary, size: u32) -> Option<Handler> {
    match op {
        VecUnary::Rev64 => by_size!(size, Reverse<Of8>, 0: u8 u16 u32),
        VecUnary::Rev32 => by_size!(size, Reverse<Of4>, 0: u8 u16),
        VecUnary::Rev16 => by_size!(size, Reverse<Of2>, 0: u8),
        VecUnary::Saddlp => by_size!(size, PairSum, 0: i8 i16 i32),
        VecUnary::Uaddlp => by_size!(size, PairSum, 0: u8 u16 u32),
        VecUnary::Cls => by_size!(size, Lanes1<Cls>, 0: i8 i16 i32),
        VecUnary::Clz => by_size!(size, Lanes1<Clz>, 0: u8 u16 u32),
        VecUnary::Cnt => by_size!(size, Lanes1<Cnt>, 0: u8),
        VecUnary::Not => Some(run::<Lanes1<NotLane, u64>>()),
        VecUnary::Rbit => Some(run::<Lanes1<Rbit, u8>>()),
        VecUnary::Sadalp => by_size!(size, PairSumAdd, 0: i8 i16 i32),
        VecUnary::Uadalp => by_size!(size, PairSumAdd, 0: u8 u16 u32),
        _ => None,
    }
}

/// XTN, SQXTUN, SQXTN, UQXTN: narrowing shifts by nothing. SHLL: a widening one by
/// the lane's bits.
fn resizing(op: VecUnary, size: u32) -> Option<Handler> {
    let table = match op {
        VecUnary::Xtn => [
            run::<Truncate<u16, u8, Unshifted>>(),
            run::<Truncate<u32, u16, Unshifted>>(),
            run::<Truncate<u64, u32, Unshifted>>(),
        ],
        VecUnary::Sqxtun => [
            run::<Clamp<i16, u8, Unshifted>>(),
            run::<Clamp<i32, u16, Unshifted>>(),
            run::<Clamp<i64, u32, Unshifted>>(),
        ],
        VecUnary::Sqxtn => [
            run::<Clamp<i16, i8, Unshifted>>(),
            run::<Clamp<i32, i16, Unshifted>>(),
            run::<Clamp<i64, i32, Unshifted>>(),
        ],
        VecUnary::Uqxtn => [
            run::<Clamp<u16, u8, Unshifted>>(),
            run::<Clamp<u32, u16, Unshifted>>(),
            run::<Clamp<u64, u32, Unshifted>>(),
        ],
        VecUnary::Shll => return by_size!(size, WidenShift, 0: u8 u16 u32),
        _ => return None,
    };
    table.get(size as usize).copied()
}

/// Reductions over all lanes.
fn across(op: VecUnary, arrangement: Arrangement) -> Option<Handler> {
    let size = arrangement.size();
    match (op, arrangement.is_full()) {
        (VecUnary::Saddlv, _) => by_size!(size, AcrossSum, 0: i8 i16 i32),
        (VecUnary::Uaddlv, _) => by_size!(size, AcrossSum, 0: u8 u16 u32),
        (VecUnary::Smaxv, true) => by_size!(size, Across<Max>, 0: i8 i16 i32),
        (VecUnary::Umaxv, true) => by_size!(size, Across<Max>, 0: u8 u16 u32),
        (VecUnary::Sminv, true) => by_size!(size, Across<Min>, 0: i8 i16 i32),
        (VecUnary::Uminv, true) => by_size!(size, Across<Min>, 0: u8 u16 u32),
        (VecUnary::Addv, true) => by_size!(size, Across<Add>, 0: u8 u16 u32),
        (VecUnary::Smaxv, false) => by_size!(size, AcrossHalf<Max>, 0: i8 i16),
        (VecUnary::Umaxv, false) => by_size!(size, AcrossHalf<Max>, 0: u8 u16),
        (VecUnary::Sminv, false) => by_size!(size, AcrossHalf<Min>, 0: i8 i16),
        (VecUnary::Uminv, false) => by_size!(size, AcrossHalf<Min>, 0: u8 u16),
        (VecUnary::Addv, false) => by_size!(size, AcrossHalf<Add>, 0: u8 u16),
        (VecUnary::AddPair, _) => Some(run::<Across<Add, u64>>()),
        _ => None,
    }
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

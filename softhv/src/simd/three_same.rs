//! Three registers of the same lanes: Arm ARM C4.1.96, "Advanced SIMD three
//! same", its scalar twin, and the RDM and DotProd parts of "three same extra".

use super::Pure;
use super::forms::{self, Lanes2, Lanes2Full, Lanes2Sat, Lanes3, Lanes3Sat, Same};
use super::int::{Int, Widen};
use super::lane_ops::*;
use super::ops::by_size;
use super::reshape::Pairwise;
use super::shuffle::multiply_add_pairs;
use crate::cpu::op::{Handler, Op};
use crate::insn::simd::{Arrangement, VecBinary};
use crate::regs::{Regs, V};

/// The handler of `op`, if this file has it.
pub fn run(op: VecBinary, arrangement: Arrangement) -> Option<Handler> {
    let size = arrangement.size();
    let full = if arrangement.is_full() {
        full_width(op, size)
    } else {
        None
    };
    full.or_else(|| lanes(op, size))
        .or_else(|| vector_only(op, size))
        .or_else(|| accumulating(op, size))
}

/// Operations that the vector and the scalar form share.
fn lanes(op: VecBinary, size: u32) -> Option<Handler> {
    match op {
        VecBinary::Sqadd => by_size!(size, Lanes2Sat<Qadd, Same>, 0: i8 i16 i32 i64),
        VecBinary::Uqadd => by_size!(size, Lanes2Sat<Qadd, Same>, 0: u8 u16 u32 u64),
        VecBinary::Sqsub => by_size!(size, Lanes2Sat<Qsub, Same>, 0: i8 i16 i32 i64),
        VecBinary::Uqsub => by_size!(size, Lanes2Sat<Qsub, Same>, 0: u8 u16 u32 u64),
        VecBinary::Cmgt => by_size!(size, Lanes2<CmGt, Same>, 0: i8 i16 i32 i64),
        VecBinary::Cmhi => by_size!(size, Lanes2<CmGt, Same>, 0: u8 u16 u32 u64),
        VecBinary::Cmge => by_size!(size, Lanes2<CmGe, Same>, 0: i8 i16 i32 i64),
        VecBinary::Cmhs => by_size!(size, Lanes2<CmGe, Same>, 0: u8 u16 u32 u64),
        VecBinary::Sshl => by_size!(size, Lanes2<Shl, Same>, 0: i8 i16 i32 i64),
        VecBinary::Ushl => by_size!(size, Lanes2<Shl, Same>, 0: u8 u16 u32 u64),
        VecBinary::Sqshl => by_size!(size, Lanes2Sat<Qshl, Same>, 0: i8 i16 i32 i64),
        VecBinary::Uqshl => by_size!(size, Lanes2Sat<Qshl, Same>, 0: u8 u16 u32 u64),
        VecBinary::Srshl => by_size!(size, Lanes2<Rshl, Same>, 0: i8 i16 i32 i64),
        VecBinary::Urshl => by_size!(size, Lanes2<Rshl, Same>, 0: u8 u16 u32 u64),
        VecBinary::Sqrshl => by_size!(size, Lanes2Sat<Qrshl, Same>, 0: i8 i16 i32 i64),
        VecBinary::Uqrshl => by_size!(size, Lanes2Sat<Qrshl, Same>, 0: u8 u16 u32 u64),
        VecBinary::Add => by_size!(size, Lanes2<Add, Same>, 0: u8 u16 u32 u64),
        VecBinary::Sub => by_size!(size, Lanes2<Sub, Same>, 0: u8 u16 u32 u64),
        VecBinary::Cmtst => by_size!(size, Lanes2<CmTst, Same>, 0: u8 u16 u32 u64),
        VecBinary::Cmeq => by_size!(size, Lanes2<CmEq, Same>, 0: u8 u16 u32 u64),
        VecBinary::Sqdmulh => by_size!(size, Lanes2Sat<Qdmulh, Same>, 1: i16 i32),
        VecBinary::Sqrdmulh => by_size!(size, Lanes2Sat<Qrdmulh, Same>, 1: i16 i32),
        _ => None,
    }
}

/// Frequent 128-bit operations, without the masking of the general form.
fn full_width(op: VecBinary, size: u32) -> Option<Handler> {
    match op {
        VecBinary::Add => by_size!(size, Lanes2Full<Add, Same>, 0: u8 u16 u32 u64),
        VecBinary::Sub => by_size!(size, Lanes2Full<Sub, Same>, 0: u8 u16 u32 u64),
        VecBinary::Cmeq => by_size!(size, Lanes2Full<CmEq, Same>, 0: u8 u16 u32 u64),
        _ => None,
    }
}

/// Operations without a scalar form.
fn vector_only(op: VecBinary, size: u32) -> Option<Handler> {
    match op {
        VecBinary::Shadd => by_size!(size, Lanes2<Hadd, Same>, 0: i8 i16 i32),
        VecBinary::Uhadd => by_size!(size, Lanes2<Hadd, Same>, 0: u8 u16 u32),
        VecBinary::Srhadd => by_size!(size, Lanes2<Rhadd, Same>, 0: i8 i16 i32),
        VecBinary::Urhadd => by_size!(size, Lanes2<Rhadd, Same>, 0: u8 u16 u32),
        VecBinary::Shsub => by_size!(size, Lanes2<Hsub, Same>, 0: i8 i16 i32),
        VecBinary::Uhsub => by_size!(size, Lanes2<Hsub, Same>, 0: u8 u16 u32),
        VecBinary::Smax => by_size!(size, Lanes2<Max, Same>, 0: i8 i16 i32),
        VecBinary::Umax => by_size!(size, Lanes2<Max, Same>, 0: u8 u16 u32),
        VecBinary::Smin => by_size!(size, Lanes2<Min, Same>, 0: i8 i16 i32),
        VecBinary::Umin => by_size!(size, Lanes2<Min, Same>, 0: u8 u16 u32),
        VecBinary::Sabd => by_size!(size, Lanes2<Abd, Same>, 0: i8 i16 i32),
        VecBinary::Uabd => by_size!(size, Lanes2<Abd, Same>, 0: u8 u16 u32),
        VecBinary::Saba => by_size!(size, Lanes3<Aba, Same>, 0: i8 i16 i32),
        VecBinary::Uaba => by_size!(size, Lanes3<Aba, Same>, 0: u8 u16 u32),
        VecBinary::Mla => by_size!(size, Lanes3<Mla, Same>, 0: u8 u16 u32),
        VecBinary::Mls => by_size!(size, Lanes3<Mls, Same>, 0: u8 u16 u32),
        VecBinary::Mul => by_size!(size, Lanes2<Mul, Same>, 0: u8 u16 u32),
        VecBinary::Pmul => by_size!(size, Lanes2<Pmul, Same>, 0: u8),
        VecBinary::Smaxp => by_size!(size, Pairwise<Max>, 0: i8 i16 i32),
        VecBinary::Umaxp => by_size!(size, Pairwise<Max>, 0: u8 u16 u32),
        VecBinary::Sminp => by_size!(size, Pairwise<Min>, 0: i8 i16 i32),
        VecBinary::Uminp => by_size!(size, Pairwise<Min>, 0: u8 u16 u32),
        VecBinary::Addp => by_size!(size, Pairwise<Add>, 0: u8 u16 u32 u64),
        _ => None,
    }
}

/// SQRDMLAH, SQRDMLSH, SDOT, UDOT.
fn accumulating(op: VecBinary, size: u32) -> Option<Handler> {
    match op {
        VecBinary::Sqrdmlah => by_size!(size, Lanes3Sat<Qrdmlah, Same>, 1: i16 i32),
        VecBinary::Sqrdmlsh => by_size!(size, Lanes3Sat<Qrdmlsh, Same>, 1: i16 i32),
        VecBinary::Sdot => Some(super::run::<Dot<i8, false>>()),
        VecBinary::Udot => Some(super::run::<Dot<u8, false>>()),
        _ => None,
    }
}

/// SDOT, UDOT by element: the index counts groups of four bytes.
pub fn dot_by_element(signed: bool) -> Handler {
    if signed {
        super::run::<Dot<i8, true>>()
    } else {
        super::run::<Dot<u8, true>>()
    }
}

/// Vd.4S += sums of four products of bytes.
struct Dot<T, const BY_ELEMENT: bool>(std::marker::PhantomData<T>);

impl<T: Widen, const BY_ELEMENT: bool> Pure for Dot<T, BY_ELEMENT> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let a = forms::n(regs, op);
        let mut b = forms::m(regs, op);
        if BY_ELEMENT {
            b = V::splat(b.lane::<u32>(op.imm as usize));
        }
        // bytes extended to halfwords, in which they are not negative if unsigned
        let low = |v: V| v.map::<T::Wide>(|lane| lane << T::BITS >> T::BITS);
        let high = |v: V| v.map::<T::Wide>(|lane| lane >> T::BITS);
        let even = multiply_add_pairs(low(a), low(b));
        let odd = multiply_add_pairs(high(a), high(b));
        let result = forms::d(regs, op).zip3::<u32>(even, odd, |d, a, b| d.plus(a).plus(b));
        forms::put(regs, op, forms::keep(op, result));
    }
}

//! Three registers of the same lanes: Arm ARM C4.1.96, "Advanced SIMD three
//! same", its scalar twin, and the RDM and DotProd parts of "three same extra".

use super::Pure;
use super::forms::{self, Lanes2, Lanes2Full, Lanes2Sat, Lanes3, Lanes3Sat, Same};
use super::int::{Int, Widen};
use super::lane_ops::*;
use super::logic;
use super::reshape::Pairwise;
use super::shuffle::multiply_add_pairs;
use super::word::{Word, by_size, with_imm};
use crate::cpu::op::{Handler, Op};
use crate::regs::{Regs, V};

/// Vector form.
pub fn vector(w: Word) -> Option<Op> {
    let code = w.code(11, 5);
    if code >> 1 == 0b00011 {
        return Some(logic::registers(w));
    }
    if w.is_1d(w.size()) {
        return None;
    }
    let full = if w.q() {
        full_width(code, w.size())
    } else {
        None
    };
    full.or_else(|| lanes(code, w.size()))
        .or_else(|| vector_only(code, w.size()))
        .map(|run| w.vector_op(run))
}

/// Scalar form: of the lane operations that exist as scalars, some have every
/// size, some 64 bits only.
pub fn scalar(w: Word) -> Option<Op> {
    let (code, size) = (w.code(11, 5), w.size());
    let allocated = match code >> 1 {
        // SQADD, SQSUB, SQSHL, SQRSHL and unsigned
        0b00001 | 0b00101 | 0b01001 | 0b01011 => true,
        // compares, SSHL, SRSHL, ADD, SUB, CMTST, CMEQ
        0b00110 | 0b00111 | 0b01000 | 0b01010 | 0b10000 | 0b10001 => size == 3,
        // SQDMULH, SQRDMULH
        0b10110 => true,
        _ => false,
    };
    if !allocated {
        return None;
    }
    lanes(code, size).map(|run| w.scalar_op(run, size))
}

/// Operations that the vector and the scalar form share, by `opcode << 1 | U`.
fn lanes(code: u32, size: u32) -> Option<Handler> {
    match code {
        0b00001_0 => by_size!(size, Lanes2Sat<Qadd, Same>, 0: i8 i16 i32 i64),
        0b00001_1 => by_size!(size, Lanes2Sat<Qadd, Same>, 0: u8 u16 u32 u64),
        0b00101_0 => by_size!(size, Lanes2Sat<Qsub, Same>, 0: i8 i16 i32 i64),
        0b00101_1 => by_size!(size, Lanes2Sat<Qsub, Same>, 0: u8 u16 u32 u64),
        0b00110_0 => by_size!(size, Lanes2<CmGt, Same>, 0: i8 i16 i32 i64),
        0b00110_1 => by_size!(size, Lanes2<CmGt, Same>, 0: u8 u16 u32 u64),
        0b00111_0 => by_size!(size, Lanes2<CmGe, Same>, 0: i8 i16 i32 i64),
        0b00111_1 => by_size!(size, Lanes2<CmGe, Same>, 0: u8 u16 u32 u64),
        0b01000_0 => by_size!(size, Lanes2<Shl, Same>, 0: i8 i16 i32 i64),
        0b01000_1 => by_size!(size, Lanes2<Shl, Same>, 0: u8 u16 u32 u64),
        0b01001_0 => by_size!(size, Lanes2Sat<Qshl, Same>, 0: i8 i16 i32 i64),
        0b01001_1 => by_size!(size, Lanes2Sat<Qshl, Same>, 0: u8 u16 u32 u64),
        0b01010_0 => by_size!(size, Lanes2<Rshl, Same>, 0: i8 i16 i32 i64),
        0b01010_1 => by_size!(size, Lanes2<Rshl, Same>, 0: u8 u16 u32 u64),
        0b01011_0 => by_size!(size, Lanes2Sat<Qrshl, Same>, 0: i8 i16 i32 i64),
        0b01011_1 => by_size!(size, Lanes2Sat<Qrshl, Same>, 0: u8 u16 u32 u64),
        0b10000_0 => by_size!(size, Lanes2<Add, Same>, 0: u8 u16 u32 u64),
        0b10000_1 => by_size!(size, Lanes2<Sub, Same>, 0: u8 u16 u32 u64),
        0b10001_0 => by_size!(size, Lanes2<CmTst, Same>, 0: u8 u16 u32 u64),
        0b10001_1 => by_size!(size, Lanes2<CmEq, Same>, 0: u8 u16 u32 u64),
        0b10110_0 => by_size!(size, Lanes2Sat<Qdmulh, Same>, 1: i16 i32),
        0b10110_1 => by_size!(size, Lanes2Sat<Qrdmulh, Same>, 1: i16 i32),
        _ => None,
    }
}

/// Frequent 128-bit operations, without the masking of the general form.
fn full_width(code: u32, size: u32) -> Option<Handler> {
    match code {
        0b10000_0 => by_size!(size, Lanes2Full<Add, Same>, 0: u8 u16 u32 u64),
        0b10000_1 => by_size!(size, Lanes2Full<Sub, Same>, 0: u8 u16 u32 u64),
        0b10001_1 => by_size!(size, Lanes2Full<CmEq, Same>, 0: u8 u16 u32 u64),
        _ => None,
    }
}

/// Operations without a scalar form, by `opcode << 1 | U`.
fn vector_only(code: u32, size: u32) -> Option<Handler> {
    match code {
        0b00000_0 => by_size!(size, Lanes2<Hadd, Same>, 0: i8 i16 i32),
        0b00000_1 => by_size!(size, Lanes2<Hadd, Same>, 0: u8 u16 u32),
        0b00010_0 => by_size!(size, Lanes2<Rhadd, Same>, 0: i8 i16 i32),
        0b00010_1 => by_size!(size, Lanes2<Rhadd, Same>, 0: u8 u16 u32),
        0b00100_0 => by_size!(size, Lanes2<Hsub, Same>, 0: i8 i16 i32),
        0b00100_1 => by_size!(size, Lanes2<Hsub, Same>, 0: u8 u16 u32),
        0b01100_0 => by_size!(size, Lanes2<Max, Same>, 0: i8 i16 i32),
        0b01100_1 => by_size!(size, Lanes2<Max, Same>, 0: u8 u16 u32),
        0b01101_0 => by_size!(size, Lanes2<Min, Same>, 0: i8 i16 i32),
        0b01101_1 => by_size!(size, Lanes2<Min, Same>, 0: u8 u16 u32),
        0b01110_0 => by_size!(size, Lanes2<Abd, Same>, 0: i8 i16 i32),
        0b01110_1 => by_size!(size, Lanes2<Abd, Same>, 0: u8 u16 u32),
        0b01111_0 => by_size!(size, Lanes3<Aba, Same>, 0: i8 i16 i32),
        0b01111_1 => by_size!(size, Lanes3<Aba, Same>, 0: u8 u16 u32),
        0b10010_0 => by_size!(size, Lanes3<Mla, Same>, 0: u8 u16 u32),
        0b10010_1 => by_size!(size, Lanes3<Mls, Same>, 0: u8 u16 u32),
        0b10011_0 => by_size!(size, Lanes2<Mul, Same>, 0: u8 u16 u32),
        0b10011_1 => by_size!(size, Lanes2<Pmul, Same>, 0: u8),
        0b10100_0 => by_size!(size, Pairwise<Max>, 0: i8 i16 i32),
        0b10100_1 => by_size!(size, Pairwise<Max>, 0: u8 u16 u32),
        0b10101_0 => by_size!(size, Pairwise<Min>, 0: i8 i16 i32),
        0b10101_1 => by_size!(size, Pairwise<Min>, 0: u8 u16 u32),
        0b10111_0 => by_size!(size, Pairwise<Add>, 0: u8 u16 u32 u64),
        _ => None,
    }
}

/// SQRDMLAH, SQRDMLSH, SDOT, UDOT.
pub fn extra_vector(w: Word) -> Option<Op> {
    let code = w.code(11, 4);
    let run = match code {
        0b0010_0 if w.size() == 2 => super::run::<Dot<i8, false>>(),
        0b0010_1 if w.size() == 2 => super::run::<Dot<u8, false>>(),
        _ => doubling_accumulate(code, w.size())?,
    };
    Some(w.vector_op(run))
}

/// Scalar SQRDMLAH, SQRDMLSH.
pub fn extra_scalar(w: Word) -> Option<Op> {
    let run = doubling_accumulate(w.code(11, 4), w.size())?;
    Some(w.scalar_op(run, w.size()))
}

fn doubling_accumulate(code: u32, size: u32) -> Option<Handler> {
    match code {
        0b0000_1 => by_size!(size, Lanes3Sat<Qrdmlah, Same>, 1: i16 i32),
        0b0001_1 => by_size!(size, Lanes3Sat<Qrdmlsh, Same>, 1: i16 i32),
        _ => None,
    }
}

/// SDOT, UDOT by element: the index counts groups of four bytes.
pub fn dot_by_element(w: Word, index: u32) -> Op {
    let run = if w.u() {
        super::run::<Dot<u8, true>>()
    } else {
        super::run::<Dot<i8, true>>()
    };
    with_imm(w.vector_op(run), index)
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

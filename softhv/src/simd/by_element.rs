//! Vectors times one element. Arm ARM C4.1.96, "Advanced SIMD vector x indexed
//! element" and its scalar twin.

use super::forms::{ByElement, Lanes2, Lanes2Sat, Lanes3, Lanes3Sat, LongByElement};
use super::lane_ops::*;
use super::three_same;
use super::word::{Word, by_size, with_imm};
use crate::cpu::op::{Handler, Op};

/// Lane index and register of the element: halfwords are indexed by H:L:M and
/// come from V0..V15, words by H:L and come from any register.
fn element(w: Word) -> Option<(u32, u8)> {
    let (h, l, m) = (w.bits(11, 1), w.bits(21, 1), w.bits(20, 1));
    match w.size() {
        1 => Some((h << 2 | l << 1 | m, w.bits(16, 4) as u8)),
        2 => Some((h << 1 | l, w.bits(16, 5) as u8)),
        _ => None,
    }
}

/// Vector form.
pub fn vector(w: Word) -> Option<Op> {
    let (code, size) = (w.code(12, 4), w.size());
    let (index, rm) = element(w)?;
    let mut op = if code >> 1 == 0b1110 {
        if size != 2 {
            return None;
        }
        three_same::dot_by_element(w, index)
    } else if let Some(run) = same(code, size).or_else(|| vector_only(code, size)) {
        with_imm(w.vector_op(run), index)
    } else {
        let run = saturating_long(code, size).or_else(|| long(code, size))?;
        with_imm(w.half_op(run), index)
    };
    op.rm = rm;
    Some(op)
}

/// Scalar form.
pub fn scalar(w: Word) -> Option<Op> {
    let (code, size) = (w.code(12, 4), w.size());
    let (index, rm) = element(w)?;
    let op = if let Some(run) = same(code, size) {
        w.scalar_op(run, size)
    } else {
        w.scalar_op(saturating_long(code, size)?, size + 1)
    };
    let mut op = with_imm(op, index);
    op.rm = rm;
    Some(op)
}

/// Same-width operations that also have a scalar form, by `opcode << 1 | U`.
fn same(code: u32, size: u32) -> Option<Handler> {
    match code {
        0b1100_0 => by_size!(size, Lanes2Sat<Qdmulh, ByElement>, 1: i16 i32),
        0b1101_0 => by_size!(size, Lanes2Sat<Qrdmulh, ByElement>, 1: i16 i32),
        0b1101_1 => by_size!(size, Lanes3Sat<Qrdmlah, ByElement>, 1: i16 i32),
        0b1111_1 => by_size!(size, Lanes3Sat<Qrdmlsh, ByElement>, 1: i16 i32),
        _ => None,
    }
}

/// Widening operations that also have a scalar form.
fn saturating_long(code: u32, size: u32) -> Option<Handler> {
    match code {
        0b0011_0 => by_size!(size, Lanes3Sat<Qdmlal, LongByElement>, 1: i16 i32),
        0b0111_0 => by_size!(size, Lanes3Sat<Qdmlsl, LongByElement>, 1: i16 i32),
        0b1011_0 => by_size!(size, Lanes2Sat<Qdmull, LongByElement>, 1: i16 i32),
        _ => None,
    }
}

/// Same-width operations on vectors only.
fn vector_only(code: u32, size: u32) -> Option<Handler> {
    match code {
        0b0000_1 => by_size!(size, Lanes3<Mla, ByElement>, 1: u16 u32),
        0b0100_1 => by_size!(size, Lanes3<Mls, ByElement>, 1: u16 u32),
        0b1000_0 => by_size!(size, Lanes2<Mul, ByElement>, 1: u16 u32),
        _ => None,
    }
}

/// Widening operations on vectors only.
fn long(code: u32, size: u32) -> Option<Handler> {
    match code {
        0b0010_0 => by_size!(size, Lanes3<Mla, LongByElement>, 1: i16 i32),
        0b0010_1 => by_size!(size, Lanes3<Mla, LongByElement>, 1: u16 u32),
        0b0110_0 => by_size!(size, Lanes3<Mls, LongByElement>, 1: i16 i32),
        0b0110_1 => by_size!(size, Lanes3<Mls, LongByElement>, 1: u16 u32),
        0b1010_0 => by_size!(size, Lanes2<Mul, LongByElement>, 1: i16 i32),
        0b1010_1 => by_size!(size, Lanes2<Mul, LongByElement>, 1: u16 u32),
        _ => None,
    }
}

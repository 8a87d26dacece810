//! Vectors times one element. Arm ARM C4.1.96, "Advanced SIMD vector x indexed
//! element" and its scalar twin.

use super::forms::{ByElement, Lanes2, Lanes2Sat, Lanes3, Lanes3Sat, LongByElement};
use super::lane_ops::*;
use super::ops::by_size;
use super::three_same;
use crate::cpu::op::Handler;
use crate::insn::simd::VecBinary;

/// The handler of `op` by an element of `1 << size` bytes.
pub fn run(op: VecBinary, size: u32) -> Option<Handler> {
    match op {
        VecBinary::Sdot => Some(three_same::dot_by_element(true)),
        VecBinary::Udot => Some(three_same::dot_by_element(false)),
        _ => same(op, size)
            .or_else(|| saturating_long(op, size))
            .or_else(|| vector_only(op, size))
            .or_else(|| long(op, size)),
    }
}

/// Same-width operations that also have a scalar form.
fn same(op: VecBinary, size: u32) -> Option<Handler> {
    match op {
        VecBinary::Sqdmulh => by_size!(size, Lanes2Sat<Qdmulh, ByElement>, 1: i16 i32),
        VecBinary::Sqrdmulh => by_size!(size, Lanes2Sat<Qrdmulh, ByElement>, 1: i16 i32),
        VecBinary::Sqrdmlah => by_size!(size, Lanes3Sat<Qrdmlah, ByElement>, 1: i16 i32),
        VecBinary::Sqrdmlsh => by_size!(size, Lanes3Sat<Qrdmlsh, ByElement>, 1: i16 i32),
        _ => None,
    }
}

/// Widening operations that also have a scalar form.
fn saturating_long(op: VecBinary, size: u32) -> Option<Handler> {
    match op {
        VecBinary::Sqdmlal => by_size!(size, Lanes3Sat<Qdmlal, LongByElement>, 1: i16 i32),
        VecBinary::Sqdmlsl => by_size!(size, Lanes3Sat<Qdmlsl, LongByElement>, 1: i16 i32),
        VecBinary::Sqdmull => by_size!(size, Lanes2Sat<Qdmull, LongByElement>, 1: i16 i32),
        _ => None,
    }
}

/// Same-width operations on vectors only.
fn vector_only(op: VecBinary, size: u32) -> Option<Handler> {
    match op {
        VecBinary::Mla => by_size!(size, Lanes3<Mla, ByElement>, 1: u16 u32),
        VecBinary::Mls => by_size!(size, Lanes3<Mls, ByElement>, 1: u16 u32),
        VecBinary::Mul => by_size!(size, Lanes2<Mul, ByElement>, 1: u16 u32),
        _ => None,
    }
}

/// Widening operations on vectors only.
fn long(op: VecBinary, size: u32) -> Option<Handler> {
    match op {
        VecBinary::Smlal => by_size!(size, Lanes3<Mla, LongByElement>, 1: i16 i32),
        VecBinary::Umlal => by_size!(size, Lanes3<Mla, LongByElement>, 1: u16 u32),
        VecBinary::Smlsl => by_size!(size, Lanes3<Mls, LongByElement>, 1: i16 i32),
        VecBinary::Umlsl => by_size!(size, Lanes3<Mls, LongByElement>, 1: u16 u32),
        VecBinary::Smull => by_size!(size, Lanes2<Mul, LongByElement>, 1: i16 i32),
        VecBinary::Umull => by_size!(size, Lanes2<Mul, LongByElement>, 1: u16 u32),
        _ => None,
    }
}

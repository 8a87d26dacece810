//! Lane operations, for any host.

use super::int::Int;
use crate::cpu::op::Handler;
use crate::regs::V;

/// The register whose lane `i` is lane `source(i)` of `a` followed by `b`.
#[inline(always)]
fn pick<T: Int>(a: V, b: V, source: impl Fn(usize) -> usize) -> V {
    let (a, b) = (a.lanes::<T>(), b.lanes::<T>());
    V::build::<T>(|i| {
        let from = source(i);
        let lanes = if from < T::LANES { &a } else { &b };
        lanes.as_ref()[from & (T::LANES - 1)]
    })
}

/// The low halves of `a` and `b`, lane by lane in turn.
#[inline(always)]
pub fn interleave_low<T: Int>(a: V, b: V) -> V {
    pick::<T>(a, b, |i| i / 2 + (i & 1) * T::LANES)
}

/// The high halves of `a` and `b`, lane by lane in turn.
#[inline(always)]
pub fn interleave_high<T: Int>(a: V, b: V) -> V {
    pick::<T>(a, b, |i| i / 2 + T::LANES / 2 + (i & 1) * T::LANES)
}

/// The even lanes of `a` and, above them, those of `b`.
#[inline(always)]
pub fn evens<T: Int>(a: V, b: V) -> V {
    pick::<T>(a, b, |i| 2 * i)
}

/// The odd lanes of `a` and, above them, those of `b`.
#[inline(always)]
pub fn odds<T: Int>(a: V, b: V) -> V {
    pick::<T>(a, b, |i| 2 * i + 1)
}

/// Sums of neighbouring products of signed 16-bit lanes, in 32-bit lanes.
#[inline(always)]
pub fn multiply_add_pairs(a: V, b: V) -> V {
    let (a, b) = (a.lanes::<i16>(), b.lanes::<i16>());
    let product = |i: usize| i32::from(a[i]) * i32::from(b[i]);
    V::build::<i32>(|i| product(2 * i).wrapping_add(product(2 * i + 1)))
}

/// Whether any bit differs.
#[inline(always)]
pub fn differ(a: V, b: V) -> bool {
    a != b
}

/// The handler of a table lookup, which is always `portable` here.
pub fn lookup(_more: usize, _keeps_old: bool, portable: Handler) -> Handler {
    portable
}

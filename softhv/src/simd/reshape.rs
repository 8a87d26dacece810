//! Forms whose result has other lanes than the sources, or combines lanes of
//! one register: narrowing, widening, pairwise and across. The conventions are
//! those of [`super::forms`].

use super::Pure;
use super::forms::{Keep, d, existing, form, keep, m, n, note_saturation, put, widen_half};
use super::int::{Int, Narrow, Widen};
use super::lane_ops::{Add, Two};
use super::shuffle::{differ, evens, odds};
use crate::cpu::op::Op;
use crate::regs::{Regs, V};
use std::marker::PhantomData;

form! {
    /// Vd = f of neighbouring lanes of Vm:Vn.
    Pairwise<F, T>;
    /// Vd = high half of each lane of f(Vn, Vm).
    HighNarrow<F, W, T, R>;
    /// Vd = low half of each lane of Vn, shifted right.
    Truncate<W, T, R>;
    /// Vd = each lane of Vn, shifted right, clamped to half the width.
    Clamp<W, T, R>;
    /// Vd = half of Vn, widened and shifted left.
    WidenShift<T>;
    /// Vd = sums of neighbouring lanes of Vn, widened.
    PairSum<T>;
    /// Vd = Vd + sums of neighbouring lanes of Vn, widened.
    PairSumAdd<T>;
    /// Scalar f over all lanes of Vn.
    Across<F, T>;
    /// Scalar f over the lanes of the low half of Vn.
    AcrossHalf<F, T>;
    /// Scalar sum of all lanes of Vn, widened.
    AcrossSum<T>;
}

impl<F: Two, T: Int> Pure for Pairwise<F, T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let (mut a, mut b) = (n(regs, op), m(regs, op));
        if op.aux != Keep::Q as u16 {
            // both 64-bit sources side by side; every f(0, 0) is 0
            (a, b) = (V([a.0[0], b.0[0]]), V::default());
        }
        put(regs, op, evens::<T>(a, b).zip::<T>(odds::<T>(a, b), F::of));
    }
}

/// How a narrowing form shifts before it narrows.
pub trait Rounding {
    /// `a` shifted right by `count`.
    fn right<T: Int>(a: T, count: u32) -> T;
}

/// No shift.
pub struct Unshifted;
/// Rounds toward minus infinity.
pub struct Floor;
/// Rounds to nearest, ties up.
pub struct Nearest;

impl Rounding for Unshifted {
    #[inline(always)]
    fn right<T: Int>(a: T, _count: u32) -> T {
        a
    }
}

impl Rounding for Floor {
    #[inline(always)]
    fn right<T: Int>(a: T, count: u32) -> T {
        a.right(count)
    }
}

impl Rounding for Nearest {
    #[inline(always)]
    fn right<T: Int>(a: T, count: u32) -> T {
        a.right_rounded(count)
    }
}

/// Writes the low half of each wide lane of `v` as the lanes `T` of the low
/// half of Vd, or the high one of a "2" form, which keeps the low one.
#[inline(always)]
fn put_narrowed<T: Int>(regs: &mut Regs, op: &Op, v: V) {
    let half = evens::<T>(v, V::default()).0[0];
    let v = if op.ra & 1 == 1 {
        V([d(regs, op).0[0], half])
    } else {
        V([half, 0])
    };
    put(regs, op, v);
}

impl<F: Two, W: Narrow<T>, T: Int, R: Rounding> Pure for HighNarrow<F, W, T, R> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let high = n(regs, op).zip::<W>(m(regs, op), |a, b| R::right(F::of(a, b), T::BITS));
        put_narrowed::<T>(regs, op, high);
    }
}

impl<W: Narrow<T>, T: Int, R: Rounding> Pure for Truncate<W, T, R> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let count = op.imm as u32;
        let shifted = n(regs, op).map::<W>(|a| R::right(a, count));
        put_narrowed::<T>(regs, op, shifted);
    }
}

impl<W: Narrow<T>, T: Int, R: Rounding> Pure for Clamp<W, T, R> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let count = op.imm as u32;
        let source = V::from_lanes::<W>(existing::<W>(op, n(regs, op)));
        let shifted = source.map::<W>(|a| R::right(a, count));
        let near = shifted.map::<W>(Narrow::<T>::near);
        put_narrowed::<T>(regs, op, near);
        note_saturation(regs, differ(near, shifted));
    }
}

impl<T: Widen> Pure for WidenShift<T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let count = op.imm as u32;
        let result = widen_half::<T>(op, n(regs, op)).map::<T::Wide>(|a| a.left(count));
        put(regs, op, result);
    }
}

/// Sums of neighbouring lanes in lanes of twice the width.
#[inline(always)]
fn pair_sums<T: Widen>(v: V) -> V {
    v.map::<T::Wide>(|pair| {
        let low = pair << T::BITS >> T::BITS;
        low.plus(pair >> T::BITS)
    })
}

impl<T: Widen> Pure for PairSum<T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let sums = pair_sums::<T>(n(regs, op));
        put(regs, op, keep(op, sums));
    }
}

impl<T: Widen> Pure for PairSumAdd<T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let sums = pair_sums::<T>(n(regs, op));
        let result = d(regs, op).zip::<T::Wide>(sums, Int::plus);
        put(regs, op, keep(op, result));
    }
}

/// `F` over all lanes: the result is the lowest lane.
#[inline(always)]
fn reduce<F: Two, T: Int>(lanes: &[T]) -> V {
    let (first, rest) = (lanes[0], &lanes[1..]);
    V::scalar(rest.iter().fold(first, |sum, &lane| F::of(sum, lane)))
}

impl<F: Two, T: Int> Pure for Across<F, T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let lanes = n(regs, op).lanes::<T>();
        put(regs, op, reduce::<F, T>(lanes.as_ref()));
    }
}

impl<F: Two, T: Int> Pure for AcrossHalf<F, T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let lanes = n(regs, op).lanes::<T>();
        put(regs, op, reduce::<F, T>(&lanes.as_ref()[..T::LANES / 2]));
    }
}

impl<T: Widen> Pure for AcrossSum<T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let sums = pair_sums::<T>(keep(op, n(regs, op)));
        let sums = sums.lanes::<T::Wide>();
        put(regs, op, reduce::<Add, T::Wide>(sums.as_ref()));
    }
}

//! Lane-by-lane instruction forms: how operands are fetched and results are
//! written around the lane operations.
//!
//! Conventions in [`Op`]: `rd`, `rn`, `rm` are vector registers, `aux` is the
//! [`Keep`] of the form, `imm` the shift count or lane index, and `ra` 1 for
//! the "2" forms, which use the high half where the plain ones use the low.

use super::Pure;
use super::int::{Int, Narrow, Widen};
use super::lane_ops::{One, OneSat, Shift, ShiftSat, Three, ThreeSat, Two, TwoSat};
use crate::op::Op;
use crate::regs::{Regs, V};
use std::marker::PhantomData;

/// FPSR.QC, set by every saturation.
pub const FPSR_QC: u64 = 1 << 27;

/// Which low part of the result survives; the rest is zero.
///
/// The discriminant is log2 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// A scalar byte.
    B = 0,
    /// A scalar halfword.
    H = 1,
    /// A scalar word.
    S = 2,
    /// A scalar doubleword or a 64-bit vector.
    D = 3,
    /// All 128 bits.
    Q = 4,
}

const KEEP: [V; 8] = [
    V([0xff, 0]),
    V([0xffff, 0]),
    V([0xffff_ffff, 0]),
    V([!0, 0]),
    V([!0, !0]),
    V([0, 0]),
    V([0, 0]),
    V([0, 0]),
];

/// `v` without the bits that the form of `op` does not have.
#[inline(always)]
pub fn keep(op: &Op, v: V) -> V {
    let mask = KEEP[usize::from(op.aux & 7)];
    V([v.0[0] & mask.0[0], v.0[1] & mask.0[1]])
}

#[inline(always)]
pub fn d(regs: &Regs, op: &Op) -> V {
    regs.v[usize::from(op.rd & 31)]
}

#[inline(always)]
pub fn n(regs: &Regs, op: &Op) -> V {
    regs.v[usize::from(op.rn & 31)]
}

#[inline(always)]
pub fn m(regs: &Regs, op: &Op) -> V {
    regs.v[usize::from(op.rm & 31)]
}

#[inline(always)]
pub fn put(regs: &mut Regs, op: &Op, v: V) {
    regs.v[usize::from(op.rd & 31)] = v;
}

/// Writes 64 bits of result: the low half, or the high one of a "2" form.
#[inline(always)]
fn put_half(regs: &mut Regs, op: &Op, half: u64) {
    let v = if op.ra & 1 == 1 {
        V([d(regs, op).0[0], half])
    } else {
        V([half, 0])
    };
    put(regs, op, v);
}

#[inline(always)]
fn note_saturation(regs: &mut Regs, saturated: bool) {
    if saturated {
        regs.fpsr |= FPSR_QC;
    }
}

/// The half of `v` that the op reads, widened to fill a register.
#[inline(always)]
fn widen_half<T: Widen>(op: &Op, v: V) -> V {
    let half = V([v.0[usize::from(op.ra & 1)], 0]).lanes::<T>();
    let mut wide = V::default().lanes::<T::Wide>();
    for (to, from) in wide.as_mut().iter_mut().zip(half.as_ref()) {
        *to = from.widen();
    }
    V::from_lanes::<T::Wide>(wide)
}

/// Where the two sources of a form come from.
pub trait Sources {
    /// The lanes the operation works on.
    type T: Int;
    /// Both sources, as registers of such lanes.
    fn fetch(regs: &Regs, op: &Op) -> (V, V);
}

macro_rules! form {
    ($($(#[$doc:meta])* $name:ident<$($param:ident),*>;)*) => {$(
        $(#[$doc])*
        pub struct $name<$($param),*>(PhantomData<($($param,)*)>);
    )*};
}

form! {
    /// Vn and Vm.
    Same<T>;
    /// Vn and one lane of Vm.
    ByElement<T>;
    /// Vd and Vn.
    Accumulate<T>;
    /// Half of Vn and half of Vm, widened.
    Long<T>;
    /// Half of Vn and one lane of Vm, widened.
    LongByElement<T>;
    /// Vn and half of Vm, widened.
    Wide<T>;
}

impl<T: Int> Sources for Same<T> {
    type T = T;
    #[inline(always)]
    fn fetch(regs: &Regs, op: &Op) -> (V, V) {
        (n(regs, op), m(regs, op))
    }
}

impl<T: Int> Sources for ByElement<T> {
    type T = T;
    #[inline(always)]
    fn fetch(regs: &Regs, op: &Op) -> (V, V) {
        let element: T = m(regs, op).lane(op.imm as usize);
        (n(regs, op), V::splat(element))
    }
}

impl<T: Int> Sources for Accumulate<T> {
    type T = T;
    #[inline(always)]
    fn fetch(regs: &Regs, op: &Op) -> (V, V) {
        (d(regs, op), n(regs, op))
    }
}

impl<T: Widen> Sources for Long<T> {
    type T = T::Wide;
    #[inline(always)]
    fn fetch(regs: &Regs, op: &Op) -> (V, V) {
        (
            widen_half::<T>(op, n(regs, op)),
            widen_half::<T>(op, m(regs, op)),
        )
    }
}

impl<T: Widen> Sources for LongByElement<T> {
    type T = T::Wide;
    #[inline(always)]
    fn fetch(regs: &Regs, op: &Op) -> (V, V) {
        let element: T = m(regs, op).lane(op.imm as usize);
        (widen_half::<T>(op, n(regs, op)), V::splat(element.widen()))
    }
}

impl<T: Widen> Sources for Wide<T> {
    type T = T::Wide;
    #[inline(always)]
    fn fetch(regs: &Regs, op: &Op) -> (V, V) {
        (n(regs, op), widen_half::<T>(op, m(regs, op)))
    }
}

form! {
    /// Vd = f(a, b).
    Lanes2<F, S>;
    /// Vd = f(a, b) on all 128 bits: no masking of the result.
    Lanes2Full<F, S>;
    /// Vd = f(Vd, a, b).
    Lanes3<F, S>;
    /// Vd = f(a, b) with saturation.
    Lanes2Sat<F, S>;
    /// Vd = f(Vd, a, b) with saturation.
    Lanes3Sat<F, S>;
    /// Vd = f(Vn).
    Lanes1<F, T>;
    /// Vd = f(Vn) with saturation.
    Lanes1Sat<F, T>;
    /// Vd = f(Vd, Vn, count).
    Shifted<F, T>;
    /// Vd = f(Vn, count) with saturation.
    ShiftedSat<F, T>;
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
    /// Scalar sum of all lanes of Vn, widened.
    AcrossSum<T>;
}

/// Writes Vd = f(lane), cut to the form. Cutting lane by lane keeps the whole
/// loop in one lane type, which LLVM then turns into vector instructions.
#[inline(always)]
fn put_lanes<T: Int>(regs: &mut Regs, op: &Op, f: impl Fn(usize) -> T) {
    let kept = KEEP[usize::from(op.aux & 7)].lanes::<T>();
    put(regs, op, V::build::<T>(|i| f(i) & kept.as_ref()[i]));
}

/// Writes Vd = f(lane) and notes the saturation that `f` reports.
#[inline(always)]
fn put_saturated<T: Int>(regs: &mut Regs, op: &Op, f: impl Fn(usize) -> (T, bool)) {
    let mut lost = V::default().lanes::<T>();
    let result = V::build::<T>(|i| {
        let (lane, saturated) = f(i);
        lost.as_mut()[i] = T::mask(saturated);
        lane
    });
    put(regs, op, result);
    if V::from_lanes::<T>(lost) != V::default() {
        regs.fpsr |= FPSR_QC;
    }
}

/// The lanes of `v` that exist in the form, the others zero: those cannot set
/// QC, and every saturating operation maps zeros to zero.
#[inline(always)]
fn existing<T: Int>(op: &Op, v: V) -> T::Array {
    let kept = KEEP[usize::from(op.aux & 7)].lanes::<T>();
    let lanes = v.lanes::<T>();
    V::build::<T>(|i| lanes.as_ref()[i] & kept.as_ref()[i]).lanes::<T>()
}

impl<F: Two, S: Sources> Pure for Lanes2<F, S> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let (a, b) = S::fetch(regs, op);
        let (a, b) = (a.lanes::<S::T>(), b.lanes::<S::T>());
        put_lanes(regs, op, |i| F::of(a.as_ref()[i], b.as_ref()[i]));
    }
}

impl<F: Two, S: Sources> Pure for Lanes2Full<F, S> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let (a, b) = S::fetch(regs, op);
        put(regs, op, a.zip::<S::T>(b, F::of));
    }
}

impl<F: Three, S: Sources> Pure for Lanes3<F, S> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let (a, b) = S::fetch(regs, op);
        let (a, b) = (a.lanes::<S::T>(), b.lanes::<S::T>());
        let old = d(regs, op).lanes::<S::T>();
        put_lanes(regs, op, |i| {
            F::of(old.as_ref()[i], a.as_ref()[i], b.as_ref()[i])
        });
    }
}

impl<F: TwoSat, S: Sources> Pure for Lanes2Sat<F, S> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let (a, b) = S::fetch(regs, op);
        let (a, b) = (existing::<S::T>(op, a), existing::<S::T>(op, b));
        put_saturated(regs, op, |i| F::of(a.as_ref()[i], b.as_ref()[i]));
    }
}

impl<F: ThreeSat, S: Sources> Pure for Lanes3Sat<F, S> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let (a, b) = S::fetch(regs, op);
        let (a, b) = (existing::<S::T>(op, a), existing::<S::T>(op, b));
        let old = existing::<S::T>(op, d(regs, op));
        put_saturated(regs, op, |i| {
            F::of(old.as_ref()[i], a.as_ref()[i], b.as_ref()[i])
        });
    }
}

impl<F: One, T: Int> Pure for Lanes1<F, T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let a = n(regs, op).lanes::<T>();
        put_lanes(regs, op, |i| F::of(a.as_ref()[i]));
    }
}

impl<F: OneSat, T: Int> Pure for Lanes1Sat<F, T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let a = existing::<T>(op, n(regs, op));
        put_saturated(regs, op, |i| F::of(a.as_ref()[i]));
    }
}

impl<F: Shift, T: Int> Pure for Shifted<F, T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let count = op.imm as u32;
        let (old, a) = (d(regs, op).lanes::<T>(), n(regs, op).lanes::<T>());
        put_lanes(regs, op, |i| F::of(old.as_ref()[i], a.as_ref()[i], count));
    }
}

impl<F: ShiftSat, T: Int> Pure for ShiftedSat<F, T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let count = op.imm as u32;
        let a = existing::<T>(op, n(regs, op));
        put_saturated(regs, op, |i| F::of(a.as_ref()[i], count));
    }
}

/// `f` of each pair of neighbouring lanes, packed into 64 bits.
#[inline(always)]
fn pairs<F: Two, T: Int>(v: V) -> u64 {
    let lanes = v.lanes::<T>();
    let mut packed = V::default().lanes::<T>();
    for (to, pair) in packed
        .as_mut()
        .iter_mut()
        .zip(lanes.as_ref().chunks_exact(2))
    {
        *to = F::of(pair[0], pair[1]);
    }
    V::from_lanes::<T>(packed).0[0]
}

impl<F: Two, T: Int> Pure for Pairwise<F, T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let (a, b) = (n(regs, op), m(regs, op));
        let result = if op.aux == Keep::Q as u16 {
            V([pairs::<F, T>(a), pairs::<F, T>(b)])
        } else {
            V([pairs::<F, T>(V([a.0[0], b.0[0]])), 0])
        };
        put(regs, op, result);
    }
}

/// Whether a narrowing shift rounds to nearest, ties up.
pub trait Rounding {
    /// `a` shifted right by `count` >= 1.
    fn right<T: Int>(a: T, count: u32) -> T;
}

/// Rounds toward minus infinity.
pub struct Floor;
/// Rounds to nearest, ties up.
pub struct Nearest;

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

/// Narrows each lane with `f`, packed into 64 bits.
#[inline(always)]
fn narrow<W: Int, T: Int>(v: V, mut f: impl FnMut(W) -> T) -> u64 {
    let mut packed = V::default().lanes::<T>();
    for (to, &from) in packed.as_mut().iter_mut().zip(v.lanes::<W>().as_ref()) {
        *to = f(from);
    }
    V::from_lanes::<T>(packed).0[0]
}

impl<F: Two, W: Narrow<T>, T: Int, R: Rounding> Pure for HighNarrow<F, W, T, R> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let sums = n(regs, op).zip::<W>(m(regs, op), F::of);
        let half = narrow::<W, T>(sums, |sum| R::right(sum, T::BITS).truncate());
        put_half(regs, op, half);
    }
}

impl<W: Narrow<T>, T: Int, R: Rounding> Pure for Truncate<W, T, R> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let count = op.imm as u32;
        let half = narrow::<W, T>(n(regs, op), |a| {
            if count == 0 {
                a.truncate()
            } else {
                R::right(a, count).truncate()
            }
        });
        put_half(regs, op, half);
    }
}

impl<W: Narrow<T>, T: Int, R: Rounding> Pure for Clamp<W, T, R> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let count = op.imm as u32;
        let mut saturated = false;
        let half = narrow::<W, T>(keep(op, n(regs, op)), |a| {
            let shifted = if count == 0 { a } else { R::right(a, count) };
            let (lane, lost) = shifted.clamp_to();
            saturated |= lost;
            lane
        });
        put_half(regs, op, half);
        note_saturation(regs, saturated);
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
    let mut sums = V::default().lanes::<T::Wide>();
    let lanes = v.lanes::<T>();
    for (to, pair) in sums.as_mut().iter_mut().zip(lanes.as_ref().chunks_exact(2)) {
        *to = pair[0].widen().plus(pair[1].widen());
    }
    V::from_lanes::<T::Wide>(sums)
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

/// How a reduction treats the high half of a 64-bit vector.
pub trait Reduce: Two {
    /// A 64-bit vector extended so that the reduction does not see it.
    fn extend(low: u64) -> V;
}

impl Reduce for super::lane_ops::Add {
    #[inline(always)]
    fn extend(low: u64) -> V {
        V([low, 0])
    }
}

macro_rules! reduce_idempotent {
    ($($op:ident)*) => {$(
        impl Reduce for super::lane_ops::$op {
            #[inline(always)]
            fn extend(low: u64) -> V {
                V([low, low])
            }
        }
    )*};
}
reduce_idempotent!(Max Min);

impl<F: Reduce, T: Int> Pure for Across<F, T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let mut v = n(regs, op);
        if op.aux != Keep::Q as u16 {
            v = F::extend(v.0[0]);
        }
        let lanes = v.lanes::<T>();
        let (first, rest) = (lanes.as_ref()[0], &lanes.as_ref()[1..]);
        let result = rest.iter().fold(first, |sum, &lane| F::of(sum, lane));
        put(regs, op, V::scalar(result));
    }
}

impl<T: Widen> Pure for AcrossSum<T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let lanes = keep(op, n(regs, op)).lanes::<T>();
        let sum = lanes
            .as_ref()
            .iter()
            .fold(T::Wide::default(), |sum, &lane| sum.plus(lane.widen()));
        put(regs, op, V::scalar(sum));
    }
}

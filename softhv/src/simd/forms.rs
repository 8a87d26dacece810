//! Lane-by-lane instruction forms: how operands are fetched and results are
//! written around the lane operations.
//!
//! Conventions in [`Op`]: `rd`, `rn`, `rm` are vector registers, `aux` is the
//! [`Keep`] of the form, `imm` the shift count or lane index, and `ra` 1 for
//! the "2" forms, which use the high half where the plain ones use the low.

use super::Pure;
use super::int::{Int, Widen};
use super::lane_ops::{One, OneSat, Shift, ShiftSat, Three, ThreeSat, Two, TwoSat};
use super::shuffle::interleave_low;
use crate::cpu::op::Op;
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

/// Sets QC if `saturated`.
#[inline(always)]
pub fn note_saturation(regs: &mut Regs, saturated: bool) {
    if saturated {
        regs.fpsr |= FPSR_QC;
    }
}

/// The half of `v` that the op reads, widened to fill a register.
#[inline(always)]
pub fn widen_half<T: Widen>(op: &Op, v: V) -> V {
    let half = V([v.0[usize::from(op.ra & 1)], 0]);
    // in the high half of each wide lane, from where a shift extends it
    interleave_low::<T>(V::default(), half).map::<T::Wide>(|lane| lane >> T::BITS)
}

/// Where the two sources of a form come from.
pub trait Sources {
    /// The lanes the operation works on.
    type T: Int;
    /// Both sources, as registers of such lanes.
    fn fetch(regs: &Regs, op: &Op) -> (V, V);
}

/// Declares forms: types that only carry their parameters.
macro_rules! form {
    ($($(#[$doc:meta])* $name:ident<$($param:ident),*>;)*) => {$(
        $(#[$doc])*
        pub struct $name<$($param),*>(PhantomData<($($param,)*)>);
    )*};
}
pub(super) use form;

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
    note_saturation(regs, V::from_lanes::<T>(lost) != V::default());
}

/// The lanes of `v` that exist in the form, the others zero: those cannot set
/// QC, and every saturating operation maps zeros to zero.
#[inline(always)]
pub fn existing<T: Int>(op: &Op, v: V) -> T::Array {
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

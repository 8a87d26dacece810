//! The arithmetic operations as types, so that one generic handler per operand
//! shape serves them all, each with its native fast path compiled in.

use super::arith;
use super::compare;
use super::format::{Format, Fpu, IXC};
use super::fused::on_host;
use super::native::{CONTROL, Native, is_plain};
use super::recip;
use crate::regs::Regs;
use std::cmp::Ordering;

/// An operation on two operands.
pub trait Binary: 'static {
    /// The result in integers, in every mode, with its flags.
    fn soft<F: Native>(fpu: &mut Fpu, a: u64, b: u64) -> u64;

    /// The result by the host, if it shows that no flag but IXC can be due.
    #[inline(always)]
    fn fast<F: Native>(_a: u64, _b: u64) -> Option<u64> {
        None
    }

    /// Whether the result `r` of `fast` is surely exact.
    #[inline(always)]
    fn exact<F: Native>(_a: u64, _b: u64, _r: u64) -> bool {
        false
    }
}

/// An operation on one operand.
pub trait Unary: 'static {
    /// The result in integers, in every mode, with its flags.
    fn soft<F: Native>(fpu: &mut Fpu, a: u64) -> u64;

    /// The result by the host, if it shows that no flag but IXC can be due.
    #[inline(always)]
    fn fast<F: Native>(_a: u64) -> Option<u64> {
        None
    }

    /// Whether the result `r` of `fast` is surely exact.
    #[inline(always)]
    fn exact<F: Native>(_a: u64, _r: u64) -> bool {
        false
    }
}

/// Whether native arithmetic applies and IXC is set anyway.
#[inline(always)]
pub fn is_easy(regs: &Regs) -> bool {
    regs.fpcr & CONTROL == 0 && regs.fpsr & IXC != 0
}

/// The control and status registers of `regs`.
#[inline(always)]
pub fn fpu(regs: &Regs) -> Fpu {
    Fpu {
        fpcr: regs.fpcr,
        fpsr: regs.fpsr,
    }
}

/// Runs `f` on the control and status registers of `regs`.
#[inline(always)]
pub fn with_fpu<T>(regs: &mut Regs, f: impl FnOnce(&mut Fpu) -> T) -> T {
    let mut fpu = fpu(regs);
    let result = f(&mut fpu);
    regs.fpsr = fpu.fpsr;
    result
}

/// Evaluates `O` in format `F`.
#[inline(always)]
pub fn binary<O: Binary, F: Native>(regs: &mut Regs, a: u64, b: u64) -> u64 {
    if is_easy(regs)
        && let Some(result) = O::fast::<F>(a, b)
    {
        return result;
    }
    binary_slow::<O, F>(regs, a, b)
}

// Never inlined: a handler whose frame holds an escaped address could not
// tail-call its successor.
#[cold]
#[inline(never)]
fn binary_slow<O: Binary, F: Native>(regs: &mut Regs, a: u64, b: u64) -> u64 {
    if regs.fpcr & CONTROL == 0
        && let Some(result) = O::fast::<F>(a, b)
        && O::exact::<F>(a, b, result)
    {
        return result;
    }
    with_fpu(regs, |fpu| O::soft::<F>(fpu, a, b))
}

/// Evaluates `O` in format `F`.
#[inline(always)]
pub fn unary<O: Unary, F: Native>(regs: &mut Regs, a: u64) -> u64 {
    if is_easy(regs)
        && let Some(result) = O::fast::<F>(a)
    {
        return result;
    }
    unary_slow::<O, F>(regs, a)
}

#[cold]
#[inline(never)]
fn unary_slow<O: Unary, F: Native>(regs: &mut Regs, a: u64) -> u64 {
    if regs.fpcr & CONTROL == 0
        && let Some(result) = O::fast::<F>(a)
        && O::exact::<F>(a, result)
    {
        return result;
    }
    with_fpu(regs, |fpu| O::soft::<F>(fpu, a))
}

/// `addend + a × b` in format `F`, rounded once.
#[inline(always)]
pub fn mul_add<F: Native>(regs: &mut Regs, addend: u64, a: u64, b: u64) -> u64 {
    if is_easy(regs) {
        let result = on_host(|| F::mul_add(a, b, addend));
        if is_plain::<F>(result) {
            return result;
        }
    }
    mul_add_slow::<F>(regs, addend, a, b)
}

#[cold]
#[inline(never)]
fn mul_add_slow<F: Native>(regs: &mut Regs, addend: u64, a: u64, b: u64) -> u64 {
    if regs.fpcr & CONTROL == 0 {
        // Exact in both steps is exact at once.
        let product = F::mul(a, b);
        let result = F::add(product, addend);
        if is_plain::<F>(product)
            && is_plain::<F>(result)
            && F::product_is(a, b, product)
            && F::sum_is(product, addend, result)
        {
            return result;
        }
    }
    with_fpu(regs, |fpu| arith::mul_add::<F>(fpu, addend, a, b))
}

/// Passes on a native result only if it is plain.
#[inline(always)]
fn plain<F: Format>(result: u64) -> Option<u64> {
    is_plain::<F>(result).then_some(result)
}

/// Passes on a native sum if it is plain, or zero: sums that small are exact.
#[inline(always)]
fn plain_sum<F: Format>(result: u64) -> Option<u64> {
    (is_plain::<F>(result) || result & !F::SIGN == 0).then_some(result)
}

/// FADD.
pub struct Add;
impl Binary for Add {
    fn soft<F: Native>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
        arith::add::<F>(fpu, a, b)
    }
    #[inline(always)]
    fn fast<F: Native>(a: u64, b: u64) -> Option<u64> {
        plain_sum::<F>(F::add(a, b))
    }
    #[inline(always)]
    fn exact<F: Native>(a: u64, b: u64, r: u64) -> bool {
        F::sum_is(a, b, r)
    }
}

/// FSUB.
pub struct Sub;
impl Binary for Sub {
    fn soft<F: Native>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
        arith::sub::<F>(fpu, a, b)
    }
    #[inline(always)]
    fn fast<F: Native>(a: u64, b: u64) -> Option<u64> {
        plain_sum::<F>(F::sub(a, b))
    }
    #[inline(always)]
    fn exact<F: Native>(a: u64, b: u64, r: u64) -> bool {
        F::sum_is(a, b ^ F::SIGN, r)
    }
}

/// FABD.
pub struct AbsDiff;
impl Binary for AbsDiff {
    fn soft<F: Native>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
        arith::sub::<F>(fpu, a, b) & !F::SIGN
    }
    #[inline(always)]
    fn fast<F: Native>(a: u64, b: u64) -> Option<u64> {
        plain_sum::<F>(F::sub(a, b)).map(|r| r & !F::SIGN)
    }
}

/// FMUL.
pub struct Mul;
impl Binary for Mul {
    fn soft<F: Native>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
        arith::mul::<F>(fpu, a, b)
    }
    #[inline(always)]
    fn fast<F: Native>(a: u64, b: u64) -> Option<u64> {
        plain::<F>(F::mul(a, b))
    }
    #[inline(always)]
    fn exact<F: Native>(a: u64, b: u64, r: u64) -> bool {
        F::product_is(a, b, r)
    }
}

/// FNMUL.
pub struct NegMul;
impl Binary for NegMul {
    fn soft<F: Native>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
        arith::mul::<F>(fpu, a, b) ^ F::SIGN
    }
    #[inline(always)]
    fn fast<F: Native>(a: u64, b: u64) -> Option<u64> {
        plain::<F>(F::mul(a, b)).map(|r| r ^ F::SIGN)
    }
}

/// FMULX.
pub struct MulX;
impl Binary for MulX {
    fn soft<F: Native>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
        arith::mulx::<F>(fpu, a, b)
    }
    #[inline(always)]
    fn fast<F: Native>(a: u64, b: u64) -> Option<u64> {
        plain::<F>(F::mul(a, b))
    }
}

/// FDIV.
pub struct Div;
impl Binary for Div {
    fn soft<F: Native>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
        arith::div::<F>(fpu, a, b)
    }
    #[inline(always)]
    fn fast<F: Native>(a: u64, b: u64) -> Option<u64> {
        plain::<F>(F::div(a, b))
    }
    #[inline(always)]
    fn exact<F: Native>(a: u64, b: u64, r: u64) -> bool {
        F::product_is(r, b, a)
    }
}

/// FSQRT.
pub struct Sqrt;
impl Unary for Sqrt {
    fn soft<F: Native>(fpu: &mut Fpu, a: u64) -> u64 {
        arith::sqrt::<F>(fpu, a)
    }
    #[inline(always)]
    fn fast<F: Native>(a: u64) -> Option<u64> {
        plain::<F>(F::sqrt(a))
    }
    #[inline(always)]
    fn exact<F: Native>(a: u64, r: u64) -> bool {
        F::product_is(r, r, a)
    }
}

/// Selections: ordered operands that are not both zero raise nothing.
macro_rules! selection {
    ($($(#[$doc:meta])* $name:ident = $function:path, $greater:literal;)*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl Binary for $name {
            fn soft<F: Native>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
                $function(fpu, a, b)
            }
            #[inline(always)]
            fn fast<F: Native>(a: u64, b: u64) -> Option<u64> {
                if F::is_nan(a) || F::is_nan(b) || (a | b) & !F::SIGN == 0 {
                    None
                } else if F::less(a, b) == $greater {
                    Some(b)
                } else {
                    Some(a)
                }
            }
            #[inline(always)]
            fn exact<F: Native>(_a: u64, _b: u64, _r: u64) -> bool {
                true
            }
        }
    )*};
}

selection! {
    /// FMAX.
    Max = compare::max::<F>, true;
    /// FMIN.
    Min = compare::min::<F>, false;
    /// FMAXNM.
    MaxNum = compare::max_num::<F>, true;
    /// FMINNM.
    MinNum = compare::min_num::<F>, false;
}

macro_rules! soft_binary {
    ($($(#[$doc:meta])* $name:ident = $function:path;)*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl Binary for $name {
            fn soft<F: Native>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
                $function(fpu, a, b)
            }
        }
    )*};
}

soft_binary! {
    /// FRECPS.
    RecipStep = recip::step::<F>;
    /// FRSQRTS.
    RootStep = recip::root_step::<F>;
}

macro_rules! soft_unary {
    ($($(#[$doc:meta])* $name:ident = $function:path;)*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl Unary for $name {
            fn soft<F: Native>(fpu: &mut Fpu, a: u64) -> u64 {
                $function(fpu, a)
            }
        }
    )*};
}

soft_unary! {
    /// FRECPE.
    Estimate = recip::estimate::<F>;
    /// FRSQRTE.
    RootEstimate = recip::root_estimate::<F>;
    /// FRECPX.
    Exponent = recip::exponent::<F>;
}

/// Comparisons that give all ones or zero. Ordered operands raise nothing, so
/// the native answer is always exact; NaNs take the integer path.
macro_rules! comparison {
    ($($(#[$doc:meta])* $name:ident: $signal:literal, $abs:literal, $holds:expr, $native:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl Binary for $name {
            fn soft<F: Native>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
                let drop = if $abs { F::SIGN } else { 0 };
                let order = compare::compare::<F>(fpu, a & !drop, b & !drop, $signal);
                if order.is_some_and($holds) { F::MASK } else { 0 }
            }
            #[inline(always)]
            fn fast<F: Native>(a: u64, b: u64) -> Option<u64> {
                let drop = if $abs { F::SIGN } else { 0 };
                let (a, b) = (a & !drop, b & !drop);
                let native: fn(u64, u64, fn(u64, u64) -> bool, fn(u64, u64) -> bool) -> bool =
                    $native;
                if F::is_nan(a) || F::is_nan(b) {
                    None
                } else if native(a, b, F::less, F::equal) {
                    Some(F::MASK)
                } else {
                    Some(0)
                }
            }
            #[inline(always)]
            fn exact<F: Native>(_a: u64, _b: u64, _r: u64) -> bool {
                true
            }
        }
    )*};
}

comparison! {
    /// FCMEQ.
    CmpEq: false, false, Ordering::is_eq, |a, b, _, equal| equal(a, b);
    /// FCMGE.
    CmpGe: true, false, Ordering::is_ge, |a, b, less, _| !less(a, b);
    /// FCMGT.
    CmpGt: true, false, Ordering::is_gt, |a, b, less, _| less(b, a);
    /// FACGE.
    AbsGe: true, true, Ordering::is_ge, |a, b, less, _| !less(a, b);
    /// FACGT.
    AbsGt: true, true, Ordering::is_gt, |a, b, less, _| less(b, a);
}

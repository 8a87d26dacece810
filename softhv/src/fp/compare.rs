//! Comparison, minimum and maximum.

use super::format::{Format, Fpu, IOC, Kind, Unpacked, nans, unpack};
use std::cmp::Ordering;

/// Orders two finite or infinite operands by value.
fn order<F: Format>(a: u64, ua: &Unpacked, b: u64, ub: &Unpacked) -> Ordering {
    // Sign-magnitude to two's complement; a flushed operand counts as zero.
    let key = |bits: u64, u: &Unpacked| {
        let magnitude = if u.kind == Kind::Zero {
            0
        } else {
            (bits & !F::SIGN & F::MASK) as i64
        };
        if u.sign { -magnitude } else { magnitude }
    };
    key(a, ua).cmp(&key(b, ub))
}

/// Compares `a` with `b`; `None` if they are unordered. A signalling NaN raises
/// IOC, and so does a quiet one if `signal`.
pub fn compare<F: Format>(fpu: &mut Fpu, a: u64, b: u64, signal: bool) -> Option<Ordering> {
    let ua = unpack::<F>(fpu, a);
    let ub = unpack::<F>(fpu, b);
    if ua.is_nan() || ub.is_nan() {
        if signal || F::is_signalling(a) || F::is_signalling(b) {
            fpu.raise(IOC);
        }
        return None;
    }
    Some(order::<F>(a, &ua, b, &ub))
}

fn select<F: Format>(fpu: &mut Fpu, a: u64, b: u64, wanted: Ordering) -> u64 {
    let ua = unpack::<F>(fpu, a);
    let ub = unpack::<F>(fpu, b);
    if let Some(nan) = nans::<F>(fpu, &[a, b]) {
        return nan;
    }
    let (chosen, unpacked) = if order::<F>(a, &ua, b, &ub) == wanted {
        (a, ua)
    } else {
        (b, ub)
    };
    if !unpacked.is_zero() {
        return chosen;
    }
    if ua.is_zero() && ub.is_zero() {
        // Plus zero is the greater one.
        return F::zero(if wanted == Ordering::Greater {
            ua.sign && ub.sign
        } else {
            ua.sign || ub.sign
        });
    }
    F::zero(unpacked.sign)
}

/// The greater operand; any NaN gives a NaN.
pub fn max<F: Format>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
    select::<F>(fpu, a, b, Ordering::Greater)
}

/// The smaller operand; any NaN gives a NaN.
pub fn min<F: Format>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
    select::<F>(fpu, a, b, Ordering::Less)
}

/// Replaces the one quiet NaN among two operands by `neutral`.
fn without_quiet<F: Format>(a: u64, b: u64, neutral: u64) -> (u64, u64) {
    let quiet = |x| F::is_nan(x) && !F::is_signalling(x);
    match (quiet(a), quiet(b)) {
        (true, false) => (neutral, b),
        (false, true) => (a, neutral),
        _ => (a, b),
    }
}

/// The greater operand; one quiet NaN is ignored.
pub fn max_num<F: Format>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
    let (a, b) = without_quiet::<F>(a, b, F::infinity(true));
    max::<F>(fpu, a, b)
}

/// The smaller operand; one quiet NaN is ignored.
pub fn min_num<F: Format>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
    let (a, b) = without_quiet::<F>(a, b, F::infinity(false));
    min::<F>(fpu, a, b)
}

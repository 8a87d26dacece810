//! Addition, multiplication, division, square root and fused multiply-add.

use super::format::{DZC, Format, Fpu, Unpacked, Value, invalid, nans, round, unpack};

/// Scales a non-zero significand so that its top bit is bit 124: room for the
/// carry of a sum, and enough low zeros that aligning loses nothing that matters.
fn widen(value: Value) -> Value {
    let shift = value.sig.leading_zeros() as i32 - 3;
    let sig = if shift >= 0 {
        value.sig << shift
    } else {
        value.sig >> -shift | u128::from(value.sig & 7 != 0)
    };
    Value {
        sign: value.sign,
        exp: value.exp - shift,
        sig,
    }
}

/// The sum of two non-zero values, `None` if it is exactly zero. Bits too far
/// down to matter are gathered in the last one.
pub(super) fn sum(a: Value, b: Value) -> Option<Value> {
    let (a, b) = (widen(a), widen(b));
    let (big, small) = if (a.exp, a.sig) >= (b.exp, b.sig) {
        (a, b)
    } else {
        (b, a)
    };
    let distance = (big.exp - small.exp) as u32;
    let aligned = if distance >= 127 {
        1
    } else {
        let kept = small.sig >> distance;
        kept | u128::from(kept << distance != small.sig)
    };
    let sig = if a.sign == b.sign {
        big.sig + aligned
    } else {
        big.sig - aligned
    };
    (sig != 0).then_some(Value { sig, ..big })
}

/// The exact product of two finite non-zero operands.
pub(super) fn product(a: &Unpacked, b: &Unpacked) -> Value {
    Value {
        sign: a.sign != b.sign,
        exp: a.exp + b.exp,
        sig: u128::from(a.sig) * u128::from(b.sig),
    }
}

fn round_sum<F: Format>(fpu: &mut Fpu, value: Option<Value>) -> u64 {
    match value {
        Some(value) => round::<F>(fpu, value, fpu.rounding()),
        None => fpu.zero_sum::<F>(),
    }
}

/// `a + b`.
pub fn add<F: Format>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
    add_signed::<F>(fpu, a, b, 0)
}

/// `a - b`; unlike adding a negated `b`, a NaN in `b` keeps its sign.
pub fn sub<F: Format>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
    add_signed::<F>(fpu, a, b, F::SIGN)
}

fn add_signed<F: Format>(fpu: &mut Fpu, a: u64, b: u64, flip: u64) -> u64 {
    let ua = unpack::<F>(fpu, a);
    let ub = unpack::<F>(fpu, b ^ flip);
    if let Some(nan) = nans::<F>(fpu, &[a, b]) {
        return nan;
    }
    match (ua.is_inf(), ub.is_inf()) {
        (true, true) if ua.sign != ub.sign => return invalid::<F>(fpu),
        (true, _) => return F::infinity(ua.sign),
        (_, true) => return F::infinity(ub.sign),
        _ => {}
    }
    match (ua.is_zero(), ub.is_zero()) {
        (true, true) if ua.sign == ub.sign => F::zero(ua.sign),
        (true, true) => fpu.zero_sum::<F>(),
        (true, false) => round::<F>(fpu, ub.value(), fpu.rounding()),
        (false, true) => round::<F>(fpu, ua.value(), fpu.rounding()),
        (false, false) => round_sum::<F>(fpu, sum(ua.value(), ub.value())),
    }
}

/// `a × b`.
pub fn mul<F: Format>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
    multiply::<F>(fpu, a, b, false)
}

/// `a × b` with infinity times zero being two (FMULX).
pub fn mulx<F: Format>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
    multiply::<F>(fpu, a, b, true)
}

fn multiply<F: Format>(fpu: &mut Fpu, a: u64, b: u64, extended: bool) -> u64 {
    let ua = unpack::<F>(fpu, a);
    let ub = unpack::<F>(fpu, b);
    if let Some(nan) = nans::<F>(fpu, &[a, b]) {
        return nan;
    }
    let sign = ua.sign != ub.sign;
    let infinite = ua.is_inf() || ub.is_inf();
    let zero = ua.is_zero() || ub.is_zero();
    match (infinite, zero) {
        (true, true) if extended => F::zero(sign) | ((F::BIAS + 1) as u64) << F::FRAC,
        (true, true) => invalid::<F>(fpu),
        (true, false) => F::infinity(sign),
        (false, true) => F::zero(sign),
        (false, false) => round::<F>(fpu, product(&ua, &ub), fpu.rounding()),
    }
}

/// `a ÷ b`.
pub fn div<F: Format>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
    let ua = unpack::<F>(fpu, a);
    let ub = unpack::<F>(fpu, b);
    if let Some(nan) = nans::<F>(fpu, &[a, b]) {
        return nan;
    }
    let sign = ua.sign != ub.sign;
    if ua.is_inf() && ub.is_inf() || ua.is_zero() && ub.is_zero() {
        return invalid::<F>(fpu);
    }
    if ua.is_inf() || ub.is_zero() {
        if !ua.is_inf() {
            fpu.raise(DZC);
        }
        return F::infinity(sign);
    }
    if ua.is_zero() || ub.is_inf() {
        return F::zero(sign);
    }
    // 127 significant bits over at most 53 leave at least 74 in the quotient.
    let shift = u128::from(ua.sig).leading_zeros() - 1;
    let dividend = u128::from(ua.sig) << shift;
    let divisor = u128::from(ub.sig);
    let sticky = u128::from(dividend % divisor != 0);
    let value = Value {
        sign,
        exp: ua.exp - ub.exp - shift as i32,
        sig: (dividend / divisor) | sticky,
    };
    round::<F>(fpu, value, fpu.rounding())
}

/// The square root of `a`.
pub fn sqrt<F: Format>(fpu: &mut Fpu, a: u64) -> u64 {
    let ua = unpack::<F>(fpu, a);
    if let Some(nan) = nans::<F>(fpu, &[a]) {
        return nan;
    }
    if ua.is_zero() {
        return F::zero(ua.sign);
    }
    if ua.sign {
        return invalid::<F>(fpu);
    }
    if ua.is_inf() {
        return F::infinity(false);
    }
    let mut shift = u128::from(ua.sig).leading_zeros() as i32 - 1;
    if (ua.exp - shift) & 1 != 0 {
        shift -= 1;
    }
    let radicand = u128::from(ua.sig) << shift;
    let root = radicand.isqrt();
    let value = Value {
        sign: false,
        exp: (ua.exp - shift) / 2,
        // One more bit below the root keeps the sticky bit out of its way.
        sig: root << 1 | u128::from(root * root != radicand),
    };
    let value = Value {
        exp: value.exp - 1,
        ..value
    };
    round::<F>(fpu, value, fpu.rounding())
}

/// `addend + a × b`, rounded once.
pub fn mul_add<F: Format>(fpu: &mut Fpu, addend: u64, a: u64, b: u64) -> u64 {
    let uc = unpack::<F>(fpu, addend);
    let ua = unpack::<F>(fpu, a);
    let ub = unpack::<F>(fpu, b);
    let product_invalid = ua.is_inf() && ub.is_zero() || ua.is_zero() && ub.is_inf();
    // A signalling NaN still wins over the invalid product, a quiet one does not.
    if product_invalid && F::is_nan(addend) && !F::is_signalling(addend) {
        return invalid::<F>(fpu);
    }
    if let Some(nan) = nans::<F>(fpu, &[addend, a, b]) {
        return nan;
    }
    let sign = ua.sign != ub.sign;
    let infinite = ua.is_inf() || ub.is_inf();
    if product_invalid || uc.is_inf() && infinite && uc.sign != sign {
        return invalid::<F>(fpu);
    }
    if uc.is_inf() {
        return F::infinity(uc.sign);
    }
    if infinite {
        return F::infinity(sign);
    }
    match (uc.is_zero(), ua.is_zero() || ub.is_zero()) {
        (true, true) if uc.sign == sign => F::zero(sign),
        (true, true) => fpu.zero_sum::<F>(),
        (true, false) => round::<F>(fpu, product(&ua, &ub), fpu.rounding()),
        (false, true) => round::<F>(fpu, uc.value(), fpu.rounding()),
        (false, false) => round_sum::<F>(fpu, sum(uc.value(), product(&ua, &ub))),
    }
}

//! Reciprocal and reciprocal square root: estimates, steps, exponent.

use super::arith::{product, sum};
use super::format::{
    DZC, FZ, Format, Fpu, IXC, OFC, Rounding, UFC, Value, invalid, nans, round, unpack,
};

/// Nine-bit reciprocal estimate: `a` in 256..512 stands for 0.5..1.0, the
/// result in 256..512 for 1.0..2.0.
fn reciprocal_table(a: u64) -> u64 {
    ((1u64 << 19) / (a * 2 + 1)).div_ceil(2)
}

/// Nine-bit reciprocal square root estimate of `a` in 128..512, standing for
/// 0.25..1.0.
fn root_table(a: u64) -> u64 {
    let scaled = if a < 256 {
        a * 2 + 1
    } else {
        ((a >> 1 << 1) + 1) * 2
    };
    // The greatest b in 512..1024 with scaled × b² below 2^28.
    let b = ((1u64 << 28) - 1) / scaled;
    b.isqrt().max(512).div_ceil(2)
}

/// The reciprocal estimate of `bits` (FRECPE).
pub fn estimate<F: Format>(fpu: &mut Fpu, bits: u64) -> u64 {
    let u = unpack::<F>(fpu, bits);
    if let Some(nan) = nans::<F>(fpu, &[bits]) {
        return nan;
    }
    if u.is_inf() {
        return F::zero(u.sign);
    }
    if u.is_zero() {
        fpu.raise(DZC);
        return F::infinity(u.sign);
    }
    let mut biased = ((bits & F::INF) >> F::FRAC) as i64;
    let mut frac = (bits & F::FRAC_MASK) << (52 - F::FRAC);
    // Below 2^-(BIAS+1) the reciprocal is not representable.
    if biased == 0 && frac >> 50 == 0 {
        fpu.raise(OFC | IXC);
        let infinite = match fpu.rounding() {
            Rounding::Up => !u.sign,
            Rounding::Down => u.sign,
            rounding => rounding == Rounding::Nearest,
        };
        return if infinite {
            F::infinity(u.sign)
        } else {
            F::max_finite(u.sign)
        };
    }
    let bias = i64::from(F::BIAS);
    if fpu.has(FZ) && biased >= 2 * bias - 1 {
        fpu.raise(UFC);
        return F::zero(u.sign);
    }
    if biased == 0 {
        if frac >> 51 == 0 {
            biased = -1;
            frac <<= 1;
        }
        frac <<= 1;
    }
    let estimate = reciprocal_table(256 | frac >> 44 & 0xff);
    let mut result_exp = 2 * bias - 1 - biased;
    let mut result = (estimate & 0xff) << 44;
    if result_exp <= 0 {
        result = (1 << 52 | result) >> (1 - result_exp);
        result_exp = 0;
    }
    F::zero(u.sign) | (result_exp as u64) << F::FRAC | result >> (52 - F::FRAC)
}

/// The reciprocal square root estimate of `bits` (FRSQRTE).
pub fn root_estimate<F: Format>(fpu: &mut Fpu, bits: u64) -> u64 {
    let u = unpack::<F>(fpu, bits);
    if let Some(nan) = nans::<F>(fpu, &[bits]) {
        return nan;
    }
    if u.is_zero() {
        fpu.raise(DZC);
        return F::infinity(u.sign);
    }
    if u.sign {
        return invalid::<F>(fpu);
    }
    if u.is_inf() {
        return F::zero(false);
    }
    let mut biased = ((bits & F::INF) >> F::FRAC) as i64;
    let mut frac = (bits & F::FRAC_MASK) << (52 - F::FRAC);
    if biased == 0 {
        let shift = frac.leading_zeros() - 11;
        frac = frac << shift & ((1 << 52) - 1);
        biased = 1 - i64::from(shift);
    }
    let scaled = if biased & 1 == 0 {
        256 | frac >> 44 & 0xff
    } else {
        128 | frac >> 45 & 0x7f
    };
    let result_exp = (3 * i64::from(F::BIAS) - 1 - biased) / 2;
    let result = (root_table(scaled) & 0xff) << 44;
    (result_exp as u64) << F::FRAC | result >> (52 - F::FRAC)
}

/// The unsigned fixed-point reciprocal estimate (URECPE).
pub fn unsigned_estimate(a: u32) -> u32 {
    if a >> 31 == 0 {
        return u32::MAX;
    }
    (reciprocal_table(u64::from(a >> 23)) as u32) << 23
}

/// The unsigned fixed-point reciprocal square root estimate (URSQRTE).
pub fn unsigned_root_estimate(a: u32) -> u32 {
    if a >> 30 == 0 {
        return u32::MAX;
    }
    (root_table(u64::from(a >> 23)) as u32) << 23
}

/// A power of two of roughly the reciprocal's size (FRECPX).
pub fn exponent<F: Format>(fpu: &mut Fpu, bits: u64) -> u64 {
    unpack::<F>(fpu, bits);
    if let Some(nan) = nans::<F>(fpu, &[bits]) {
        return nan;
    }
    let exp = bits & F::INF;
    let inverted = if exp == 0 {
        F::INF - (1 << F::FRAC)
    } else {
        !exp & F::INF
    };
    bits & F::SIGN | inverted
}

/// The Newton step `2 - a × b` (FRECPS).
pub fn step<F: Format>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
    fused_step::<F>(fpu, a, b, 2, 0)
}

/// The Newton step `(3 - a × b) ÷ 2` (FRSQRTS).
pub fn root_step<F: Format>(fpu: &mut Fpu, a: u64, b: u64) -> u64 {
    fused_step::<F>(fpu, a, b, 3, 1)
}

/// `(base - a × b) ÷ 2^halvings`, rounded once; infinity times zero counts as 0.
fn fused_step<F: Format>(fpu: &mut Fpu, a: u64, b: u64, base: u128, halvings: i32) -> u64 {
    let a = a ^ F::SIGN;
    let ua = unpack::<F>(fpu, a);
    let ub = unpack::<F>(fpu, b);
    if let Some(nan) = nans::<F>(fpu, &[a, b]) {
        return nan;
    }
    let constant = Value {
        sign: false,
        exp: -halvings,
        sig: base,
    };
    let infinite = ua.is_inf() || ub.is_inf();
    let zero = ua.is_zero() || ub.is_zero();
    if infinite && !zero {
        return F::infinity(ua.sign != ub.sign);
    }
    if zero {
        return round::<F>(fpu, constant, fpu.rounding());
    }
    let mut term = product(&ua, &ub);
    term.exp -= halvings;
    match sum(constant, term) {
        Some(value) => round::<F>(fpu, value, fpu.rounding()),
        None => fpu.zero_sum::<F>(),
    }
}

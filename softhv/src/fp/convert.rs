//! Conversions between formats, to and from integers, and to integral values.

use super::format::{
    AHP, DN, Format, Fpu, IOC, IXC, Kind, Rounding, Value, nans, round, round_to_integer, unpack,
};

/// Converts between formats (FPConvert).
pub fn convert<S: Format, D: Format>(fpu: &mut Fpu, bits: u64, rounding: Rounding) -> u64 {
    let u = unpack::<S>(fpu, bits);
    let alternative = !D::FLUSHES && fpu.has(AHP);
    match u.kind {
        Kind::Quiet | Kind::Signalling => {
            if alternative || u.kind == Kind::Signalling {
                fpu.raise(IOC);
            }
            if alternative {
                D::zero(u.sign)
            } else if fpu.has(DN) {
                D::DEFAULT_NAN
            } else {
                // The payload keeps its top bits.
                let payload = u.sig << (64 - S::FRAC) >> (64 - D::FRAC);
                D::DEFAULT_NAN | D::zero(u.sign) | payload
            }
        }
        Kind::Infinity if alternative => {
            fpu.raise(IOC);
            D::MASK >> 1 | D::zero(u.sign)
        }
        Kind::Infinity => D::infinity(u.sign),
        Kind::Zero => D::zero(u.sign),
        Kind::Finite => round::<D>(fpu, u.value(), rounding),
    }
}

/// Rounds to an integral value in the same format; `exact` reports inexactness
/// (FRINTX).
pub fn round_integral<F: Format>(fpu: &mut Fpu, bits: u64, rounding: Rounding, exact: bool) -> u64 {
    let u = unpack::<F>(fpu, bits);
    if let Some(nan) = nans::<F>(fpu, &[bits]) {
        return nan;
    }
    if u.is_zero() {
        return F::zero(u.sign);
    }
    // Infinities, and numbers without a fraction part, are themselves.
    if u.is_inf() || u.exp >= 0 {
        return bits;
    }
    let (int, inexact) = round_to_integer(u.value(), rounding);
    if inexact && exact {
        fpu.raise(IXC);
    }
    if int == 0 {
        return F::zero(u.sign);
    }
    let value = Value {
        sign: u.sign,
        exp: 0,
        sig: int,
    };
    round::<F>(fpu, value, Rounding::Zero)
}

/// An integer type that conversions produce or consume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Integer {
    /// Width in bits, 32 or 64.
    pub bits: u32,
    /// Whether it is unsigned.
    pub unsigned: bool,
}

/// Converts to a fixed-point number with `frac_bits` fraction bits, saturating;
/// the result is in the low `to.bits` bits (FPToFixed).
pub fn to_integer<F: Format>(
    fpu: &mut Fpu,
    bits: u64,
    to: Integer,
    frac_bits: u32,
    rounding: Rounding,
) -> u64 {
    let u = unpack::<F>(fpu, bits);
    let (magnitude, inexact) = match u.kind {
        Kind::Quiet | Kind::Signalling => {
            fpu.raise(IOC);
            return 0;
        }
        Kind::Zero => return 0,
        Kind::Infinity => (u128::MAX, false),
        Kind::Finite => {
            let scaled = Value {
                exp: u.exp + frac_bits as i32,
                ..u.value()
            };
            round_to_integer(scaled, rounding)
        }
    };
    let limit = match (to.unsigned, u.sign) {
        (true, true) => 0,
        (true, false) => (1u128 << to.bits) - 1,
        (false, true) => 1u128 << (to.bits - 1),
        (false, false) => (1u128 << (to.bits - 1)) - 1,
    };
    if magnitude > limit {
        fpu.raise(IOC);
    } else if inexact {
        fpu.raise(IXC);
    }
    let magnitude = magnitude.min(limit) as u64;
    let value = if u.sign {
        magnitude.wrapping_neg()
    } else {
        magnitude
    };
    value & (u64::MAX >> (64 - to.bits))
}

/// Converts a fixed-point number with `frac_bits` fraction bits (FixedToFP).
pub fn from_integer<F: Format>(fpu: &mut Fpu, int: u64, from: Integer, frac_bits: u32) -> u64 {
    let pad = 64 - from.bits;
    let (sign, magnitude) = if from.unsigned {
        (false, int << pad >> pad)
    } else {
        let int = (int << pad) as i64 >> pad;
        (int < 0, int.unsigned_abs())
    };
    if magnitude == 0 {
        return 0;
    }
    let value = Value {
        sign,
        exp: -(frac_bits as i32),
        sig: u128::from(magnitude),
    };
    round::<F>(fpu, value, fpu.rounding())
}

/// JavaScript's conversion of a double to a 32-bit integer, modulo 2^32: the
/// result, and whether it equals the operand (PSTATE.Z) (FPToFixedJS).
pub fn javascript_int32(fpu: &mut Fpu, bits: u64) -> (u32, bool) {
    let u = unpack::<super::format::Double>(fpu, bits);
    match u.kind {
        Kind::Quiet | Kind::Signalling | Kind::Infinity => {
            fpu.raise(IOC);
            return (0, false);
        }
        Kind::Zero => return (0, !u.sign),
        Kind::Finite => {}
    }
    if u.exp >= 32 {
        fpu.raise(IOC);
        return (0, false);
    }
    let (magnitude, inexact) = round_to_integer(u.value(), Rounding::Zero);
    let low = magnitude as u32;
    let result = if u.sign { low.wrapping_neg() } else { low };
    if magnitude > (1 << 31) - u128::from(!u.sign) {
        fpu.raise(IOC);
        return (result, false);
    }
    if inexact {
        fpu.raise(IXC);
    }
    (result, !inexact)
}

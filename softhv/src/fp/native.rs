//! The host's floating point, used where it must agree with the Arm result.
//!
//! Under default FPCR controls a native result that is finite and clearly
//! normal proves that no flag but IXC can be due: NaN, infinite, zero and tiny
//! results (also those that rounding may have lifted to the smallest normal)
//! are left to the integer code. Whether IXC is due is known if it is set
//! already, or from an error-free transformation that shows a result exact.

use super::format::{DN, Double, FZ, Format, Fpu, IXC, RMODE, Single};
use super::fused::on_host;

/// FPCR bits that must be clear for native arithmetic to apply.
pub const CONTROL: u64 = RMODE | FZ | DN;

/// Whether a native result can have raised no flag other than IXC: finite,
/// and at least twice the smallest normal number.
#[inline(always)]
pub fn is_plain<F: Format>(bits: u64) -> bool {
    let floor = 2 << F::FRAC;
    (bits & F::INF).wrapping_sub(floor) < F::INF - floor
}

/// A format the host computes in. All results round to nearest even.
pub trait Native: Format {
    /// `a + b`.
    fn add(a: u64, b: u64) -> u64;
    /// `a - b`.
    fn sub(a: u64, b: u64) -> u64;
    /// `a × b`.
    fn mul(a: u64, b: u64) -> u64;
    /// `a ÷ b`.
    fn div(a: u64, b: u64) -> u64;
    /// Square root.
    fn sqrt(a: u64) -> u64;
    /// `a × b + c`, rounded once; fast only in code compiled for FMA, see
    /// `fused`.
    fn mul_add(a: u64, b: u64, c: u64) -> u64;
    /// Whether plain `r` is exactly `a + b`; false if unsure.
    fn sum_is(a: u64, b: u64, r: u64) -> bool;
    /// Whether plain `r` is exactly `a × b`; false if unsure.
    fn product_is(a: u64, b: u64, r: u64) -> bool;
    /// `a < b`, false for NaNs.
    fn less(a: u64, b: u64) -> bool;
    /// `a == b`, false for NaNs.
    fn equal(a: u64, b: u64) -> bool;
    /// The nearest number to an integer.
    fn from_i64(a: i64) -> u64;
    /// The nearest number to an integer.
    fn from_u64(a: u64) -> u64;
    /// Toward zero, saturating.
    fn to_i64(a: u64) -> i64;
    /// Toward zero, saturating.
    fn to_u64(a: u64) -> u64;
}

macro_rules! native {
    ($format:ty, $float:ty, $bits:ty, $product_is:expr) => {
        impl Native for $format {
            #[inline(always)]
            fn add(a: u64, b: u64) -> u64 {
                u64::from((float(a as $bits) + float(b as $bits)).to_bits())
            }
            #[inline(always)]
            fn sub(a: u64, b: u64) -> u64 {
                u64::from((float(a as $bits) - float(b as $bits)).to_bits())
            }
            #[inline(always)]
            fn mul(a: u64, b: u64) -> u64 {
                u64::from((float(a as $bits) * float(b as $bits)).to_bits())
            }
            #[inline(always)]
            fn div(a: u64, b: u64) -> u64 {
                u64::from((float(a as $bits) / float(b as $bits)).to_bits())
            }
            #[inline(always)]
            fn sqrt(a: u64) -> u64 {
                u64::from(float(a as $bits).sqrt().to_bits())
            }
            #[inline(always)]
            fn mul_add(a: u64, b: u64, c: u64) -> u64 {
                let (a, b, c) = (float(a as $bits), float(b as $bits), float(c as $bits));
                u64::from(a.mul_add(b, c).to_bits())
            }
            fn sum_is(a: u64, b: u64, r: u64) -> bool {
                // Knuth's error term of a sum; an overflow inside makes it NaN.
                let (a, b, r) = (float(a as $bits), float(b as $bits), float(r as $bits));
                let part = r - a;
                let error = (a - (r - part)) + (b - part);
                error == 0.0
            }
            fn product_is(a: u64, b: u64, r: u64) -> bool {
                $product_is(float(a as $bits), float(b as $bits), float(r as $bits))
            }
            #[inline(always)]
            fn less(a: u64, b: u64) -> bool {
                float(a as $bits) < float(b as $bits)
            }
            #[inline(always)]
            fn equal(a: u64, b: u64) -> bool {
                float(a as $bits) == float(b as $bits)
            }
            #[inline(always)]
            fn from_i64(a: i64) -> u64 {
                u64::from((a as $float).to_bits())
            }
            #[inline(always)]
            fn from_u64(a: u64) -> u64 {
                u64::from((a as $float).to_bits())
            }
            #[inline(always)]
            fn to_i64(a: u64) -> i64 {
                float(a as $bits) as i64
            }
            #[inline(always)]
            fn to_u64(a: u64) -> u64 {
                float(a as $bits) as u64
            }
        }
    };
}

/// Bit patterns read as the float type of their width.
trait Bits {
    type Float;
    fn to_float(self) -> Self::Float;
}
impl Bits for u32 {
    type Float = f32;
    #[inline(always)]
    fn to_float(self) -> f32 {
        f32::from_bits(self)
    }
}
impl Bits for u64 {
    type Float = f64;
    #[inline(always)]
    fn to_float(self) -> f64 {
        f64::from_bits(self)
    }
}
#[inline(always)]
fn float<B: Bits>(bits: B) -> B::Float {
    bits.to_float()
}

/// A product of two singles has at most 48 bits: exact in double precision.
fn single_product_is(a: f32, b: f32, r: f32) -> bool {
    f64::from(a) * f64::from(b) == f64::from(r)
}

/// The error of a product is a double itself, unless its 106 bits reach below
/// 2^-1074, the smallest denormal.
fn double_product_is(a: f64, b: f64, r: f64) -> bool {
    const SAFE: f64 = f64::from_bits((1023 - 960) << 52);
    r.abs() >= SAFE && on_host(|| a.mul_add(b, -r)) == 0.0
}

native!(Single, f32, u32, single_product_is);
native!(Double, f64, u64, double_product_is);

/// An integer in format `F`, if that is exact, or if it is known how it rounds
/// and that IXC is set. `int` holds 64 bits of either signedness.
#[inline(always)]
pub fn from_int<F: Native>(fpu: Fpu, int: i64, unsigned: bool) -> Option<u64> {
    // Every integer up to 2^24 or 2^53 is exact in every mode.
    let exact = int.unsigned_abs() <= 1 << (F::FRAC + 1) && (!unsigned || int >= 0);
    if !exact && (fpu.fpcr & CONTROL != 0 || fpu.fpsr & IXC == 0) {
        return None;
    }
    Some(if unsigned {
        F::from_u64(int as u64)
    } else {
        F::from_i64(int)
    })
}

/// `a` toward zero as an integer of `bits` bits, if it fits and raises nothing
/// new. Zero is left out: it may come from a NaN or a flushed denormal.
#[inline(always)]
pub fn truncate<F: Native>(fpu: Fpu, a: u64, bits: u32, unsigned: bool) -> Option<u64> {
    let (int, fits, back);
    if unsigned {
        int = F::to_u64(a);
        // The greatest value may be a saturated one.
        fits = int != 0 && int < u64::MAX >> (64 - bits);
        back = F::from_u64(int);
    } else {
        let signed = F::to_i64(a);
        let limit = i64::MAX >> (64 - bits);
        fits = signed != 0 && -limit <= signed && signed < limit;
        back = F::from_i64(signed);
        int = signed as u64 & u64::MAX >> (64 - bits);
    }
    (fits && (back == a || fpu.fpsr & IXC != 0)).then_some(int)
}

/// A single as a double, if that raises nothing.
#[inline(always)]
pub fn widen(fpu: Fpu, a: u64) -> Option<u64> {
    let value = f32::from_bits(a as u32);
    (fpu.fpcr & FZ == 0 && !value.is_nan()).then(|| f64::from(value).to_bits())
}

/// A double as a single, if that raises nothing new.
#[inline(always)]
pub fn narrow(fpu: Fpu, a: u64) -> Option<u64> {
    let value = f64::from_bits(a);
    let result = value as f32;
    let bits = u64::from(result.to_bits());
    let known = fpu.fpsr & IXC != 0 || f64::from(result) == value;
    (fpu.fpcr & CONTROL == 0 && known && is_plain::<Single>(bits)).then_some(bits)
}

/// `a` rounded to an integral value with rounding code `code` (see
/// [`super::format::Rounding::from_code`]), unless it is a NaN or so large that
/// it has no fraction. Denormals must not be flushed.
#[inline(always)]
pub fn round_integral<F: Native>(a: u64, code: u64) -> Option<u64> {
    let number = |exp: u32| (u64::from(exp) + F::BIAS as u64) << F::FRAC;
    let (sign, magnitude) = (a & F::SIGN, a & !F::SIGN);
    // From 2^FRAC on the last place is worth one or more.
    let no_fraction = number(F::FRAC);
    if magnitude >= no_fraction {
        return None;
    }
    let one = number(0);
    let half = one - (1 << F::FRAC);
    let down = F::from_i64(F::to_i64(magnitude));
    let up = |is| if is { F::add(down, one) } else { down };
    let rounded = match code {
        // Up there, adding rounds to an integer, ties to even.
        0 => F::sub(F::add(magnitude, no_fraction), no_fraction),
        1 => up(sign == 0 && down != magnitude),
        2 => up(sign != 0 && down != magnitude),
        3 => down,
        _ => up(!F::less(F::sub(magnitude, down), half)),
    };
    Some(sign | rounded)
}

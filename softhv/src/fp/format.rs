//! Formats, control and status words, unpacking and rounding.

/// FPSR.IOC: invalid operation.
pub const IOC: u64 = 1 << 0;
/// FPSR.DZC: division by zero.
pub const DZC: u64 = 1 << 1;
/// FPSR.OFC: overflow.
pub const OFC: u64 = 1 << 2;
/// FPSR.UFC: underflow.
pub const UFC: u64 = 1 << 3;
/// FPSR.IXC: inexact.
pub const IXC: u64 = 1 << 4;
/// FPSR.IDC: a denormal operand was flushed to zero.
pub const IDC: u64 = 1 << 7;

/// FPCR.RMode, two bits.
pub const RMODE: u64 = 3 << 22;
/// FPCR.FZ: flush denormal operands and results to zero.
pub const FZ: u64 = 1 << 24;
/// FPCR.DN: every NaN result is the default NaN.
pub const DN: u64 = 1 << 25;
/// FPCR.AHP: half precision without infinities and NaNs.
pub const AHP: u64 = 1 << 26;

/// How a value between two representable ones is rounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    /// Toward plus infinity.
    Up,
    /// Toward minus infinity.
    Down,
    /// Toward zero.
    Zero,
    /// To nearest, ties away from zero.
    Away,
    /// To odd: toward zero, then the last bit set if anything was lost.
    Odd,
}

impl Rounding {
    /// The mode with the number `code`: 0..=3 as in FPCR.RMode, 4 ties away.
    #[inline]
    pub fn from_code(code: u64) -> Self {
        match code {
            0 => Self::Nearest,
            1 => Self::Up,
            2 => Self::Down,
            3 => Self::Zero,
            _ => Self::Away,
        }
    }
}

/// The two registers that floating-point operations depend on and change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fpu {
    /// FPCR.
    pub fpcr: u64,
    /// FPSR; flags are only ever added.
    pub fpsr: u64,
}

impl Fpu {
    /// FPCR.RMode.
    #[inline]
    pub fn rounding(&self) -> Rounding {
        Rounding::from_code(self.fpcr >> 22 & 3)
    }

    /// Sets cumulative flags.
    #[inline]
    pub fn raise(&mut self, flags: u64) {
        self.fpsr |= flags;
    }

    /// Whether control bit `bit` is set.
    #[inline]
    pub fn has(&self, bit: u64) -> bool {
        self.fpcr & bit != 0
    }

    /// A zero whose sign is that of an exact zero sum: minus when rounding down.
    #[inline]
    pub fn zero_sum<F: Format>(&self) -> u64 {
        F::zero(self.rounding() == Rounding::Down)
    }
}

/// A binary interchange format whose values travel in the low bits of a `u64`.
pub trait Format: 'static {
    /// Exponent field width in bits.
    const EXP: u32;
    /// Fraction field width in bits.
    const FRAC: u32;
    /// Whole width in bits.
    const BITS: u32 = 1 + Self::EXP + Self::FRAC;
    /// Exponent bias.
    const BIAS: i32 = (1 << (Self::EXP - 1)) - 1;
    /// Sign bit.
    const SIGN: u64 = 1 << (Self::BITS - 1);
    /// All value bits.
    const MASK: u64 = u64::MAX >> (64 - Self::BITS);
    /// Fraction field.
    const FRAC_MASK: u64 = (1 << Self::FRAC) - 1;
    /// All-ones exponent field, in place: plus infinity.
    const INF: u64 = Self::MASK >> 1 & !Self::FRAC_MASK;
    /// The bit that makes a NaN quiet.
    const QUIET: u64 = 1 << (Self::FRAC - 1);
    /// The default NaN: positive, quiet, empty payload.
    const DEFAULT_NAN: u64 = Self::INF | Self::QUIET;
    /// Whether FPCR.FZ applies (FZ16 exists only with FP16 arithmetic).
    const FLUSHES: bool;

    /// Zero with a sign.
    #[inline]
    fn zero(negative: bool) -> u64 {
        if negative { Self::SIGN } else { 0 }
    }

    /// Infinity with a sign.
    #[inline]
    fn infinity(negative: bool) -> u64 {
        Self::INF | Self::zero(negative)
    }

    /// The finite number of greatest magnitude with a sign.
    #[inline]
    fn max_finite(negative: bool) -> u64 {
        Self::infinity(negative) - 1
    }

    /// Whether `bits` is any NaN.
    #[inline]
    fn is_nan(bits: u64) -> bool {
        bits & (Self::MASK >> 1) > Self::INF
    }

    /// Whether `bits` is a signalling NaN.
    #[inline]
    fn is_signalling(bits: u64) -> bool {
        Self::is_nan(bits) && bits & Self::QUIET == 0
    }
}

/// IEEE binary16, used by conversions only.
pub struct Half;
/// IEEE binary32.
pub struct Single;
/// IEEE binary64.
pub struct Double;

impl Format for Half {
    const EXP: u32 = 5;
    const FRAC: u32 = 10;
    const FLUSHES: bool = false;
}
impl Format for Single {
    const EXP: u32 = 8;
    const FRAC: u32 = 23;
    const FLUSHES: bool = true;
}
impl Format for Double {
    const EXP: u32 = 11;
    const FRAC: u32 = 52;
    const FLUSHES: bool = true;
}

/// What an operand is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Plus or minus zero, or a flushed denormal.
    Zero,
    /// Any other finite number.
    Finite,
    /// An infinity.
    Infinity,
    /// A quiet NaN.
    Quiet,
    /// A signalling NaN.
    Signalling,
}

/// An operand taken apart; a finite one has the value `±sig × 2^exp`.
#[derive(Clone, Copy, Debug)]
pub struct Unpacked {
    /// What it is.
    pub kind: Kind,
    /// Whether the sign bit is set.
    pub sign: bool,
    /// Exponent of the last bit of `sig`.
    pub exp: i32,
    /// Significand as an integer.
    pub sig: u64,
}

impl Unpacked {
    /// Whether this is a NaN of either kind.
    #[inline]
    pub fn is_nan(&self) -> bool {
        matches!(self.kind, Kind::Quiet | Kind::Signalling)
    }

    /// Whether this is an infinity.
    #[inline]
    pub fn is_inf(&self) -> bool {
        self.kind == Kind::Infinity
    }

    /// Whether this is a zero (flushed ones included).
    #[inline]
    pub fn is_zero(&self) -> bool {
        self.kind == Kind::Zero
    }

    /// The magnitude and sign as an exact [`Value`].
    #[inline]
    pub fn value(&self) -> Value {
        Value {
            sign: self.sign,
            exp: self.exp,
            sig: u128::from(self.sig),
        }
    }
}

/// An intermediate result `±sig × 2^exp`; the last bit of `sig` may be sticky
/// as long as far more than the destination's precision stands above it.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    /// Whether it is negative.
    pub sign: bool,
    /// Exponent of the last bit of `sig`.
    pub exp: i32,
    /// Significand as an integer.
    pub sig: u128,
}

/// Takes `bits` apart, flushing denormals when FPCR.FZ says so (FPUnpack).
pub fn unpack<F: Format>(fpu: &mut Fpu, bits: u64) -> Unpacked {
    let sign = bits & F::SIGN != 0;
    let biased = (bits & F::INF) >> F::FRAC;
    let frac = bits & F::FRAC_MASK;
    let finite = |sig, biased: u64| Unpacked {
        kind: if sig == 0 { Kind::Zero } else { Kind::Finite },
        sign,
        exp: biased as i32 - F::BIAS - F::FRAC as i32,
        sig,
    };
    if biased == 0 {
        if frac != 0 && F::FLUSHES && fpu.has(FZ) {
            fpu.raise(IDC);
            return finite(0, 1);
        }
        return finite(frac, 1);
    }
    // The alternative half format spends the top exponent on numbers.
    if bits & F::INF == F::INF && (F::FLUSHES || !fpu.has(AHP)) {
        let kind = match frac {
            0 => Kind::Infinity,
            f if f & F::QUIET == 0 => Kind::Signalling,
            _ => Kind::Quiet,
        };
        return Unpacked {
            kind,
            sign,
            exp: 0,
            sig: frac,
        };
    }
    finite(frac | 1 << F::FRAC, biased)
}

/// Whether a discarded part `rem` out of `1 << shift` rounds `int` away from zero.
fn rounds_away(rounding: Rounding, sign: bool, int: u64, rem: u128, shift: u32) -> bool {
    // A shift past the width leaves less than half a unit.
    let half = if shift <= 128 {
        rem.cmp(&(1u128 << (shift - 1)))
    } else {
        std::cmp::Ordering::Less
    };
    match rounding {
        Rounding::Nearest => half.is_gt() || half.is_eq() && int & 1 == 1,
        Rounding::Away => half.is_ge(),
        Rounding::Up => !sign && rem != 0,
        Rounding::Down => sign && rem != 0,
        Rounding::Zero => false,
        Rounding::Odd => rem != 0 && int & 1 == 0,
    }
}

/// Divides `sig` by `1 << shift`: quotient and remainder.
fn split(sig: u128, shift: u32) -> (u128, u128) {
    if shift >= 128 {
        (0, sig)
    } else {
        (sig >> shift, sig & ((1u128 << shift) - 1))
    }
}

/// Rounds a non-zero `value` to an integer; also says whether that lost
/// anything. Magnitudes of 2^127 and more come out as `u128::MAX`.
pub fn round_to_integer(value: Value, rounding: Rounding) -> (u128, bool) {
    if value.exp >= 0 {
        let shift = value.exp as u32;
        let fits = shift < value.sig.leading_zeros();
        return (if fits { value.sig << shift } else { u128::MAX }, false);
    }
    let shift = value.exp.unsigned_abs();
    let (int, rem) = split(value.sig, shift);
    let up = rounds_away(rounding, value.sign, int as u64, rem, shift);
    (int + u128::from(up), rem != 0)
}

/// Rounds a non-zero `value` into format `F`, raising what the Arm FPRound
/// function raises: tininess is judged before rounding, and a tiny result under
/// FPCR.FZ becomes zero with UFC alone.
pub fn round<F: Format>(fpu: &mut Fpu, value: Value, rounding: Rounding) -> u64 {
    let Value { sign, exp, sig } = value;
    let top = exp + 127 - sig.leading_zeros() as i32;
    let min = 1 - F::BIAS;
    let tiny = top < min;
    if tiny && F::FLUSHES && fpu.has(FZ) {
        fpu.raise(UFC);
        return F::zero(sign);
    }
    let unit = top.max(min) - F::FRAC as i32;
    let shift = unit - exp;
    let (mut int, inexact) = if shift <= 0 {
        ((sig << shift.unsigned_abs()) as u64, false)
    } else {
        let shift = shift as u32;
        let (int, rem) = split(sig, shift);
        let int = int as u64;
        let up = rounds_away(rounding, sign, int, rem, shift);
        (int + u64::from(up), rem != 0)
    };
    let mut biased = if tiny { 0 } else { (top + F::BIAS) as u64 };
    // A carry out of the significand moves the exponent by itself.
    if !tiny {
        int -= 1 << F::FRAC;
    }
    biased += int >> F::FRAC;
    int &= F::FRAC_MASK;
    let alternative = !F::FLUSHES && fpu.has(AHP);
    let limit = (1u64 << F::EXP) - u64::from(!alternative);
    if biased >= limit {
        return overflow::<F>(fpu, sign, rounding, alternative);
    }
    if inexact {
        fpu.raise(if tiny { UFC | IXC } else { IXC });
    }
    F::zero(sign) | biased << F::FRAC | int
}

fn overflow<F: Format>(fpu: &mut Fpu, sign: bool, rounding: Rounding, alternative: bool) -> u64 {
    if alternative {
        fpu.raise(IOC);
        return F::MASK >> 1 | F::zero(sign);
    }
    fpu.raise(OFC | IXC);
    let infinite = match rounding {
        Rounding::Nearest | Rounding::Away => true,
        Rounding::Up => !sign,
        Rounding::Down => sign,
        Rounding::Zero | Rounding::Odd => false,
    };
    if infinite {
        F::infinity(sign)
    } else {
        F::max_finite(sign)
    }
}

/// The result that NaN operand `bits` gives (FPProcessNaN).
pub fn nan<F: Format>(fpu: &mut Fpu, bits: u64) -> u64 {
    if bits & F::QUIET == 0 {
        fpu.raise(IOC);
    }
    if fpu.has(DN) {
        F::DEFAULT_NAN
    } else {
        bits | F::QUIET
    }
}

/// The result of an operation one of whose operands is a NaN, `None` if none
/// is: the first signalling one decides, else the first quiet one.
pub fn nans<F: Format>(fpu: &mut Fpu, operands: &[u64]) -> Option<u64> {
    let signalling = operands.iter().find(|&&x| F::is_signalling(x));
    let chosen = signalling.or_else(|| operands.iter().find(|&&x| F::is_nan(x)));
    chosen.map(|&bits| nan::<F>(fpu, bits))
}

/// The default NaN with IOC: what an invalid operation gives.
pub fn invalid<F: Format>(fpu: &mut Fpu) -> u64 {
    fpu.raise(IOC);
    F::DEFAULT_NAN
}

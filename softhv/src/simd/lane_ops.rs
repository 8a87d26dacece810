//! What each instruction computes from one lane of each operand.

use super::int::Int;

/// Result lane from one lane of each of two sources.
pub trait Two {
    /// The operation.
    fn of<T: Int>(a: T, b: T) -> T;
}

/// Result lane from the destination's old lane and one of each source.
pub trait Three {
    /// The operation.
    fn of<T: Int>(d: T, a: T, b: T) -> T;
}

/// Like [`Two`], with whether the result was saturated.
pub trait TwoSat {
    /// The operation.
    fn of<T: Int>(a: T, b: T) -> (T, bool);
}

/// Like [`Three`], with whether the result was saturated.
pub trait ThreeSat {
    /// The operation.
    fn of<T: Int>(d: T, a: T, b: T) -> (T, bool);
}

/// Result lane from one source lane.
pub trait One {
    /// The operation.
    fn of<T: Int>(a: T) -> T;
}

/// Result lane from one source lane, with whether it was saturated.
pub trait OneSat {
    /// The operation.
    fn of<T: Int>(a: T) -> (T, bool);
}

/// Result lane of a shift by immediate, from the destination's old lane `d`,
/// the source lane `a` and the count `n`.
pub trait Shift {
    /// The operation.
    fn of<T: Int>(d: T, a: T, n: u32) -> T;
}

macro_rules! lane_ops {
    ($trait:ident -> $out:ty:
        $($(#[$doc:meta])* $name:ident($($arg:ident),*) = $body:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl $trait for $name {
            #[inline(always)]
            fn of<T: Int>($($arg: T),*) -> $out { $body }
        }
    )*};
}

lane_ops! { Two -> T:
    /// ADD and the additions of the long and wide forms.
    Add(a, b) = a.plus(b);
    /// SUB.
    Sub(a, b) = a.minus(b);
    /// MUL.
    Mul(a, b) = a.times(b);
    /// SMAX, UMAX.
    Max(a, b) = a.max(b);
    /// SMIN, UMIN.
    Min(a, b) = a.min(b);
    /// SABD, UABD.
    Abd(a, b) = a.distance(b);
    /// SHADD, UHADD.
    Hadd(a, b) = (a & b).plus((a ^ b) >> 1);
    /// SRHADD, URHADD.
    Rhadd(a, b) = (a | b).minus((a ^ b) >> 1);
    /// SHSUB, UHSUB: a - b is (a ^ b) - 2 (!a & b).
    Hsub(a, b) = ((a ^ b) >> 1).minus(!a & b);
    /// CMGT, CMHI.
    CmGt(a, b) = T::mask(a > b);
    /// CMGE, CMHS.
    CmGe(a, b) = T::mask(a >= b);
    /// CMEQ.
    CmEq(a, b) = T::mask(a == b);
    /// CMTST.
    CmTst(a, b) = T::mask(a & b != T::default());
    /// PMUL and, on lanes widened from 8 bits, PMULL.
    Pmul(a, b) = (0..8).fold(T::default(), |sum, bit| {
        sum ^ ((a << bit) & T::mask((b >> bit) & T::cut(1) != T::default()))
    });
    /// SSHL, USHL.
    Shl(a, b) = match b.shift_count() {
        left @ 0.. => a.left(left as u32),
        right => a.right(right.unsigned_abs()),
    };
    /// SRSHL, URSHL.
    Rshl(a, b) = match b.shift_count() {
        left @ 0.. => a.left(left as u32),
        right => a.right_rounded(right.unsigned_abs()),
    };
}

lane_ops! { Three -> T:
    /// MLA.
    Mla(d, a, b) = d.plus(a.times(b));
    /// MLS.
    Mls(d, a, b) = d.minus(a.times(b));
    /// SABA, UABA.
    Aba(d, a, b) = d.plus(a.distance(b));
}

/// A clamped result and whether clamping changed it.
#[inline(always)]
fn flagged<T: Int>(clamped: T, wrapped: T) -> (T, bool) {
    (clamped, clamped != wrapped)
}

/// `value` clamped to the range of `T`, which has at most 32 bits.
#[inline(always)]
fn clamp<T: Int>(value: i64) -> (T, bool) {
    let near = value.clamp(T::MIN.wide(), T::MAX.wide());
    (T::cut(near), near != value)
}

/// Twice the product of a lane pair shifted down by the lane width, plus `d`.
/// Halving every term first keeps 32-bit lanes within an `i64`.
#[inline(always)]
fn high_product<T: Int>(d: T, product: i64, round: bool) -> (T, bool) {
    let half_unit = i64::from(round) << (T::BITS - 2);
    clamp(((d.wide() << (T::BITS - 1)) + product + half_unit) >> (T::BITS - 1))
}

lane_ops! { TwoSat -> (T, bool):
    /// SQADD, UQADD.
    Qadd(a, b) = flagged(a.plus_clamped(b), a.plus(b));
    /// SQSUB, UQSUB.
    Qsub(a, b) = flagged(a.minus_clamped(b), a.minus(b));
    /// SQDMULH.
    Qdmulh(a, b) = high_product(T::default(), a.wide() * b.wide(), false);
    /// SQRDMULH.
    Qrdmulh(a, b) = high_product(T::default(), a.wide() * b.wide(), true);
    /// SQDMULL, on lanes widened from half the width.
    Qdmull(a, b) = {
        let product = a.times(b);
        flagged(product.plus_clamped(product), product.plus(product))
    };
    /// SUQADD on unsigned lanes, USQADD on signed ones: `a` has the other
    /// signedness than the lanes and the result, so its offset is moved.
    QaddMixed(a, b) = {
        let top = T::cut(i64::MIN >> (64 - T::BITS));
        let (sum, lost) = Qadd::of(a ^ top, b);
        (sum ^ top, lost)
    };
    /// SQSHL, UQSHL by register.
    Qshl(a, b) = match b.shift_count() {
        left @ 0.. => a.left_clamped(left as u32),
        right => (a.right(right.unsigned_abs()), false),
    };
    /// SQRSHL, UQRSHL.
    Qrshl(a, b) = match b.shift_count() {
        left @ 0.. => a.left_clamped(left as u32),
        right => (a.right_rounded(right.unsigned_abs()), false),
    };
}

lane_ops! { ThreeSat -> (T, bool):
    /// SQRDMLAH.
    Qrdmlah(d, a, b) = high_product(d, a.wide() * b.wide(), true);
    /// SQRDMLSH.
    Qrdmlsh(d, a, b) = high_product(d, -(a.wide() * b.wide()), true);
    /// SQDMLAL, on lanes widened from half the width.
    Qdmlal(d, a, b) = {
        let (product, lost) = Qdmull::of(a, b);
        let (sum, clamped) = Qadd::of(d, product);
        (sum, lost | clamped)
    };
    /// SQDMLSL, on lanes widened from half the width.
    Qdmlsl(d, a, b) = {
        let (product, lost) = Qdmull::of(a, b);
        let (difference, clamped) = Qsub::of(d, product);
        (difference, lost | clamped)
    };
}

lane_ops! { One -> T:
    /// ABS.
    Abs(a) = if a < T::default() { T::default().minus(a) } else { a };
    /// NEG.
    Neg(a) = T::default().minus(a);
    /// CLS; the bits that differ from their upper neighbour start the run's end.
    Cls(a) = T::cut(i64::from((a ^ (a >> 1)).leading_zero_bits()) - 1);
    /// CLZ.
    Clz(a) = T::cut(i64::from(a.leading_zero_bits()));
    /// CNT.
    Cnt(a) = T::cut(i64::from(a.set_bits()));
    /// RBIT.
    Rbit(a) = a.bits_reversed();
    /// NOT (MVN).
    NotLane(a) = !a;
    /// CMGT with zero.
    GtZero(a) = T::mask(a > T::default());
    /// CMGE with zero.
    GeZero(a) = T::mask(a >= T::default());
    /// CMEQ with zero.
    EqZero(a) = T::mask(a == T::default());
    /// CMLE with zero.
    LeZero(a) = T::mask(a <= T::default());
    /// CMLT with zero.
    LtZero(a) = T::mask(a < T::default());
}

lane_ops! { OneSat -> (T, bool):
    /// SQNEG.
    Qneg(a) = if a == T::MIN { (T::MAX, true) } else { (T::default().minus(a), false) };
    /// SQABS.
    Qabs(a) = if a < T::default() { Qneg::of(a) } else { (a, false) };
}

/// Result lane of a saturating left shift by the immediate `n`, with whether
/// it was saturated.
pub trait ShiftSat {
    /// The operation.
    fn of<T: Int>(a: T, n: u32) -> (T, bool);
}

/// SQSHL, UQSHL by immediate.
pub struct QshlImm;

impl ShiftSat for QshlImm {
    #[inline(always)]
    fn of<T: Int>(a: T, n: u32) -> (T, bool) {
        a.left_clamped(n)
    }
}

/// SQSHLU, on unsigned lanes: negative values saturate to zero.
pub struct Qshlu;

impl ShiftSat for Qshlu {
    #[inline(always)]
    fn of<T: Int>(a: T, n: u32) -> (T, bool) {
        if a >> (T::BITS - 1) != T::default() {
            (T::default(), true)
        } else {
            a.left_clamped(n)
        }
    }
}

macro_rules! shifts {
    ($($(#[$doc:meta])* $name:ident($d:ident, $a:ident, $n:ident) = $body:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl Shift for $name {
            #[inline(always)]
            fn of<T: Int>($d: T, $a: T, $n: u32) -> T { $body }
        }
    )*};
}

shifts! {
    /// SSHR, USHR.
    Shr(_d, a, n) = a.right(n);
    /// SRSHR, URSHR.
    Rshr(_d, a, n) = a.right_rounded(n);
    /// SSRA, USRA.
    Sra(d, a, n) = d.plus(a.right(n));
    /// SRSRA, URSRA.
    Rsra(d, a, n) = d.plus(a.right_rounded(n));
    /// SHL.
    ShlImm(_d, a, n) = a.left(n);
    /// SLI: the bits below the shifted value stay.
    Sli(d, a, n) = a.left(n) | (d & !(!T::default()).left(n));
    /// SRI, on unsigned lanes: the bits above the shifted value stay.
    Sri(d, a, n) = a.right(n) | (d & !(!T::default()).right(n));
}

//! Integer lane arithmetic that the instruction semantics are written in.

use super::lanes::Lane;
use std::ops::{BitAnd, BitOr, BitXor, Not, Shl, Shr};

/// An integer lane, signed or unsigned as the instruction reads it.
pub trait Int:
    Lane
    + Ord
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + BitXor<Output = Self>
    + Not<Output = Self>
    + Shl<u32, Output = Self>
    + Shr<u32, Output = Self>
{
    /// Smallest value.
    const MIN: Self;
    /// Largest value.
    const MAX: Self;
    /// Sum modulo the lane width.
    fn plus(self, other: Self) -> Self;
    /// Difference modulo the lane width.
    fn minus(self, other: Self) -> Self;
    /// Product modulo the lane width.
    fn times(self, other: Self) -> Self;
    /// Sum clamped to the lane's range.
    fn plus_clamped(self, other: Self) -> Self;
    /// Difference clamped to the lane's range.
    fn minus_clamped(self, other: Self) -> Self;
    /// Absolute difference, modulo the lane width.
    fn distance(self, other: Self) -> Self;
    /// Leading zero bits.
    fn leading_zero_bits(self) -> u32;
    /// Set bits.
    fn set_bits(self) -> u32;
    /// Bits in opposite order.
    fn bits_reversed(self) -> Self;
    /// The low bits of `value`.
    fn cut(value: i64) -> Self;
    /// This value, exact for lanes up to 32 bits and `i64`.
    fn wide(self) -> i64;

    /// The lane the shift-by-register forms take their count from: its low
    /// byte, signed.
    #[inline(always)]
    fn shift_count(self) -> i32 {
        i32::from(self.wide() as i8)
    }

    /// All bits set if `condition`.
    #[inline(always)]
    fn mask(condition: bool) -> Self {
        if condition {
            !Self::default()
        } else {
            Self::default()
        }
    }

    /// The limit that a value too large in magnitude saturates to.
    #[inline(always)]
    fn limit(self) -> Self {
        if self < Self::default() {
            Self::MIN
        } else {
            Self::MAX
        }
    }

    /// Right shift by `count` >= 1, up to any count.
    #[inline(always)]
    fn right(self, count: u32) -> Self {
        self >> (count - 1).min(Self::BITS - 1) >> 1
    }

    /// Right shift by `count` >= 1 with the result rounded to nearest, ties up.
    #[inline(always)]
    fn right_rounded(self, count: u32) -> Self {
        if count > Self::BITS {
            return Self::default();
        }
        let last_out = self >> (count - 1);
        (last_out >> 1).plus(last_out & Self::cut(1))
    }

    /// Left shift, zero from the lane width on.
    #[inline(always)]
    fn left(self, count: u32) -> Self {
        if count >= Self::BITS {
            Self::default()
        } else {
            self << count
        }
    }

    /// Left shift with saturation, and whether it saturated.
    #[inline(always)]
    fn left_clamped(self, count: u32) -> (Self, bool) {
        let shifted = self.left(count);
        let lost = count >= Self::BITS && self != Self::default()
            || count < Self::BITS && shifted >> count != self;
        if lost {
            (self.limit(), true)
        } else {
            (shifted, false)
        }
    }
}

/// A lane with one of twice the width and the same signedness.
pub trait Widen: Int {
    /// The wider lane.
    type Wide: Int;
    /// The same value in the wider lane.
    fn widen(self) -> Self::Wide;
}

/// A lane that the narrowing forms turn into a `T` of half its width.
pub trait Narrow<T>: Int {
    /// The nearest value in the range of `T`.
    fn near(self) -> Self;
}

macro_rules! int {
    ($($type:ident)*) => {$(
        impl Int for $type {
            const MIN: Self = $type::MIN;
            const MAX: Self = $type::MAX;
            #[inline(always)]
            fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
            #[inline(always)]
            fn minus(self, other: Self) -> Self { self.wrapping_sub(other) }
            #[inline(always)]
            fn times(self, other: Self) -> Self { self.wrapping_mul(other) }
            #[inline(always)]
            fn plus_clamped(self, other: Self) -> Self { self.saturating_add(other) }
            #[inline(always)]
            fn minus_clamped(self, other: Self) -> Self { self.saturating_sub(other) }
            #[inline(always)]
            fn distance(self, other: Self) -> Self { self.abs_diff(other) as Self }
            #[inline(always)]
            fn leading_zero_bits(self) -> u32 { self.leading_zeros() }
            #[inline(always)]
            fn set_bits(self) -> u32 { self.count_ones() }
            #[inline(always)]
            fn bits_reversed(self) -> Self { self.reverse_bits() }
            #[inline(always)]
            fn cut(value: i64) -> Self { value as Self }
            #[inline(always)]
            fn wide(self) -> i64 { self as i64 }
        }
    )*};
}
int!(u8 i8 u16 i16 u32 i32 u64 i64);

macro_rules! narrow {
    ($($wide:ident to $type:ident;)*) => {$(
        impl Narrow<$type> for $wide {
            #[inline(always)]
            fn near(self) -> Self { self.max($type::MIN as $wide).min($type::MAX as $wide) }
        }
    )*};
}
narrow! {
    u16 to u8; u32 to u16; u64 to u32;
    i16 to i8; i32 to i16; i64 to i32;
    i16 to u8; i32 to u16; i64 to u32;
}

macro_rules! widen {
    ($($type:ident to $wide:ident;)*) => {$(
        impl Widen for $type {
            type Wide = $wide;
            #[inline(always)]
            fn widen(self) -> $wide { $wide::from(self) }
        }
    )*};
}
widen! {
    u8 to u16; u16 to u32; u32 to u64;
    i8 to i16; i16 to i32; i32 to i64;
}

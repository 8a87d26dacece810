//! Lane views of a vector register.

use crate::regs::V;
use bytemuck::Pod;

/// A type that fills a vector register evenly.
pub trait Lane: Pod + Default + PartialOrd {
    /// All lanes of a 128-bit register, lowest first.
    type Array: Pod + AsRef<[Self]> + AsMut<[Self]>;
    /// Width in bits.
    const BITS: u32;
    /// Lanes in a 128-bit register.
    const LANES: usize = 128 / Self::BITS as usize;
}

macro_rules! lane {
    ($($type:ty)*) => {$(
        impl Lane for $type {
            type Array = [$type; 16 / size_of::<$type>()];
            const BITS: u32 = 8 * size_of::<$type>() as u32;
        }
    )*};
}
lane!(u8 i8 u16 i16 u32 i32 u64 i64 u128 f32 f64);

// Lane 0 is the least significant one, so reinterpreting the two halves in
// memory order gives the lanes in order on a little-endian host only.
#[cfg(not(target_endian = "little"))]
compile_error!("the vector lane views need a little-endian host");

impl V {
    /// The lanes of this register as an array.
    #[inline(always)]
    pub fn lanes<T: Lane>(self) -> T::Array {
        bytemuck::cast(self.0)
    }

    /// The register with these lanes.
    #[inline(always)]
    pub fn from_lanes<T: Lane>(lanes: T::Array) -> Self {
        Self(bytemuck::cast(lanes))
    }

    /// Lane `index`, counted modulo the number of lanes.
    #[inline(always)]
    pub fn lane<T: Lane>(self, index: usize) -> T {
        self.lanes::<T>().as_ref()[index & (T::LANES - 1)]
    }

    /// This register with lane `index` (modulo the number of lanes) replaced.
    #[inline(always)]
    #[must_use]
    pub fn with_lane<T: Lane>(self, index: usize, value: T) -> Self {
        let mut lanes = self.lanes::<T>();
        lanes.as_mut()[index & (T::LANES - 1)] = value;
        Self::from_lanes::<T>(lanes)
    }

    /// A register whose lowest lane is `value`, zero above it.
    #[inline(always)]
    pub fn scalar<T: Lane>(value: T) -> Self {
        Self::default().with_lane::<T>(0, value)
    }

    /// A register with `value` in every lane.
    #[inline(always)]
    pub fn splat<T: Lane>(value: T) -> Self {
        Self::build::<T>(|_| value)
    }

    /// This register with the high 64 bits cleared.
    #[inline(always)]
    #[must_use]
    pub fn low(self) -> Self {
        Self([self.0[0], 0])
    }

    /// This register with its high half moved to the low one, zero above.
    #[inline(always)]
    #[must_use]
    pub fn high(self) -> Self {
        Self([self.0[1], 0])
    }

    /// The register whose lane `i` is `f(i)`.
    #[inline(always)]
    pub fn build<T: Lane>(mut f: impl FnMut(usize) -> T) -> Self {
        let mut lanes = Self::default().lanes::<T>();
        for (i, lane) in lanes.as_mut().iter_mut().enumerate() {
            *lane = f(i);
        }
        Self::from_lanes::<T>(lanes)
    }

    /// `f` of each lane.
    #[inline(always)]
    #[must_use]
    pub fn map<T: Lane>(self, mut f: impl FnMut(T) -> T) -> Self {
        let mut lanes = self.lanes::<T>();
        for lane in lanes.as_mut() {
            *lane = f(*lane);
        }
        Self::from_lanes::<T>(lanes)
    }

    /// `f` of each pair of lanes of `self` and `other`.
    #[inline(always)]
    #[must_use]
    pub fn zip<T: Lane>(self, other: Self, mut f: impl FnMut(T, T) -> T) -> Self {
        let mut lanes = self.lanes::<T>();
        for (a, &b) in lanes.as_mut().iter_mut().zip(other.lanes::<T>().as_ref()) {
            *a = f(*a, b);
        }
        Self::from_lanes::<T>(lanes)
    }

    /// `f` of each triple of lanes of `self`, `second` and `third`.
    #[inline(always)]
    #[must_use]
    pub fn zip3<T: Lane>(self, second: Self, third: Self, mut f: impl FnMut(T, T, T) -> T) -> Self {
        let mut lanes = self.lanes::<T>();
        let (second, third) = (second.lanes::<T>(), third.lanes::<T>());
        let rest = second.as_ref().iter().zip(third.as_ref());
        for (a, (&b, &c)) in lanes.as_mut().iter_mut().zip(rest) {
            *a = f(*a, b, c);
        }
        Self::from_lanes::<T>(lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lane_zero_is_the_least_significant() {
        let v = V([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        assert_eq!(v.lane::<u8>(0), 0);
        assert_eq!(v.lane::<u8>(15), 15);
        assert_eq!(v.lane::<u32>(2), 0x0b0a_0908);
        assert_eq!(v.with_lane::<u16>(4, 0xffff).0[1], 0x0f0e_0d0c_0b0a_ffff);
    }

    #[test]
    fn scalar_zeroes_everything_above_it() {
        assert_eq!(V::scalar::<u8>(0x80), V([0x80, 0]));
        assert_eq!(V::scalar::<f32>(1.0), V([0x3f80_0000, 0]));
    }
}

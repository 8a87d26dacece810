//! Vectors that compiled code uses, which each vCPU has, so that code finds them without an
//! address of their own.

use std::mem::offset_of;

/// They are always the same.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct Constants {
    /// An exponent of single precision and this is negative if it is the largest, that
    /// of infinities and NaNs.
    single: [u32; 4],
    /// The same of double precision.
    double: [u32; 4],
    /// An exponent and this is negative if it is of tiny numbers or zero.
    tiny: [u32; 4],
    /// By [`Order`], which byte goes where.
    orders: [[u8; 16]; 5],
}

/// What is turned around.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// The bytes of each two.
    BytesOf2,
    /// The bytes of each four.
    BytesOf4,
    /// The bytes of each eight.
    BytesOf8,
    /// The halfwords of each four bytes.
    HalvesOf4,
    /// The halfwords of each eight bytes.
    HalvesOf8,
}

/// Each byte from the place that has the bits of `mask` the other way.
const fn turned(mask: u8) -> [u8; 16] {
    let mut order = [0; 16];
    let mut byte = 0;
    while byte < 16 {
        order[byte as usize] = byte ^ mask;
        byte += 1;
    }
    order
}

impl Constants {
    /// All of them.
    pub const NEW: Self = Self {
        single: [(1 << 31) - 0xff; 4],
        double: [(1 << 31) - 0x7ff; 4],
        tiny: [0_u32.wrapping_sub(2); 4],
        orders: [turned(1), turned(3), turned(7), turned(2), turned(6)],
    };

    /// Where [`Constants::single`] is in them, or [`Constants::double`].
    pub const fn largest(double: bool) -> usize {
        if double {
            offset_of!(Self, double)
        } else {
            offset_of!(Self, single)
        }
    }

    /// Where [`Constants::tiny`] is.
    pub const fn tiny() -> usize {
        offset_of!(Self, tiny)
    }
}

impl Order {
    /// Where it is in [`Constants`].
    pub const fn place(self) -> usize {
        offset_of!(Constants, orders) + 16 * self as usize
    }
}

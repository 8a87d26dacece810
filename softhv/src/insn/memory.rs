//! Loads, stores and atomic updates.

use super::operand::{Size, Width, field_enum};

field_enum! {
    /// What a load of a general register reads, and how it fills the register.
    Load:
    /// A byte, zeros above.
    B,
    /// A halfword, zeros above.
    H,
    /// A word, zeros above.
    W,
    /// A doubleword.
    X,
    /// A signed byte, to 32 bits.
    SbW,
    /// A signed byte, to 64 bits.
    SbX,
    /// A signed halfword, to 32 bits.
    ShW,
    /// A signed halfword, to 64 bits.
    ShX,
    /// A signed word, to 64 bits.
    SwX,
}

impl Load {
    /// What is read.
    #[inline]
    #[must_use]
    pub const fn size(self) -> Size {
        match self {
            Self::B | Self::SbW | Self::SbX => Size::B,
            Self::H | Self::ShW | Self::ShX => Size::H,
            Self::W | Self::SwX => Size::W,
            Self::X => Size::X,
        }
    }

    /// Whether copies of the sign fill the register.
    #[inline]
    #[must_use]
    pub const fn is_signed(self) -> bool {
        !matches!(self, Self::B | Self::H | Self::W | Self::X)
    }

    /// How much of the register is filled; the rest becomes zero.
    #[inline]
    #[must_use]
    pub const fn width(self) -> Width {
        match self {
            Self::X | Self::SbX | Self::ShX | Self::SwX => Width::X,
            _ => Width::W,
        }
    }
}

field_enum! {
    /// What a load of two general registers reads for each.
    PairLoad:
    /// A word, zeros above.
    W,
    /// A signed word, to 64 bits.
    SwX,
    /// A doubleword.
    X,
}

field_enum! {
    /// How an atomic instruction combines memory with its operand.
    Atomic:
    /// Sum.
    Add,
    /// Memory without the operand's bits.
    Clr,
    /// Exclusive or.
    Eor,
    /// Inclusive or.
    Set,
    /// Signed maximum.
    Smax,
    /// Signed minimum.
    Smin,
    /// Unsigned maximum.
    Umax,
    /// Unsigned minimum.
    Umin,
    /// The operand alone.
    Swp,
}

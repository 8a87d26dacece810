//! Integer data processing and branches.

use super::operand::{Reg, field_enum};

field_enum! {
    /// An addition or subtraction.
    AddSub:
    /// Sum.
    Add,
    /// Sum that sets the flags.
    Adds,
    /// Difference.
    Sub,
    /// Difference that sets the flags.
    Subs,
}

impl AddSub {
    /// Whether it subtracts.
    #[inline]
    #[must_use]
    pub const fn is_sub(self) -> bool {
        matches!(self, Self::Sub | Self::Subs)
    }

    /// Whether it sets the flags.
    #[inline]
    #[must_use]
    pub const fn sets_flags(self) -> bool {
        matches!(self, Self::Adds | Self::Subs)
    }
}

field_enum! {
    /// A bitwise operation.
    Logic:
    /// And.
    And,
    /// Inclusive or.
    Orr,
    /// Exclusive or.
    Eor,
    /// And that sets the flags.
    Ands,
}

field_enum! {
    /// What a bitfield move does with the rest of the register.
    Bitfield:
    /// SBFM: copies of the field's sign above it, zeros below.
    Signed,
    /// BFM: the destination's old bits.
    Insert,
    /// UBFM: zeros.
    Unsigned,
}

field_enum! {
    /// What becomes of the second operand of a conditional select.
    Select:
    /// CSEL: nothing.
    Plain,
    /// CSINC: plus 1.
    Increment,
    /// CSINV: all bits inverted.
    Invert,
    /// CSNEG: negated.
    Negate,
}

field_enum! {
    /// An operation on one general register.
    OneSource:
    /// Bits in opposite order.
    Rbit,
    /// Bytes of each halfword in opposite order.
    Rev16,
    /// Bytes of each word in opposite order, in 64 bits.
    Rev32,
    /// Bytes in opposite order.
    Rev,
    /// Leading zeros.
    Clz,
    /// Leading copies of the sign.
    Cls,
}

field_enum! {
    /// An operation on two general registers.
    TwoSource:
    /// Unsigned quotient.
    Udiv,
    /// Signed quotient.
    Sdiv,
    /// Shift left.
    Lslv,
    /// Shift right, zeros in.
    Lsrv,
    /// Shift right, copies of the sign in.
    Asrv,
    /// Rotate right.
    Rorv,
}

field_enum! {
    /// What a branch to a register does besides.
    BranchReg:
    /// BR: nothing.
    Jump,
    /// BLR: X30 gets the return address.
    Call,
    /// RET: nothing, but it returns.
    Return,
}

/// A register or a small immediate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegOrImm {
    /// A register.
    Reg(Reg),
    /// An immediate.
    Imm(u8),
}

//! Floating point.

use super::operand::field_enum;

field_enum! {
    /// A floating-point format.
    FpFormat:
    /// Single precision, 32 bits.
    S,
    /// Double precision, 64 bits.
    D,
    /// Half precision, 16 bits: to convert from and to.
    H,
}

field_enum! {
    /// How a result is rounded. The first four are the values of FPCR.RMode.
    Rounding:
    /// To nearest, ties to even.
    Nearest,
    /// Towards plus infinity.
    Up,
    /// Towards minus infinity.
    Down,
    /// Towards zero.
    Zero,
    /// To nearest, ties away from zero.
    Away,
    /// As FPCR says.
    Current,
}

field_enum! {
    /// An operation on one floating-point number.
    FpUnary:
    /// A copy.
    Mov,
    /// Without its sign.
    Abs,
    /// With the opposite sign.
    Neg,
    /// Square root.
    Sqrt,
}

field_enum! {
    /// An operation on two floating-point numbers.
    FpBinary:
    /// Product.
    Mul,
    /// Quotient.
    Div,
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// The greater, NaN if either is one.
    Max,
    /// The lesser, NaN if either is one.
    Min,
    /// The greater, a number if either is one.
    MaxNum,
    /// The lesser, a number if either is one.
    MinNum,
    /// Product with the opposite sign.
    NegMul,
}

field_enum! {
    /// What moves between a general and a vector register.
    FpMove:
    /// The low word.
    S,
    /// The low doubleword.
    D,
    /// The high doubleword, the low one staying.
    Top,
}

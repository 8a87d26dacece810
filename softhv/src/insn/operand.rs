//! The operands of instructions.

/// A general register or the stack pointer: X0 to X30, SP or XZR.
///
/// Which of SP and XZR the number 31 names depends on the instruction; here they
/// are two registers. Whether X or W is meant is the instruction's [`Width`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reg(u8);

impl Reg {
    /// The stack pointer.
    pub const SP: Self = Self(31);
    /// The zero register.
    pub const ZR: Self = Self(32);

    /// The register of a five-bit field in which 31 is the zero register.
    #[inline]
    pub const fn or_zr(field: u32) -> Self {
        let number = (field & 31) as u8;
        Self(number + (number == 31) as u8)
    }

    /// The register of a five-bit field in which 31 is the stack pointer.
    #[inline]
    pub const fn or_sp(field: u32) -> Self {
        Self((field & 31) as u8)
    }

    /// 0 to 30 for X0 to X30, 31 for SP, 32 for XZR: never more.
    #[inline]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether it is XZR.
    #[inline]
    pub const fn is_zr(self) -> bool {
        self.0 == Self::ZR.0
    }

    /// Whether it is SP.
    #[inline]
    pub const fn is_sp(self) -> bool {
        self.0 == Self::SP.0
    }

    /// The five-bit field that names it.
    #[inline]
    pub const fn field(self) -> u32 {
        (if self.0 > 31 { 31 } else { self.0 }) as u32
    }
}

/// A vector register, V0 to V31.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VReg(u8);

impl VReg {
    /// The register of a five-bit field.
    #[inline]
    pub const fn new(field: u32) -> Self {
        Self((field & 31) as u8)
    }

    /// 0 to 31.
    #[inline]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// An enumeration whose values are those of a bit field, in its order.
macro_rules! field_enum {
    ($(#[$doc:meta])* $name:ident: $($(#[$value_doc:meta])* $value:ident),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$value_doc])* $value),+
        }

        impl $name {
            /// Every value, in the field's order.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// The value of `field`; the last one if it is beyond.
            #[inline]
            #[must_use]
            pub const fn of(field: u32) -> Self {
                let last = Self::ALL.len() - 1;
                let field = field as usize;
                Self::ALL[if field < last { field } else { last }]
            }
        }
    };
}
pub(super) use field_enum;

field_enum! {
    /// How many bits of general registers an instruction works on.
    Width:
    /// 32; the upper half of the destination becomes zero.
    W,
    /// 64.
    X,
}

impl Width {
    /// 32 or 64.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u32 {
        32 << self as u32
    }

    /// Whether it is 64 bits.
    #[inline]
    #[must_use]
    pub const fn is_x(self) -> bool {
        matches!(self, Self::X)
    }
}

field_enum! {
    /// What a general register exchanges with memory.
    Size:
    /// A byte.
    B,
    /// A halfword, two bytes.
    H,
    /// A word, four bytes.
    W,
    /// A doubleword, eight bytes.
    X,
}

impl Size {
    /// log2 of the bytes.
    #[inline]
    #[must_use]
    pub const fn log2(self) -> u8 {
        self as u8
    }
}

field_enum! {
    /// The part of a vector register that is a scalar, or goes to memory.
    VSize:
    /// The low byte.
    B,
    /// The low halfword.
    H,
    /// The low word.
    S,
    /// The low doubleword.
    D,
    /// All 128 bits.
    Q,
}

impl VSize {
    /// log2 of the bytes.
    #[inline]
    #[must_use]
    pub const fn log2(self) -> u8 {
        self as u8
    }
}

field_enum! {
    /// How a register operand is shifted.
    Shift:
    /// Left.
    Lsl,
    /// Right, zeros in.
    Lsr,
    /// Right, copies of the sign in.
    Asr,
    /// Right, what goes out comes in.
    Ror,
}

field_enum! {
    /// How an index or the second operand of an addition is widened to 64 bits.
    Extend:
    /// From an unsigned byte.
    Uxtb,
    /// From an unsigned halfword.
    Uxth,
    /// From an unsigned word.
    Uxtw,
    /// Not at all (also written LSL).
    Uxtx,
    /// From a signed byte.
    Sxtb,
    /// From a signed halfword.
    Sxth,
    /// From a signed word.
    Sxtw,
    /// Not at all.
    Sxtx,
}

field_enum! {
    /// A condition on the flags.
    Cond:
    /// Equal: Z.
    Eq,
    /// Not equal: not Z.
    Ne,
    /// Carry set, unsigned at least: C.
    Cs,
    /// Carry clear, unsigned less: not C.
    Cc,
    /// Negative: N.
    Mi,
    /// Not negative: not N.
    Pl,
    /// Overflow, or unordered: V.
    Vs,
    /// No overflow: not V.
    Vc,
    /// Unsigned greater: C and not Z.
    Hi,
    /// Unsigned at most: not C or Z.
    Ls,
    /// Signed at least: N is V.
    Ge,
    /// Signed less: N is not V.
    Lt,
    /// Signed greater: not Z, and N is V.
    Gt,
    /// Signed at most: Z, or N is not V.
    Le,
    /// Always.
    Al,
    /// Always, too.
    Nv,
}

impl Cond {
    /// Whether it holds whatever the flags are.
    #[inline]
    #[must_use]
    pub const fn is_always(self) -> bool {
        matches!(self, Self::Al | Self::Nv)
    }
}

/// The memory operand of a load or store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the parts are named as the forms show them")]
pub enum Address {
    /// `[base, #offset]`.
    Offset { base: Reg, offset: i32 },
    /// `[base, #offset]!`: the base becomes the address.
    PreIndex { base: Reg, offset: i32 },
    /// `[base], #offset`: the base is the address, and is advanced afterwards.
    PostIndex { base: Reg, offset: i32 },
    /// `[base, index, extend #amount]`.
    Index {
        base: Reg,
        index: Reg,
        extend: Extend,
        amount: u8,
    },
    /// A place at `offset` bytes from the instruction.
    Literal { offset: i32 },
}

impl Address {
    /// The base register, if there is one.
    #[inline]
    #[must_use]
    pub const fn base(self) -> Option<Reg> {
        match self {
            Self::Offset { base, .. }
            | Self::PreIndex { base, .. }
            | Self::PostIndex { base, .. }
            | Self::Index { base, .. } => Some(base),
            Self::Literal { .. } => None,
        }
    }

    /// What is added to the base register for good, if anything.
    #[inline]
    #[must_use]
    pub const fn writeback(self) -> Option<i32> {
        match self {
            Self::PreIndex { offset, .. } | Self::PostIndex { offset, .. } => Some(offset),
            _ => None,
        }
    }
}

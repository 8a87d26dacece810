//! Fields of an AdvSIMD instruction word.

use super::forms::Keep;
use crate::cpu::op::{Handler, Op};

/// An AdvSIMD instruction word.
#[derive(Clone, Copy)]
pub struct Word(pub u32);

impl Word {
    /// `len` bits from bit `low` up.
    pub fn bits(self, low: u32, len: u32) -> u32 {
        self.0 >> low & ((1 << len) - 1)
    }

    /// Q, bit 30: 128-bit operands, or the high half.
    pub fn q(self) -> bool {
        self.bits(30, 1) == 1
    }

    /// U, bit 29, mostly unsigned.
    pub fn u(self) -> bool {
        self.bits(29, 1) == 1
    }

    /// log2 of the element bytes, bits 23:22.
    pub fn size(self) -> u32 {
        self.bits(22, 2)
    }

    /// Opcode and U together, as `opcode << 1 | U`.
    pub fn code(self, low: u32, len: u32) -> u32 {
        self.bits(low, len) << 1 | self.bits(29, 1)
    }

    /// Whether the vector form would be 1D, which few instructions have.
    pub fn is_1d(self, size: u32) -> bool {
        size == 3 && !self.q()
    }

    /// An op with the register fields, and the vector width of Q, set.
    pub fn vector_op(self, run: Handler) -> Op {
        let keep = if self.q() { Keep::Q } else { Keep::D };
        self.op(run, keep)
    }

    /// An op with the register fields set, of a scalar of `1 << size` bytes.
    pub fn scalar_op(self, run: Handler, size: u32) -> Op {
        self.op(run, [Keep::B, Keep::H, Keep::S, Keep::D][size as usize & 3])
    }

    /// An op that produces or reads all 128 bits, with Q choosing the half on
    /// the other side.
    pub fn half_op(self, run: Handler) -> Op {
        let mut op = self.op(run, Keep::Q);
        op.ra = u8::from(self.q());
        op
    }

    /// An op with the register fields set that keeps `keep` of its result.
    pub fn op(self, run: Handler, keep: Keep) -> Op {
        let mut op = Op::new(run);
        op.rd = self.bits(0, 5) as u8;
        op.rn = self.bits(5, 5) as u8;
        op.rm = self.bits(16, 5) as u8;
        op.aux = keep as u16;
        op
    }
}

/// Adds an immediate to an op under construction.
pub fn with_imm(mut op: Op, imm: u32) -> Op {
    op.imm = u64::from(imm);
    op
}

/// The handlers of `form` on a list of lane types, the first of which has
/// `1 << from` bytes, indexed by `size`; `None` outside the list.
macro_rules! by_size {
    ($size:expr, $form:ident<$f:ty, $source:ident>, $from:literal: $($type:ty)*) => {
        [$(super::run::<$form<$f, $source<$type>>>()),*]
            .get(($size as usize).wrapping_sub($from))
            .copied()
    };
    ($size:expr, $form:ident<$f:ty>, $from:literal: $($type:ty)*) => {
        [$(super::run::<$form<$f, $type>>()),*]
            .get(($size as usize).wrapping_sub($from))
            .copied()
    };
    ($size:expr, $form:ident, $from:literal: $($type:ty)*) => {
        [$(super::run::<$form<$type>>()),*]
            .get(($size as usize).wrapping_sub($from))
            .copied()
    };
}
pub(super) use by_size;

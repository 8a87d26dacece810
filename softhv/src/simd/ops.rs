//! Ops of vector instructions under construction.

use super::forms::Keep;
use crate::cpu::op::{Handler, Op};
use crate::insn::VReg;
use crate::insn::simd::Arrangement;

/// What the form of an arrangement keeps of a result.
pub fn keep(arrangement: Arrangement) -> Keep {
    if arrangement.is_scalar() {
        scalar(arrangement.size())
    } else if arrangement.is_full() {
        Keep::Q
    } else {
        Keep::D
    }
}

/// What a scalar of `1 << size` bytes keeps.
fn scalar(size: u32) -> Keep {
    [Keep::B, Keep::H, Keep::S, Keep::D][size as usize & 3]
}

/// An op on vector registers that keeps `keep` of its result.
pub fn op(run: Handler, keep: Keep, rd: VReg, rn: VReg, rm: VReg) -> Op {
    Op {
        rd: rd.number(),
        rn: rn.number(),
        rm: rm.number(),
        aux: keep as u16,
        ..Op::new(run)
    }
}

/// The same of a form whose operands or result are wider than the `narrow` lanes: of
/// vectors all 128 bits, with the half on the other side in `ra`.
pub fn resized(run: Handler, narrow: Arrangement, rd: VReg, rn: VReg, rm: VReg) -> Op {
    if narrow.is_scalar() {
        return op(run, scalar(narrow.size() + 1), rd, rn, rm);
    }
    Op {
        ra: u8::from(narrow.is_full()),
        ..op(run, Keep::Q, rd, rn, rm)
    }
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

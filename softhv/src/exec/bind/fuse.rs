//! Finds neighbours that one handler serves better.

use super::Bound;
use crate::cpu::op::{Handler, Op};
use crate::exec::fused::{self, Shape, Test};
use crate::insn::{AddSub, Address, Cond, Extend, Load, Logic, Size, Width};

/// What an instruction can be in a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Nothing.
    Alone,
    /// The flag setter before a conditional branch.
    Test(Test),
    /// One of two that go together.
    Shape(Shape),
    /// B.cond, which reaches its target as `kind` says.
    Cond { cond: Cond, kind: u8 },
    /// CBZ or CBNZ.
    Zero {
        width: Width,
        nonzero: bool,
        kind: u8,
    },
}

/// Addition and subtraction of an immediate: a difference is the sum with the
/// negated immediate.
pub fn add_sub_imm(op: AddSub, width: Width) -> Part {
    match (op, width) {
        (AddSub::Add | AddSub::Sub, Width::W) => Part::Shape(Shape::AddImm32),
        (AddSub::Add | AddSub::Sub, Width::X) => Part::Shape(Shape::AddImm64),
        (AddSub::Adds, Width::W) => Part::Test(Test::AddsImm32),
        (AddSub::Adds, Width::X) => Part::Test(Test::AddsImm64),
        (AddSub::Subs, Width::W) => Part::Test(Test::SubsImm32),
        (AddSub::Subs, Width::X) => Part::Test(Test::SubsImm64),
    }
}

/// Addition and subtraction of a register that is not shifted.
pub fn add_sub(op: AddSub, width: Width) -> Part {
    match (op, width) {
        (AddSub::Add, Width::X) => Part::Shape(Shape::Add64),
        (AddSub::Subs, Width::W) => Part::Test(Test::Subs32),
        (AddSub::Subs, Width::X) => Part::Test(Test::Subs64),
        _ => Part::Alone,
    }
}

/// A bitwise operation with an immediate.
pub fn logic_imm(op: Logic, width: Width) -> Part {
    match (op, width) {
        (Logic::Ands, Width::W) => Part::Test(Test::AndsImm32),
        (Logic::Ands, Width::X) => Part::Test(Test::AndsImm64),
        _ => Part::Alone,
    }
}

/// A bitwise operation with a register that is neither shifted nor inverted.
pub fn logic(op: Logic, width: Width) -> Part {
    match (op, width) {
        (Logic::Ands, Width::W) => Part::Test(Test::Ands32),
        (Logic::Ands, Width::X) => Part::Test(Test::Ands64),
        _ => Part::Alone,
    }
}

/// MOV (register).
pub fn mov(width: Width) -> Part {
    Part::Shape(match width {
        Width::W => Shape::Mov32,
        Width::X => Shape::Mov64,
    })
}

/// A load of one register.
pub fn load(what: Load, address: Address) -> Part {
    let shape = match (address, what) {
        (Address::Offset { .. }, Load::B) => Shape::LoadB,
        (Address::Offset { .. }, Load::W) => Shape::LoadW,
        (Address::Offset { .. }, Load::X) => Shape::LoadX,
        (Address::PostIndex { .. }, Load::B) => Shape::LoadPostB,
        (Address::Index { extend, .. }, _) if extend != Extend::Uxtx => return Part::Alone,
        (Address::Index { .. }, Load::B) => Shape::LoadIndexB,
        (Address::Index { .. }, Load::X) => Shape::LoadIndexX,
        _ => return Part::Alone,
    };
    Part::Shape(shape)
}

/// A store of one register.
pub fn store(size: Size, address: Address) -> Part {
    let shape = match (address, size) {
        (Address::Offset { .. }, Size::B) => Shape::StoreB,
        (Address::Offset { .. }, Size::W) => Shape::StoreW,
        (Address::Offset { .. }, Size::X) => Shape::StoreX,
        _ => return Part::Alone,
    };
    Part::Shape(shape)
}

/// A load of two X registers.
pub fn load_pair(address: Address) -> Part {
    match address {
        Address::Offset { .. } => Part::Shape(Shape::LoadPair),
        Address::PostIndex { .. } => Part::Shape(Shape::LoadPairPost),
        _ => Part::Alone,
    }
}

/// A store of two X registers.
pub fn store_pair(address: Address) -> Part {
    match address {
        Address::Offset { .. } => Part::Shape(Shape::StorePair),
        Address::PreIndex { .. } => Part::Shape(Shape::StorePairPre),
        _ => Part::Alone,
    }
}

/// The handler that serves `first`, which is `part` of a pair, and `next`.
#[inline]
pub fn pair(first: &Op, part: Part, next: &Bound) -> Option<Handler> {
    match (part, next.part) {
        (Part::Test(test), Part::Cond { cond, kind }) => fused::test_branch(test, cond, kind),
        // ADRP and the rest of the same address.
        (Part::Shape(Shape::Adrp), Part::Shape(Shape::AddImm64))
            if next.op.rd == first.rd && next.op.rn == first.rd =>
        {
            Some(fused::adrp_add)
        }
        (Part::Shape(first), Part::Shape(next)) => fused::two(first, next),
        (
            Part::Shape(load),
            Part::Zero {
                width,
                nonzero,
                kind,
            },
        ) => fused::load_zero_branch(load, width, nonzero, kind),
        _ => None,
    }
}

//! Moves of single elements. Arm ARM C4.1.96, "Advanced SIMD copy" and its
//! scalar twin.

use super::Pure;
use super::forms::{self, Keep, d, n, put};
use super::int::Int;
use super::ops::{by_size, keep, op};
use crate::cpu::op::{Handler, Op, destination, source};
use crate::insn::{Insn, Width};
use crate::regs::{Regs, V};
use std::marker::PhantomData;

/// The op of a move of one element.
pub fn bind(insn: &Insn) -> Option<Op> {
    Some(match *insn {
        Insn::VecDup {
            arrangement,
            rd,
            rn,
            index,
        } => {
            let run = by_size!(arrangement.size(), DupElement, 0: u8 u16 u32 u64)?;
            Op {
                imm: index.into(),
                ..op(run, keep(arrangement), rd, rn, rn)
            }
        }
        Insn::VecDupGeneral {
            arrangement,
            rd,
            rn,
        } => {
            let run = by_size!(arrangement.size(), DupGeneral, 0: u8 u16 u32 u64)?;
            Op {
                rn: source(rn),
                ..op(run, keep(arrangement), rd, rd, rd)
            }
        }
        Insn::VecInsertGeneral {
            element,
            rd,
            index,
            rn,
        } => {
            let run = by_size!(element.size(), InsertGeneral, 0: u8 u16 u32 u64)?;
            Op {
                rn: source(rn),
                imm: index.into(),
                ..op(run, Keep::Q, rd, rd, rd)
            }
        }
        Insn::VecInsert {
            element,
            rd,
            index,
            rn,
            from,
        } => {
            let run = by_size!(element.size(), InsertElement, 0: u8 u16 u32 u64)?;
            Op {
                ra: from,
                imm: index.into(),
                ..op(run, Keep::Q, rd, rn, rn)
            }
        }
        Insn::VecToGeneral {
            element,
            signed,
            width,
            rd,
            rn,
            index,
        } => Op {
            rd: destination(rd),
            imm: index.into(),
            ..op(
                to_general(element.size(), signed, width)?,
                Keep::Q,
                rn,
                rn,
                rn,
            )
        },
        _ => return None,
    })
}

fn to_general(size: u32, signed: bool, width: Width) -> Option<Handler> {
    match (signed, width) {
        (true, Width::X) => by_size!(size, ToGeneral<SignX>, 0: i8 i16 i32),
        (true, Width::W) => by_size!(size, ToGeneral<SignW>, 0: i8 i16),
        (false, _) => by_size!(size, ToGeneral<SignX>, 0: u8 u16 u32 u64),
    }
}

macro_rules! copies {
    ($($(#[$doc:meta])* $name:ident($regs:ident, $op:ident, $t:ident) = $body:expr;)*) => {$(
        $(#[$doc])*
        struct $name<T>(PhantomData<T>);
        impl<$t: Int> Pure for $name<$t> {
            #[inline(always)]
            fn exec($regs: &mut Regs, $op: &Op) {
                let result: V = $body;
                put($regs, $op, result);
            }
        }
    )*};
}

copies! {
    /// Every lane = one lane of Vn.
    DupElement(regs, op, T) = {
        let element: T = n(regs, op).lane(op.imm as usize);
        forms::keep(op, V::splat(element))
    };
    /// Every lane = low bits of Xn.
    DupGeneral(regs, op, T) = {
        let value = T::cut(regs.x[usize::from(op.rn)] as i64);
        forms::keep(op, V::splat(value))
    };
    /// One lane = low bits of Xn.
    InsertGeneral(regs, op, T) = {
        let value = T::cut(regs.x[usize::from(op.rn)] as i64);
        inserted(d(regs, op), op.imm as usize, value)
    };
    /// One lane = one lane of Vn.
    InsertElement(regs, op, T) = {
        let element: T = n(regs, op).lane(usize::from(op.ra));
        inserted(d(regs, op), op.imm as usize, element)
    };
}

/// `v` with lane `index` replaced. By selection rather than a store to the
/// lane, which would stall the next read of the whole register.
#[inline(always)]
fn inserted<T: Int>(v: V, index: usize, value: T) -> V {
    let lanes = v.lanes::<T>();
    V::build::<T>(|i| if i == index { value } else { lanes.as_ref()[i] })
}

/// How far an element's sign reaches in the general register.
trait Reach {
    const MASK: u64;
}
struct SignW;
struct SignX;
impl Reach for SignW {
    const MASK: u64 = 0xffff_ffff;
}
impl Reach for SignX {
    const MASK: u64 = !0;
}

/// Xd = one lane of Vn, extended as its type says.
struct ToGeneral<R, T>(PhantomData<(R, T)>);

impl<R: Reach, T: Int> Pure for ToGeneral<R, T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let element: T = n(regs, op).lane(op.imm as usize);
        regs.x[usize::from(op.rd)] = element.wide() as u64 & R::MASK;
    }
}

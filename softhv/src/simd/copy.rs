//! Moves of single elements. Arm ARM C4.1.96, "Advanced SIMD copy" and its
//! scalar twin.

use super::Pure;
use super::forms::{self, Keep, d, n, put};
use super::int::Int;
use super::word::{Word, by_size, with_imm};
use crate::cpu::op::{Op, dst, src};
use crate::regs::{Regs, V};
use std::marker::PhantomData;

/// log2 of the element bytes and the lane index in imm5: the lowest set bit
/// gives the size, the bits above it the index.
fn element(w: Word) -> Option<(u32, u32)> {
    let imm5 = w.bits(16, 5);
    let size = imm5.trailing_zeros();
    (size <= 3).then(|| (size, imm5 >> (size + 1)))
}

/// Vector form.
pub fn vector(w: Word) -> Option<Op> {
    let (size, index) = element(w)?;
    let imm4 = w.bits(11, 4);
    if w.u() {
        return insert_element(w, size, index, imm4 >> size);
    }
    match imm4 {
        0b0000 if !w.is_1d(size) => {
            let run = by_size!(size, DupElement, 0: u8 u16 u32 u64)?;
            Some(with_imm(w.vector_op(run), index))
        }
        0b0001 if !w.is_1d(size) => {
            let run = by_size!(size, DupGeneral, 0: u8 u16 u32 u64)?;
            Some(from_general(w, run, 0))
        }
        0b0011 if w.q() => {
            let run = by_size!(size, InsertGeneral, 0: u8 u16 u32 u64)?;
            Some(from_general(w, run, index))
        }
        // SMOV to a W register of bytes and halfwords, to an X of words too
        0b0101 => {
            let run = if w.q() {
                by_size!(size, ToGeneral<SignX>, 0: i8 i16 i32)
            } else {
                by_size!(size, ToGeneral<SignW>, 0: i8 i16)
            }?;
            Some(to_general(w, run, index))
        }
        // UMOV: only the doubleword needs the X form
        0b0111 if w.q() == (size == 3) => {
            let run = by_size!(size, ToGeneral<SignX>, 0: u8 u16 u32 u64)?;
            Some(to_general(w, run, index))
        }
        _ => None,
    }
}

/// DUP of an element to a scalar.
pub fn scalar(w: Word) -> Option<Op> {
    let (size, index) = element(w)?;
    if w.u() || w.bits(11, 4) != 0 {
        return None;
    }
    let run = by_size!(size, DupElement, 0: u8 u16 u32 u64)?;
    Some(with_imm(w.scalar_op(run, size), index))
}

fn insert_element(w: Word, size: u32, to: u32, from: u32) -> Option<Op> {
    if !w.q() {
        return None;
    }
    let run = by_size!(size, InsertElement, 0: u8 u16 u32 u64)?;
    let mut op = with_imm(w.op(run, Keep::Q), to);
    op.ra = from as u8;
    Some(op)
}

fn from_general(w: Word, run: crate::cpu::op::Handler, index: u32) -> Op {
    let mut op = with_imm(w.vector_op(run), index);
    op.rn = src(w.bits(5, 5));
    op
}

fn to_general(w: Word, run: crate::cpu::op::Handler, index: u32) -> Op {
    let mut op = with_imm(w.vector_op(run), index);
    op.rd = dst(w.bits(0, 5));
    op
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

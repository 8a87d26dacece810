//! ZIP, UZP, TRN, EXT, TBL, TBX. Arm ARM C4.1.96, "Advanced SIMD permute",
//! "extract" and "table lookup".

use super::forms::{d, keep, m, n, put};
use super::int::Int;
use super::word::{Word, by_size, with_imm};
use super::{Pure, run};
use crate::op::Op;
use crate::regs::{Regs, V};
use std::marker::PhantomData;

/// ZIP1/2, UZP1/2, TRN1/2.
pub fn zip(w: Word) -> Option<Op> {
    let size = w.size();
    if w.is_1d(size) {
        return None;
    }
    let run = match w.bits(12, 3) {
        1 => by_size!(size, Shuffle<Uzp<0>>, 0: u8 u16 u32 u64),
        2 => by_size!(size, Shuffle<Trn<0>>, 0: u8 u16 u32 u64),
        3 => by_size!(size, Shuffle<Zip<0>>, 0: u8 u16 u32 u64),
        5 => by_size!(size, Shuffle<Uzp<1>>, 0: u8 u16 u32 u64),
        6 => by_size!(size, Shuffle<Trn<1>>, 0: u8 u16 u32 u64),
        7 => by_size!(size, Shuffle<Zip<1>>, 0: u8 u16 u32 u64),
        _ => None,
    };
    let mut op = w.vector_op(run?);
    op.ra = u8::from(w.q());
    Some(op)
}

/// A two-source permutation with fixed lanes.
trait Pattern {
    /// For result lane `i` of `lanes`: the source lane, counted through the
    /// first source and then the second.
    fn source(i: usize, lanes: usize) -> usize;
}

struct Zip<const PART: usize>;
struct Uzp<const PART: usize>;
struct Trn<const PART: usize>;

impl<const PART: usize> Pattern for Zip<PART> {
    #[inline(always)]
    fn source(i: usize, lanes: usize) -> usize {
        i / 2 + PART * lanes / 2 + (i & 1) * lanes
    }
}

impl<const PART: usize> Pattern for Uzp<PART> {
    #[inline(always)]
    fn source(i: usize, _lanes: usize) -> usize {
        2 * i + PART
    }
}

impl<const PART: usize> Pattern for Trn<PART> {
    #[inline(always)]
    fn source(i: usize, lanes: usize) -> usize {
        (i & !1) + PART + (i & 1) * lanes
    }
}

struct Shuffle<P, T>(PhantomData<(P, T)>);

impl<P: Pattern, T: Int> Pure for Shuffle<P, T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let (a, b) = (n(regs, op), m(regs, op));
        let result = if op.ra == 1 {
            let (a, b) = (a.lanes::<T>(), b.lanes::<T>());
            V::build::<T>(|i| {
                let from = P::source(i, T::LANES);
                let source = if from < T::LANES { &a } else { &b };
                source.as_ref()[from & (T::LANES - 1)]
            })
        } else {
            // both 64-bit sources side by side, their result in the low half
            let both = V([a.0[0], b.0[0]]).lanes::<T>();
            V::build::<T>(|i| {
                if i < T::LANES / 2 {
                    both.as_ref()[P::source(i, T::LANES / 2) & (T::LANES - 1)]
                } else {
                    T::default()
                }
            })
        };
        put(regs, op, result);
    }
}

/// EXT: bytes from the middle of Vm:Vn.
pub fn extract(w: Word) -> Option<Op> {
    let index = w.bits(11, 4);
    if w.bits(22, 2) != 0 || !w.q() && index >= 8 {
        return None;
    }
    let run = if w.q() {
        run::<Extract128>()
    } else {
        run::<Extract64>()
    };
    Some(with_imm(w.vector_op(run), 8 * index))
}

struct Extract64;
struct Extract128;

impl Pure for Extract64 {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let both: u128 = V([n(regs, op).0[0], m(regs, op).0[0]]).lane(0);
        put(regs, op, V([(both >> op.imm) as u64, 0]));
    }
}

impl Pure for Extract128 {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let (a, b) = (n(regs, op), m(regs, op));
        let words = [a.0[0], a.0[1], b.0[0], b.0[1]];
        let (skip, shift) = ((op.imm as usize / 64) & 1, op.imm % 64);
        // the double shift keeps a count of 64 in range when `shift` is zero
        let half = |i: usize| words[i] >> shift | words[i + 1] << 1 << (63 - shift);
        put(regs, op, V([half(skip), half(skip + 1)]));
    }
}

/// TBL, TBX.
pub fn table(w: Word) -> Option<Op> {
    if w.bits(22, 2) != 0 {
        return None;
    }
    let table = [
        [
            run::<Lookup<1, false>>(),
            run::<Lookup<2, false>>(),
            run::<Lookup<3, false>>(),
            run::<Lookup<4, false>>(),
        ],
        [
            run::<Lookup<1, true>>(),
            run::<Lookup<2, true>>(),
            run::<Lookup<3, true>>(),
            run::<Lookup<4, true>>(),
        ],
    ];
    let run = table[w.bits(12, 1) as usize][w.bits(13, 2) as usize];
    Some(w.vector_op(run))
}

/// Vd.B\[i\] = byte Vm.B\[i\] of `REGS` registers from Vn on, wrapping after
/// V31. Out of range gives 0, or with `KEEP_OLD` (TBX) leaves the byte.
struct Lookup<const REGS: usize, const KEEP_OLD: bool>;

impl<const REGS: usize, const KEEP_OLD: bool> Pure for Lookup<REGS, KEEP_OLD> {
    // Not inlined: the table lives on the stack, which a tail call gives up.
    #[inline(never)]
    fn exec(regs: &mut Regs, op: &Op) {
        let mut table = [0u8; 64];
        for (i, part) in table.chunks_exact_mut(16).take(REGS).enumerate() {
            let source = regs.v[(usize::from(op.rn) + i) & 31];
            part.copy_from_slice(&source.lanes::<u8>());
        }
        let old = if KEEP_OLD { d(regs, op) } else { V::default() };
        let result = old.zip::<u8>(m(regs, op), |old, index| {
            let byte = table[usize::from(index & 63)];
            if usize::from(index) < 16 * REGS {
                byte
            } else {
                old
            }
        });
        put(regs, op, keep(op, result));
    }
}

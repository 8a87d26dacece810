//! ZIP, UZP, TRN, EXT, TBL, TBX. Arm ARM C4.1.96, "Advanced SIMD permute",
//! "extract" and "table lookup".

use super::forms::{Keep, d, keep, m, n, put};
use super::int::Int;
use super::ops::by_size;
use super::shuffle::{self, evens, interleave_high, interleave_low, odds};
use super::{Pure, run};
use crate::cpu::op::{Handler, Op};
use crate::insn::simd::{Arrangement, VecBinary};
use crate::regs::{Regs, V};
use std::marker::PhantomData;

/// The handler of a permutation of lanes of `1 << size` bytes.
pub fn zip(op: VecBinary, arrangement: Arrangement) -> Option<Handler> {
    let size = arrangement.size();
    match (op, arrangement.is_full()) {
        (VecBinary::Uzp1, _) => by_size!(size, Shuffle<Uzp1>, 0: u8 u16 u32 u64),
        (VecBinary::Trn1, _) => by_size!(size, Shuffle<Trn1>, 0: u8 u16 u32 u64),
        (VecBinary::Zip1, true) => by_size!(size, Shuffle<Zip1>, 0: u8 u16 u32 u64),
        (VecBinary::Zip1, false) => by_size!(size, Shuffle<Zip1Half>, 0: u8 u16 u32),
        (VecBinary::Uzp2, _) => by_size!(size, Shuffle<Uzp2>, 0: u8 u16 u32 u64),
        (VecBinary::Trn2, _) => by_size!(size, Shuffle<Trn2>, 0: u8 u16 u32 u64),
        (VecBinary::Zip2, true) => by_size!(size, Shuffle<Zip2>, 0: u8 u16 u32 u64),
        (VecBinary::Zip2, false) => by_size!(size, Shuffle<Zip2Half>, 0: u8 u16 u32),
        _ => None,
    }
}

/// A permutation of the lanes of two registers.
trait Pattern {
    /// The result for Vn = `a`, Vm = `b`.
    fn of<T: Int>(op: &Op, a: V, b: V) -> V;
}

macro_rules! patterns {
    ($($name:ident<$t:ident>($op:ident, $a:ident, $b:ident) = $body:expr;)*) => {$(
        struct $name;
        impl Pattern for $name {
            #[inline(always)]
            fn of<$t: Int>($op: &Op, $a: V, $b: V) -> V { $body }
        }
    )*};
}

patterns! {
    Zip1<T>(_op, a, b) = interleave_low::<T>(a, b);
    Zip2<T>(_op, a, b) = interleave_high::<T>(a, b);
    // of 64-bit registers, the halves of one interleaving
    Zip1Half<T>(_op, a, b) = interleave_low::<T>(a, b).low();
    Zip2Half<T>(_op, a, b) = interleave_low::<T>(a, b).high();
    Uzp1<T>(op, a, b) = {
        let (a, b) = side_by_side(op, a, b);
        evens::<T>(a, b)
    };
    Uzp2<T>(op, a, b) = {
        let (a, b) = side_by_side(op, a, b);
        odds::<T>(a, b)
    };
    Trn1<T>(op, a, b) = {
        let odd = keep(op, odd_lanes::<T>());
        let b = match T::BITS {
            64 => V([0, b.0[0]]),
            bits => b.map::<u64>(|half| half << bits),
        };
        select(odd, b, keep(op, a))
    };
    Trn2<T>(op, a, b) = {
        let odd = keep(op, odd_lanes::<T>());
        let a = match T::BITS {
            64 => V([a.0[1], 0]),
            bits => a.map::<u64>(|half| half >> bits),
        };
        select(odd, b, keep(op, a))
    };
}

/// 64-bit sources together in one register: the result then has what belongs
/// to them in its low half, and zero above.
#[inline(always)]
fn side_by_side(op: &Op, a: V, b: V) -> (V, V) {
    if op.aux == Keep::Q as u16 {
        (a, b)
    } else {
        (V([a.0[0], b.0[0]]), V::default())
    }
}

/// All bits of the odd lanes.
#[inline(always)]
fn odd_lanes<T: Int>() -> V {
    V::build::<T>(|i| T::mask(i & 1 == 1))
}

/// Bits of `a` where `mask` has ones, of `b` elsewhere.
#[inline(always)]
fn select(mask: V, a: V, b: V) -> V {
    mask.zip3::<u64>(a, b, |mask, a, b| b ^ ((a ^ b) & mask))
}

struct Shuffle<P, T>(PhantomData<(P, T)>);

impl<P: Pattern, T: Int> Pure for Shuffle<P, T> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let result = P::of::<T>(op, n(regs, op), m(regs, op));
        put(regs, op, result);
    }
}

/// EXT: bytes from the middle of Vm:Vn, from bit `imm` on.
pub fn extract(full: bool) -> Handler {
    if full {
        run::<Extract128>()
    } else {
        run::<Extract64>()
    }
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

/// TBL and, with `keep_old`, TBX in so many registers.
pub fn table(registers: u8, keep_old: bool) -> Handler {
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
    let more = usize::from(registers.wrapping_sub(1) & 3);
    shuffle::lookup(more, keep_old, table[usize::from(keep_old)][more])
}

/// Vd.B\[i\] = byte Vm.B\[i\] of `REGS` registers from Vn on, wrapping after
/// V31. Out of range gives 0, or with `KEEP_OLD` (TBX) leaves the byte.
pub(super) struct Lookup<const REGS: usize, const KEEP_OLD: bool>;

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

//! Handlers of the AdvSIMD floating-point instructions.
//!
//! `N` is the number of lanes: 1 for the scalar forms, whose upper bits become
//! zero like those of a 64-bit vector. None of these is inlined into its
//! handler, see [`super::ops`].

use super::convert::{self, Integer};
use super::format::{Double, Format, Fpu, Half, Rounding, Single};
use super::fused::on_host;
use super::native::{self, Native, is_plain};
use super::ops::{self, Binary, Unary, with_fpu};
use super::recip;
use super::scalar::round_one;
use crate::cpu::op::Op;
use crate::regs::{Regs, V};

/// Vector register `r`.
#[inline(always)]
fn reg(regs: &Regs, r: u8) -> V {
    regs.v[usize::from(r & 31)]
}

#[inline(always)]
fn put(regs: &mut Regs, r: u8, value: V) {
    regs.v[usize::from(r & 31)] = value;
}

/// Lane `i` of format `F`.
#[inline(always)]
fn lane<F: Format>(v: &V, i: usize) -> u64 {
    let bit = i * F::BITS as usize;
    v.0[(bit / 64) & 1] >> (bit % 64) & F::MASK
}

/// Builds a register from the low `N` lanes that `f` gives.
#[inline(always)]
fn build<F: Format, const N: usize>(mut f: impl FnMut(usize) -> u64) -> V {
    let mut out = V::default();
    for i in 0..N {
        let bit = i * F::BITS as usize;
        out.0[(bit / 64) & 1] |= f(i) << (bit % 64);
    }
    out
}

/// Tries `fast` on all lanes at once; any lane that needs more sends the whole
/// instruction to `slow`.
#[inline(always)]
fn together<F: Format, const N: usize>(
    regs: &mut Regs,
    op: &Op,
    fast: impl Fn(usize) -> Option<u64>,
    slow: fn(&mut Regs, &Op),
) {
    let mut all = ops::is_easy(regs);
    if all {
        let out = build::<F, N>(|i| {
            let result = fast(i);
            all &= result.is_some();
            result.unwrap_or(0)
        });
        if all {
            return put(regs, op.rd, out);
        }
    }
    slow(regs, op);
}

/// Lane by lane on two registers.
pub(super) fn two<O: Binary, F: Native, const N: usize>(regs: &mut Regs, op: &Op) {
    let (a, b) = (reg(regs, op.rn), reg(regs, op.rm));
    let fast = |i| O::fast::<F>(lane::<F>(&a, i), lane::<F>(&b, i));
    together::<F, N>(regs, op, fast, two_slow::<O, F, N>);
}

#[cold]
#[inline(never)]
fn two_slow<O: Binary, F: Native, const N: usize>(regs: &mut Regs, op: &Op) {
    let (a, b) = (reg(regs, op.rn), reg(regs, op.rm));
    let out = build::<F, N>(|i| ops::binary::<O, F>(regs, lane::<F>(&a, i), lane::<F>(&b, i)));
    put(regs, op.rd, out);
}

/// Every lane of the first with lane `aux` of the second register.
pub(super) fn two_element<O: Binary, F: Native, const N: usize>(regs: &mut Regs, op: &Op) {
    let a = reg(regs, op.rn);
    let b = lane::<F>(&reg(regs, op.rm), usize::from(op.aux));
    let fast = |i| O::fast::<F>(lane::<F>(&a, i), b);
    together::<F, N>(regs, op, fast, two_element_slow::<O, F, N>);
}

#[cold]
#[inline(never)]
fn two_element_slow<O: Binary, F: Native, const N: usize>(regs: &mut Regs, op: &Op) {
    let a = reg(regs, op.rn);
    let b = lane::<F>(&reg(regs, op.rm), usize::from(op.aux));
    let out = build::<F, N>(|i| ops::binary::<O, F>(regs, lane::<F>(&a, i), b));
    put(regs, op.rd, out);
}

/// Every lane with zero, which is the first operand if `SWAP`.
#[inline(never)]
pub(super) fn with_zero<O: Binary, F: Native, const N: usize, const SWAP: bool>(
    regs: &mut Regs,
    op: &Op,
) {
    let a = reg(regs, op.rn);
    let out = build::<F, N>(|i| {
        let a = lane::<F>(&a, i);
        let (a, b) = if SWAP { (0, a) } else { (a, 0) };
        ops::binary::<O, F>(regs, a, b)
    });
    put(regs, op.rd, out);
}

/// FMLA by lane `aux` of the second register if `ELEMENT`, else by its lanes;
/// FMLS if `NEG`.
#[inline(never)]
pub(super) fn fused<F: Native, const N: usize, const NEG: bool, const ELEMENT: bool>(
    regs: &mut Regs,
    op: &Op,
) {
    let done = ops::is_easy(regs)
        && on_host(|| {
            let mut all = true;
            let out = fused_lanes::<F, N, NEG, ELEMENT>(regs, op, |_, c, a, b| {
                let result = F::mul_add(a, b, c);
                all &= is_plain::<F>(result);
                result
            });
            if all {
                put(regs, op.rd, out);
            }
            all
        });
    if !done {
        let out = fused_lanes::<F, N, NEG, ELEMENT>(regs, op, ops::mul_add::<F>);
        put(regs, op.rd, out);
    }
}

/// `one(regs, c, ±a, b)` for every lane.
#[inline(always)]
fn fused_lanes<F: Native, const N: usize, const NEG: bool, const ELEMENT: bool>(
    regs: &mut Regs,
    op: &Op,
    mut one: impl FnMut(&mut Regs, u64, u64, u64) -> u64,
) -> V {
    let (a, b, c) = (reg(regs, op.rn), reg(regs, op.rm), reg(regs, op.rd));
    let element = lane::<F>(&b, usize::from(op.aux));
    build::<F, N>(|i| {
        let b = if ELEMENT { element } else { lane::<F>(&b, i) };
        one(regs, lane::<F>(&c, i), lane::<F>(&a, i) ^ F::zero(NEG), b)
    })
}

/// Neighbouring lanes of the two registers put together.
#[inline(never)]
pub(super) fn pairwise<O: Binary, F: Native, const N: usize>(regs: &mut Regs, op: &Op) {
    let (a, b) = (reg(regs, op.rn), reg(regs, op.rm));
    let out = build::<F, N>(|i| {
        let (v, at) = if 2 * i < N {
            (&a, 2 * i)
        } else {
            (&b, 2 * i - N)
        };
        ops::binary::<O, F>(regs, lane::<F>(v, at), lane::<F>(v, at + 1))
    });
    put(regs, op.rd, out);
}

/// The two low lanes of one register.
#[inline(never)]
pub(super) fn pair<O: Binary, F: Native>(regs: &mut Regs, op: &Op) {
    let a = reg(regs, op.rn);
    let result = ops::binary::<O, F>(regs, lane::<F>(&a, 0), lane::<F>(&a, 1));
    put(regs, op.rd, V([result, 0]));
}

/// All four single lanes, in halves (Reduce).
#[inline(never)]
pub(super) fn across<O: Binary>(regs: &mut Regs, op: &Op) {
    let a = reg(regs, op.rn);
    let lane = |i| lane::<Single>(&a, i);
    let low = ops::binary::<O, Single>(regs, lane(0), lane(1));
    let high = ops::binary::<O, Single>(regs, lane(2), lane(3));
    let result = ops::binary::<O, Single>(regs, low, high);
    put(regs, op.rd, V([result, 0]));
}

/// Lane by lane on one register.
#[inline(never)]
pub(super) fn one<O: Unary, F: Native, const N: usize>(regs: &mut Regs, op: &Op) {
    let a = reg(regs, op.rn);
    let out = build::<F, N>(|i| ops::unary::<O, F>(regs, lane::<F>(&a, i)));
    put(regs, op.rd, out);
}

pub(super) fn abs<F: Format, const N: usize>(regs: &mut Regs, op: &Op) {
    let a = reg(regs, op.rn);
    put(regs, op.rd, build::<F, N>(|i| lane::<F>(&a, i) & !F::SIGN));
}

pub(super) fn neg<F: Format, const N: usize>(regs: &mut Regs, op: &Op) {
    let a = reg(regs, op.rn);
    put(regs, op.rd, build::<F, N>(|i| lane::<F>(&a, i) ^ F::SIGN));
}

/// Lane by lane through `f`, which works on the control and status words.
#[inline(always)]
fn each<F: Format, const N: usize>(regs: &mut Regs, op: &Op, f: impl Fn(&mut Fpu, u64) -> u64) {
    let a = reg(regs, op.rn);
    let out = with_fpu(regs, |fpu| build::<F, N>(|i| f(fpu, lane::<F>(&a, i))));
    put(regs, op.rd, out);
}

/// FRINT*; `aux` is the rounding code or that of FPCR, `imm` set for FRINTX.
#[inline(never)]
pub(super) fn round<F: Native, const N: usize>(regs: &mut Regs, op: &Op) {
    each::<F, N>(regs, op, |fpu, a| round_one::<F>(fpu, op, a));
}

/// FCVT* to integer lanes; `aux` is the rounding code, `imm` the number of
/// fraction bits.
#[inline(never)]
pub(super) fn to_int<F: Native, const N: usize, const UNSIGNED: bool>(regs: &mut Regs, op: &Op) {
    let to = Integer {
        bits: F::BITS,
        unsigned: UNSIGNED,
    };
    let plain = op.aux == 3 && op.imm == 0;
    each::<F, N>(regs, op, |fpu, a| {
        if plain && let Some(int) = native::truncate::<F>(*fpu, a, F::BITS, UNSIGNED) {
            return int;
        }
        let rounding = Rounding::from_code(u64::from(op.aux));
        convert::to_integer::<F>(fpu, a, to, op.imm as u32, rounding)
    });
}

/// SCVTF and UCVTF; `imm` is the number of fraction bits.
#[inline(never)]
pub(super) fn from_int<F: Native, const N: usize, const UNSIGNED: bool>(regs: &mut Regs, op: &Op) {
    let from = Integer {
        bits: F::BITS,
        unsigned: UNSIGNED,
    };
    let pad = 64 - F::BITS;
    each::<F, N>(regs, op, |fpu, a| {
        let int = if UNSIGNED {
            a as i64
        } else {
            (a << pad) as i64 >> pad
        };
        if op.imm == 0
            && let Some(result) = native::from_int::<F>(*fpu, int, UNSIGNED)
        {
            return result;
        }
        convert::from_integer::<F>(fpu, a, from, op.imm as u32)
    });
}

/// FCVTL: the low half of the register to twice as wide lanes; the high half
/// if `aux` is 1 (FCVTL2).
#[inline(always)]
fn widen<S: Format, D: Format, const N: usize>(regs: &mut Regs, op: &Op) {
    let a = V([reg(regs, op.rn).0[usize::from(op.aux & 1)], 0]);
    let out = with_fpu(regs, |fpu| {
        build::<D, N>(|i| convert::convert::<S, D>(fpu, lane::<S>(&a, i), fpu.rounding()))
    });
    put(regs, op.rd, out);
}

#[inline(never)]
pub(super) fn widen_half(regs: &mut Regs, op: &Op) {
    widen::<Half, Single, 4>(regs, op);
}

#[inline(never)]
pub(super) fn widen_single(regs: &mut Regs, op: &Op) {
    let a = V([reg(regs, op.rn).0[usize::from(op.aux & 1)], 0]);
    let fpu = ops::fpu(regs);
    let fast = |i| native::widen(fpu, lane::<Single>(&a, i));
    match (fast(0), fast(1)) {
        (Some(low), Some(high)) => put(regs, op.rd, V([low, high])),
        _ => widen::<Single, Double, 2>(regs, op),
    }
}

/// FCVTN to the low half of the register, the high half becoming zero; to the
/// high half alone if `aux` is 1 (FCVTN2).
#[inline(always)]
fn narrow<S: Format, D: Format, const N: usize, const ODD: bool>(regs: &mut Regs, op: &Op) {
    let a = reg(regs, op.rn);
    let out = with_fpu(regs, |fpu| {
        let rounding = if ODD { Rounding::Odd } else { fpu.rounding() };
        build::<D, N>(|i| convert::convert::<S, D>(fpu, lane::<S>(&a, i), rounding))
    });
    let result = match op.aux {
        0 => V([out.0[0], 0]),
        _ => V([reg(regs, op.rd).0[0], out.0[0]]),
    };
    put(regs, op.rd, result);
}

#[inline(never)]
pub(super) fn narrow_single(regs: &mut Regs, op: &Op) {
    narrow::<Single, Half, 4, false>(regs, op);
}

#[inline(never)]
pub(super) fn narrow_double(regs: &mut Regs, op: &Op) {
    narrow::<Double, Single, 2, false>(regs, op);
}

/// FCVTXN, of one lane in its scalar form.
#[inline(never)]
pub(super) fn narrow_odd<const N: usize>(regs: &mut Regs, op: &Op) {
    narrow::<Double, Single, N, true>(regs, op);
}

/// URECPE.
pub(super) fn unsigned_estimate<const N: usize>(regs: &mut Regs, op: &Op) {
    let a = reg(regs, op.rn);
    let out = build::<Single, N>(|i| recip::unsigned_estimate(lane::<Single>(&a, i) as u32).into());
    put(regs, op.rd, out);
}

/// URSQRTE.
pub(super) fn unsigned_root_estimate<const N: usize>(regs: &mut Regs, op: &Op) {
    let a = reg(regs, op.rn);
    let out =
        build::<Single, N>(|i| recip::unsigned_root_estimate(lane::<Single>(&a, i) as u32).into());
    put(regs, op.rd, out);
}

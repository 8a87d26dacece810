//! Handlers of the scalar floating-point instructions.
//!
//! Anything that needs an [`Fpu`] on the stack sits in a
//! function that is never inlined: see [`super::ops`].

use super::convert::{self, Integer};
use super::format::{Double, FZ, Format, Fpu, IXC, Rounding, Single};
use super::native::{self, Native};
use super::ops::{self, Binary, Unary, with_fpu};
use super::{compare, ops::mul_add};
use crate::cpu::op::Op;
use crate::regs::{Regs, V};
use std::cmp::Ordering;

/// The scalar of format `F` in the low bits of vector register `r`.
#[inline(always)]
pub(super) fn get<F: Format>(regs: &Regs, r: u8) -> u64 {
    regs.v[usize::from(r & 31)].0[0] & F::MASK
}

/// Writes a scalar; the rest of the register becomes zero.
#[inline(always)]
pub(super) fn put(regs: &mut Regs, r: u8, value: u64) {
    regs.v[usize::from(r & 31)] = V([value, 0]);
}

pub(super) fn two<O: Binary, F: Native>(regs: &mut Regs, op: &Op) {
    let (a, b) = (get::<F>(regs, op.rn), get::<F>(regs, op.rm));
    let result = ops::binary::<O, F>(regs, a, b);
    put(regs, op.rd, result);
}

pub(super) fn one<O: Unary, F: Native>(regs: &mut Regs, op: &Op) {
    let a = get::<F>(regs, op.rn);
    let result = ops::unary::<O, F>(regs, a);
    put(regs, op.rd, result);
}

/// FMADD and relatives: `NEG_ADDEND` and `NEG_FACTOR` flip the sign of the
/// addend and of the first factor.
pub(super) fn fused<F: Native, const NEG_ADDEND: bool, const NEG_FACTOR: bool>(
    regs: &mut Regs,
    op: &Op,
) {
    let addend = get::<F>(regs, op.ra) ^ F::zero(NEG_ADDEND);
    let a = get::<F>(regs, op.rn) ^ F::zero(NEG_FACTOR);
    let b = get::<F>(regs, op.rm);
    let result = mul_add::<F>(regs, addend, a, b);
    put(regs, op.rd, result);
}

pub(super) fn mov<F: Format>(regs: &mut Regs, op: &Op) {
    let a = get::<F>(regs, op.rn);
    put(regs, op.rd, a);
}

pub(super) fn abs<F: Format>(regs: &mut Regs, op: &Op) {
    let a = get::<F>(regs, op.rn);
    put(regs, op.rd, a & !F::SIGN);
}

pub(super) fn neg<F: Format>(regs: &mut Regs, op: &Op) {
    let a = get::<F>(regs, op.rn);
    put(regs, op.rd, a ^ F::SIGN);
}

pub(super) fn mov_imm(regs: &mut Regs, op: &Op) {
    put(regs, op.rd, op.imm);
}

/// FCSEL; `aux` is the condition.
pub(super) fn select<F: Format>(regs: &mut Regs, op: &Op) {
    let r = if regs.cond_holds(op.aux) {
        op.rn
    } else {
        op.rm
    };
    let a = get::<F>(regs, r);
    put(regs, op.rd, a);
}

/// The NZCV value of a comparison.
pub(super) fn flags(order: Option<Ordering>) -> u64 {
    match order {
        Some(Ordering::Equal) => 0b0110 << 28,
        Some(Ordering::Less) => 0b1000 << 28,
        Some(Ordering::Greater) => 0b0010 << 28,
        None => 0b0011 << 28,
    }
}

#[inline(always)]
fn compare_flags<F: Native, const SIGNAL: bool>(regs: &mut Regs, a: u64, b: u64) {
    // Ordered operands raise nothing unless denormals are flushed.
    if regs.fpcr & FZ == 0 && !F::is_nan(a) && !F::is_nan(b) {
        let less = F::less(a, b);
        regs.nf = u64::from(less) << 63;
        regs.zf = u64::from(!F::equal(a, b));
        regs.cf = u64::from(!less);
        regs.vf = 0;
    } else {
        compare_slow::<F>(regs, a, b, SIGNAL);
    }
}

#[inline(never)]
fn compare_slow<F: Native>(regs: &mut Regs, a: u64, b: u64, signal: bool) {
    let order = with_fpu(regs, |fpu| compare::compare::<F>(fpu, a, b, signal));
    regs.set_nzcv(flags(order));
}

/// FCMP and FCMPE with a register.
pub(super) fn cmp<F: Native, const SIGNAL: bool>(regs: &mut Regs, op: &Op) {
    let (a, b) = (get::<F>(regs, op.rn), get::<F>(regs, op.rm));
    compare_flags::<F, SIGNAL>(regs, a, b);
}

/// FCMP and FCMPE with zero.
pub(super) fn cmp_zero<F: Native, const SIGNAL: bool>(regs: &mut Regs, op: &Op) {
    let a = get::<F>(regs, op.rn);
    compare_flags::<F, SIGNAL>(regs, a, 0);
}

/// FCCMP and FCCMPE; `aux` is the condition, `imm` the flags if it fails.
pub(super) fn ccmp<F: Native, const SIGNAL: bool>(regs: &mut Regs, op: &Op) {
    if regs.cond_holds(op.aux) {
        cmp::<F, SIGNAL>(regs, op);
    } else {
        regs.set_nzcv(op.imm);
    }
}

/// FCVT between any formats.
#[inline(never)]
pub(super) fn convert<S: Format, D: Format>(regs: &mut Regs, op: &Op) {
    let a = get::<S>(regs, op.rn);
    let result = with_fpu(regs, |fpu| convert::convert::<S, D>(fpu, a, fpu.rounding()));
    put(regs, op.rd, result);
}

/// FCVT from single to double.
pub(super) fn widen(regs: &mut Regs, op: &Op) {
    let a = get::<Single>(regs, op.rn);
    match native::widen(ops::fpu(regs), a) {
        Some(result) => put(regs, op.rd, result),
        None => convert::<Single, Double>(regs, op),
    }
}

/// FCVT from double to single.
pub(super) fn narrow(regs: &mut Regs, op: &Op) {
    let a = get::<Double>(regs, op.rn);
    match native::narrow(ops::fpu(regs), a) {
        Some(result) => put(regs, op.rd, result),
        None => convert::<Double, Single>(regs, op),
    }
}

/// The code in `aux` for "as FPCR says".
pub(super) const CURRENT: u16 = 5;

/// FRINT*; `aux` is the rounding code or [`CURRENT`], `imm` set for FRINTX.
#[inline(never)]
pub(super) fn round<F: Native>(regs: &mut Regs, op: &Op) {
    let a = get::<F>(regs, op.rn);
    let result = with_fpu(regs, |fpu| round_one::<F>(fpu, op, a));
    put(regs, op.rd, result);
}

/// One FRINT*.
#[inline(always)]
pub(super) fn round_one<F: Native>(fpu: &mut Fpu, op: &Op, a: u64) -> u64 {
    let code = match op.aux {
        CURRENT => fpu.fpcr >> 22 & 3,
        code => u64::from(code),
    };
    let report = op.imm != 0;
    if fpu.fpcr & FZ == 0
        && let Some(result) = native::round_integral::<F>(a, code)
        && (!report || result == a || fpu.fpsr & IXC != 0)
    {
        return result;
    }
    convert::round_integral::<F>(fpu, a, Rounding::from_code(code), report)
}

/// FCVT*S and FCVT*U to a general register; `aux` is the rounding code, `imm`
/// the number of fraction bits.
#[inline(never)]
pub(super) fn to_gpr<F: Format, const WIDE: bool, const UNSIGNED: bool>(regs: &mut Regs, op: &Op) {
    let a = get::<F>(regs, op.rn);
    let to = Integer {
        bits: if WIDE { 64 } else { 32 },
        unsigned: UNSIGNED,
    };
    let result = with_fpu(regs, |fpu| {
        let rounding = Rounding::from_code(u64::from(op.aux));
        convert::to_integer::<F>(fpu, a, to, op.imm as u32, rounding)
    });
    regs.set(op.rd, result);
}

/// FCVTZS and FCVTZU without fraction bits.
pub(super) fn truncate<F: Native, const WIDE: bool, const UNSIGNED: bool>(
    regs: &mut Regs,
    op: &Op,
) {
    let a = get::<F>(regs, op.rn);
    let bits = if WIDE { 64 } else { 32 };
    match native::truncate::<F>(ops::fpu(regs), a, bits, UNSIGNED) {
        Some(result) => regs.set(op.rd, result),
        None => to_gpr::<F, WIDE, UNSIGNED>(regs, op),
    }
}

/// SCVTF and UCVTF from a general register; `imm` is the number of fraction bits.
#[inline(never)]
pub(super) fn from_gpr<F: Format, const WIDE: bool, const UNSIGNED: bool>(
    regs: &mut Regs,
    op: &Op,
) {
    let int = regs.get(op.rn);
    let from = Integer {
        bits: if WIDE { 64 } else { 32 },
        unsigned: UNSIGNED,
    };
    let result = with_fpu(regs, |fpu| {
        convert::from_integer::<F>(fpu, int, from, op.imm as u32)
    });
    put(regs, op.rd, result);
}

/// SCVTF and UCVTF without fraction bits.
pub(super) fn from_int<F: Native, const WIDE: bool, const UNSIGNED: bool>(
    regs: &mut Regs,
    op: &Op,
) {
    let int = regs.get(op.rn);
    let signed = match (WIDE, UNSIGNED) {
        (true, _) => int as i64,
        (false, true) => i64::from(int as u32),
        (false, false) => i64::from(int as i32),
    };
    match native::from_int::<F>(ops::fpu(regs), signed, UNSIGNED) {
        Some(result) => put(regs, op.rd, result),
        None => from_gpr::<F, WIDE, UNSIGNED>(regs, op),
    }
}

/// FJCVTZS.
#[inline(never)]
pub(super) fn javascript(regs: &mut Regs, op: &Op) {
    let a = get::<Double>(regs, op.rn);
    let (result, same) = with_fpu(regs, |fpu| convert::javascript_int32(fpu, a));
    regs.set(op.rd, u64::from(result));
    regs.set_nzcv(u64::from(same) << 30);
}

/// FMOV from the low bits of a vector register.
pub(super) fn bits_to_gpr<F: Format>(regs: &mut Regs, op: &Op) {
    let a = get::<F>(regs, op.rn);
    regs.set(op.rd, a);
}

/// FMOV to a vector register.
pub(super) fn bits_from_gpr<F: Format>(regs: &mut Regs, op: &Op) {
    let a = regs.get(op.rn) & F::MASK;
    put(regs, op.rd, a);
}

/// FMOV from the top half of a vector register.
pub(super) fn top_to_gpr(regs: &mut Regs, op: &Op) {
    let a = regs.v[usize::from(op.rn & 31)].0[1];
    regs.set(op.rd, a);
}

/// FMOV to the top half of a vector register.
pub(super) fn top_from_gpr(regs: &mut Regs, op: &Op) {
    let a = regs.get(op.rn);
    regs.v[usize::from(op.rd & 31)].0[1] = a;
}

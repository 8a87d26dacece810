//! MOVI, MVNI, FMOV (vector, immediate), ORR and BIC (vector, immediate). Arm
//! ARM C4.1.96, "Advanced SIMD modified immediate".

use super::forms::{d, keep, put};
use super::word::Word;
use super::{Pure, run};
use crate::cpu::op::Op;
use crate::regs::{Regs, V};

/// The 64-bit pattern of `imm8` under `cmode` and `op`: AdvSIMDExpandImm.
fn expand(imm8: u64, cmode: u32, op: bool) -> u64 {
    let words = |word: u64| word << 32 | word;
    let halves = |half: u64| words(half << 16 | half);
    match cmode >> 1 {
        shift @ 0..=3 => words(imm8 << (8 * shift)),
        4 => halves(imm8),
        5 => halves(imm8 << 8),
        // shifting ones in
        6 if cmode & 1 == 0 => words(imm8 << 8 | 0xff),
        6 => words(imm8 << 16 | 0xffff),
        _ => match (cmode & 1, op) {
            (0, false) => halves(imm8 << 8 | imm8),
            // each bit becomes a byte
            (0, true) => (0..8).fold(0, |all, bit| all | ((imm8 >> bit & 1) * 0xff) << (8 * bit)),
            (_, false) => words(single(imm8)),
            (_, true) => double(imm8),
        },
    }
}

/// Sign, exponent of one inverted and repeated bit and two plain ones, and
/// four fraction bits, as a single.
fn single(imm8: u64) -> u64 {
    let exponent = if imm8 & 0x40 == 0 { 0x80 } else { 0x7c };
    (imm8 >> 7) << 31 | (exponent | imm8 >> 4 & 3) << 23 | (imm8 & 0xf) << 19
}

/// The same as a double.
fn double(imm8: u64) -> u64 {
    let exponent = if imm8 & 0x40 == 0 { 0x400 } else { 0x3fc };
    (imm8 >> 7) << 63 | (exponent | imm8 >> 4 & 3) << 52 | (imm8 & 0xf) << 48
}

/// Modified immediates, which have zero where shifts have immh.
pub fn decode(w: Word) -> Option<Op> {
    let (cmode, inverted) = (w.bits(12, 4), w.u());
    // o2 is half-precision FMOV; a 64-bit FMOV needs the whole register
    if w.bits(11, 1) == 1 || cmode == 0b1111 && inverted && !w.q() {
        return None;
    }
    let imm8 = u64::from(w.bits(16, 3) << 5 | w.bits(5, 5));
    let value = expand(imm8, cmode, inverted);
    // odd cmodes below 12 merge into the register
    let merges = cmode < 12 && cmode & 1 == 1;
    let (run, imm) = match (merges, inverted) {
        (true, false) => (run::<Or>(), value),
        (true, true) => (run::<And>(), !value),
        (false, true) if cmode < 14 => (move_run(w), !value),
        (false, _) => (move_run(w), value),
    };
    let mut op = w.vector_op(run);
    op.imm = imm;
    Some(op)
}

fn move_run(w: Word) -> crate::cpu::op::Handler {
    if w.q() {
        run::<Move128>()
    } else {
        run::<Move64>()
    }
}

struct Move64;
struct Move128;
struct Or;
struct And;

impl Pure for Move64 {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        put(regs, op, V([op.imm, 0]));
    }
}

impl Pure for Move128 {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        put(regs, op, V([op.imm, op.imm]));
    }
}

impl Pure for Or {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let old = d(regs, op);
        put(
            regs,
            op,
            keep(op, V([old.0[0] | op.imm, old.0[1] | op.imm])),
        );
    }
}

impl Pure for And {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let old = d(regs, op);
        put(
            regs,
            op,
            keep(op, V([old.0[0] & op.imm, old.0[1] & op.imm])),
        );
    }
}

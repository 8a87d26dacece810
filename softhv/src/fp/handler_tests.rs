//! What the handlers do around the arithmetic: registers, lanes and flags, and
//! that the native paths give what the integer code gives.

use super::format::{Double, Format, Fpu, IXC, Single};
use super::native::Native;
use super::ops::{self, Binary, Unary};
use super::{bind, decode_simd};
use crate::cpu::Cpu;
use crate::cpu::op::Op;
use crate::decode::instruction;
use crate::dispatch;
use crate::insn::Insn;
use crate::regs::{Regs, V};

unsafe extern "C" fn stop(_: *mut Cpu, _: *const Op) {}

fn op_of(word: u32) -> Option<Op> {
    match instruction(word) {
        Insn::Word(word) => decode_simd(word),
        insn => bind(&insn),
    }
}

/// Decodes and executes one instruction word.
fn run(regs: Regs, word: u32) -> Regs {
    let ops = [op_of(word).expect("allocated"), Op::new(stop)];
    let mut cpu = Box::<Cpu>::new_uninit();
    // SAFETY: floating-point handlers touch nothing of a Cpu but its registers,
    // which are initialised here; the second op ends the run.
    unsafe {
        let cpu = cpu.as_mut_ptr();
        (&raw mut (*cpu).regs).write(regs);
        dispatch::execute(cpu, &raw const ops[0]);
        (&raw const (*cpu).regs).read()
    }
}

/// V0 to V3 with the given contents.
fn vectors(v: [[u64; 2]; 4]) -> Regs {
    let mut regs = Regs::default();
    for (register, lanes) in regs.v.iter_mut().zip(v) {
        *register = V(lanes);
    }
    regs
}

fn pair(low: f32, high: f32) -> u64 {
    u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32
}

const FULL: [u64; 2] = [u64::MAX; 2];

#[test]
fn scalar_results_zero_the_upper_bits() {
    let two = [2f64.to_bits(), u64::MAX];
    // fadd d0, d1, d2; fcvt s0, d1; fmov d0, x1
    let regs = run(vectors([FULL, two, two, FULL]), 0x1e62_2820);
    assert_eq!(regs.v[0].0, [4f64.to_bits(), 0]);
    let regs = run(vectors([FULL, two, two, FULL]), 0x1e62_4020);
    assert_eq!(regs.v[0].0, [u64::from(2f32.to_bits()), 0]);
    let regs = run(vectors([FULL; 4]), 0x9e67_0020);
    assert_eq!(regs.v[0].0, [0, 0]);
}

#[test]
fn two_lane_single_vectors_zero_the_high_half() {
    let a = [pair(1.0, 2.0), u64::MAX];
    // fadd v0.2s, v1.2s, v2.2s
    let regs = run(vectors([FULL, a, a, FULL]), 0x0e22_d420);
    assert_eq!(regs.v[0].0, [pair(2.0, 4.0), 0]);
}

#[test]
fn narrowing_to_the_upper_half_keeps_the_lower() {
    let a = [1.5f64.to_bits(), (-2f64).to_bits()];
    // fcvtn2 v0.4s, v1.2d; fcvtn v0.2s, v1.2d
    let regs = run(vectors([[7, 9], a, FULL, FULL]), 0x4e61_6820);
    assert_eq!(regs.v[0].0, [7, pair(1.5, -2.0)]);
    let regs = run(vectors([[7, 9], a, FULL, FULL]), 0x0e61_6820);
    assert_eq!(regs.v[0].0, [pair(1.5, -2.0), 0]);
}

#[test]
fn by_element_operand_may_be_any_register_and_lane() {
    let mut regs = vectors([FULL, [pair(1.0, 2.0), pair(3.0, 4.0)], FULL, FULL]);
    regs.v[31] = V([pair(5.0, 6.0), pair(7.0, 8.0)]);
    // fmul v0.4s, v1.4s, v31.s[3]
    let regs = run(regs, 0x4fbf_9820);
    assert_eq!(regs.v[0].0, [pair(8.0, 16.0), pair(24.0, 32.0)]);
}

#[test]
fn destination_may_be_a_source_of_a_pairwise_sum() {
    let a = [pair(1.0, 2.0), pair(3.0, 4.0)];
    // faddp v1.4s, v1.4s, v1.4s
    let regs = run(vectors([FULL, a, FULL, FULL]), 0x6e21_d421);
    assert_eq!(regs.v[1].0, [pair(3.0, 7.0); 2]);
}

#[test]
fn negated_fused_forms_differ_in_the_sign_of_the_addend() {
    let of = |x: f64| [x.to_bits(), 0];
    let operands = [FULL, of(3.0), of(5.0), of(1.0)];
    let result = |word| f64::from_bits(run(vectors(operands), word).v[0].0[0]);
    // fmadd, fmsub, fnmadd, fnmsub d0, d1, d2, d3
    assert_eq!(result(0x1f42_0c20), 16.0);
    assert_eq!(result(0x1f42_8c20), -14.0);
    assert_eq!(result(0x1f62_0c20), -16.0);
    assert_eq!(result(0x1f62_8c20), 14.0);
}

#[test]
fn conditional_compare_takes_its_own_flags_when_the_condition_fails() {
    let mut regs = vectors([[0; 2]; 4]);
    regs.set_nzcv(0);
    // fccmp d1, d2, #9, eq
    assert_eq!(run(regs.clone(), 0x1e62_0429).nzcv(), 9 << 28);
    regs.set_nzcv(4 << 28);
    assert_eq!(run(regs, 0x1e62_0429).nzcv(), 6 << 28);
}

#[test]
fn flags_of_a_comparison_tell_the_four_outcomes() {
    let nzcv = |a: f64, b: f64| {
        let operands = [FULL, [a.to_bits(), 0], [b.to_bits(), 0], FULL];
        // fcmp d1, d2
        run(vectors(operands), 0x1e62_2020).nzcv() >> 28
    };
    assert_eq!(nzcv(1.0, 1.0), 0b0110);
    assert_eq!(nzcv(1.0, 2.0), 0b1000);
    assert_eq!(nzcv(2.0, 1.0), 0b0010);
    assert_eq!(nzcv(f64::NAN, 1.0), 0b0011);
}

#[test]
fn word_results_zero_extend_and_xzr_is_neither_read_nor_written() {
    let mut regs = vectors([FULL, [(-1f64).to_bits(), 0], FULL, FULL]);
    regs.x[31] = 77;
    // fcvtzs w0, d1; fcvtzs xzr, d1; scvtf d0, xzr
    assert_eq!(run(regs.clone(), 0x1e78_0020).x[0], 0xffff_ffff);
    assert_eq!(run(regs.clone(), 0x9e78_003f).x[31], 77);
    assert_eq!(run(regs, 0x9e62_03e0).v[0].0, [0, 0]);
}

#[test]
fn extensions_not_advertised_are_undefined() {
    // fadd h0, h1, h2; fadd v0.8h; fcmla v0.4s; fmlal v0.4s; bfdot; frint32z d0
    for word in [
        0x1ee2_2820,
        0x4e42_1420,
        0x6e82_c420,
        0x4e22_ec20,
        0x2e42_fc20,
        0x1e68_4020,
    ] {
        assert!(op_of(word).is_none(), "{word:08x}");
    }
}

/// SplitMix64 over numbers whose exponents are close enough to interact.
fn operand<F: Format>(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = z ^ z >> 27;
    let exp = match z >> 60 {
        0 => z & F::INF,
        1 => z >> 40 & 3,
        _ => (F::BIAS as u64) - 3 + (z >> 57 & 7),
    };
    let exp = if z >> 60 == 0 { exp } else { exp << F::FRAC };
    // Short fractions make exact results common.
    let frac = z & F::FRAC_MASK & !(F::FRAC_MASK >> (z >> 52 & 31));
    z & F::SIGN | exp | frac
}

fn native_agrees<O: Binary, F: Native>() {
    let mut state = 5;
    for i in 0..20_000u64 {
        let (a, b) = (operand::<F>(&mut state), operand::<F>(&mut state));
        let fpsr = if i & 1 == 0 { IXC } else { 0 };
        let mut regs = Regs {
            fpsr,
            ..Regs::default()
        };
        let mut fpu = Fpu { fpcr: 0, fpsr };
        let native = ops::binary::<O, F>(&mut regs, a, b);
        assert_eq!(
            (native, regs.fpsr),
            (O::soft::<F>(&mut fpu, a, b), fpu.fpsr),
            "{a:x} {b:x}"
        );
    }
}

#[test]
fn native_and_integer_arithmetic_agree_in_result_and_flags() {
    native_agrees::<ops::Add, Double>();
    native_agrees::<ops::Add, Single>();
    native_agrees::<ops::Sub, Double>();
    native_agrees::<ops::Sub, Single>();
    native_agrees::<ops::Mul, Double>();
    native_agrees::<ops::Mul, Single>();
    native_agrees::<ops::Div, Double>();
    native_agrees::<ops::Div, Single>();
    native_agrees::<ops::Max, Double>();
    native_agrees::<ops::MinNum, Single>();
    native_agrees::<ops::AbsGt, Single>();
}

#[test]
fn native_and_integer_square_root_and_fused_agree() {
    let mut state = 9;
    for i in 0..20_000u64 {
        let fpsr = if i & 1 == 0 { IXC } else { 0 };
        let mut regs = Regs {
            fpsr,
            ..Regs::default()
        };
        let mut fpu = Fpu { fpcr: 0, fpsr };
        let [a, b, c] = [(); 3].map(|()| operand::<Double>(&mut state));
        let native = ops::unary::<ops::Sqrt, Double>(&mut regs, a);
        assert_eq!(native, ops::Sqrt::soft::<Double>(&mut fpu, a), "{a:x}");
        let native = ops::mul_add::<Double>(&mut regs, c, a, b);
        let soft = super::arith::mul_add::<Double>(&mut fpu, c, a, b);
        assert_eq!((native, regs.fpsr), (soft, fpu.fpsr), "{a:x} {b:x} {c:x}");
    }
}

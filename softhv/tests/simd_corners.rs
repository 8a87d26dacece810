//! One named test for each place where AdvSIMD instructions are easy to get
//! wrong. Instruction words are as the GNU assembler makes them.

#![allow(clippy::cast_possible_truncation)]

mod simd_harness;

use simd_harness::{bytes, registers, result, run, structure};
use supermachine_softhv::cpu::op::SP;
use supermachine_softhv::insn::Reg;
use supermachine_softhv::insn::structure::Writeback;
use supermachine_softhv::regs::V;
use supermachine_softhv::simd::FPSR_QC;
use supermachine_softhv::simd::ldst::load_from;

fn halves(low: [u16; 4]) -> V {
    V::from_lanes::<u16>([low[0], low[1], low[2], low[3], 0, 0, 0, 0])
}

#[test]
fn sqrdmulh_of_the_two_minima_saturates() {
    let min = halves([0x8000, 0x8000, 0x7fff, 0]);
    // sqrdmulh v0.4h, v1.4h, v2.4h
    let (v, saturated) = result(0x2e62_b420, &[min, halves([0x8000, 0x7fff, 0x7fff, 0])]);
    assert_eq!(v, halves([0x7fff, 0x8001, 0x7ffe, 0]));
    assert!(saturated);
}

#[test]
fn rounding_doubling_accumulation_saturates_once_at_the_end() {
    // sqrdmlah v0.4h, v1.4h, v2.4h: -1 + 1 stays in range only as a whole
    let mut regs = registers(&[halves([0x8000; 4]), halves([0x8000; 4])]);
    regs.v[0] = halves([0x8000, 0xffff, 0, 1]);
    run(0x2e42_8420, &mut regs);
    assert_eq!(regs.v[0], halves([0, 0x7fff, 0x7fff, 0x7fff]));
    assert_eq!(regs.fpsr, FPSR_QC);
    // sqrdmlsh v0.4h, v1.4h, v2.4h
    let mut regs = registers(&[halves([0x8000; 4]), halves([0x8000; 4])]);
    regs.v[0] = halves([0x7fff, 0, 1, 2]);
    run(0x2e42_8c20, &mut regs);
    assert_eq!(regs.v[0], halves([0xffff, 0x8000, 0x8001, 0x8002]));
    assert_eq!(regs.fpsr, 0);
}

#[test]
fn sqdmull_of_the_two_minima_sets_qc() {
    // sqdmull v0.4s, v1.4h, v2.4h
    let (v, saturated) = result(
        0x0e62_d020,
        &[halves([0x8000, 1, 0, 0]), halves([0x8000, 0xffff, 0, 0])],
    );
    assert_eq!(v, V::from_lanes::<u32>([0x7fff_ffff, 0xffff_fffe, 0, 0]));
    assert!(saturated);
}

#[test]
fn qc_stays_set_until_it_is_cleared() {
    let mut regs = registers(&[V::default(), V::default()]);
    regs.fpsr = FPSR_QC;
    run(0x2e62_b420, &mut regs);
    assert_eq!(regs.fpsr, FPSR_QC);
}

#[test]
fn saturation_in_lanes_that_do_not_exist_is_not_noted() {
    // sqrdmulh v0.4h, v1.4h, v2.4h with the minima in the high halves
    let high = V([0, 0x8000_8000_8000_8000]);
    assert_eq!(result(0x2e62_b420, &[high, high]), (V::default(), false));
    // sqadd b0, b1, b2 with saturation in the second byte only
    let second = V([0x7f00, 0]);
    assert_eq!(
        result(0x5e22_0c20, &[second, second]),
        (V::default(), false)
    );
}

#[test]
fn saturating_shift_by_register_takes_negative_counts_as_right_shifts() {
    let value = bytes([
        0x80, 0x80, 0x80, 0x40, 0x40, 1, 1, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0,
    ]);
    let count = bytes([
        0xff, 0xf8, 0x80, 1, 0, 7, 0xff, 0x7f, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0,
    ]);
    // sqshl v0.16b, v1.16b, v2.16b
    let (v, saturated) = result(0x4e22_4c20, &[value, count]);
    let expected = [
        0xc0, 0xff, 0xff, 0x7f, 0x40, 0x7f, 0, 0, 0x80, 0xff, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(v, bytes(expected));
    assert!(saturated);
}

#[test]
fn uqrshl_by_negative_counts_rounds_up_to_one_and_then_to_zero() {
    let value = V::from_lanes::<u16>([0x8000, 0x8000, 0x7fff, 0xffff, 3, 1, 0xffff, 0]);
    let count = V::from_lanes::<u16>([0xf0, 0xef, 0xf0, 0xf0, 0xff, 0xff, 1, 0x7f]);
    // uqrshl v0.8h, v1.8h, v2.8h; only the low byte counts
    let (v, saturated) = result(0x6e62_5c20, &[value, count]);
    assert_eq!(v, V::from_lanes::<u16>([1, 0, 0, 1, 2, 1, 0xffff, 0]));
    assert!(saturated);
}

#[test]
fn sqrshrun_rounds_clamps_to_unsigned_and_places_the_half() {
    let source = V::from_lanes::<u16>([0xffff, 0x8000, 0x0ff7, 0x0ff8, 7, 8, 0xfff7, 0x7fff]);
    let low = [0, 0, 0xff, 0xff, 0, 1, 0, 0xff];
    // sqrshrun v0.8b, v1.8h, #4
    let (v, saturated) = result(0x2f0c_8c20, &[source]);
    assert_eq!(v, V([u64::from_le_bytes(low), 0]));
    assert!(saturated);
    // sqrshrun2 v0.16b, v1.8h, #4
    let (v, _) = result(0x6f0c_8c20, &[source]);
    assert_eq!(v, V([0x1111_1111_1111_1111, u64::from_le_bytes(low)]));
}

#[test]
fn shifts_by_register_beyond_the_width_give_zero_or_the_sign() {
    let value = V::from_lanes::<u32>([0x8000_0001; 4]);
    let count = V::from_lanes::<u32>([32, 0x80, 0xffff_ffe0, 0x1_00]);
    // sshl v0.4s, v1.4s, v2.4s: 32, -128, -32 and 0 in the low bytes
    let (v, _) = result(0x4ea2_4420, &[value, count]);
    assert_eq!(v, V::from_lanes::<u32>([0, !0, !0, 0x8000_0001]));
    // ushl v0.2d, v1.2d, v2.2d: 64 and -128
    let (v, _) = result(0x6ee2_4420, &[V([!0, !0]), V([64, 0x80])]);
    assert_eq!(v, V::default());
    // srshl v0.8h, v1.8h, v2.8h: -16 and -128 round to 0, -1 rounds up
    let value = V::from_lanes::<u16>([0x8000, 0x8000, 0xffff, 3, 0, 0, 0, 0]);
    let count = V::from_lanes::<u16>([0xf0, 0x80, 0xff, 0xff, 0, 0, 0, 0]);
    let (v, _) = result(0x4e62_5420, &[value, count]);
    assert_eq!(v, V::from_lanes::<u16>([0, 0, 0, 2, 0, 0, 0, 0]));
}

#[test]
fn suqadd_and_usqadd_mix_signedness() {
    let run_on = |word, old: [u8; 8], other: [u8; 8]| {
        let mut regs = registers(&[V([u64::from_le_bytes(other), 0])]);
        regs.v[0] = V([u64::from_le_bytes(old), !0]);
        run(word, &mut regs);
        assert_eq!(regs.v[0].0[1], 0, "64-bit vectors clear the high half");
        (regs.v[0].0[0].to_le_bytes(), regs.fpsr == FPSR_QC)
    };
    // suqadd v0.8b, v1.8b: signed plus unsigned
    let (sums, saturated) = run_on(
        0x0e20_3820,
        [0x80, 0x80, 0x7f, 0, 0xff, 0, 0, 0],
        [0xff, 0x80, 1, 0xff, 1, 0x7f, 0, 0],
    );
    assert_eq!(sums, [0x7f, 0, 0x7f, 0x7f, 0, 0x7f, 0, 0]);
    assert!(saturated);
    // usqadd v0.8b, v1.8b: unsigned plus signed
    let (sums, saturated) = run_on(
        0x2e20_3820,
        [0xff, 1, 0x80, 0x7f, 0, 0, 0, 0],
        [1, 0xfe, 0x80, 0x7f, 0x80, 0, 0, 0],
    );
    assert_eq!(sums, [0xff, 0, 0, 0xfe, 0, 0, 0, 0]);
    assert!(saturated);
    let (_, saturated) = run_on(0x2e20_3820, [2; 8], [0xfe; 8]);
    assert!(!saturated);
}

#[test]
fn sqneg_and_sqabs_of_the_minimum_saturate() {
    // sqneg v0.4s, v1.4s
    let (v, saturated) = result(0x6ea0_7820, &[V::from_lanes::<u32>([1 << 31, 1, 0, !0])]);
    assert_eq!(v, V::from_lanes::<u32>([i32::MAX as u32, !0, 0, 1]));
    assert!(saturated);
    // sqabs d0, d1
    assert_eq!(
        result(0x5ee0_7820, &[V([1 << 63, !0])]),
        (V([!0 >> 1, 0]), true)
    );
}

#[test]
fn tbl_gives_zero_and_tbx_keeps_the_byte_beyond_the_table() {
    let table: [u8; 16] = std::array::from_fn(|i| 0x40 + i as u8);
    let next = table.map(|byte| byte + 0x10);
    let index = bytes([0, 15, 16, 31, 32, 127, 128, 255, 1, 17, 33, 64, 0, 0, 0, 0]);
    let expected = |old: u8| {
        let o = old;
        let low = [
            0x40, 0x4f, 0x50, 0x5f, o, o, o, o, 0x41, 0x51, o, o, 0x40, 0x40, 0x40, 0x40,
        ];
        bytes(low)
    };
    // tbl v0.16b, {v1.16b, v2.16b}, v3.16b
    let (v, _) = result(0x4e03_2020, &[bytes(table), bytes(next), index]);
    assert_eq!(v, expected(0));
    // tbx v0.16b, {v31.16b, v0.16b}, v3.16b: the table wraps around to V0,
    // which is read before it is written
    let mut regs = registers(&[V::default(), V::default(), index]);
    regs.v[31] = bytes(table);
    regs.v[0] = bytes([0x77; 16]);
    run(0x4e03_33e0, &mut regs);
    let from_v0 = |byte: u8| {
        if (0x50..0x60).contains(&byte) {
            0x77
        } else {
            byte
        }
    };
    assert_eq!(regs.v[0], bytes(expected(0x77).lanes::<u8>().map(from_v0)));
}

#[test]
fn long_reductions_have_room_for_the_sum() {
    // uaddlv h0, v1.16b
    assert_eq!(result(0x6e30_3820, &[V([!0, !0])]).0, V([16 * 0xff, 0]));
    // uaddlv d0, v1.4s
    assert_eq!(
        result(0x6eb0_3820, &[V([!0, !0])]).0,
        V([4 * 0xffff_ffff, 0])
    );
    // umaxv b0, v1.8b sees the low half only
    assert_eq!(result(0x2e30_a820, &[V([0x0102, !0])]).0, V([2, 0]));
    // saddlp v0.4h, v1.8b
    assert_eq!(
        result(0x0e20_2820, &[V([0x7f7f_8080, !0])]).0,
        V([0x00fe_ff00, 0])
    );
}

#[test]
fn second_forms_read_the_high_half_or_keep_the_low_one() {
    // umull2 v0.8h, v1.16b, v2.16b
    let (v, _) = result(0x6e22_c020, &[V([!0, 2]), V([!0, 0x03ff])]);
    assert_eq!(v, V([2 * 0xff, 0]));
    // xtn2 v0.16b, v1.8h
    let (v, _) = result(0x4e21_2820, &[V([0x0102_0304_0506_0708, !0])]);
    assert_eq!(v, V([0x1111_1111_1111_1111, 0xffff_ffff_0204_0608]));
}

#[test]
fn scalar_results_clear_everything_above_them() {
    // sqadd b0, b1, b2
    assert_eq!(
        result(0x5e22_0c20, &[V([!0, !0]), V([!0, !0])]).0,
        V([0xfe, 0])
    );
    // add d0, d1, d2
    assert_eq!(result(0x5ee2_8420, &[V([1, !0]), V([2, !0])]).0, V([3, 0]));
    // movi d0, #0xff
    assert_eq!(result(0x2f00_e420, &[]).0, V([0xff, 0]));
}

#[test]
fn vectors_of_64_bits_clear_the_high_half() {
    // add v0.8b, v1.8b, v2.8b
    let (v, _) = result(0x0e22_8420, &[V([!0, !0]), V([!0, !0])]);
    assert_eq!(v, V([0xfefe_fefe_fefe_fefe, 0]));
    // ext v0.8b, v1.8b, v2.8b, #7
    let (v, _) = result(0x2e02_3820, &[V([0x11 << 56, !0]), V([0x22, !0])]);
    assert_eq!(v, V([0x2211, 0]));
}

#[test]
fn element_of_halfwords_comes_from_the_low_registers_with_three_index_bits() {
    // mul v0.8h, v1.8h, v15.h[7]
    let mut regs = registers(&[V::splat::<u16>(3)]);
    regs.v[15] = V([0, 5 << 48]);
    run(0x4f7f_8820, &mut regs);
    assert_eq!(regs.v[0], V::splat::<u16>(15));
    // mla v0.4s, v1.4s, v31.s[3]
    let mut regs = registers(&[V::splat::<u32>(3)]);
    regs.v[31] = V([0, 5 << 32]);
    run(0x6fbf_0820, &mut regs);
    let expected = [0x1111_1120, 0x1111_1120, 0x2222_2231, 0x2222_2231];
    assert_eq!(regs.v[0], V::from_lanes::<u32>(expected));
}

#[test]
fn pmull_multiplies_without_carries() {
    // pmull v0.8h, v1.8b, v2.8b
    let (v, _) = result(0x0e22_e020, &[V([0xff03, !0]), V([0xff03, !0])]);
    assert_eq!(v, V([0x5555_0005, 0]));
    // pmull2 v0.1q, v1.2d, v2.2d
    let (v, _) = result(0x4ee2_e020, &[V([0, !0]), V([0, !0])]);
    assert_eq!(v, V([0x5555_5555_5555_5555, 0x5555_5555_5555_5555]));
}

#[test]
fn general_register_31_is_zero_and_not_the_stack_pointer() {
    let mut regs = registers(&[]);
    regs.x[usize::from(SP)] = 0x1234;
    // dup v0.2d, xzr
    run(0x4e08_0fe0, &mut regs);
    assert_eq!(regs.v[0], V::default());
    // mov v0.d[1], xzr
    regs.v[0] = V([5, 6]);
    run(0x4e18_1fe0, &mut regs);
    assert_eq!(regs.v[0], V([5, 0]));
    // umov wzr, v1.b[0]
    regs.v[1] = V([0xff, 0]);
    run(0x0e01_3c3f, &mut regs);
    assert_eq!(regs.x[usize::from(SP)], 0x1234);
}

#[test]
fn smov_to_a_word_clears_the_high_half() {
    let mut regs = registers(&[V([0x8001 << 32, 0])]);
    regs.x[3] = !0;
    // smov w3, v1.h[2]
    run(0x0e0a_2c23, &mut regs);
    assert_eq!(regs.x[3], 0xffff_8001);
    // smov x3, v1.h[2]
    run(0x4e0a_2c23, &mut regs);
    assert_eq!(regs.x[3], 0xffff_ffff_ffff_8001);
}

#[test]
fn lane_load_leaves_the_other_lanes_and_steps_by_a_register() {
    // ld1 {v0.h}[5], [x1], x2
    let access = structure(0x4dc2_4820).expect("allocated");
    let mut regs = registers(&[]);
    load_from(&mut regs, &access, &[0xcd, 0xab]);
    assert_eq!(regs.v[0], V([0x1111_1111_1111_1111, 0x2222_2222_abcd_2222]));
    assert_eq!((access.total_bytes(), access.base), (2, Reg::or_sp(1)));
    let step = Writeback::Register(Reg::or_zr(2));
    assert_eq!(access.writeback, step);
}

#[test]
fn structure_registers_wrap_around_after_v31() {
    // ld3 {v30.8b, v31.8b, v0.8b}, [x1]
    let access = structure(0x0c40_403e).expect("allocated");
    let mut regs = registers(&[]);
    let memory: [u8; 24] = std::array::from_fn(|i| i as u8);
    load_from(&mut regs, &access, &memory);
    assert_eq!(regs.v[30], V([0x1512_0f0c_0906_0300, 0]));
    assert_eq!(regs.v[31], V([0x1613_100d_0a07_0401, 0]));
    assert_eq!(regs.v[0], V([0x1714_110e_0b08_0502, 0]));
}

#[test]
fn immediate_shifts_reach_both_ends_of_their_range() {
    let ones = V([!0, !0]);
    // sri v0.4s, v1.4s, #32 inserts nothing
    let old = registers(&[]).v[0];
    assert_eq!(result(0x6f20_4420, &[ones]).0, old);
    // sli v0.4s, v1.4s, #0 replaces everything
    assert_eq!(result(0x6f20_5420, &[ones]).0, ones);
    // ushr v0.2d, v1.2d, #64
    assert_eq!(result(0x6f40_0420, &[ones]).0, V::default());
    // shll v0.4s, v1.4h, #16
    assert_eq!(
        result(0x2e61_3820, &[halves([1, 0, 0, 0])]).0,
        V([1 << 16, 0])
    );
}

#[test]
fn saturating_immediate_shifts_clamp_by_their_own_signedness() {
    let source = bytes([1, 2, 0x80, 0xff, 0x7f, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // uqshl v0.16b, v1.16b, #7
    let (v, saturated) = result(0x6f0f_7420, &[source]);
    assert_eq!(
        v.0[0].to_le_bytes(),
        [0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]
    );
    assert!(saturated);
    // sqshlu v0.16b, v1.16b, #1: signed in, unsigned out
    let (v, saturated) = result(0x6f09_6420, &[source]);
    assert_eq!(v.0[0].to_le_bytes(), [2, 4, 0, 0, 0xfe, 0x80, 0, 0]);
    assert!(saturated);
}

#[test]
fn modified_immediates_expand_as_written() {
    let value = |word| result(word, &[]).0;
    // movi v0.2d, #0xff00ff00ff00ff00
    assert_eq!(value(0x6f05_e540), V([0xff00_ff00_ff00_ff00; 2]));
    // fmov v0.2d, #-0.5
    assert_eq!(value(0x6f07_f400), V([(-0.5f64).to_bits(); 2]));
    // mvni v0.4s, #1, msl #16
    assert_eq!(value(0x6f00_d420), V::splat::<u32>(!0x0001_ffff));
    // bic v0.8h, #0xff, lsl #8
    assert_eq!(
        value(0x6f07_b7e0),
        V([0x0011_0011_0011_0011, 0x0022_0022_0022_0022])
    );
}

#[test]
fn dot_product_by_element_takes_groups_of_four_bytes() {
    // udot v0.4s, v1.16b, v2.4b[3]
    let mut regs = registers(&[V([!0, !0]), V([0, !0 << 32])]);
    regs.v[0] = V::default();
    run(0x6fa2_e820, &mut regs);
    assert_eq!(regs.v[0], V::splat::<u32>(4 * 0xff * 0xff));
}

#[test]
fn cls_does_not_count_the_sign_itself() {
    // cls v0.4s, v1.4s
    let (v, _) = result(0x4ea0_4820, &[V::from_lanes::<u32>([0, !0, 1 << 31, 1])]);
    assert_eq!(v, V::from_lanes::<u32>([31, 31, 0, 30]));
}

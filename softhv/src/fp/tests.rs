//! The corners of floating point, one named test each.

use super::format::*;
use super::{arith, compare, convert, recip};
use convert::Integer;

const QNAN1: u64 = 0x7ff8_0000_0000_0011;
const QNAN2: u64 = 0xfff8_0000_0000_0022;
const SNAN1: u64 = 0x7ff0_0000_0000_0033;
const SNAN2: u64 = 0xfff0_0000_0000_0044;
const QUIET: u64 = Double::QUIET;
const INF: u64 = Double::INF;
const MINUS: u64 = Double::SIGN;
const MIN_NORMAL: u64 = 1 << 52;

const I32: Integer = Integer {
    bits: 32,
    unsigned: false,
};
const U32: Integer = Integer {
    bits: 32,
    unsigned: true,
};
const U64: Integer = Integer {
    bits: 64,
    unsigned: true,
};

/// Runs `f` under `fpcr`: its result and the flags it raised.
fn under<T>(fpcr: u64, f: impl FnOnce(&mut Fpu) -> T) -> (T, u64) {
    let mut fpu = Fpu { fpcr, fpsr: 0 };
    let result = f(&mut fpu);
    (result, fpu.fpsr)
}

fn d(value: f64) -> u64 {
    value.to_bits()
}

fn s(value: f32) -> u64 {
    value.to_bits().into()
}

#[test]
fn first_signalling_nan_wins_then_first_quiet_one() {
    let add = |a, b| under(0, |fpu| arith::add::<Double>(fpu, a, b));
    assert_eq!(add(SNAN1, SNAN2), (SNAN1 | QUIET, IOC));
    assert_eq!(add(QNAN1, SNAN2), (SNAN2 | QUIET, IOC));
    assert_eq!(add(SNAN1, QNAN2), (SNAN1 | QUIET, IOC));
    assert_eq!(add(QNAN1, QNAN2), (QNAN1, 0));
    assert_eq!(add(d(1.0), QNAN2), (QNAN2, 0));
}

#[test]
fn subtraction_keeps_the_sign_of_a_nan_subtrahend() {
    let result = under(0, |fpu| arith::sub::<Double>(fpu, d(1.0), QNAN2));
    assert_eq!(result, (QNAN2, 0));
}

#[test]
fn nan_accumulator_of_a_fused_operation_comes_first() {
    let fma = |c, a, b| under(0, |fpu| arith::mul_add::<Double>(fpu, c, a, b));
    assert_eq!(fma(QNAN2, QNAN1, d(1.0)), (QNAN2, 0));
    assert_eq!(fma(SNAN2, SNAN1, d(1.0)), (SNAN2 | QUIET, IOC));
    assert_eq!(fma(QNAN2, d(1.0), SNAN1), (SNAN1 | QUIET, IOC));
    assert_eq!(fma(d(1.0), QNAN1, QNAN2), (QNAN1, 0));
}

#[test]
fn default_nan_mode_replaces_every_nan_by_the_positive_one() {
    let result = under(DN, |fpu| arith::mul::<Double>(fpu, QNAN2, d(1.0)));
    assert_eq!(result, (Double::DEFAULT_NAN, 0));
    let result = under(DN, |fpu| arith::mul::<Double>(fpu, d(1.0), SNAN2));
    assert_eq!(result, (Double::DEFAULT_NAN, IOC));
}

#[test]
fn invalid_operations_give_the_positive_default_nan() {
    let nan = (0x7ff8_0000_0000_0000, IOC);
    assert_eq!(under(0, |fpu| arith::sub::<Double>(fpu, INF, INF)), nan);
    assert_eq!(under(0, |fpu| arith::mul::<Double>(fpu, INF, MINUS)), nan);
    assert_eq!(under(0, |fpu| arith::div::<Double>(fpu, 0, MINUS)), nan);
    assert_eq!(under(0, |fpu| arith::sqrt::<Double>(fpu, d(-1.0))), nan);
}

#[test]
fn infinity_times_zero_plus_quiet_nan_is_the_default_nan_with_ioc() {
    let result = under(0, |fpu| arith::mul_add::<Double>(fpu, QNAN2, INF, 0));
    assert_eq!(result, (Double::DEFAULT_NAN, IOC));
    let result = under(0, |fpu| arith::mul_add::<Double>(fpu, SNAN2, INF, 0));
    assert_eq!(result, (SNAN2 | QUIET, IOC));
}

#[test]
fn fused_multiply_add_rounds_once() {
    // (1 + ε)² - (1 + 2ε) is ε², which a rounded product would lose.
    let a = d(1.0 + f64::EPSILON);
    let c = d(-(1.0 + 2.0 * f64::EPSILON));
    let result = under(0, |fpu| arith::mul_add::<Double>(fpu, c, a, a));
    assert_eq!(result, (d(f64::EPSILON * f64::EPSILON), 0));
}

#[test]
fn conversions_to_integers_saturate_with_ioc_and_without_ixc() {
    let to = |a, to| {
        under(0, |fpu| {
            convert::to_integer::<Double>(fpu, a, to, 0, Rounding::Zero)
        })
    };
    assert_eq!(to(d(3e9), I32), (0x7fff_ffff, IOC));
    assert_eq!(to(d(-3e9), I32), (0x8000_0000, IOC));
    assert_eq!(to(d(-1.0), U32), (0, IOC));
    assert_eq!(to(d(4294967295.5), U32), (0xffff_ffff, IXC));
    assert_eq!(to(d(4294967296.0), U32), (0xffff_ffff, IOC));
    assert_eq!(to(INF, U64), (u64::MAX, IOC));
    assert_eq!(to(INF | MINUS, U64), (0, IOC));
    assert_eq!(to(QNAN2, I32), (0, IOC));
    assert_eq!(to(d(-0.75), U32), (0, IXC));
    assert_eq!(to(d(-2147483648.5), I32), (0x8000_0000, IXC));
}

#[test]
fn conversions_to_fixed_point_scale_before_rounding() {
    let to = |a, bits| {
        under(0, |fpu| {
            convert::to_integer::<Double>(fpu, a, I32, bits, Rounding::Zero)
        })
    };
    assert_eq!(to(d(1.5), 1), (3, 0));
    assert_eq!(to(d(-1.75), 1), (0xffff_fffd, IXC));
    assert_eq!(to(d(0.5), 32), (0x7fff_ffff, IOC));
}

#[test]
fn the_five_roundings_differ_where_they_must() {
    let to = |a, rounding| {
        under(0, |fpu| {
            convert::to_integer::<Double>(fpu, a, I32, 0, rounding)
        })
    };
    let to = |a, rounding| to(a, rounding).0 as i32;
    let all = |a| {
        use Rounding::*;
        [Nearest, Up, Down, Zero, Away].map(|rounding| to(d(a), rounding))
    };
    assert_eq!(all(2.5), [2, 3, 2, 2, 3]);
    assert_eq!(all(-2.5), [-2, -2, -3, -2, -3]);
    assert_eq!(all(3.5), [4, 4, 3, 3, 4]);
    assert_eq!(all(0.4999), [0, 1, 0, 0, 0]);
}

#[test]
fn unsigned_64_bit_integers_round_as_fpcr_says() {
    let from = |fpcr, int| {
        under(fpcr, |fpu| {
            convert::from_integer::<Double>(fpu, int, U64, 0)
        })
    };
    assert_eq!(from(0, u64::MAX), (d(18446744073709551616.0), IXC));
    assert_eq!(from(3 << 22, u64::MAX), (d(18446744073709549568.0), IXC));
    assert_eq!(from(0, (1 << 53) + 1), (d(9007199254740992.0), IXC));
    assert_eq!(from(1 << 22, (1 << 53) + 1), (d(9007199254740994.0), IXC));
    assert_eq!(from(2 << 22, 0), (0, 0));
}

#[test]
fn only_frintx_reports_inexact() {
    let round = |exact| {
        under(0, |fpu| {
            convert::round_integral::<Double>(fpu, d(1.5), Rounding::Nearest, exact)
        })
    };
    assert_eq!(round(true), (d(2.0), IXC));
    assert_eq!(round(false), (d(2.0), 0));
}

#[test]
fn frinta_rounds_ties_away_and_keeps_the_sign_of_zero() {
    let round = |a: f64, rounding| {
        under(0, |fpu| {
            convert::round_integral::<Double>(fpu, d(a), rounding, false)
        })
    };
    assert_eq!(round(2.5, Rounding::Away), (d(3.0), 0));
    assert_eq!(round(-0.5, Rounding::Away), (d(-1.0), 0));
    assert_eq!(round(-0.5, Rounding::Nearest), (d(-0.0), 0));
    assert_eq!(round(-0.9, Rounding::Up), (d(-0.0), 0));
    assert_eq!(round(-0.0, Rounding::Down), (d(-0.0), 0));
}

#[test]
fn maximum_and_minimum_order_the_zeros() {
    for (a, b) in [(0, MINUS), (MINUS, 0)] {
        assert_eq!(under(0, |fpu| compare::max::<Double>(fpu, a, b)), (0, 0));
        assert_eq!(
            under(0, |fpu| compare::min::<Double>(fpu, a, b)),
            (MINUS, 0)
        );
        assert_eq!(
            under(0, |fpu| compare::max_num::<Double>(fpu, a, b)),
            (0, 0)
        );
    }
}

#[test]
fn only_the_num_forms_ignore_one_quiet_nan() {
    let one = d(1.0);
    assert_eq!(
        under(0, |fpu| compare::max::<Double>(fpu, one, QNAN1)),
        (QNAN1, 0)
    );
    assert_eq!(
        under(0, |fpu| compare::max_num::<Double>(fpu, one, QNAN1)),
        (one, 0)
    );
    assert_eq!(
        under(0, |fpu| compare::min_num::<Double>(fpu, QNAN1, one)),
        (one, 0)
    );
    let both = under(0, |fpu| compare::max_num::<Double>(fpu, QNAN2, QNAN1));
    assert_eq!(both, (QNAN2, 0));
    let signalling = under(0, |fpu| compare::max_num::<Double>(fpu, one, SNAN1));
    assert_eq!(signalling, (SNAN1 | QUIET, IOC));
}

#[test]
fn only_the_signalling_comparison_objects_to_quiet_nans() {
    let cmp = |a, b, signal| under(0, |fpu| compare::compare::<Double>(fpu, a, b, signal));
    assert_eq!(cmp(QNAN1, 0, false), (None, 0));
    assert_eq!(cmp(QNAN1, 0, true), (None, IOC));
    assert_eq!(cmp(SNAN1, 0, false), (None, IOC));
    assert_eq!(cmp(0, MINUS, true), (Some(std::cmp::Ordering::Equal), 0));
}

#[test]
fn flush_to_zero_drops_denormal_operands_with_idc() {
    let denormal = MINUS | 1;
    let result = under(FZ, |fpu| arith::add::<Double>(fpu, denormal, denormal));
    assert_eq!(result, (MINUS, IDC));
    let result = under(FZ, |fpu| {
        compare::compare::<Double>(fpu, denormal, 0, false)
    });
    assert_eq!(result, (Some(std::cmp::Ordering::Equal), IDC));
}

#[test]
fn flush_to_zero_drops_tiny_results_with_ufc_alone() {
    let result = under(FZ, |fpu| arith::mul::<Double>(fpu, MIN_NORMAL, d(-0.5)));
    assert_eq!(result, (MINUS, UFC));
}

#[test]
fn tininess_is_judged_before_rounding() {
    // Just below the smallest normal number; rounding lifts it there.
    let below = d(1.0 - f64::EPSILON / 2.0);
    let result = under(0, |fpu| arith::mul::<Double>(fpu, MIN_NORMAL, below));
    assert_eq!(result, (MIN_NORMAL, UFC | IXC));
    let result = under(FZ, |fpu| arith::mul::<Double>(fpu, MIN_NORMAL, below));
    assert_eq!(result, (0, UFC));
    let exact = under(0, |fpu| arith::mul::<Double>(fpu, MIN_NORMAL, d(0.5)));
    assert_eq!(exact, (MIN_NORMAL / 2, 0));
}

#[test]
fn overflow_goes_where_the_rounding_mode_points() {
    let max = d(f64::MAX);
    let mul = |mode: u64, b| under(mode << 22, |fpu| arith::mul::<Double>(fpu, max, b));
    let flags = OFC | IXC;
    assert_eq!(mul(0, d(2.0)), (INF, flags));
    assert_eq!(mul(1, d(-2.0)), (max | MINUS, flags));
    assert_eq!(mul(2, d(2.0)), (max, flags));
    assert_eq!(mul(2, d(-2.0)), (INF | MINUS, flags));
    assert_eq!(mul(3, d(2.0)), (max, flags));
}

#[test]
fn directed_rounding_reaches_division_and_square_root() {
    let mode = |mode: u64| {
        (
            under(mode << 22, |fpu| arith::div::<Single>(fpu, s(1.0), s(3.0))),
            under(mode << 22, |fpu| arith::sqrt::<Single>(fpu, s(2.0))),
        )
    };
    assert_eq!(mode(0), ((0x3eaa_aaab, IXC), (0x3fb5_04f3, IXC)));
    assert_eq!(mode(1), ((0x3eaa_aaab, IXC), (0x3fb5_04f4, IXC)));
    assert_eq!(mode(2), ((0x3eaa_aaaa, IXC), (0x3fb5_04f3, IXC)));
    assert_eq!(mode(3), ((0x3eaa_aaaa, IXC), (0x3fb5_04f3, IXC)));
}

#[test]
fn exact_zero_sums_are_negative_only_when_rounding_down() {
    let sum = |mode: u64| under(mode << 22, |fpu| arith::add::<Double>(fpu, d(1.0), d(-1.0)));
    assert_eq!([sum(0), sum(1), sum(3)], [(0, 0); 3]);
    assert_eq!(sum(2), (MINUS, 0));
}

#[test]
fn double_to_half_rounds_once() {
    // Through single precision this would first round up to a tie.
    let value = d(1.0 + 2f64.powi(-11) - 2f64.powi(-40));
    let result = under(0, |fpu| {
        convert::convert::<Double, Half>(fpu, value, Rounding::Nearest)
    });
    assert_eq!(result, (0x3c00, IXC));
    let back = under(0, |fpu| {
        convert::convert::<Half, Double>(fpu, 0x0001, Rounding::Nearest)
    });
    assert_eq!(back, (d(2f64.powi(-24)), 0));
}

#[test]
fn half_denormals_are_never_flushed() {
    let widened = under(FZ, |fpu| {
        convert::convert::<Half, Single>(fpu, 0x0001, Rounding::Nearest)
    });
    assert_eq!(widened, (s(2f32.powi(-24)), 0));
    let narrowed = under(FZ, |fpu| {
        convert::convert::<Single, Half>(fpu, s(2f32.powi(-24)), Rounding::Nearest)
    });
    assert_eq!(narrowed, (0x0001, 0));
}

#[test]
fn alternative_half_has_neither_infinities_nor_nans() {
    let to = |a| {
        under(AHP, |fpu| {
            convert::convert::<Single, Half>(fpu, a, Rounding::Nearest)
        })
    };
    assert_eq!(to(s(131008.0)), (0x7fff, 0));
    assert_eq!(to(s(-1e9)), (0xffff, IOC));
    assert_eq!(to(s(f32::INFINITY)), (0x7fff, IOC));
    assert_eq!(to(0xffc0_0001), (0x8000, IOC));
    let from = under(AHP, |fpu| {
        convert::convert::<Half, Single>(fpu, 0x7c00, Rounding::Nearest)
    });
    assert_eq!(from, (s(65536.0), 0));
}

#[test]
fn conversion_keeps_the_top_of_a_nan_payload() {
    let result = under(0, |fpu| {
        convert::convert::<Double, Single>(fpu, 0xfff4_0000_2000_0001, Rounding::Nearest)
    });
    assert_eq!(result, (0xffe0_0001, IOC));
    let result = under(0, |fpu| {
        convert::convert::<Half, Double>(fpu, 0x7e01, Rounding::Nearest)
    });
    assert_eq!(result, (0x7ff8_0400_0000_0000, 0));
}

#[test]
fn rounding_to_odd_marks_lost_bits_and_never_overflows() {
    let odd = |a| {
        under(0, |fpu| {
            convert::convert::<Double, Single>(fpu, a, Rounding::Odd)
        })
    };
    assert_eq!(odd(d(1.0 + 2f64.powi(-40))), (0x3f80_0001, IXC));
    assert_eq!(odd(d(1e300)), (0x7f7f_ffff, OFC | IXC));
}

#[test]
fn reciprocal_estimates_follow_the_table() {
    let estimate = |a| under(0, |fpu| recip::estimate::<Single>(fpu, a));
    assert_eq!(estimate(s(1.0)), (0x3f7f_8000, 0));
    assert_eq!(estimate(s(-2.0)), (0xbeff_8000, 0));
    assert_eq!(estimate(s(3.0)), (0x3eaa_8000, 0));
    assert_eq!(estimate(MINUS >> 32), (0xff80_0000, DZC));
    assert_eq!(estimate(0xff80_0000), (0x8000_0000, 0));
    assert_eq!(estimate(1), (0x7f80_0000, OFC | IXC));
    assert_eq!(recip::unsigned_estimate(0x8000_0000), 0xff80_0000);
    assert_eq!(recip::unsigned_estimate(0x7fff_ffff), u32::MAX);
}

#[test]
fn root_estimates_follow_the_table() {
    let estimate = |a| under(0, |fpu| recip::root_estimate::<Single>(fpu, a));
    assert_eq!(estimate(s(1.0)), (0x3f7f_8000, 0));
    assert_eq!(estimate(s(4.0)), (0x3eff_8000, 0));
    assert_eq!(estimate(s(-1.0)), (0x7fc0_0000, IOC));
    assert_eq!(estimate(0x8000_0000), (0xff80_0000, DZC));
    assert_eq!(estimate(0x7f80_0000), (0, 0));
    assert_eq!(recip::unsigned_root_estimate(0x3fff_ffff), u32::MAX);
    assert_eq!(recip::unsigned_root_estimate(0x4000_0000), 0xff80_0000);
}

#[test]
fn newton_steps_take_infinity_times_zero_for_nothing() {
    let step = |a, b| under(0, |fpu| recip::step::<Double>(fpu, a, b));
    assert_eq!(step(INF, 0), (d(2.0), 0));
    assert_eq!(step(d(0.5), d(1.0)), (d(1.5), 0));
    assert_eq!(step(QNAN1, d(1.0)), (QNAN1 | MINUS, 0));
    let root = |a, b| under(0, |fpu| recip::root_step::<Double>(fpu, a, b));
    assert_eq!(root(0, INF | MINUS), (d(1.5), 0));
    assert_eq!(root(d(1.0), d(1.0)), (d(1.0), 0));
    let two = under(0, |fpu| arith::mulx::<Double>(fpu, INF | MINUS, 0));
    assert_eq!(two, (d(-2.0), 0));
}

#[test]
fn javascript_conversion_wraps_and_reports_equality() {
    let js = |a: f64| under(0, |fpu| convert::javascript_int32(fpu, d(a)));
    assert_eq!(js(5.0), ((5, true), 0));
    assert_eq!(js(-0.0), ((0, false), 0));
    assert_eq!(js(1.5), ((1, false), IXC));
    assert_eq!(js(4294967297.0), ((1, false), IOC));
    assert_eq!(js(-4294967297.5), ((u32::MAX, false), IOC));
    assert_eq!(js(-2147483648.0), ((1 << 31, true), 0));
    assert_eq!(js(f64::NAN), ((0, false), IOC));
}

//! The larger and the smaller of two numbers, compiled and interpreted: zeros have signs,
//! and what is no number is passed on or over, and recorded.

use hvf::sys::{ExitReason, MemoryFlags, Reg, SimdReg, SysReg};
use hvf::{Vcpu, Vm};
use std::ptr::NonNull;
use supermachine_softhv::jit::IS_BUILT;
use supermachine_softhv::{Tier, api_with};

const RAM: u64 = 0x4000_0000;
const HVC: u32 = 0xd400_0002;

/// FMAX, FMIN, FMAXNM and FMINNM of V1 and V2, by form: scalars of both sizes, vectors
/// of two doubles, four singles and two singles.
const FORMS: [[u32; 4]; 5] = [
    [0x1e60_4800, 0x1e60_5800, 0x1e60_6800, 0x1e60_7800],
    [0x1e20_4800, 0x1e20_5800, 0x1e20_6800, 0x1e20_7800],
    [0x4e60_f400, 0x4ee0_f400, 0x4e60_c400, 0x4ee0_c400],
    [0x4e20_f400, 0x4ea0_f400, 0x4e20_c400, 0x4ea0_c400],
    [0x0e20_f400, 0x0ea0_f400, 0x0e20_c400, 0x0ea0_c400],
];
/// The first register that has a result.
const FIRST: u32 = 3;

const DOUBLES: [u64; 11] = [
    0,
    1 << 63,
    0x3ff8_0000_0000_0000,
    0xbff8_0000_0000_0000,
    0x4000_0000_0000_0000,
    1,
    0x8000_0000_0000_0001,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    // No numbers: a quiet one and one that signals.
    0x7ff8_0000_0000_0123,
    0xfff0_0000_0000_0456,
];

/// The same of single precision.
const SINGLES: [u32; 11] = [
    0,
    1 << 31,
    0x3fc0_0000,
    0xbfc0_0000,
    0x4000_0000,
    1,
    0x8000_0001,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0123,
    0xff80_0456,
];

#[repr(align(16384))]
struct Page([u32; 4096]);

fn results(vcpu: &mut Vcpu, [n, m]: [[u8; 16]; 2]) -> (Vec<[u8; 16]>, u64) {
    vcpu.set_reg(Reg::PC, RAM).expect("PC");
    vcpu.set_reg(Reg::CPSR, 0x3c5).expect("CPSR");
    vcpu.set_reg(Reg::FPCR, 0).expect("FPCR");
    vcpu.set_reg(Reg::FPSR, 0).expect("FPSR");
    vcpu.set_simd(SimdReg(1), n).expect("V1");
    vcpu.set_simd(SimdReg(2), m).expect("V2");
    let exit = vcpu.run().expect("a run");
    assert_eq!(exit.reason, ExitReason::EXCEPTION);
    let of = |n: u32| vcpu.simd(SimdReg(n)).expect("a result");
    let all = (FIRST..FIRST + 20).map(of).collect();
    (all, vcpu.reg(Reg::FPSR).expect("FPSR"))
}

/// What all pairs of values give.
fn all_results(tier: Tier) -> Vec<(Vec<[u8; 16]>, u64)> {
    let words = FORMS.iter().flatten().zip(FIRST..);
    let mut page = Box::new(Page([HVC; 4096]));
    for (place, (word, rd)) in page.0.iter_mut().zip(words) {
        *place = word | 2 << 16 | 1 << 5 | rd;
    }
    let vm = Vm::new(api_with(tier), None).expect("a VM");
    let host = NonNull::from(&mut *page).cast();
    // SAFETY: the page outlives the machine and is not used while it runs.
    unsafe { vm.map(host, RAM, 16384, MemoryFlags::RWX) }.expect("mapped");
    let mut vcpu = vm.create_vcpu().expect("a vCPU");
    vcpu.set_sys_reg(SysReg::CPACR_EL1, 3 << 20).expect("CPACR");
    let mut all = Vec::new();
    for (one, single) in DOUBLES.iter().zip(SINGLES) {
        for (other, second) in DOUBLES.iter().zip(SINGLES) {
            let doubles = |a: u64, b: u64| (u128::from(a) | u128::from(b) << 64).to_le_bytes();
            let four = |a: u32, b: u32| {
                let half = u64::from(a) | u64::from(b) << 32;
                doubles(half, half.rotate_left(32))
            };
            // Its other lane is a number, or is not, whatever this one is.
            all.push(results(
                &mut vcpu,
                [doubles(*one, *other), doubles(*other, 1)],
            ));
            all.push(results(&mut vcpu, [four(single, second), four(second, 1)]));
        }
    }
    all
}

#[test]
fn compiled_maxima_and_minima_are_those_of_the_interpreter() {
    if !IS_BUILT {
        return;
    }
    let expected = all_results(Tier::Interpret);
    assert_eq!(expected.len(), 2 * DOUBLES.len() * DOUBLES.len());
    assert!(expected.iter().any(|(_, fpsr)| *fpsr != 0));
    let compiled = all_results(Tier::Compile);
    for (at, (compiled, expected)) in compiled.iter().zip(&expected).enumerate() {
        assert_eq!(compiled, expected, "pair {at}");
    }
}

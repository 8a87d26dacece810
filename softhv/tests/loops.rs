//! Loops that are compiled as such: guest registers stay in the host's from round to
//! round, and flags that nobody looks at are not kept.

use hvf::sys::{ExitReason, MemoryFlags, Reg, SimdReg, SysReg};
use hvf::{ExceptionClass, Vcpu, Vm};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use supermachine_softhv::jit::IS_BUILT;
use supermachine_softhv::{Tier, api_with};

const RAM: u64 = 0x4000_0000;
/// Where programs may store.
const DATA: u64 = RAM + 0x2000;
const ZERO: u64 = 1 << 30;
const HVC: u32 = 0xd400_0002;

#[repr(align(16384))]
struct Page([u32; 4096]);

/// Runs `with` on a vCPU at the start of `words`, each of whose registers has some
/// value of its own.
fn machine<R>(tier: Tier, words: &[u32], with: impl FnOnce(&mut Vcpu) -> R) -> R {
    // One VM per process.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut page = Box::new(Page([0; 4096]));
    page.0[..words.len()].copy_from_slice(words);
    page.0[words.len()] = HVC;
    let vm = Vm::new(api_with(tier), None).expect("a VM");
    let host = NonNull::from(&mut *page).cast();
    // SAFETY: the page outlives the machine and is not used while it runs.
    unsafe { vm.map(host, RAM, 16384, MemoryFlags::RWX) }.expect("mapped");
    let mut vcpu = vm.create_vcpu().expect("a vCPU");
    vcpu.set_reg(Reg::PC, RAM).expect("PC");
    vcpu.set_reg(Reg::CPSR, 0x3c5 | ZERO).expect("CPSR");
    vcpu.set_sys_reg(SysReg::CPACR_EL1, 3 << 20).expect("CPACR");
    for n in 0..31u8 {
        let value = 0x0101_0101_0101_0101u64.wrapping_mul(u64::from(n) + 3);
        vcpu.set_general(n, value).expect("a register");
        let number = (f64::from(n) + 1.0 / 3.0).to_bits();
        let vector = u128::from(number) | u128::from(value) << 64;
        let vector = vector.to_le_bytes();
        vcpu.set_simd(SimdReg(n.into()), vector)
            .expect("a register");
    }
    with(&mut vcpu)
}

/// All that a program leaves behind.
fn result(tier: Tier, words: &[u32], rounds: u64) -> (Vec<u64>, Vec<[u8; 16]>, u64) {
    machine(tier, words, |vcpu| {
        vcpu.set_general(1, rounds).expect("X1");
        vcpu.set_general(22, DATA).expect("X22");
        let exit = vcpu.run().expect("a run");
        let class = ExceptionClass::of(exit.exception.syndrome);
        assert_eq!(class, ExceptionClass::HVC);
        (
            (0..31).map(|n| vcpu.general(n).expect("X")).collect(),
            (0..31).map(|n| vcpu.simd(SimdReg(n)).expect("V")).collect(),
            vcpu.reg(Reg::CPSR).expect("CPSR"),
        )
    })
}

/// The body as a loop that X1 counts.
fn counted(mut body: Vec<u32>) -> Vec<u32> {
    let back = 0u32.wrapping_sub(u32::try_from(body.len()).unwrap() + 1) & 0x7_ffff;
    // subs x1, x1, #1; b.ne
    body.extend([0xf100_0421, 0x5400_0001 | back << 5]);
    body
}

fn same_in_all_tiers(words: &[u32]) {
    let expected = result(Tier::Interpret, words, 1000);
    for tier in [Tier::Auto, Tier::Restless, Tier::Compile] {
        if IS_BUILT || tier != Tier::Compile {
            assert_eq!(result(tier, words, 1000), expected, "{tier:?}");
        }
    }
    if IS_BUILT {
        // Beyond the entries after which it is hot.
        let expected = result(Tier::Interpret, words, 5000);
        assert_eq!(result(Tier::Auto, words, 5000), expected);
    }
}

fn register(word: u32, d: u32, n: u32, m: u32) -> u32 {
    word | m << 16 | n << 5 | d
}

const ADD: u32 = 0x8b00_0000;
const ADD_2D: u32 = 0x4ee0_8400;
const FADD: u32 = 0x1e60_2800;
const FMUL: u32 = 0x1e60_0800;
const FDIV: u32 = 0x1e60_1800;

#[test]
fn a_loop_with_more_registers_than_the_host_has_is_right() {
    let general = (2..21).map(|n| register(ADD, n, n, n + 1));
    let vectors = (0..20).map(|n| register(ADD_2D, n, n, n + 1));
    same_in_all_tiers(&counted(general.chain(vectors).collect()));
}

#[test]
fn vectors_that_are_changed_in_part_keep_the_rest() {
    same_in_all_tiers(&counted(vec![
        register(ADD_2D, 0, 0, 1),
        0x4e18_1c20, // mov v0.d[1], x1
        0x4e0c_1c20, // mov v0.s[1], w1
        register(FADD, 2, 2, 3),
        0x6e18_0402, // mov v2.d[1], v0.d[0]
        0x9eaf_0022, // fmov v2.d[1], x1
        register(ADD_2D, 4, 0, 2),
        0x6f00_1545, // bic v5.4s, #10
        0x2f00_1546, // bic v6.2s, #10
    ]));
}

#[test]
fn numbers_that_need_the_interpreter_come_back_into_the_loop() {
    // D4 grows to infinity and D6 becomes no number, both on the way.
    same_in_all_tiers(&counted(vec![
        register(FMUL, 4, 4, 5),
        register(FDIV, 6, 4, 4),
        register(FADD, 7, 7, 6),
        register(ADD, 3, 3, 1),
        register(FMUL, 8, 9, 10),
        0x1f4a_2548, // fmadd d8, d10, d10, d9
        0x1e61_c10b, // fsqrt d11, d8
        0x1e62_416c, // fcvt s12, d11
        0x1e22_c18d, // fcvt d13, s12
    ]));
}

#[test]
fn what_a_loop_stores_is_loaded_in_the_next_round() {
    same_in_all_tiers(&counted(vec![
        0xf940_02c2, // ldr x2, [x22]
        register(ADD, 2, 2, 1),
        0xf900_02c2, // str x2, [x22]
        0x3d80_06c3, // str q3, [x22, #16]
        0xfd40_0ac4, // ldr d4, [x22, #16]
        register(FADD, 3, 3, 4),
        0xa940_92c5, // ldp x5, x4, [x22, #8]
        0xeb01_00bf, // cmp x5, x1
        0x9a84_3086, // csel x6, x4, x4, lo
    ]));
}

#[test]
fn a_loop_with_inner_branches_is_right() {
    same_in_all_tiers(&counted(vec![
        0x3600_0061, // tbz w1, #0, +12
        register(ADD, 2, 2, 3),
        register(FADD, 2, 2, 3),
        register(ADD, 4, 4, 2),
        0xf27d_003f, // tst x1, #8
        0x5400_0040, // b.eq +8
        register(FADD, 5, 5, 2),
        register(ADD, 6, 6, 4),
    ]));
}

/// Says at the end of its life that something is done, whatever ended it.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The flags are those of the last round although the loop sets them before anybody
/// looks.
#[test]
fn an_endless_loop_is_left_with_all_that_its_last_round_set() {
    let words = counted(vec![0x9100_0400]); // add x0, x0, #1
    for tier in [Tier::Interpret, Tier::Auto, Tier::Compile] {
        if !IS_BUILT && tier == Tier::Compile {
            continue;
        }
        machine(tier, &words, |vcpu| {
            // X1 goes down from 0 as X0 goes up.
            vcpu.set_general(0, 0).expect("X0");
            vcpu.set_general(1, 0).expect("X1");
            let (kicker, done) = (vcpu.kicker(), AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(2));
                        kicker.kick().expect("a kick");
                    }
                });
                let _done = Done(&done);
                // Some kicks come before the first round, and some rounds before any
                // is compiled.
                let mut rounds = 0;
                while rounds < 10_000 {
                    assert_eq!(vcpu.run().expect("a run").reason, ExitReason::CANCELED);
                    rounds = vcpu.general(0).expect("X0");
                    let left = vcpu.general(1).expect("X1");
                    let pc = vcpu.reg(Reg::PC).expect("PC");
                    assert_eq!((left, pc), (0u64.wrapping_sub(rounds), RAM));
                    let flags = vcpu.reg(Reg::CPSR).expect("CPSR") >> 28;
                    // Negative; and carry, but where 1 was taken from 0.
                    let expected = match rounds {
                        0 => ZERO >> 28,
                        1 => 0b1000,
                        _ => 0b1010,
                    };
                    assert_eq!(flags, expected, "after {rounds} rounds");
                }
            });
        });
    }
}

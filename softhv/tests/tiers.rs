//! Which tier executes code, by the table that a machine was made with.

use hvf::sys::{CodeCounts, MemoryFlags, Reg};
use hvf::{ExceptionClass, Vm};
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use supermachine_softhv::jit::{COUNTS, probe};
use supermachine_softhv::{Tier, api_with};

const RAM: u64 = 0x4000_0000;

#[repr(align(16384))]
struct Page([u32; 4096]);

/// What was compiled while a loop had so many rounds.
fn compiled_in(tier: Tier, rounds: u64) -> u64 {
    let before = COUNTS.blocks.load(Ordering::Relaxed);
    execute(tier, rounds);
    COUNTS.blocks.load(Ordering::Relaxed) - before
}

/// Executes a loop of three instructions and one behind it, and returns what was counted.
fn execute(tier: Tier, rounds: u64) -> (CodeCounts, String) {
    let mut page = Box::new(Page([0; 4096]));
    page.0[..4].copy_from_slice(&[
        0x8b01_0000, // loop: add  x0, x0, x1
        0xf100_0421, //       subs x1, x1, #1
        0x54ff_ffc1, //       b.ne loop
        0xd400_0002, //       hvc  #0
    ]);
    let vm = Vm::new(api_with(tier), None).expect("a VM");
    let host = NonNull::from(&mut *page).cast();
    // SAFETY: the page outlives the machine and is not used while it runs.
    unsafe { vm.map(host, RAM, 16384, MemoryFlags::RWX) }.expect("mapped");
    let mut vcpu = vm.create_vcpu().expect("a vCPU");
    vcpu.set_reg(Reg::PC, RAM).expect("PC");
    vcpu.set_general(0, 0).expect("X0");
    vcpu.set_general(1, rounds).expect("X1");
    let exit = vcpu.run().expect("a run");
    let class = ExceptionClass::of(exit.exception.syndrome);
    assert_eq!(class, ExceptionClass::HVC);
    let sum = vcpu.general(0).expect("X0");
    assert_eq!(sum, rounds * (rounds + 1) / 2);
    let counts = vm.code_counts().expect("numbers");
    (
        counts.expect("an engine that decodes"),
        vm.code_census().expect("a text"),
    )
}

/// One test, because the counts are the process's.
#[test]
fn a_tier_compiles_nothing_or_what_is_hot_or_everything_or_counts() {
    counted_are_the_instructions_of_each_round_and_of_no_other_tier();
    assert_eq!(compiled_in(Tier::Interpret, 100_000), 0);
    if let Err(reason) = probe() {
        assert_eq!(compiled_in(Tier::Auto, 100_000), 0, "{reason}");
        let refused = Vm::new(api_with(Tier::Compile), None);
        refused.expect_err("there is no machine that cannot be as asked for");
        return;
    }
    assert_eq!(compiled_in(Tier::Auto, 100), 0);
    assert!(compiled_in(Tier::Auto, 100_000) > 0);
    assert!(compiled_in(Tier::Compile, 1) > 0);
    let (counts, census) = execute(Tier::Compile, 1);
    assert!(counts.instructions_compiled >= 4);
    assert_eq!((counts.instructions_begun, census.as_str()), (0, ""));
    // No other machine of this process counts what the interpreter does.
    let (counts, census) = execute(Tier::Census, 100_000);
    assert_eq!(counts.instructions_begun, 300_001);
    let expected = ["300001 executed", "1 no-template hvc"];
    assert_eq!(census.lines().collect::<Vec<_>>(), expected);
}

fn counted_are_the_instructions_of_each_round_and_of_no_other_tier() {
    for (tier, counted) in [(Tier::Count, 1), (Tier::Interpret, 0), (Tier::Auto, 0)] {
        for rounds in [1, 1000] {
            let (counts, _) = execute(tier, rounds);
            // Three of each round, and HVC.
            assert_eq!(
                counts.instructions_begun,
                counted * (3 * rounds + 1),
                "{tier:?}"
            );
        }
    }
}

//! Differential test of the whole CPU: random instruction streams of every
//! group against `qemu-aarch64`.

mod a64;

use a64::campaign::{Plan, run};

/// Instructions compared by the test; longer runs: the example `a64-soak`.
const INSTRUCTIONS: u64 = 10_000_000;

#[test]
fn random_streams_leave_the_state_that_qemu_leaves() {
    let plan = Plan {
        seed: 1,
        first: 0,
        instructions: INSTRUCTIONS,
        batches: u64::MAX,
    };
    let tally = run(plan, |_| ());
    println!("{tally:?}");
    assert!(tally.instructions >= INSTRUCTIONS);
    assert!(tally.faults > tally.runs / 50, "faults are part of it");
}

//! Compares the engine with `qemu-aarch64` on random instruction streams, for
//! as long as wanted:
//!
//! `a64-soak --instructions N --seed S [--first BATCH] [--batches N]`
//!
//! A difference ends it with a report that names the batch; `--first BATCH
//! --batches 1` with the same seed runs just that one again.

#[path = "../tests/a64/mod.rs"]
mod a64;

use a64::campaign::{Plan, run};
use std::time::Instant;
use supermachine_softhv::Tier;

fn main() {
    let mut plan = Plan {
        seed: 1,
        first: 0,
        instructions: 100_000_000,
        batches: u64::MAX,
        tier: Tier::Interpret,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--tier" {
            plan.tier = match arguments.next().as_deref() {
                Some("off") => Tier::Interpret,
                Some("eager") => Tier::Compile,
                Some("restless") => Tier::Restless,
                _ => usage(),
            };
            continue;
        }
        let value = arguments
            .next()
            .and_then(|text| text.replace('_', "").parse().ok());
        let slot = match name.as_str() {
            "--instructions" => &mut plan.instructions,
            "--seed" => &mut plan.seed,
            "--first" => &mut plan.first,
            "--batches" => &mut plan.batches,
            _ => usage(),
        };
        *slot = value.unwrap_or_else(|| usage());
    }
    let start = Instant::now();
    let tally = run(plan, |tally| {
        if tally.batches % 20 == 0 {
            println!("{:.0?} {tally:?}", start.elapsed());
        }
    });
    println!(
        "no differences: seed {}, {:.0?}, {tally:?}",
        plan.seed,
        start.elapsed()
    );
}

fn usage() -> ! {
    eprintln!(
        "usage: a64-soak --instructions N --seed S [--first BATCH] [--batches N] [--tier off|eager|restless]"
    );
    std::process::exit(2)
}

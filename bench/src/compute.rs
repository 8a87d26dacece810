//! `compute`: programs that keep the processor busy.

mod workloads;

pub use workloads::{WORKLOADS, Workload, written};

use crate::context::Context;
use crate::metric::{BothSides, Bound, Metric};
use crate::pairs::Pair;
use crate::qemu::Machine;
use anyhow::Result;
use std::collections::BTreeMap;

const BENCH: &str = "compute";
const ROUNDS: usize = 5;
/// The geometric mean,
const MUST: f64 = 0.75;
/// each program,
const MUST_EACH: f64 = 1.1;
/// and floating point.
const MUST_FLOAT: f64 = 0.5;

/// node with ICU and V8 wants more than a small machine has.
pub const MACHINE: Machine = Machine {
    memory_mib: 512,
    vcpus: 1,
};

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let image = context.compute()?;
    let mut pair = Pair::start(context, &image, MACHINE)?;
    let wanted: Vec<_> = WORKLOADS
        .iter()
        .filter(|workload| context.wants(workload.name))
        .collect();
    for workload in &wanted {
        for command in workload.preparation() {
            pair.run(&command)?;
        }
        // Reads the programs from the disk once, so that no round does.
        pair.time(&workload.command())?;
    }
    let mut values: BTreeMap<&str, BothSides> = BTreeMap::new();
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        for workload in &wanted {
            let (ours, peer) = pair.time(&workload.command())?;
            values
                .entry(workload.name)
                .or_default()
                .push(ours.map(|ns| ns / 1e6), peer.map(|ns| ns / 1e6));
        }
    }
    let names: Vec<&str> = wanted.iter().map(|workload| workload.name).collect();
    let of_part = |name: &str| match name {
        "float" | "numpy" => Bound::Ratio(MUST_FLOAT),
        _ => Bound::Ratio(MUST_EACH),
    };
    let bounds = (&of_part as _, Bound::Ratio(MUST));
    context.metrics_of(BENCH, "ms", &names, &values, MACHINE, bounds)
}

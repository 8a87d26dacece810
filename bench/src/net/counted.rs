//! What a byte costs the guest: instructions that the engine counts.

use super::{BENCH, OUR_HOST};
use crate::context::{Context, SMALL, run as run_in};
use crate::metric::{Bound, Metric, Samples};
use anyhow::{Context as _, Result};
use supermachine::{NetworkPolicy, Tier, Vm};

/// What the guest does, by the name of the metric.
const PARTS: &[(&str, &str)] = &[
    ("guest_to_host_instructions", "send"),
    ("host_to_guest_instructions", "recv"),
];
/// The engine that counts takes some ten times as long.
const BYTES: u32 = 64 << 20;
const ROUNDS: usize = 3;
const MUST: f64 = 0.7;

/// Instructions of the guest for each byte, user and kernel, either way.
pub fn run(context: &Context, port: u16) -> Result<Vec<Metric>> {
    let wanted: Vec<_> = PARTS
        .iter()
        .filter(|(name, _)| context.wants(name))
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let policy = NetworkPolicy::deny_all().host_port(port);
    let config = context.config(SMALL).with_tier(Tier::Count);
    let vm = context.small.start(&config.with_network(policy))?;
    context.programs.install(&vm)?;
    let mut metrics = Vec::new();
    for (name, what) in wanted {
        let command = format!("/bench/netload {what} {OUR_HOST} {port} {BYTES}");
        let mut samples = Samples::default();
        for _ in 0..context.rounds.unwrap_or(ROUNDS) {
            let before = counted(&vm)?;
            run_in(&vm, &command)?;
            let instructions = counted(&vm)?.saturating_sub(before);
            #[expect(clippy::cast_precision_loss, reason = "some millions")]
            samples.push(instructions as f64 / f64::from(BYTES));
        }
        metrics.push(Metric::new(
            BENCH,
            *name,
            "instr/B",
            &samples,
            None,
            Bound::Median(MUST),
        ));
    }
    Ok(metrics)
}

/// Instructions since the machine's start.
fn counted(vm: &Vm) -> Result<u64> {
    let counted = vm.stats()?.instructions;
    counted.context("the engine counts no instructions")
}

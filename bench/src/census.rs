//! `census`: how much of what a program executes is left to the interpreter when all of
//! it is compiled, in per cent of its instructions: what has no template, which is
//! bounded, and what one declined, the rest of its block included.

use crate::compute::{MACHINE, WORKLOADS, Workload};
use crate::context::{self, Context, Side};
use crate::metric::{Bound, Metric, Samples};
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use supermachine::{Tier, Vm};

const BENCH: &str = "census";
/// Per cent of the instructions of each program.
const MUST: f64 = 0.5;
/// Lines shown of what the interpreter executes most.
const SHOWN: usize = 12;

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    // The peer has no interpreter.
    if context.side == Side::Peer {
        return Ok(Vec::new());
    }
    let config = context.config(MACHINE).with_tier(Tier::Census);
    let vm = context.compute()?.start(&config)?;
    context.programs.install(&vm)?;
    let mut metrics = Vec::new();
    let wanted = |workload: &&Workload| context.wants(workload.name);
    for workload in WORKLOADS.iter().filter(wanted) {
        for command in workload.preparation() {
            context::run(&vm, &command)?;
        }
        let (name, script) = (workload.name, workload.command());
        // From the disk, and through the caches.
        context::run(&vm, &script)?;
        let before = counts(&vm)?;
        context::run(&vm, &script)?;
        let after = counts(&vm)?;
        let mut all: Vec<(&str, u64)> = after
            .iter()
            .map(|(what, count)| {
                let before = before.get(what).copied().unwrap_or(0);
                (what.as_str(), count.saturating_sub(before))
            })
            .collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (what, count) in all.iter().take(SHOWN) {
            eprintln!("{name:<9} {count:>13} {what}");
        }
        for (kind, bound) in [
            ("no-template", Bound::Median(MUST)),
            ("declined", Bound::Part),
        ] {
            let mut samples = Samples::default();
            samples.push(share(&all, kind));
            let metric = format!("{name}_{kind}");
            metrics.push(Metric::new(BENCH, metric, "%", &samples, None, bound));
        }
    }
    vm.stop()?;
    Ok(metrics)
}

fn counts(vm: &Vm) -> Result<BTreeMap<String, u64>> {
    parse(&vm.status()?.census)
}

/// Lines of a count and what was counted.
fn parse(census: &str) -> Result<BTreeMap<String, u64>> {
    let line = |line: &str| {
        let (count, what) = line.split_once(' ').context("a line without a count")?;
        Ok((what.to_owned(), count.parse()?))
    };
    census.lines().map(line).collect()
}

/// What the interpreter executed for a reason, by all that was executed, in per cent.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
fn share(counts: &[(&str, u64)], kind: &str) -> f64 {
    let sum = |kind: &str| {
        let of_kind = |what: &str| what.split(' ').next() == Some(kind);
        let counts = counts.iter().filter(|(what, _)| of_kind(what));
        counts.map(|(_, count)| *count).sum::<u64>() as f64
    };
    100.0 * sum(kind) / sum("executed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_interpreter_executes_is_a_share_of_all() {
        let counts = parse("1000 executed\n20 no-template fmla.2d\n5 declined ldr\n").unwrap();
        let counts: Vec<_> = counts.iter().map(|(what, n)| (what.as_str(), *n)).collect();
        assert!((share(&counts, "no-template") - 2.0).abs() < 1e-9);
        assert!((share(&counts, "declined") - 0.5).abs() < 1e-9);
        assert!(
            share(&[], "declined").is_nan(),
            "nothing counted is no success"
        );
        assert!(parse("executed").is_err());
    }
}

//! `scale`: four vCPUs on whatever the host has, all of them busy, where one
//! changes code or page tables that the others have to hear of.

use crate::context::Context;
use crate::metric::{BothSides, Bound, Metric};
use crate::pairs::Pair;
use crate::qemu::Machine;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;

const BENCH: &str = "scale";
const ROUNDS: usize = 5;
/// Not slower than the peer.
const MUST: f64 = 1.0;
const MACHINE: Machine = Machine {
    memory_mib: 256,
    vcpus: 4,
};
/// Flushes of one line and of 24 lines of code, mprotect, fork; and the same
/// work by one thread and by each of two.
const LOADS: &[&str] = &["flush", "method", "mprotect", "fork", "one", "two"];

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let mut pair = Pair::start(context, &context.small, MACHINE)?;
    let loads: Vec<&str> = LOADS
        .iter()
        .copied()
        .filter(|load| context.wants(load))
        .collect();
    let mut values: BTreeMap<&str, BothSides> = BTreeMap::new();
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        for load in &loads {
            let (ours, peer) = pair.run(&format!("/bench/scale {load}"))?;
            let value = |text: Option<String>| text.map(|t| parse(&t, load)).transpose();
            values
                .entry(load)
                .or_default()
                .push(value(ours)?, value(peer)?);
        }
    }
    context.metrics(BENCH, "µs", &loads, &values, MACHINE, Bound::Ratio(MUST))
}

/// Microseconds per operation from a line of the guest program.
fn parse(output: &str, load: &str) -> Result<f64> {
    match output.split_whitespace().collect::<Vec<_>>()[..] {
        [name, nanoseconds] if name == load => {
            Ok(nanoseconds.parse::<f64>().context(load.to_owned())? / 1e3)
        }
        _ => bail!("no time for {load} in {output:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_asked_load_is_accepted() {
        assert_eq!(parse("fork 1500\n", "fork").unwrap(), 1.5);
        assert!(parse("flush 1500\n", "fork").is_err());
        assert!(parse("fork 1500 2\n", "fork").is_err());
        assert!(parse("", "fork").is_err());
    }
}

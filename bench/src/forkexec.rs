//! `forkexec`: what short-lived commands spend their time on.

use crate::context::{Context, SMALL};
use crate::metric::{BothSides, Bound, Metric};
use crate::pairs::Pair;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;

const BENCH: &str = "forkexec";
const ROUNDS: usize = 7;
const MUST: f64 = 0.55;
const EVENTS: &[&str] = &["forkexec", "syscall", "fault", "mmap", "pipe", "fork"];

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let mut pair = Pair::start(context, &context.small, SMALL)?;
    let events: Vec<&str> = EVENTS
        .iter()
        .copied()
        .filter(|e| context.wants(e))
        .collect();
    let mut values: BTreeMap<&str, BothSides> = BTreeMap::new();
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        for event in &events {
            let (ours, peer) = pair.run(&format!("/bench/sysevents /bench/busybox {event}"))?;
            let value = |text: Option<String>| text.map(|t| parse(&t, event)).transpose();
            values
                .entry(event)
                .or_default()
                .push(value(ours)?, value(peer)?);
        }
    }
    context.metrics(BENCH, "µs", &events, &values, SMALL, Bound::Ratio(MUST))
}

/// Microseconds per operation from a line of `sysevents`.
fn parse(output: &str, event: &str) -> Result<f64> {
    let mut words = output.split_whitespace();
    match (words.next(), words.next()) {
        (Some(name), Some(nanoseconds)) if name == event => {
            Ok(nanoseconds.parse::<f64>().context(event.to_owned())? / 1e3)
        }
        _ => bail!("no time for {event} in {output:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_asked_event_is_accepted() {
        assert_eq!(parse("fork 1500.0\n", "fork").unwrap(), 1.5);
        assert!(parse("pipe 1500.0\n", "fork").is_err());
        assert!(parse("", "fork").is_err());
    }
}

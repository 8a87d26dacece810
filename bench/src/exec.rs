//! `exec`: a command's round trip on a running machine.

use crate::context::{Context, SMALL, text};
use crate::metric::{Bound, Metric, Samples};
use anyhow::{Result, bail};
use std::time::Instant;

const ROUNDS: usize = 300;
/// Before the first that counts.
const WARM_UP: usize = 20;
const MUST_MS: f64 = 15.0;
const MUST_EXITS: f64 = 60.0;

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let vm = context.start(&context.small, SMALL)?;
    let echo = || -> Result<f64> {
        let begun = Instant::now();
        let said = text("echo hi", vm.exec(["echo", "hi"])?)?;
        let elapsed = begun.elapsed().as_secs_f64() * 1e3;
        if said != "hi\n" {
            bail!("echo hi printed {said:?}");
        }
        Ok(elapsed)
    };
    for _ in 0..WARM_UP {
        echo()?;
    }
    let (mut times, mut exits) = (Samples::default(), Samples::default());
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        let before = vm.status()?.exits;
        times.push(echo()?);
        let taken = vm.status()?.exits.saturating_sub(before);
        exits.push(f64::from(u32::try_from(taken)?));
    }
    Ok(vec![
        Metric::new(
            "exec",
            "round_trip",
            "ms",
            &times,
            None,
            Bound::Median(MUST_MS),
        ),
        Metric::new(
            "exec",
            "vm_exits",
            "exits",
            &exits,
            None,
            Bound::Median(MUST_EXITS),
        ),
    ])
}

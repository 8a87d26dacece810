//! `boot`: from the start of the VMM's process to a machine that answers.

use crate::context::{Context, SMALL};
use crate::metric::{Bound, Metric, Samples};
use anyhow::Result;
use std::time::Instant;

const ROUNDS: usize = 15;
const MUST: f64 = 0.3;

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let (mut agent, mut exec, mut init) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        let begun = Instant::now();
        let vm = context.start(&context.small, SMALL)?;
        agent.push(milliseconds(begun));
        crate::context::text("echo hi", vm.exec(["echo", "hi"])?)?;
        exec.push(milliseconds(begun));
        vm.stop()?;
        init.push(context.qemu.time_to_init(SMALL)?.as_secs_f64() * 1e3);
    }
    let name = context.qemu.name(SMALL);
    let peer = Some((name.as_str(), &init));
    Ok(vec![
        Metric::new("boot", "boot_to_agent", "ms", &agent, peer, Bound::Part),
        Metric::new(
            "boot",
            "boot_to_exec",
            "ms",
            &exec,
            peer,
            Bound::Ratio(MUST),
        ),
    ])
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

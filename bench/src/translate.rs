//! `translate`: how much of a short program's time goes into making its code executable,
//! in a machine that has executed hardly anything before.

use crate::compute::{MACHINE, written};
use crate::context::{self, Context, Side};
use crate::guest::compile_for_host;
use crate::metric::{Bound, Metric, Samples};
use crate::pairs::split_time;
use anyhow::{Context as _, Result};
use std::process::Command;
use supermachine::{Vm, VmStatus};

const BENCH: &str = "translate";
const ROUNDS: usize = 5;
/// Per cent of the program's time.
const MUST: f64 = 25.0;

/// Name and command, each about 100 ms on a quiet machine.
const PROGRAMS: &[(&str, &str)] = &[
    (
        "shell",
        "bash -c 'i=0; s=0; while ((i < 3500)); do ((s += i * 3 % 7, i++)); done; echo $s'",
    ),
    ("python", "python3 -S -c 'print(sum(range(10)))'"),
];

/// What the vCPU's thread did for the code of one program.
#[derive(Debug, Default)]
struct Values {
    time: Samples,
    share: Samples,
    decoded: Samples,
    compiled: Samples,
}

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    // The peer does not tell what it spends on this.
    if context.side == Side::Peer {
        return Ok(Vec::new());
    }
    let image = context.compute()?;
    let sysevents = context.dir.join("sysevents-here");
    compile_for_host("sysevents", &sysevents)?;
    let programs: Vec<_> = PROGRAMS
        .iter()
        .filter(|(name, _)| context.wants(name))
        .collect();
    let mut values: Vec<Values> = programs.iter().map(|_| Values::default()).collect();
    let mut forkexec = Samples::default();
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        forkexec.push(fork_and_exec(&sysevents)?);
        for ((name, command), values) in programs.iter().zip(&mut values) {
            let vm = context.start(&image, MACHINE)?;
            context.programs.install(&vm)?;
            measure(&vm, name, command, values)?;
            vm.stop()?;
        }
    }
    let peer = Some(("fork and exec of a program on this host", &forkexec));
    let mut metrics = Vec::new();
    for ((name, _), values) in programs.iter().zip(&values) {
        let metric = |what: &str, unit, samples, peer, bound| {
            Metric::new(BENCH, format!("{name}_{what}"), unit, samples, peer, bound)
        };
        metrics.extend([
            metric("time", "ms", &values.time, None, Bound::Part),
            metric("share", "%", &values.share, None, Bound::Median(MUST)),
            metric("decoded", "ns", &values.decoded, peer, Bound::Part),
            metric("compiled", "ns", &values.compiled, peer, Bound::Part),
        ]);
    }
    Ok(metrics)
}

/// Runs the program once. What starts it has run before; its files are in memory.
fn measure(vm: &Vm, name: &str, command: &str, values: &mut Values) -> Result<()> {
    context::run(vm, &written(name, command))?;
    context::run(
        vm,
        "cat /usr/bin/bash /usr/bin/python3 /usr/lib/aarch64-linux-gnu/*.so* >/dev/null; \
         /bench/timeit /bench/busybox true",
    )?;
    let before = vm.status()?;
    let output = context::run(vm, &format!("/bench/timeit bash /tmp/{name}.sh"))?;
    let after = vm.status()?;
    let (time, _) = split_time(&output)?;
    let work = work(&before, &after);
    values.time.push(time / 1e6);
    values
        .share
        .push(100.0 * (work.decoding_ns + work.compiling_ns) / time);
    values
        .decoded
        .push(work.decoding_ns / work.instructions_decoded);
    // Nothing was hot: then nothing was compiled.
    if work.instructions_compiled > 0.0 {
        values
            .compiled
            .push(work.compiling_ns / work.instructions_compiled);
    }
    Ok(())
}

struct Work {
    decoding_ns: f64,
    instructions_decoded: f64,
    compiling_ns: f64,
    instructions_compiled: f64,
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
fn work(before: &VmStatus, after: &VmStatus) -> Work {
    let since = |count: fn(&VmStatus) -> u64| count(after).saturating_sub(count(before)) as f64;
    Work {
        decoding_ns: (after.decoding.saturating_sub(before.decoding)).as_nanos() as f64,
        instructions_decoded: since(|status| status.instructions_decoded),
        compiling_ns: (after.compiling.saturating_sub(before.compiling)).as_nanos() as f64,
        instructions_compiled: since(|status| status.instructions_compiled),
    }
}

/// Nanoseconds for one fork and exec on this host, by the program that guests use.
fn fork_and_exec(sysevents: &std::path::Path) -> Result<f64> {
    let done = Command::new(sysevents)
        .args(["/bin/true", "forkexec"])
        .output()
        .context("cannot run sysevents")?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let time = said
        .split_whitespace()
        .nth(1)
        .with_context(|| format!("no time in {said:?}"))?;
    Ok(time.parse()?)
}

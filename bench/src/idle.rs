//! `idle`: what a machine that does nothing costs its host.

use crate::context::{Context, SMALL};
use crate::metric::{Bound, Metric, Samples};
use crate::process::children;
use crate::qemu::Machine;
use anyhow::{Context as _, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::thread::sleep;
use std::time::{Duration, Instant};

const ROUNDS: usize = 2;
/// After boot, until everything in the guest has come to rest.
const SETTLE: Duration = Duration::from_secs(3);
const WINDOW: Duration = Duration::from_secs(10);
const MUST_PERCENT: f64 = 1.0;
const FOUR: Machine = Machine { vcpus: 4, ..SMALL };

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let image = &context.small;
    // At rest they do not disturb each other, so all are measured at once.
    let mut machines = Vec::new();
    for machine in [SMALL, FOUR] {
        let before = children()?;
        let ours = context.start(image, machine)?;
        let worker = *children()?
            .iter()
            .find(|pid| !before.contains(pid))
            .context("the machine has no worker process")?;
        let peer = context.qemu.start(machine, image.layers())?;
        machines.push((
            machine,
            ours,
            worker,
            peer,
            Samples::default(),
            Samples::default(),
        ));
    }
    sleep(SETTLE);
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        let mut before = Vec::new();
        for (_, _, worker, peer, ..) in &machines {
            before.push((cpu_time(*worker)?, cpu_time(peer.pid())?));
        }
        let begun = Instant::now();
        sleep(WINDOW);
        let elapsed = begun.elapsed().as_secs_f64();
        for ((_, _, worker, peer, ours, theirs), (our_start, peer_start)) in
            machines.iter_mut().zip(before)
        {
            let percent =
                |start: Duration, end: Duration| (end - start).as_secs_f64() / elapsed * 100.0;
            ours.push(percent(our_start, cpu_time(*worker)?));
            theirs.push(percent(peer_start, cpu_time(peer.pid())?));
        }
    }
    let mut metrics = Vec::new();
    for (machine, vm, _, _, ours, theirs) in machines {
        vm.status().context("the idle machine")?;
        let plural = if machine.vcpus == 1 { "" } else { "s" };
        metrics.push(Metric::new(
            "idle",
            format!("host_cpu_{}_vcpu{plural}", machine.vcpus),
            "%",
            &ours,
            Some((&context.qemu.name(machine), &theirs)),
            Bound::Median(MUST_PERCENT),
        ));
    }
    Ok(metrics)
}

/// User and system time of all threads, ended ones too, to the nanosecond:
/// `stat` would count in hundredths of a second, a tenth of a percent of what
/// is measured here.
fn cpu_time(pid: u32) -> Result<Duration> {
    let pid = Pid::from_raw(pid.try_into().context("a process number")?);
    let clock = clock_getcpuclockid(pid).with_context(|| format!("cannot find process {pid}"))?;
    Ok(clock_gettime(clock)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cpu_time_does_not_run_backwards() {
        let before = cpu_time(std::process::id()).unwrap();
        assert!(cpu_time(std::process::id()).unwrap() >= before);
    }
}

//! `exec`: a command's round trip on a running machine. `stage_chain`: files and
//! commands in one call.

use crate::context::{Context, SMALL, text};
use crate::echo::Echo;
use crate::inits::Inits;
use crate::metric::{Bound, Metric, Samples};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};
use supermachine::Vm;

const ROUNDS: usize = 300;
/// Before the first that counts.
const WARM_UP: usize = 20;
const MUST: f64 = 0.0045;
const MUST_EXITS: f64 = 30.0;
const MUST_ECHOES: f64 = 8.0;
/// After a reply the guest still cleans up and closes the connection.
const SETTLED: Duration = Duration::from_millis(3);

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let mut inits = Inits::before(context)?;
    let vm = context.start(&context.small, SMALL)?;
    let mut socket = Echo::start()?;
    for _ in 0..WARM_UP {
        echo(&vm)?;
        socket.round_trip()?;
    }
    let mut looks: Vec<(u64, f64, f64)> = Vec::new();
    let (mut times, mut exits, mut guest, mut overheads) = (
        Samples::default(),
        Samples::default(),
        Samples::default(),
        Samples::default(),
    );
    let mut echoes = Samples::default();
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        let in_guest = guest_time(&vm)?;
        let before = vm.status()?.exits;
        let whole = echo(&vm)?;
        let then = vm.status()?;
        times.push(whole);
        std::thread::sleep(SETTLED);
        let settled = vm.status()?.exits;
        exits.push(f64::from(u32::try_from(settled.saturating_sub(before))?));
        let ran = then.guest.saturating_sub(in_guest).as_secs_f64() * 1e3;
        looks.push((then.exits.saturating_sub(before), whole, ran));
        echoes.push(socket.round_trip()?);
    }
    inits.more(context)?;
    // Time is counted at exits, of which the reply is one, and what the guest does behind
    // it is others. Where there were the fewest, we looked before there were others.
    let fewest = looks.iter().map(|(exits, ..)| *exits).min();
    for (_, whole, ran) in looks.iter().filter(|(exits, ..)| Some(*exits) == fewest) {
        guest.push(*ran);
        overheads.push((whole - ran) * 1e3);
    }
    let metric =
        |metric, unit, ours, peer, bound| Metric::new("exec", metric, unit, ours, peer, bound);
    let echo = Some(("a Unix socket's echo", &echoes));
    let in_echoes = Bound::Ratio(MUST_ECHOES);
    Ok(vec![
        inits.metric("exec", "round_trip", &times, MUST),
        metric("in_the_guest", "ms", &guest, None, Bound::Part),
        metric("vm_exits", "exits", &exits, None, Bound::Median(MUST_EXITS)),
        metric("beside_the_guest", "µs", &overheads, echo, in_echoes),
    ])
}

/// For how long the guest has run by now. Looking has it run a little, which is counted
/// by the next look; the second look shows how much that is.
fn guest_time(vm: &Vm) -> Result<Duration> {
    let first = vm.stats()?.guest;
    let second = vm.stats()?.guest;
    Ok(second + second.saturating_sub(first))
}

/// What one `echo hi` took, in milliseconds.
fn echo(vm: &Vm) -> Result<f64> {
    let begun = Instant::now();
    let outcome = vm.exec(["echo", "hi"])?;
    let elapsed = begun.elapsed().as_secs_f64() * 1e3;
    let said = text("echo hi", outcome)?;
    if said != "hi\n" {
        bail!("echo hi printed {said:?}");
    }
    Ok(elapsed)
}

/// Three files and two commands: in one call, and in a call each.
pub fn stage_chain(context: &Context) -> Result<Vec<Metric>> {
    const ROUNDS: usize = 100;
    /// 2.5 times as fast.
    const MUST: f64 = 1.0 / 2.5;
    const FILES: [&str; 3] = ["/tmp/staged/a", "/tmp/staged/b", "/tmp/staged/c"];
    let content = [b'x'; 1024];
    let vm = context.start(&context.small, SMALL)?;
    let at_once = || -> Result<f64> {
        let begun = Instant::now();
        let mut command = vm.exec_builder().argv(["true"]).chain(["cat", FILES[2]]);
        for file in FILES {
            command = command.stage_file(file, content);
        }
        let outcome = command.output()?;
        let elapsed = begun.elapsed().as_secs_f64() * 1e3;
        check(outcome.stdout.len(), content.len())?;
        Ok(elapsed)
    };
    let apart = || -> Result<f64> {
        let begun = Instant::now();
        for file in FILES {
            vm.write_file(file, &content)?;
        }
        text("true", vm.exec(["true"])?)?;
        let outcome = vm.exec(["cat", FILES[2]])?;
        let elapsed = begun.elapsed().as_secs_f64() * 1e3;
        check(outcome.stdout.len(), content.len())?;
        Ok(elapsed)
    };
    for _ in 0..WARM_UP {
        at_once()?;
        apart()?;
    }
    let (mut ours, mut separate) = (Samples::default(), Samples::default());
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        ours.push(at_once()?);
        separate.push(apart()?);
    }
    let peer = Some(("five calls", &separate));
    let bound = Bound::Ratio(MUST);
    let metric = Metric::new("stage_chain", "one_call", "ms", &ours, peer, bound);
    Ok(vec![metric])
}

fn check(read: usize, written: usize) -> Result<()> {
    match read == written {
        true => Ok(()),
        false => bail!("{read} bytes of {written} came back"),
    }
}

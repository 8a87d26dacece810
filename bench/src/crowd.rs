//! `crowd`: more clients than machines.

use crate::context::{Context, SMALL, text};
use crate::copies::baked;
use crate::metric::{Bound, Metric, Samples};
use anyhow::{Context as _, Result, bail};
use std::thread::sleep;
use std::time::{Duration, Instant};
use supermachine::Pool;

const CLIENTS: usize = 64;
const MACHINES: usize = 8;
/// How long they keep coming back.
const WINDOW: Duration = Duration::from_secs(30);
/// The longest waits by the middle ones.
const MUST: f64 = 2.0;

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let image = baked(context, "bench-small", SMALL)?;
    let pool = image
        .pool()
        .vm_config(context.copies())
        .min(MACHINES)
        .max(MACHINES)
        .build()?;
    while pool.stats().idle < MACHINES {
        sleep(Duration::from_millis(5));
    }
    let begun = Instant::now();
    let clients = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| client(&pool, begun)))
            .collect();
        let joined = clients.into_iter().map(|client| client.join());
        joined.collect::<Result<Vec<_>, _>>()
    });
    let Ok(clients) = clients else {
        bail!("a client panicked");
    };
    let (mut waits, mut errors) = (Samples::default(), 0_u32);
    for (own, failed) in clients {
        own.into_iter().for_each(|wait| waits.push(wait));
        errors += failed;
    }
    let (mut longest, mut middle, mut failed) =
        (Samples::default(), Samples::default(), Samples::default());
    longest.push(waits.percentile(99));
    middle.push(waits.median());
    failed.push(f64::from(errors));
    let metric =
        |name, unit, ours, peer, bound| Metric::new("crowd", name, unit, ours, peer, bound);
    let peer = Some(("their median", &middle));
    let mut metrics = vec![
        metric("waits", "ms", &waits, None, Bound::Part),
        metric("p99_of_waits", "ms", &longest, peer, Bound::Ratio(MUST)),
        metric("errors", "errors", &failed, None, Bound::Median(0.0)),
    ];
    for metric in &mut metrics {
        metric.n = waits.len();
    }
    Ok(metrics)
}

/// One client: what it waited, in milliseconds, and how often something failed.
fn client(pool: &Pool, begun: Instant) -> (Vec<f64>, u32) {
    let (mut waits, mut errors) = (Vec::new(), 0);
    while begun.elapsed() < WINDOW {
        match once(pool) {
            Ok(wait) => waits.push(wait),
            Err(error) => {
                eprintln!("crowd: {error:#}");
                errors += 1;
            }
        }
    }
    (waits, errors)
}

fn once(pool: &Pool) -> Result<f64> {
    let begun = Instant::now();
    let vm = pool.acquire()?;
    let wait = begun.elapsed().as_secs_f64() * 1e3;
    let outcome = vm
        .exec_builder()
        .stage_file("/tmp/staged", "x")
        .argv(["sh", "-c", "true"])
        .output()?;
    text("sh -c true", outcome).context("in a machine of the pool")?;
    Ok(wait)
}

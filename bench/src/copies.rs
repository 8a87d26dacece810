//! Copies of a snapshot: `spawn`, `mapped`, `acquire`, `reset` and `bake`.

use crate::context::{Context, SMALL, text};
use crate::inits::Inits;
use crate::metric::{Bound, Metric, Samples};
use crate::qemu::Machine;
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};
use supermachine::{Image, Pool, Vm};

const ROUNDS: usize = 100;
/// Between rounds, so that spare workers are ready and nothing else runs.
const PAUSE: Duration = Duration::from_millis(40);
const HUGE: Machine = Machine {
    memory_mib: 4096,
    vcpus: 1,
};

pub fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A baked image without the machine that was baked: that one is ready.
pub fn baked(context: &Context, name: &str, machine: Machine) -> Result<Image> {
    let image = context.baker(name, machine).build()?;
    drop(image.start(&context.copies())?);
    Ok(image)
}

/// What one kind of spawn took, by stage.
#[derive(Default)]
struct Stages {
    read: Samples,
    load: Samples,
    ready: Samples,
    reply: Samples,
}

impl Stages {
    fn measure(&mut self, pool: &Pool, argv: &[&str]) -> Result<()> {
        let begun = Instant::now();
        let vm = pool.acquire()?;
        let ready = milliseconds(begun);
        text("the first command", vm.exec(argv.iter().copied())?)?;
        self.reply.push(milliseconds(begun));
        self.ready.push(ready);
        let report = vm.copy_report().context("a copy without a report")?;
        self.read.push(ms(report.read));
        self.load.push(ms(report.load));
        vm.discard();
        Ok(())
    }

    fn metrics(&self, name: &str, must: Option<f64>, inits: &Inits) -> Vec<Metric> {
        let part = |stage: &str, samples| {
            Metric::new(
                "spawn",
                format!("{name}_{stage}"),
                "ms",
                samples,
                None,
                Bound::Part,
            )
        };
        let reply = must.map_or_else(
            || part("reply", &self.reply),
            |must| inits.metric("spawn", format!("{name}_reply"), &self.reply, must),
        );
        vec![
            part("state_read", &self.read),
            part("loaded", &self.load),
            part("ready", &self.ready),
            reply,
        ]
    }
}

/// One way to spawn.
struct Kind<'a> {
    name: &'static str,
    image: &'a Image,
    /// Workers started in advance.
    spares: usize,
    /// Whether the system has forgotten the snapshot and its layers.
    cold: bool,
    /// The first command.
    argv: &'a [&'a str],
    /// Its reply by QEMU's time to init, if that is bounded.
    must: Option<f64>,
}

/// From an empty pool to the first reply, by QEMU's time to init: to that of `true`,
const MUST_REPLY: f64 = 0.022;
/// and to that of a small script of Python.
const MUST_PYTHON: f64 = 0.3;

/// From an empty pool to the first reply.
pub fn spawn(context: &Context) -> Result<Vec<Metric>> {
    let small = baked(context, "bench-small", SMALL)?;
    let python = context.large_baker("bench-python", SMALL).build()?;
    drop(python.start(&context.copies())?);
    let rounds = context.rounds.unwrap_or(ROUNDS);
    let script = ["python3", "-c", "print(1)"];
    let kind = |name, image, spares, cold, argv, must| Kind {
        name,
        image,
        spares,
        cold,
        argv,
        must,
    };
    let (must, must_python) = (Some(MUST_REPLY), Some(MUST_PYTHON));
    let kinds = [
        kind("fresh_worker", &small, 0, false, &["true"][..], must),
        kind("started_worker", &small, 1, false, &["true"], must),
        kind("cold_fresh", &small, 0, true, &["true"], None),
        kind("cold_started", &small, 1, true, &["true"], None),
        kind("python_fresh", &python, 0, false, &["true"], None),
        kind("python_started", &python, 1, false, &["true"], None),
        kind("python_cold", &python, 1, true, &["true"], None),
        kind("python_script", &python, 1, false, &script, must_python),
    ];
    let mut measured = Vec::new();
    let mut inits = Inits::before(context)?;
    for kind in kinds {
        let Kind {
            name,
            image,
            spares,
            cold,
            argv,
            must,
        } = kind;
        if !context.wants(name) {
            continue;
        }
        let pool = image
            .pool()
            .vm_config(context.copies())
            .min(0)
            .max(1)
            .prestart(spares)
            .build()?;
        let mut stages = Stages::default();
        for _ in 0..rounds {
            sleep(PAUSE);
            if cold {
                drop_from_cache(image)?;
            }
            stages.measure(&pool, argv)?;
        }
        measured.push((name, must, stages));
        inits.more(context)?;
    }
    let metrics = |(name, must, stages): &(&str, _, Stages)| stages.metrics(name, *must, &inits);
    Ok(measured.iter().flat_map(metrics).collect())
}

/// Drops a snapshot and its layers from the system's page cache.
fn drop_from_cache(image: &Image) -> Result<()> {
    let snapshot = image
        .snapshot_path()
        .context("an image without a snapshot")?;
    let files = std::fs::read_dir(snapshot)?
        .flatten()
        .map(|entry| entry.path());
    for path in files.chain(image.layers().iter().cloned()) {
        forget(&path)?;
    }
    Ok(())
}

fn forget(path: &Path) -> Result<()> {
    let file = std::fs::File::open(path)?;
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

/// Reading the state and mapping memory, whatever its size.
pub fn mapped(context: &Context) -> Result<Vec<Metric>> {
    /// Of QEMU's time to init.
    const MUST: f64 = 0.003;
    let small = baked(context, "bench-small", SMALL)?;
    let huge = baked(context, "bench-4096", HUGE)?;
    let (mut small_ms, mut huge_ms) = (Samples::default(), Samples::default());
    let mut inits = Inits::before(context)?;
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        for (image, samples) in [(&small, &mut small_ms), (&huge, &mut huge_ms)] {
            sleep(PAUSE);
            let vm = Vm::start(image, &context.copies())?;
            let report = vm.copy_report().context("a copy without a report")?;
            samples.push(ms(report.read + report.load));
        }
    }
    inits.more(context)?;
    let peer = Some(("256 MiB", &small_ms));
    Ok(vec![
        inits.metric("mapped", "256_mib", &small_ms, MUST),
        inits.metric("mapped", "4096_mib", &huge_ms, MUST),
        Metric::new(
            "mapped",
            "4096_by_256_mib",
            "ms",
            &huge_ms,
            peer,
            Bound::Ratio(1.3),
        ),
    ])
}

fn await_idle(pool: &Pool) -> Result<()> {
    let begun = Instant::now();
    while pool.stats().idle == 0 {
        if begun.elapsed() > Duration::from_secs(30) {
            bail!("no machine came back: {:?}", pool.stats());
        }
        sleep(Duration::from_micros(20));
    }
    Ok(())
}

fn pool_of_one(context: &Context) -> Result<Pool> {
    let image = baked(context, "bench-small", SMALL)?;
    let pool = image
        .pool()
        .vm_config(context.copies())
        .min(1)
        .max(1)
        .build()?;
    await_idle(&pool)?;
    Ok(pool)
}

/// Taking an idle machine.
pub fn acquire(context: &Context) -> Result<Vec<Metric>> {
    let pool = pool_of_one(context)?;
    let mut times = Samples::default();
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        await_idle(&pool)?;
        let begun = Instant::now();
        let vm = pool.acquire()?;
        times.push(milliseconds(begun) * 1e3);
        drop(vm);
    }
    let bound = Bound::Median(50.0);
    Ok(vec![Metric::new(
        "acquire", "idle", "µs", &times, None, bound,
    )])
}

/// Bringing a used machine back, by QEMU's time to init.
pub fn reset(context: &Context) -> Result<Vec<Metric>> {
    let mut inits = Inits::before(context)?;
    let pool = pool_of_one(context)?;
    let mut measured = Vec::new();
    for (name, count, must) in [("500", 200, 0.009), ("2000", 1700, 0.015)] {
        let (mut times, mut pages) = (Samples::default(), Samples::default());
        for _ in 0..context.rounds.unwrap_or(ROUNDS) {
            await_idle(&pool)?;
            let vm = pool.acquire()?;
            let fill = format!("dd if=/dev/zero of=/dev/shm/x bs=4096 count={count} 2>/dev/null");
            text("dd", vm.exec(["sh", "-c", &fill])?)?;
            let begun = Instant::now();
            drop(vm);
            await_idle(&pool)?;
            times.push(milliseconds(begun));
            let vm = pool.acquire()?;
            let report = vm.copy_report().context("a reset without a report")?;
            #[expect(clippy::cast_precision_loss, reason = "some thousands")]
            pages.push(report.pages.map_or(f64::NAN, |pages| pages as f64));
        }
        measured.push((name, must, times, pages));
    }
    inits.more(context)?;
    let mut metrics = Vec::new();
    for (name, must, times, pages) in &measured {
        let part = format!("{name}_dirty_pages");
        let pages = Metric::new("reset", part, "pages", pages, None, Bound::Part);
        let times = inits.metric("reset", format!("{name}_pages"), times, *must);
        metrics.extend([pages, times]);
    }
    Ok(metrics)
}

/// From cached layers to a published snapshot, and finding it again.
pub fn bake(context: &Context) -> Result<Vec<Metric>> {
    const BAKES: usize = 20;
    let (mut bakes, mut boots, mut hits) =
        (Samples::default(), Samples::default(), Samples::default());
    for round in 0..context.rounds.unwrap_or(BAKES) {
        let tag = format!("{}-{round}-{:?}", std::process::id(), Instant::now());
        let builder = || context.baker("bench-bake", SMALL).with_warmup_tag(&tag);
        let begun = Instant::now();
        let image = builder().build()?;
        bakes.push(milliseconds(begun));
        let begun = Instant::now();
        let again = builder().build()?;
        hits.push(milliseconds(begun));
        if image.snapshot_path() != again.snapshot_path() {
            bail!("the second bake made another snapshot");
        }
        let begun = Instant::now();
        let vm = context.start(&context.small, SMALL)?;
        text("true", vm.exec(["true"])?)?;
        boots.push(milliseconds(begun));
    }
    let peer = Some(("cold boot", &boots));
    Ok(vec![
        Metric::new("bake", "published", "ms", &bakes, peer, Bound::Ratio(2.0)),
        Metric::new("bake", "cache_hit", "ms", &hits, None, Bound::Median(15.0)),
    ])
}

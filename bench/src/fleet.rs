//! Many machines: `density`, `fork`, `cycles` and `reliability`.

use crate::context::{Context, SMALL, text};
use crate::copies::{baked, milliseconds};
use crate::inits::Inits;
use crate::metric::{Bound, Metric, Samples};
use crate::process::{children, files_and_threads, private_kib};
use crate::qemu::Machine;
use anyhow::{Context as _, Result, bail};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use supermachine::{Image, MountSpec, Pool, Vm, VmConfig};

/// Idle machines of `density`.
const CROWD: usize = 50;
/// Until they have come to rest and given back what they do not need.
const SETTLE: Duration = Duration::from_secs(10);
const KIB_PER_MIB: f64 = 1024.0;

/// Memory of idle machines, and what it is more if each has a directory of the host.
pub fn density(context: &Context) -> Result<Vec<Metric>> {
    let image = baked(context, "bench-small", SMALL)?;
    let each = idle_crowd(&image, context.copies())?;
    let (mut sum, mut largest) = (Samples::default(), Samples::default());
    sum.push(each.values().iter().sum());
    largest.push(each.percentile(100));
    let mount = MountSpec::new(&context.dir, "share").at("/share");
    let baker = context.baker("bench-small-mount", SMALL);
    let image = baker.with_mount(mount.clone()).build()?;
    let config = context.copies().with_mount(mount);
    // The machine that was baked is no copy.
    drop(image.start(&config)?);
    let mounted = idle_crowd(&image, config)?;
    let mut more = Samples::default();
    more.push(mounted.median() - each.median());
    let metric = |name, samples, bound| Metric::new("density", name, "MiB", samples, None, bound);
    Ok(vec![
        metric("each", &each, Bound::Part),
        metric("largest", &largest, Bound::Median(3.0)),
        metric("all_50", &sum, Bound::Median(100.0)),
        metric("more_with_a_mount", &more, Bound::Median(0.3)),
    ])
}

/// Private MiB of each worker of a pool that nobody uses.
fn idle_crowd(image: &Image, config: VmConfig) -> Result<Samples> {
    let before = children()?;
    let pool = image
        .pool()
        .vm_config(config)
        .min(CROWD)
        .max(CROWD)
        .prestart(0)
        .build()?;
    let begun = Instant::now();
    while pool.stats().idle < CROWD {
        if begun.elapsed() > Duration::from_secs(120) {
            bail!("not all machines came up: {:?}", pool.stats());
        }
        sleep(Duration::from_millis(20));
    }
    sleep(SETTLE);
    let mut each = Samples::default();
    for pid in children()?.into_iter().filter(|pid| !before.contains(pid)) {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        each.push(private_kib(pid)? as f64 / KIB_PER_MIB);
    }
    if each.len() < CROWD {
        bail!("{} workers instead of {CROWD}", each.len());
    }
    Ok(each)
}

/// Children of a running machine, by QEMU's time to init.
pub fn fork(context: &Context) -> Result<Vec<Metric>> {
    const ROUNDS: usize = 100;
    const MANY: usize = 10;
    const MUST_PAUSE: f64 = 0.03;
    const MUST_REPLY: f64 = 0.12;
    let mut inits = Inits::before(context)?;
    let image = baked(context, "bench-small", SMALL)?;
    let vm = Vm::start(&image, &context.copies())?;
    text("true", vm.exec(["true"])?)?;
    let (mut pauses, mut replies) = (Samples::default(), Samples::default());
    let (mut many_pauses, mut many_replies) = (Samples::default(), Samples::default());
    let rounds = context.rounds.unwrap_or(ROUNDS);
    for round in 0..rounds {
        // Ten children are ten times the work.
        let kinds: &mut [(usize, &mut Samples, &mut Samples)] = &mut [
            (1, &mut pauses, &mut replies),
            (MANY, &mut many_pauses, &mut many_replies),
        ];
        for (count, pauses, replies) in kinds {
            if *count > 1 && round % MANY != 0 {
                continue;
            }
            let begun = Instant::now();
            let children = vm.fork(*count)?;
            for child in &children {
                text("true", child.exec(["true"])?)?;
            }
            replies.push(milliseconds(begun));
            let pause = vm.last_fork_pause().context("a fork without a pause")?;
            pauses.push(pause.as_secs_f64() * 1e3);
        }
    }
    inits.more(context)?;
    let metric = |name, samples, must| inits.metric("fork", name, samples, must);
    let all = "all_replies_of_10";
    Ok(vec![
        metric("parent_pause", &pauses, MUST_PAUSE),
        metric("first_reply", &replies, MUST_REPLY),
        metric("parent_pause_of_10", &many_pauses, MUST_PAUSE),
        Metric::new("fork", all, "ms", &many_replies, None, Bound::Part),
    ])
}

fn cycle(pool: &Pool) -> Result<()> {
    let vm = pool.acquire()?;
    text("true", vm.exec(["true"])?)?;
    Ok(())
}

/// Commands a second, each in a machine as new, against one boot for each.
pub fn cycles(context: &Context) -> Result<Vec<Metric>> {
    const WINDOW: Duration = Duration::from_secs(2);
    const ROUNDS: usize = 5;
    /// 20 times as many as QEMU boots.
    const MUST: f64 = 1.0 / 20.0;
    let image = baked(context, "bench-small", SMALL)?;
    let mut peer = Samples::default();
    let mut ours = [(1, Samples::default()), (8, Samples::default())];
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        for (workers, samples) in &mut ours {
            let pool = image
                .pool()
                .vm_config(context.copies())
                .min(*workers)
                .max(*workers)
                .build()?;
            while pool.stats().idle < *workers {
                sleep(Duration::from_millis(5));
            }
            let done = AtomicU64::new(0);
            let begun = Instant::now();
            std::thread::scope(|scope| {
                let runs: Vec<_> = (0..*workers)
                    .map(|_| {
                        scope.spawn(|| {
                            while begun.elapsed() < WINDOW {
                                cycle(&pool)?;
                                done.fetch_add(1, Ordering::Relaxed);
                            }
                            Ok::<(), anyhow::Error>(())
                        })
                    })
                    .collect();
                for run in runs {
                    match run.join() {
                        Ok(outcome) => outcome?,
                        Err(_) => bail!("a thread of the bench panicked"),
                    }
                }
                Ok(())
            })?;
            #[expect(clippy::cast_precision_loss, reason = "some thousands")]
            samples.push(milliseconds(begun) / done.into_inner() as f64);
        }
        peer.push(context.qemu.time_to_init(SMALL)?.as_secs_f64() * 1e3);
    }
    let name = context.qemu.name(SMALL);
    let metrics = ours.iter().map(|(workers, samples)| {
        let name = format!("ms_a_cycle_{workers}_workers");
        (name, samples)
    });
    Ok(metrics
        .map(|(metric, samples)| {
            let peer = Some((name.as_str(), &peer));
            Metric::new("cycles", metric, "ms", samples, peer, Bound::Ratio(MUST))
        })
        .collect())
}

/// Copies with work on all vCPUs, and a pool used for long.
pub fn reliability(context: &Context) -> Result<Vec<Metric>> {
    const RESTORES: usize = 100;
    let mut metrics = Vec::new();
    for vcpus in [1, 2, 4, 8, 16] {
        if !context.wants("restores") {
            break;
        }
        let machine = Machine { vcpus, ..SMALL };
        let image = baked(context, &format!("bench-{vcpus}-vcpus"), machine)?;
        let mut failures = Samples::default();
        for round in 0..context.rounds.unwrap_or(RESTORES) {
            let outcome = work_on_all(context, &image, vcpus);
            if let Err(error) = &outcome {
                eprintln!("restore {round} with {vcpus} vCPUs: {error:#}");
            }
            failures.push(f64::from(u8::from(outcome.is_err())));
        }
        let mut sum = Samples::default();
        sum.push(failures.values().iter().sum());
        let name = format!("failures_{vcpus}_vcpus");
        let bound = Bound::Median(0.0);
        let mut metric = Metric::new("reliability", name, "failures", &sum, None, bound);
        metric.n = failures.len();
        metrics.push(metric);
    }
    if context.wants("growth") {
        metrics.extend(long_use(context)?);
    }
    Ok(metrics)
}

/// Makes every vCPU compute, in a process that is bound to it.
fn work_on_all(context: &Context, image: &supermachine::Image, vcpus: u32) -> Result<()> {
    /// SHA-1 of a million zero bytes, by coreutils.
    const DIGEST: &str = "bef3595266a65a2ff36b700a75e8ed95c68210b6  -";
    let vm = Vm::start(image, &context.copies())?;
    let script = format!(
        "for cpu in $(seq 0 {}); do \
         (taskset -c $cpu sh -c 'head -c 1000000 /dev/zero | sha1sum' || echo failed) & \
         done; wait; nproc",
        vcpus - 1
    );
    let outcome = vm
        .exec_builder()
        .argv(["sh", "-c", &script])
        .timeout(Duration::from_secs(60))
        .output()?;
    let said = text("the work", outcome)?;
    let lines: Vec<&str> = said.lines().collect();
    let mut expected = vec![DIGEST; vcpus as usize];
    let count = vcpus.to_string();
    expected.push(&count);
    if lines != expected {
        bail!("{vcpus} vCPUs said {said:?}");
    }
    Ok(())
}

/// What grows over many cycles of one pool, and over as many commands in one machine.
fn long_use(context: &Context) -> Result<Vec<Metric>> {
    const CYCLES: usize = 10_000;
    let cycles = context.rounds.map_or(CYCLES, |rounds| rounds * 100);
    let before = children()?;
    let image = baked(context, "bench-small", SMALL)?;
    let pool = image
        .pool()
        .vm_config(context.copies())
        .min(1)
        .max(1)
        .prestart(0)
        .build()?;
    warm_up(|| cycle(&pool))?;
    let workers: Vec<u32> = children()?
        .into_iter()
        .filter(|pid| !before.contains(pid))
        .collect();
    let [worker] = workers[..] else {
        bail!("{} workers instead of one", workers.len());
    };
    let mut metrics = growth("", cycles, worker, || cycle(&pool))?;
    let vm = pool.acquire()?;
    let command = || text("true", vm.exec(["true"])?).map(drop);
    warm_up(command)?;
    metrics.extend(growth("commands_", cycles, worker, command)?);
    Ok(metrics)
}

/// Until whatever is made once has been made.
fn warm_up(work: impl Fn() -> Result<()>) -> Result<()> {
    const ROUNDS: usize = 300;
    (0..ROUNDS).try_for_each(|_| work())
}

/// How much more this process and a worker have after doing something so often.
fn growth(
    prefix: &str,
    cycles: usize,
    worker: u32,
    work: impl Fn() -> Result<()>,
) -> Result<Vec<Metric>> {
    let own = std::process::id();
    let measure = || -> Result<[f64; 6]> {
        // Until the last reset is over.
        sleep(Duration::from_millis(200));
        let mut values = [0.0; 6];
        for (n, pid) in [own, worker].into_iter().enumerate() {
            let (files, threads) = files_and_threads(pid)?;
            for (at, value) in [files, threads, private_kib(pid)?].into_iter().enumerate() {
                #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
                let value = value as f64;
                values[3 * n + at] = value;
            }
        }
        Ok(values)
    };
    let start = measure()?;
    for _ in 0..cycles {
        work()?;
    }
    let end = measure()?;
    let names = [
        ("embedder_files", "files", 0.0),
        ("embedder_threads", "threads", 0.0),
        ("embedder_memory", "KiB", 1024.0),
        ("worker_files", "files", 0.0),
        ("worker_threads", "threads", 0.0),
        ("worker_memory", "KiB", 1024.0),
    ];
    let metrics = names.into_iter().zip(start.into_iter().zip(end));
    Ok(metrics
        .map(|((name, unit, most), (start, end))| {
            let mut growth = Samples::default();
            growth.push(end - start);
            let name = format!("{prefix}{name}_growth");
            let bound = Bound::Median(most);
            let mut metric = Metric::new("reliability", name, unit, &growth, None, bound);
            metric.n = cycles;
            metric
        })
        .collect())
}

//! Bakers that are killed, interrupted, many, or out of room: the old snapshot
//! or the new, and nothing of those that failed.

mod support;

use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};
use support::*;

/// How long workers may outlive whoever started them.
const ORPHAN_LIFE: Duration = Duration::from_secs(2);
/// Points of a bake at which it is ended.
const POINTS: u32 = 12;

fn await_no_process(sandbox: &Sandbox) {
    let begun = Instant::now();
    while !sandbox.processes().is_empty() {
        assert!(begun.elapsed() < ORPHAN_LIFE, "{:?}", sandbox.processes());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn bake(tag: &str) -> [&str; 7] {
    [
        "bake",
        "--name",
        "image",
        "--warmup",
        tag,
        "--json",
        busybox(),
    ]
}

/// Names in the snapshot's directory, but for the generations.
fn litter(sandbox: &Sandbox) -> Vec<String> {
    let entries = fs::read_dir(sandbox.files.join("s/image")).into_iter();
    let names = entries.flatten().flatten().map(|entry| entry.file_name());
    let names = names.map(|name| name.into_string().unwrap());
    let is_generation = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    names
        .filter(|name| !is_generation(name) && name != "current")
        .collect()
}

/// The image's snapshot is whole, nothing is beside it, and it runs.
fn assert_well(sandbox: &Sandbox) {
    let verified = sandbox.run(&["snapshot", "verify", "image"]);
    assert_eq!(verified.code(), 0, "{}", verified.err());
    assert_eq!(litter(sandbox), Vec::<String>::new());
}

/// How long a bake takes here and now, without what only the first one does.
fn time_of_a_bake(sandbox: &Sandbox) -> Duration {
    assert_eq!(sandbox.run(&bake("true # first")).code(), 0);
    let begun = Instant::now();
    assert_eq!(sandbox.run(&bake("true")).code(), 0);
    begun.elapsed()
}

/// Starts bakes and ends each at another point of it.
fn at_each_point(sandbox: &Sandbox, first: u32, mut end: impl FnMut(Child)) {
    let whole = time_of_a_bake(sandbox);
    for point in first..first + POINTS {
        // Each has another tag, so that there is something to bake.
        let tag = format!("true {point}");
        let baker = sandbox.command(&bake(&tag)).spawn().unwrap();
        std::thread::sleep(whole * (point - first) / POINTS);
        end(baker);
    }
}

#[test]
fn a_killed_baker_leaves_the_old_snapshot_or_the_new() {
    let sandbox = Sandbox::new();
    at_each_point(&sandbox, 0, |mut baker| {
        signal(baker.id(), Signal::KILL);
        wait(&mut baker, Duration::from_secs(5));
        // Also while its worker still writes.
        let again = sandbox.run(&bake("true"));
        assert_eq!(again.code(), 0, "{}", again.err());
        assert_well(&sandbox);
        await_no_process(&sandbox);
    });
    sandbox.assert_clean();
}

#[test]
fn an_interrupted_baker_takes_back_what_it_has_begun() {
    let sandbox = Sandbox::new();
    let mut ended = BTreeSet::new();
    at_each_point(&sandbox, 0, |baker| {
        let (which, status) = match ended.len() % 2 {
            0 => (Signal::INT, 130),
            _ => (Signal::TERM, 143),
        };
        let pid = baker.id();
        signal(pid, which);
        let baked = finish(baker, Duration::from_secs(10));
        // At the very beginning it has not said yet what signals mean to it.
        match baked.status.code() {
            None => assert!(ended.is_empty(), "{baked:?}"),
            Some(0) => assert!(ended.len() > 1, "{baked:?}"),
            Some(code) => {
                assert_eq!(code, status, "{}", baked.err());
                assert_eq!((baked.out(), baked.err()), Default::default());
            }
        }
        ended.insert(pid);
        sandbox.assert_clean();
        assert_well(&sandbox);
    });
}

#[test]
fn an_interrupted_run_takes_back_the_snapshot_it_has_begun() {
    let sandbox = Sandbox::new();
    let begun = Instant::now();
    assert_eq!(sandbox.run_shell(&[], "true").code(), 0);
    let whole = begun.elapsed();
    for point in 1..8 {
        let snapshots = sandbox.files.join("s");
        let _ = fs::remove_dir_all(&snapshots);
        let run = sandbox.shell(&[], "sleep 100").spawn().unwrap();
        std::thread::sleep(whole * point / 8);
        signal(run.id(), Signal::TERM);
        let run = finish(run, Duration::from_secs(10));
        assert_eq!(run.code(), 143, "{}", run.err());
        sandbox.assert_clean();
        let images = fs::read_dir(&snapshots).into_iter().flatten().flatten();
        let unfinished = images
            .flat_map(|image| fs::read_dir(image.path()).into_iter().flatten().flatten())
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "tmp"));
        assert_eq!(unfinished.collect::<Vec<_>>(), Vec::<PathBuf>::new());
    }
}

//! Bakers that are killed, interrupted, many, or out of room: the old snapshot
//! or the new, and nothing of those that failed.

mod support;

use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use supermachine::{Error, Image};
use support::disk::Disk;
use support::shelf::*;
use support::*;

/// Points of a bake at which it is ended.
const POINTS: u32 = 12;

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
    assert_eq!(sandbox.run(&bake_with("true # first")).code(), 0);
    // The shortest: of one that the host held up, most points would lie behind
    // the end of the others.
    let times = ["true # second", "true # third", "true"].map(|tag| {
        let begun = Instant::now();
        assert_eq!(sandbox.run(&bake_with(tag)).code(), 0);
        begun.elapsed()
    });
    times.into_iter().min().unwrap_or_default()
}

/// Starts bakes and ends each at another point of it.
fn at_each_point(sandbox: &Sandbox, mut end: impl FnMut(Child)) {
    let whole = time_of_a_bake(sandbox);
    for point in 0..POINTS {
        // Each has another tag, so that there is something to bake.
        let tag = format!("true {point}");
        let baker = sandbox.command(&bake_with(&tag)).spawn().unwrap();
        std::thread::sleep(whole * point / POINTS);
        end(baker);
    }
}

#[test]
fn a_killed_baker_leaves_the_old_snapshot_or_the_new() {
    let sandbox = Sandbox::new();
    at_each_point(&sandbox, |mut baker| {
        signal(baker.id(), Signal::KILL);
        wait(&mut baker, Duration::from_secs(5));
        // Also while its worker still writes.
        let again = sandbox.run(&bake_with("true"));
        assert_eq!(again.code(), 0, "{}", again.err());
        assert_well(&sandbox);
        sandbox.await_no_process();
    });
    sandbox.assert_clean();
}

#[test]
fn an_interrupted_baker_takes_back_what_it_has_begun() {
    let sandbox = Sandbox::new();
    let (mut ended, mut taken_back) = (BTreeSet::new(), 0);
    at_each_point(&sandbox, |baker| {
        let (which, status) = match ended.len() % 2 {
            0 => (Signal::INT, 130),
            _ => (Signal::TERM, 143),
        };
        let pid = baker.id();
        signal(pid, which);
        let baked = finish(baker, Duration::from_secs(10));
        // At the very beginning it has not said yet what signals mean to it.
        match baked.status.code() {
            None => assert_eq!(baked.status.signal(), Some(which.as_raw())),
            Some(0) => assert!(ended.len() > 1, "{baked:?}"),
            Some(code) => {
                assert_eq!((code, baked.err()), (status, String::new()));
                // What it said of a snapshot, before it removed the one before, is so.
                if !baked.out().is_empty() {
                    let report: serde_json::Value = serde_json::from_str(&baked.out()).unwrap();
                    assert!(Path::new(report["snapshot"].as_str().unwrap()).is_dir());
                }
            }
        }
        taken_back += u32::from(baked.status.code() == Some(status) && baked.out().is_empty());
        ended.insert(pid);
        sandbox.assert_clean();
        assert_well(&sandbox);
    });
    assert!(taken_back >= POINTS / 2, "only {taken_back}");
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
        let before_it_looked = run.status.signal() == Some(15);
        assert!(before_it_looked || run.code() == 143, "{}", run.err());
        sandbox.assert_clean();
        let images = fs::read_dir(&snapshots).into_iter().flatten().flatten();
        let unfinished = images
            .flat_map(|image| fs::read_dir(image.path()).into_iter().flatten().flatten())
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "tmp"));
        assert_eq!(unfinished.collect::<Vec<_>>(), Vec::<PathBuf>::new());
    }
}

#[test]
fn of_eight_processes_one_bakes_and_all_have_the_snapshot() {
    let sandbox = Sandbox::new();
    // Whatever state the others find the directories in.
    for round in 0..3 {
        let tag = format!("true {round}");
        let bakers: Vec<Child> = (0..8)
            .map(|_| sandbox.command(&bake_with(&tag)).spawn().unwrap())
            .collect();
        let paths: BTreeSet<String> = bakers
            .into_iter()
            .map(|baker| {
                let baked = finish(baker, PATIENCE);
                assert_eq!(baked.code(), 0, "{}", baked.err());
                let report: serde_json::Value = serde_json::from_slice(&baked.stdout).unwrap();
                report["snapshot"].as_str().unwrap().to_owned()
            })
            .collect();
        let expected = sandbox.files.join(format!("s/image/{:010}", round + 1));
        assert_eq!(paths, BTreeSet::from([expected.display().to_string()]));
        assert_well(&sandbox);
    }
    // A worker that was about to end kept what it used from being removed.
    sandbox.await_no_process();
    assert_eq!(sandbox.run(&bake_with("true last")).code(), 0);
    let left: Vec<_> = fs::read_dir(sandbox.files.join("s/image"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    // The pointer, and one.
    assert_eq!(left.len(), 2, "{left:?}");
}

/// Those of this process and their directories; other tests have other
/// children meanwhile.
fn workers_left_behind() -> Vec<PathBuf> {
    let is_other = |path: &PathBuf| {
        // One that was listed and is gone is nobody's.
        let name = fs::read_to_string(path.join("comm"));
        path.starts_with("/proc") && !name.is_ok_and(|name| name.starts_with("supermachine-wo"))
    };
    let left = left_behind().into_iter();
    left.filter(|path| !is_other(path)).collect()
}

#[test]
fn a_full_disk_is_an_error_and_the_snapshot_before_stays() {
    let _alone = alone();
    let Some(disk) = Disk::new(100) else {
        println!("skipped: this user may not mount a file system in a namespace");
        return;
    };
    let shelf = Shelf(disk.path.join("s"));
    let first = shelf.bake().snapshot_path().unwrap().to_owned();
    // What a further one takes, whose base is there.
    let empty = disk.free_bytes();
    drop(shelf.builder().name("other").build().unwrap());
    let needed = empty - disk.free_bytes();
    let listing = || -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(shelf.0.join("image")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let before = listing();
    let mut failed_at = BTreeSet::new();
    // From no room for a directory over room for some of the memory to all
    // but a layer, in 64ths of what there should be.
    for parts in [0, 1, 7, 20, 41, 55, 62] {
        disk.leave(needed * parts / 64);
        let tag = format!("{parts} parts");
        let builder = shelf.builder().with_warmup_tag(tag).with_warmup(|_| Ok(()));
        let begun = Instant::now();
        let error = builder.build().unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert!(matches!(error, Error::Snapshot(_)), "{error:?}");
        let causes = format!("{error}: {:?}", std::error::Error::source(&error));
        assert!(
            causes.contains("os error 28") || causes.contains("StorageFull"),
            "{causes}"
        );
        failed_at.insert(["mem.bin", "squashfs"].map(|file| causes.contains(file)));
        assert_eq!(listing(), before);
        await_end_of_others(&[], workers_left_behind);
        // Linux takes room for the holes of a file in memory that are read.
        fs::remove_file(disk.path.join("fill")).unwrap();
        let old = Image::from_snapshot_with(shelf.0.join("image"), &library_config()).unwrap();
        assert_eq!(old.snapshot_path(), Some(&*first));
        assert_eq!(sh(&copy(&old), "echo whole"), "whole");
    }
    println!("{failed_at:?}");
    assert!(failed_at.len() > 1, "{failed_at:?}");
}

#[test]
fn files_that_may_not_grow_are_an_error_and_who_only_runs_boots() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run(&bake_with("true")).code(), 0);
    // In units of 512 bytes: enough for all files but the memory.
    let limited = |arguments: &[&str]| {
        let plain = sandbox.command(arguments);
        let variables = plain
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        let mut limited = Command::new("sh");
        limited
            .args(["-c", "trap '' XFSZ; ulimit -f 20000; exec \"$@\"", "sh"])
            .arg(plain.get_program())
            .args(plain.get_args())
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        finish(limited.spawn().unwrap(), PATIENCE)
    };
    let refused = limited(&bake_with("true # more"));
    refused.assert_refused(125, &["mem.bin", "File too large"]);
    sandbox.assert_clean();
    assert_well(&sandbox);
    assert_eq!(sandbox.run(&bake_with("true")).code(), 0);
    let ran = limited(&["run", busybox(), "--", "echo", "booted"]);
    assert_eq!((ran.code(), &*ran.out()), (0, "booted\n"), "{}", ran.err());
    assert!(ran.err().contains("without a snapshot"), "{}", ran.err());
}

//! How much memory copies have, and what of it goes back to the host.

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use supermachine::{Error, Image, Vm};
use support::shelf::*;
use support::*;

/// A line of /proc/meminfo.
fn memory_mib(vm: &Vm, line: &str) -> u64 {
    let script = format!("awk '/^{line}:/ {{print $2}}' /proc/meminfo");
    let kib: u64 = sh(vm, &script).parse().unwrap();
    kib / 1024
}

#[test]
fn copies_take_more_or_less_memory_and_keep_it_over_leases() {
    let shelf = Shelf::new("memory");
    let image = shelf.bake();
    let plain = copy(&image);
    let (total, free) = (
        memory_mib(&plain, "MemTotal"),
        memory_mib(&plain, "MemFree"),
    );
    // What a balloon holds is neither free nor there; what is added is both.
    let cases = [
        (128, "MemFree", free - 128),
        (128, "MemTotal", total - 128),
        (512, "MemTotal", total + 256),
        (1024, "MemTotal", total + 768),
    ];
    for (mib, line, expected) in cases {
        let pool = image
            .pool()
            .vm_config(library_config())
            .memory_mib(mib)
            .max(1);
        let pool = pool.prestart(0).build().unwrap();
        for _ in 0..3 {
            let vm = pool.acquire().unwrap();
            let has = memory_mib(&vm, line);
            assert!(has.abs_diff(expected) <= 24, "{has} instead of {expected}");
            let status = vm.status().unwrap();
            let balance = i128::from(status.added_bytes) - i128::from(status.ballooned_bytes);
            assert_eq!(balance >> 20, i128::try_from(mib).unwrap() - 256);
            if mib > 256 {
                sh(
                    &vm,
                    "dd if=/dev/zero of=/dev/shm/x bs=1M count=300 2>/dev/null || true",
                );
                assert!(vm.snapshot(shelf.0.join("big")).is_err());
                assert_eq!(sh(&vm, "echo on"), "on");
            }
        }
    }
}

#[test]
fn memory_that_copies_cannot_have_is_refused_by_its_range() {
    let shelf = Shelf::new("range");
    let image = shelf.bake();
    let begun = Instant::now();
    for mib in [1, 20, 47, 40_000, usize::MAX] {
        let config = library_config().with_memory_mib(mib);
        let pool = image.pool().vm_config(config.clone()).build();
        for error in [Vm::start(&image, &config).unwrap_err(), pool.unwrap_err()] {
            let Error::MemoryOutOfRange {
                memory_mib,
                min_mib,
                max_mib,
            } = error
            else {
                panic!("{error}");
            };
            assert_eq!(memory_mib, mib);
            assert!(min_mib <= 64 && (1024..40_000).contains(&max_mib));
        }
    }
    // No worker was started for that.
    assert!(begun.elapsed() < Duration::from_secs(20));
    // What falls between two units is rounded up.
    let vm = Vm::start(&image, &library_config().with_memory_mib(257)).unwrap();
    assert_eq!(vm.status().unwrap().added_bytes, 2 << 20);
    a_worker_is_held_to_its_share_or_not_started(&image);
}

fn a_worker_is_held_to_its_share_or_not_started(image: &Image) {
    let config = library_config()
        .with_host_memory_mib(700)
        .with_host_cpus(1.5);
    let vm = match Vm::start(image, &config) {
        Ok(vm) => vm,
        Err(error) => {
            let text = error.to_string();
            assert!(
                matches!(error, Error::Host { .. }) && text.contains("control group"),
                "{text}"
            );
            println!("skipped, as this user can make no control group here: {text}");
            return;
        }
    };
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", worker_of(&vm))).unwrap();
    let group = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap();
    assert!(group.contains("/supermachine-"), "{groups}");
    let group = Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/'));
    let read = |file: &str| fs::read_to_string(group.join(file)).unwrap();
    assert_eq!(read("memory.max").trim(), (700 << 20).to_string());
    assert_eq!(read("cpu.max").trim(), "150000 100000");
    assert_eq!(sh(&vm.fork(1).unwrap()[0], "echo on"), "on");
    assert_eq!(sh(&vm, "echo on"), "on");
}

#[test]
fn children_share_added_memory_until_they_write() {
    let shelf = Shelf::new("added");
    let image = shelf.bake();
    let vm = Vm::start(&image, &library_config().with_memory_mib(512)).unwrap();
    // More than there is without what was added.
    let fill = "mount -o remount,size=400m /dev/shm; for i in $(seq 38); do cat /bin/busybox; done | head -c 300m > /dev/shm/x";
    sh(&vm, fill);
    let sum = sh(&vm, "md5sum /dev/shm/x");
    let children = vm.fork(2).unwrap();
    for child in &children {
        assert_eq!(child.status().unwrap().added_bytes, 256 << 20);
        assert_eq!(sh(child, "md5sum /dev/shm/x"), sum);
        sh(child, "echo mine > /dev/shm/x");
    }
    assert_eq!(sh(&vm, "md5sum /dev/shm/x"), sum);
}

/// MiB of a process that no other process shares.
#[cfg(target_os = "linux")]
fn private_mib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let kib: u64 = text
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    kib / 1024
}

#[cfg(target_os = "linux")]
#[test]
fn memory_that_a_guest_frees_goes_back_to_the_host_while_it_runs() {
    let shelf = Shelf::new("freed");
    let image = shelf.bake();
    let pool = image.pool().vm_config(library_config()).max(1);
    let pool = pool.prestart(0).build().unwrap();
    let sums = "md5sum /bin/busybox /etc/passwd";
    let vm = pool.acquire().unwrap();
    let before = sh(&vm, sums);
    let worker = worker_of(&vm);
    let fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=100 2>/dev/null";
    sh(&vm, fill);
    let full = private_mib(worker);
    assert!(full > 100, "{full}");
    sh(&vm, "rm /dev/shm/x");
    // Linux waits two seconds before it reports (PAGE_REPORTING_DELAY).
    let begun = Instant::now();
    let mut left = full;
    while left > full - 80 && begun.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(200));
        left = private_mib(worker);
    }
    assert!(left <= full - 80, "{left} MiB of {full} are left");
    // What was given back is there again for the next lease, as it was baked.
    drop(vm);
    let vm = pool.acquire().unwrap();
    assert_eq!(worker_of(&vm), worker);
    sh(&vm, fill);
    assert_eq!(sh(&vm, sums), before);
    let zeros = format!("{:x}  -", 0x2f28_2b84_e7e6_08d5_8524_49ed_940b_fc51_u128);
    assert_eq!(sh(&vm, "md5sum < /dev/shm/x"), zeros);
}

/// Runs a program that touches `mib` MiB; whether it came to its end. The guest's
/// kernel promises it more than there is.
fn can_touch(vm: &Vm, mib: u32) -> bool {
    let script = format!(
        "echo 1 > /proc/sys/vm/overcommit_memory; exec dd if=/dev/zero of=/dev/null bs={mib}M count=1"
    );
    let touch = vm.exec_builder().argv(["sh", "-c", &script]);
    let out = touch.timeout(Duration::from_secs(120)).output().unwrap();
    assert!(out.success() || out.status.signal == Some(9), "{out:?}");
    out.success()
}

#[test]
fn copy_with_less_memory_than_its_snapshot_has_no_more() {
    let shelf = Shelf::new("limit");
    let image = shelf.bake();
    let limited = library_config().with_memory_mib(128);
    let pool = image.pool().vm_config(limited.clone()).max(1);
    let pool = pool.prestart(0).build().unwrap();
    for _ in 0..2 {
        let vm = pool.acquire().unwrap();
        assert!(can_touch(&vm, 60));
        assert!(!can_touch(&vm, 200));
        // What the killed program had is there for the next.
        assert!(can_touch(&vm, 60));
        assert_eq!(vm.status().unwrap().ballooned_bytes, 128 << 20);
    }
    drop(pool);
    assert!(can_touch(&copy(&image), 200));

    // A copy of a limited machine is as limited, unless it is asked for more.
    let vm = Vm::start(&image, &limited).unwrap();
    let image = vm.snapshot(shelf.0.join("limited")).unwrap();
    assert!(!can_touch(&copy(&image), 200));
    let whole = library_config().with_memory_mib(256);
    assert!(can_touch(&Vm::start(&image, &whole).unwrap(), 200));
}

/// Small files, each of which has a page of memory of its own.
const SMALL_FILES: &str = "mkdir /dev/shm/d && mount -o remount,size=200m,nr_inodes=100000 /dev/shm \
    && i=0; while [ $i -lt 20000 ]; do echo x > /dev/shm/d/$i; i=$((i+1)); done";

#[cfg(target_os = "linux")]
#[test]
fn memory_that_a_guest_frees_page_by_page_goes_back_to_the_host() {
    let shelf = Shelf::new("pages");
    let vm = copy(&shelf.bake());
    let worker = worker_of(&vm);
    let before = private_mib(worker);
    sh(&vm, SMALL_FILES);
    let full = private_mib(worker);
    assert!(full >= before + 78, "{before} MiB became {full}");
    sh(&vm, "rm -r /dev/shm/d");
    let begun = Instant::now();
    let mut left = full;
    // The pages; what the kernel keeps of the files themselves is small.
    while left > full - 60 && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(200));
        left = private_mib(worker);
    }
    assert!(
        left <= full - 60,
        "{left} MiB of {full} are left, {before} at first"
    );
}

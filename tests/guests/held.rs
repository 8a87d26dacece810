//! That no program of a copy runs before the copy is a machine of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};
use supermachine::{Image, Vm, VmConfig};
use supermachine_tests::{COMMAND_TIMEOUT, config, required, sh};

const RING: &str = "/dev/shm/ring";
/// What the captured machine believes the time to be: 2001, in s.
const CAPTURED_S: u64 = 1_000_000_000;
const PAIRS: usize = 10;

/// What a spinner drew, by CPU and count: a random number and the wall clock.
type Drawn = BTreeMap<(u32, u64), (String, u64)>;

/// Starts spinners on every CPU of a machine whose clock is set to the past.
fn start_spinners(vm: &Vm) {
    let source = include_bytes!("../programs/c-spinners.c");
    let compiled = vm
        .exec_builder()
        .stage_file("/tmp/spinners.c", source)
        .argv(["gcc", "-O1", "-w", "-o", "/spinners", "/tmp/spinners.c"])
        .timeout(COMMAND_TIMEOUT)
        .output()
        .unwrap();
    assert!(compiled.success(), "{compiled:?}");
    sh(
        vm,
        &format!("date -s @{CAPTURED_S} && /spinners {RING} < /dev/null > /dev/null 2>&1"),
    );
}

/// What was drawn, once every spinner has drawn enough in the present.
fn drawn(vm: &Vm) -> Drawn {
    let lines = sh(vm, &format!("sleep 0.5; /spinners {RING} show"));
    let mut drawn = Drawn::new();
    for line in lines.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [cpu, at, number, wall_ns] = fields[..] else {
            panic!("{line:?}");
        };
        let key = (cpu.parse().unwrap(), at.parse().unwrap());
        drawn.insert(key, (number.to_owned(), wall_ns.parse().unwrap()));
    }
    drawn
}

/// Counts what `one` drew after the capture that `other` drew as well, and how
/// often it saw the clock of the capture then. What both hold in the same place
/// is from before. On each CPU one draw may have been under way.
fn check(vcpus: u32, begun_ns: u64, one: &Drawn, other: &Drawn) -> (usize, usize) {
    let (mut repeated, mut old) = (0, 0);
    for cpu in 0..vcpus {
        let lane = |drawn: &Drawn| -> Vec<(u64, (String, u64))> {
            let range = drawn.range((cpu, 0)..(cpu + 1, 0));
            range.map(|((_, at), entry)| (*at, entry.clone())).collect()
        };
        let after = |drawn: &Drawn, than: &Drawn| -> Vec<(String, u64)> {
            let lane = lane(drawn).into_iter();
            lane.filter(|(at, entry)| than.get(&(cpu, *at)) != Some(entry))
                .map(|(_, entry)| entry)
                .skip(1)
                .collect()
        };
        let mine = after(one, other);
        assert!(mine.len() > 100, "cpu {cpu} drew {} numbers", mine.len());
        let theirs = after(other, one);
        let theirs: BTreeSet<&str> = theirs.iter().map(|(number, _)| number.as_str()).collect();
        repeated += mine
            .iter()
            .filter(|(number, _)| theirs.contains(number.as_str()))
            .count();
        old += mine.iter().filter(|(_, wall)| *wall < begun_ns).count();
    }
    (repeated, old)
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap().as_nanos()).unwrap()
}

fn image(name: &str, vcpus: u32) -> (tempfile::TempDir, Image, VmConfig) {
    let dir = tempfile::tempdir().unwrap();
    let config = config()
        .with_memory_mib(512)
        .with_vcpus(vcpus)
        .with_restore_timeout(Duration::from_secs(60));
    let layout = required("guest-images/gcc", "cargo xtask images");
    let image = Image::builder(format!("oci:{}", layout.display()))
        .name(name)
        .vm_config(config.clone())
        .snapshots_dir(dir.path())
        .with_warmup(|vm| {
            start_spinners(vm);
            Ok(())
        })
        .build()
        .unwrap();
    (dir, image, config)
}

fn check_pairs(vcpus: u32) {
    let (_dir, image, config) = image(&format!("held-{vcpus}"), vcpus);
    let mut found = Vec::new();
    // Any clock of today is a copy's own: a lease may have been reset long ago.
    let begun = now_ns() - 3_600_000_000_000;
    for _ in 0..PAIRS {
        let copies = [0, 1].map(|_| Vm::start(&image, &config).unwrap());
        let [one, other] = copies.each_ref().map(drawn);
        found.push(("copies", check(vcpus, begun, &one, &other)));
    }
    let pool = image.pool().vm_config(config.clone()).max(1);
    let pool = pool.prestart(0).build().unwrap();
    for _ in 0..PAIRS {
        let [one, other] = [0, 1].map(|_| drawn(&pool.acquire().unwrap()));
        found.push(("leases", check(vcpus, begun, &one, &other)));
    }
    drop(pool);
    for _ in 0..PAIRS {
        let parent = Vm::start(&image, &config).unwrap();
        sh(
            &parent,
            &format!(
                "rm {RING}; date -s @{CAPTURED_S}; /spinners {RING} < /dev/null > /dev/null 2>&1; sleep 0.2"
            ),
        );
        let children = parent.fork(2).unwrap();
        let [one, other] = [0, 1].map(|n: usize| drawn(&children[n]));
        found.push(("children", check(vcpus, begun, &one, &other)));
    }
    let bad: Vec<_> = found.iter().filter(|(_, bad)| *bad != (0, 0)).collect();
    assert!(bad.is_empty(), "repeated, and with the old clock: {bad:?}");
}

#[test]
fn copies_of_one_vcpu_run_nothing_before_they_are_unique() {
    check_pairs(1);
}

#[test]
fn copies_of_two_vcpus_run_nothing_before_they_are_unique() {
    check_pairs(2);
}

#[test]
fn copies_of_four_vcpus_run_nothing_before_they_are_unique() {
    check_pairs(4);
}

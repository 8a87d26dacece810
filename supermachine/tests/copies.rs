//! Copies of a baked machine: each a machine of its own, each lease like the
//! first, whatever happens to files and processes around them.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use supermachine::{Error, Image, PooledVm, Trigger, Vm, VmConfig};
use support::shelf::*;
use support::*;

const IDENTITY: &str = "head -c 16 /dev/urandom | sha1sum; cat /proc/sys/kernel/random/boot_id";

#[test]
fn each_copy_and_each_lease_is_a_machine_of_its_own() {
    let shelf = Shelf::new("own");
    let image = shelf
        .builder()
        .with_warmup(|vm| {
            vm.exec([
                "sh",
                "-c",
                "cut -d' ' -f1 /proc/uptime > /tmp/uptime; cat /proc/sys/kernel/random/boot_id",
            ])?;
            Ok(())
        })
        .build()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let mut seen = BTreeSet::new();
    let mut check = |vm: &Vm, is_fresh: bool| {
        // The guest's own time went on from the capture, whatever the age of
        // the snapshot. One that waited in a pool has lived since.
        let uptimes = sh(vm, "cat /tmp/uptime; cut -d' ' -f1 /proc/uptime");
        let times: Vec<f64> = uptimes.lines().map(|line| line.parse().unwrap()).collect();
        assert!(
            times[0] <= times[1] && (!is_fresh || times[1] < times[0] + 2.0),
            "{times:?}"
        );
        for line in sh(vm, IDENTITY).lines() {
            assert!(seen.insert(line.to_owned()), "twice: {line}");
        }
        let report = vm.copy_report().unwrap();
        assert_ne!(report.generation, [0; 16]);
        assert!(clock_error_ms(vm) < 1000, "{}", clock_error_ms(vm));
        // The machine that was baked was a copy itself, of the base.
        assert_eq!(sh(vm, "dmesg | grep -c 'virtual machine fork'"), "2");
    };
    for _ in 0..2 {
        check(&copy(&image), true);
    }
    let pool = image
        .pool()
        .vm_config(library_config())
        .max(1)
        .build()
        .unwrap();
    for _ in 0..3 {
        check(&pool.acquire().unwrap(), false);
    }
    pool.shutdown();
}

#[test]
fn a_copy_decodes_little_of_what_the_baked_machine_noted() {
    let shelf = Shelf::new("hot");
    let image = shelf.builder().build().unwrap();
    // What is captured later has no notes.
    let cold = copy(&image).snapshot(shelf.0.join("cold")).unwrap();
    let blocks = |image: &Image| {
        let vm = copy(image);
        assert_eq!(sh(&vm, "echo hi"), "hi");
        let status = vm.status().unwrap();
        (status.blocks_decoded, status.blocks_ahead)
    };
    let (all, ahead) = blocks(&cold);
    assert!(all > 1000 && ahead == 0, "{all} and {ahead}");
    // The thread that decodes ahead needs a core of its own, which a busy host gives
    // to others now and then.
    let mut seen = Vec::new();
    let is_helped = (0..20).any(|_| {
        let (decoded, ahead) = blocks(&image);
        seen.push((decoded, ahead));
        ahead > 0 && decoded < all / 2
    });
    assert!(is_helped, "{seen:?} of {all}");
}

#[test]
fn copies_take_names_and_more_or_fewer_vcpus() {
    let shelf = Shelf::new("overrides");
    let image = shelf.builder().vcpus(2).build().unwrap();
    for vcpus in [1, 2, 4] {
        let config = library_config()
            .with_vcpus(vcpus)
            .with_hostname(format!("copy-{vcpus}"));
        let vm = Vm::start(&image, &config).unwrap();
        assert_eq!(sh(&vm, "nproc; hostname"), format!("{vcpus}\ncopy-{vcpus}"));
        assert_eq!(vm.copy_report().unwrap().vcpus, vcpus);
    }
    assert_eq!(sh(&copy(&image), "nproc"), "2");
}

#[test]
fn the_clocks_of_all_vcpus_of_a_copy_agree() {
    let shelf = Shelf::new("clocks");
    // Read on one vCPU after the other, time must go on, and not far.
    let walk = "for round in 1 2 3; do for cpu in 0 1 2 3; do
        taskset -c $cpu cut -d' ' -f1 /proc/uptime; done; done";
    let check = |vm: &Vm| {
        let text = sh(vm, walk);
        let times: Vec<f64> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(times.len(), 12);
        assert!(times.is_sorted(), "{times:?}");
        assert!(times[11] < times[0] + 20.0, "{times:?}");
    };
    for vcpus in [1, 4] {
        let image = shelf.builder().vcpus(vcpus).build().unwrap();
        let four = library_config().with_vcpus(4);
        let pool = image.pool().vm_config(four).max(1).build().unwrap();
        for _ in 0..3 {
            let vm = pool.acquire().unwrap();
            check(&vm);
            vm.fork(1).unwrap().iter().for_each(check);
        }
    }
}

/// What a tenant leaves, and what the next one must not see of it.
const LEAVE: &str = "
echo secret > /root/file; echo secret > /tmp/file; mkdir -p /mnt/m; mount -t tmpfs x /mnt/m
hostname tenant-a; date -s 2001-01-01 >/dev/null; echo 1 > /proc/sys/vm/overcommit_memory
dd if=/dev/zero of=/fill bs=1M count=20 2>/dev/null
(while :; do sleep 100; done) & nc -l -p 7777 & sleep 0.1";
const LOOK: &str = "
ls /root/file /tmp/file /fill 2>/dev/null; grep -c ' /mnt/m ' /proc/mounts; hostname
cat /proc/sys/vm/overcommit_memory; ps | grep -c '[s]leep 100'; netstat -ltn | grep -c :7777; true";

#[test]
fn nothing_of_a_lease_is_seen_by_the_next() {
    let shelf = Shelf::new("isolation");
    let image = shelf.bake();
    let pool = image
        .pool()
        .vm_config(library_config())
        .max(1)
        .prestart(0)
        .build()
        .unwrap();
    let vm = pool.acquire().unwrap();
    let (clean, worker) = (sh(&vm, LOOK), worker_of(&vm));
    drop(vm);
    for _ in 0..3 {
        let vm = pool.acquire().unwrap();
        assert_eq!(sh(&vm, LOOK), clean);
        vm.exec_builder()
            .argv(["sh", "-c", LEAVE])
            .output()
            .unwrap();
        assert_ne!(sh(&vm, LOOK), clean);
    }
    let vm = pool.acquire().unwrap();
    assert!(clock_error_ms(&vm) < 1000);
    // Reset in place, not replaced by another.
    assert_eq!(worker_of(&vm), worker);
}

#[test]
fn without_restore_the_next_finds_what_the_last_left() {
    let shelf = Shelf::new("keep");
    let pool = shelf
        .bake()
        .pool()
        .vm_config(library_config())
        .max(1)
        .restore_on_release(false)
        .build()
        .unwrap();
    sh(&pool.acquire().unwrap(), "echo kept > /tmp/kept");
    assert_eq!(sh(&pool.acquire().unwrap(), "cat /tmp/kept"), "kept");
}

#[test]
fn a_workload_is_captured_listening_or_started_by_each_copy() {
    let serve = "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 8000 -h /www";
    let shelf = Shelf::new("listener");
    let image = shelf
        .builder()
        .cmd(["sh", "-c", serve])
        .guest_port(8000)
        .listener_required(true)
        .build()
        .unwrap();
    let fetch = "wget -q -O - http://127.0.0.1:8000/";
    for _ in 0..2 {
        assert_eq!(sh(&copy(&image), fetch), "hello");
    }
    let started = shelf
        .builder()
        .name("started")
        .cmd(["sh", "-c", serve])
        .trigger(Trigger::Ready)
        .build()
        .unwrap();
    let patient = format!("for i in $(seq 50); do {fetch} 2>/dev/null && exit; sleep 0.1; done");
    assert_eq!(sh(&copy(&started), &patient), "hello");
    // Found again, not baked again.
    let again = shelf
        .builder()
        .name("started")
        .cmd(["sh", "-c", serve])
        .build()
        .unwrap();
    assert_eq!(again.snapshot_path(), started.snapshot_path());
}

#[test]
fn a_running_machine_is_copied_and_goes_on() {
    let shelf = Shelf::new("running");
    let vm = copy(&shelf.bake());
    sh(
        &vm,
        "echo before > /tmp/state; (while :; do echo x >> /tmp/ticks; sleep 0.01; done) >/dev/null 2>&1 &",
    );
    let mut busy = vm
        .exec_builder()
        .argv([
            "sh",
            "-c",
            "for i in $(seq 200); do echo $i; sleep 0.005; done",
        ])
        .spawn()
        .unwrap();
    let image = vm.snapshot(shelf.0.join("moment")).unwrap();
    let children = vm.fork(2).unwrap();
    // A command that streams through both is not disturbed.
    let mut text = String::new();
    std::io::Read::read_to_string(&mut busy.stdout().unwrap(), &mut text).unwrap();
    assert!(busy.wait().unwrap().success());
    assert_eq!(text.lines().count(), 200);
    sh(&vm, "echo after > /tmp/state");
    for other in children.iter().chain([&copy(&image)]) {
        assert_eq!(sh(other, "cat /tmp/state"), "before");
        let grows = sh(other, "wc -l < /tmp/ticks; sleep 0.3; wc -l < /tmp/ticks");
        let counts: Vec<u32> = grows
            .lines()
            .map(|line| line.trim().parse().unwrap())
            .collect();
        assert!(counts[1] > counts[0], "{counts:?}");
        sh(other, "echo mine > /tmp/state");
    }
    assert_eq!(sh(&vm, "cat /tmp/state"), "after");
}

fn error_of(image: &Path) -> Error {
    Image::from_snapshot_with(image, &library_config())
        .and_then(|image| Vm::start(&image, &library_config()))
        .map(|_| ())
        .unwrap_err()
}

#[test]
fn damaged_snapshots_are_errors_that_say_so() {
    let shelf = Shelf::new("damage");
    let image = shelf.bake();
    let path = image.snapshot_path().unwrap().to_owned();
    drop(image);
    Image::from_snapshot_with(&path, &library_config()).unwrap();
    for name in ["state.bin", "manifest.json", "image.json", "ws.bin"] {
        let file = path.join(name);
        let whole = fs::read(&file).unwrap();
        let step = (whole.len() / 40).max(1);
        for at in (0..whole.len()).step_by(step) {
            let mut bad = whole.clone();
            bad[at] ^= 0x41;
            fs::write(&file, &bad).unwrap();
            error_of(&path);
        }
        for keep in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&file, &whole[..keep]).unwrap();
            error_of(&path);
        }
        fs::write(&file, &whole).unwrap();
    }
    let memory = fs::File::options()
        .write(true)
        .open(path.join("mem.bin"))
        .unwrap();
    let length = memory.metadata().unwrap().len();
    memory.set_len(length - 4096).unwrap();
    let error = error_of(&path);
    assert!(matches!(error, Error::Rebake { .. }), "{error:?}");
    memory.set_len(length).unwrap();
    fs::remove_file(path.join("state.bin")).unwrap();
    error_of(&path);
    let missing = error_of(&shelf.0.join("nothing"));
    assert!(missing.to_string().contains("nothing"), "{missing}");
}

#[test]
fn memory_cut_short_under_a_copy_ends_that_copy_and_nothing_else() {
    let shelf = Shelf::new("cut");
    let image = shelf.bake();
    let (victim, path) = (copy(&image), image.snapshot_path().unwrap().join("mem.bin"));
    let other = copy(&shelf.builder().name("other").build().unwrap());
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(0)
        .unwrap();
    let begun = Instant::now();
    let error = victim.exec(["sh", "-c", "find / | wc -l"]).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(!error.to_string().is_empty());
    assert_eq!(sh(&other, "echo fine"), "fine");
}

fn pool_of_one(image: &Image) -> (supermachine::Pool, PooledVm) {
    let config = library_config().with_restore_timeout(Duration::from_secs(2));
    let pool = image
        .pool()
        .vm_config(config)
        .restore_timeout(Duration::from_secs(2));
    let pool = pool.max(1).prestart(0).build().unwrap();
    let vm = pool.acquire().unwrap();
    (pool, vm)
}

#[test]
fn killed_and_hanging_workers_are_replaced() {
    use rustix::process::Signal;
    let shelf = Shelf::new("killed");
    let image = shelf.bake();
    for sent in [Signal::KILL, Signal::STOP] {
        let (pool, vm) = pool_of_one(&image);
        signal(worker_of(&vm), sent);
        // Its reset fails or is late, and the next is another.
        drop(vm);
        assert_eq!(sh(&pool.acquire().unwrap(), "echo alive"), "alive");
        // While it is idle.
        let vm = pool.acquire();
        drop(vm);
    }
    let (pool, vm) = pool_of_one(&image);
    let worker = worker_of(&vm);
    drop(vm);
    while pool.stats().idle == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(worker, Signal::KILL);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(sh(&pool.acquire().unwrap(), "echo alive"), "alive");
}

#[test]
fn a_snapshot_removed_under_a_pool_leaves_its_machines_running() {
    let shelf = Shelf::new("removed");
    let image = shelf.bake();
    let pool = image
        .pool()
        .vm_config(library_config())
        .max(2)
        .prestart(0)
        .build()
        .unwrap();
    let vm = pool.acquire().unwrap();
    fs::remove_dir_all(&shelf.0).unwrap();
    assert_eq!(sh(&vm, "echo on"), "on");
    let error = pool.acquire().map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Pool(_)), "{error}");
    drop(vm);
    // What is mapped stays: the machine goes back to where it began.
    assert_eq!(sh(&pool.acquire().unwrap(), "echo again"), "again");
}

#[test]
fn bakers_of_the_same_image_share_one_bake() {
    let shelf = Shelf::new("together");
    let paths: BTreeSet<PathBuf> = std::thread::scope(|scope| {
        let bakers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| shelf.bake().snapshot_path().unwrap().to_owned()))
            .collect();
        bakers
            .into_iter()
            .map(|baker| baker.join().unwrap())
            .collect()
    });
    assert_eq!(paths.len(), 1, "{paths:?}");
    assert!(paths.first().unwrap().ends_with("0000000001"), "{paths:?}");
    assert_eq!(shelf.litter(), Vec::<PathBuf>::new());
}

#[test]
fn a_snapshot_is_all_that_its_copies_need() {
    let shelf = Shelf::new("whole");
    let cache = shelf.0.join("cache");
    let image = shelf.builder().layer_cache(&cache).build().unwrap();
    let vm = copy(&image);
    let path = image.snapshot_path().unwrap().to_owned();
    drop(image);
    fs::remove_dir_all(&cache).unwrap();
    let elsewhere = shelf.0.join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();

    let image = Image::from_snapshot_with(&elsewhere, &library_config()).unwrap();
    sh(&copy(&image), "md5sum /bin/*");
    // Also one that is made of a machine that runs on layers that are gone.
    let later = vm.snapshot(shelf.0.join("later"));
    assert!(matches!(later, Err(Error::Snapshot(_))), "{later:?}");
    drop(vm);
    let later = copy(&image).snapshot(shelf.0.join("later")).unwrap();
    sh(&copy(&later), "md5sum /bin/*");
}

#[test]
fn a_failed_bake_leaves_the_one_before() {
    let shelf = Shelf::new("failed");
    let first = shelf.bake();
    let failing = shelf
        .builder()
        .with_warmup_tag("2")
        .with_warmup(|vm| vm.read_file("/no-such-file").map(drop));
    assert!(matches!(failing.build().unwrap_err(), Error::Exec { .. }));
    assert_eq!(shelf.litter(), Vec::<PathBuf>::new());
    let again = Image::from_snapshot_with(shelf.0.join("image"), &library_config()).unwrap();
    assert_eq!(again.snapshot_path(), first.snapshot_path());
    assert_eq!(sh(&copy(&again), "echo whole"), "whole");
}

#[test]
fn images_without_snapshots_have_no_pools() {
    let image = library_image();
    assert!(matches!(
        image.acquire().unwrap_err(),
        Error::Unsuitable { .. }
    ));
    assert!(image.snapshot_path().is_none() && image.vcpus().is_none());
}

#[test]
fn acquire_with_keeps_a_pool_for_each_configuration() {
    let shelf = Shelf::new("acquire");
    let image = shelf.bake();
    let warm = library_config().with_pool_warm(1);
    let first = worker_of(&image.acquire_with(&warm).unwrap());
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(worker_of(&image.acquire_with(&warm).unwrap()), first);
    let two = library_config().with_vcpus(2);
    assert_eq!(sh(&image.acquire_with(&two).unwrap(), "nproc"), "2");
    let _: &VmConfig = &two;
}

#[test]
fn a_copy_is_made_of_the_memory_that_was_checked_whatever_its_name_leads_to() {
    let shelf = Shelf::new("swapped");
    let image = shelf.bake();
    let memory = image.snapshot_path().unwrap().join("mem.bin");
    let other = fs::File::create(memory.with_extension("other")).unwrap();
    other.set_len(fs::metadata(&memory).unwrap().len()).unwrap();
    fs::rename(memory.with_extension("other"), &memory).unwrap();
    assert_eq!(sh(&copy(&image), "echo whole"), "whole");
}

#[cfg(target_os = "linux")]
#[test]
fn snapshots_may_be_in_directories_whose_names_are_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let shelf = Shelf::new("bytes");
    let odd = shelf.0.join(std::ffi::OsStr::from_bytes(b"odd-\xff"));
    fs::create_dir_all(&odd).unwrap();
    let image = shelf.builder().snapshots_dir(&odd).build().unwrap();
    let vm = copy(&image);
    assert_eq!(sh(&vm, "echo on > /tmp/mark; cat /tmp/mark"), "on");
    let later = vm.snapshot(odd.join("later")).unwrap();
    assert_eq!(sh(&copy(&later), "cat /tmp/mark"), "on");
}

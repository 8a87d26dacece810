//! Workers that stop in the middle of something: an error in time, the process
//! gone, everybody else undisturbed.

mod support;

use rustix::process::Signal;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};
use supermachine::{Error, Vm, VmConfig};
use support::shelf::*;
use support::*;

/// How long a restore or a reset may take.
const RESTORE: Duration = Duration::from_secs(2);
/// What may be added to any limit on a busy host, and to look at the console
/// of a guest that says nothing.
const GRACE: Duration = Duration::from_secs(5);

/// How much later than its time limit a command may be heard of.
const HANG: Duration = Duration::from_secs(10);

/// A test that looks at all workers runs alone.
static WORKERS: RwLock<()> = RwLock::new(());

fn config() -> VmConfig {
    library_config().with_restore_timeout(RESTORE)
}

/// Stops the worker that somebody is about to start, `delay` after it is there.
fn stop_the_next_worker(delay: Duration) -> std::thread::JoinHandle<u32> {
    let before = workers();
    std::thread::spawn(move || {
        let begun = Instant::now();
        loop {
            let is_new = |pid: &u32| !before.contains(pid) && is_worker(*pid);
            if let Some(worker) = workers().into_iter().find(is_new) {
                std::thread::sleep(delay);
                signal(worker, Signal::STOP);
                return worker;
            }
            assert!(begun.elapsed() < GRACE, "no worker was started");
        }
    })
}

/// Until a process is another program, whoever started it waits for that.
fn is_worker(pid: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.starts_with("supermachine-wo"))
}

fn go_on(worker: u32) {
    signal(worker, Signal::CONT);
}

fn is_about_time(error: &Error) -> bool {
    matches!(error, Error::Timeout { .. } | Error::BootFailed { .. })
}

#[test]
fn a_worker_that_stops_while_it_restores_is_given_up_in_time() {
    let _alone = WORKERS.write().unwrap_or_else(PoisonError::into_inner);
    let shelf = Shelf::new("hung-restore");
    let image = shelf.bake();
    let bystander = copy(&image);
    let before = left_behind();
    let mut given_up = 0;
    for point in 0..4 {
        let stopper = stop_the_next_worker(Duration::from_micros(1900) * point);
        let begun = Instant::now();
        let started = Vm::start(&image, &config());
        assert!(begun.elapsed() < RESTORE + GRACE, "{:?}", begun.elapsed());
        let worker = stopper.join().unwrap();
        match started {
            Err(error) => {
                assert!(is_about_time(&error), "{error:?}");
                given_up += 1;
            }
            // It was ready before; so is its end.
            Ok(vm) => {
                go_on(worker);
                drop(vm);
            }
        }
        await_end_of_others(&before, left_behind);
        assert_eq!(sh(&bystander, "echo fine"), "fine");
    }
    println!("{given_up} given up");
    assert!(given_up > 0);
}

#[test]
fn a_worker_that_stops_while_it_resets_is_replaced_in_time() {
    let _others = WORKERS.read().unwrap_or_else(PoisonError::into_inner);
    let shelf = Shelf::new("hung-reset");
    let image = shelf.bake();
    let bystander = copy(&image);
    let pool = image.pool().vm_config(config()).restore_timeout(RESTORE);
    let pool = pool.max(1).prestart(0).build().unwrap();
    let mut replaced = 0;
    for point in 0..4 {
        let vm = pool.acquire().unwrap();
        sh(
            &vm,
            "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null",
        );
        let worker = worker_of(&vm);
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(1500) * point);
            signal(worker, Signal::STOP);
        });
        let begun = Instant::now();
        drop(vm);
        stopper.join().unwrap();
        let next = pool.acquire().unwrap();
        assert!(
            begun.elapsed() < 2 * RESTORE + GRACE,
            "{:?}",
            begun.elapsed()
        );
        if worker_of(&next) == worker {
            // It was idle already.
            go_on(worker);
        } else {
            // One that was idle when it stopped is ended beside the acquire.
            let begun = Instant::now();
            while workers().contains(&worker) {
                assert!(begun.elapsed() < GRACE, "worker {worker} stays");
                std::thread::sleep(Duration::from_millis(20));
            }
            replaced += 1;
        }
        assert_eq!(sh(&next, "ls /dev/shm; echo alive"), "alive");
        assert_eq!(sh(&bystander, "echo fine"), "fine");
    }
    println!("{replaced} replaced");
    assert!(replaced > 0);
}

#[test]
fn a_worker_that_stops_during_commands_is_an_error_in_time() {
    let _others = WORKERS.read().unwrap_or_else(PoisonError::into_inner);
    let shelf = Shelf::new("hung-exec");
    let image = shelf.bake();
    let bystander = copy(&image);
    std::thread::scope(|scope| {
        for script in ["sleep 100", "yes", "cat"] {
            let vm = copy(&image);
            scope.spawn(move || stop_during(vm, script));
        }
    });
    assert_eq!(sh(&bystander, "echo fine"), "fine");
}

/// Stops the worker of a machine that runs a script.
fn stop_during(vm: Vm, script: &str) {
    let limit = Duration::from_secs(1);
    let worker = worker_of(&vm);
    let dir = vm.exec_path().parent().unwrap().to_owned();
    let command = vm.exec_builder().argv(["sh", "-c", script]);
    let child = command.timeout(limit).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    stop(worker);
    let begun = Instant::now();
    let error = child.wait().unwrap_err();
    let took = begun.elapsed();
    assert!(
        matches!(error, Error::Timeout { .. }),
        "{script}: {error:?}"
    );
    assert!(took < limit + HANG + GRACE, "{script}: {took:?}");
    // A later request does not wait for as long again.
    let begun = Instant::now();
    assert!(vm.exec(["true"]).is_err());
    drop(vm);
    let took = begun.elapsed();
    assert!(took < GRACE, "{script}: {took:?}");
    assert!(!dir.exists() && !workers().contains(&worker));
}

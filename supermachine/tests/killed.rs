//! kill -9 at any moment of a bake or a run: the old state or the new, and
//! nothing that lives on.

mod support;

use rustix::process::Signal;
use std::time::{Duration, Instant};
use supermachine::Error;
use support::shelf::worker_of;
use support::*;

#[test]
fn a_command_without_a_limit_ends_when_its_worker_hangs() {
    let vm = library_image().start(&library_config()).unwrap();
    let child = vm.exec_builder().argv(["sleep", "1000"]).spawn().unwrap();
    let waiter = std::thread::spawn(move || child.wait());
    // A guest may be silent for longer than it takes to ask its worker.
    let worker = worker_of(&vm);
    let silent = Duration::from_secs(12);
    std::thread::sleep(silent);
    assert!(!waiter.is_finished());
    stop(worker);
    let begun = Instant::now();
    let error = waiter.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(60));
    // Nobody waits for it again.
    let begun = Instant::now();
    assert!(vm.exec(["true"]).is_err());
    drop(vm);
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(rustix::process::test_kill_process(pid(worker)).is_err());
}

fn pid(number: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

#[test]
fn machines_end_with_whoever_started_them() {
    let sandbox = Sandbox::new();
    for options in [&[][..], &["--no-snapshot"]] {
        let mut run = sandbox
            .shell(options, "echo up; sleep 1000")
            .spawn()
            .unwrap();
        read_until(run.stdout.as_mut().unwrap(), "up");
        signal(run.id(), Signal::KILL);
        wait(&mut run, Duration::from_secs(5));
        sandbox.await_no_process();
    }
}

#[test]
fn a_worker_killed_while_it_bakes_is_an_error() {
    let sandbox = Sandbox::new();
    // So that there is a base, and the next worker is the image's.
    assert_eq!(sandbox.run(&bake_with("true # first")).code(), 0);
    let mut baker = sandbox.command(&bake_with("sleep 100")).spawn().unwrap();
    let begun = Instant::now();
    let worker = loop {
        let others = sandbox
            .processes()
            .into_iter()
            .find(|pid| *pid != baker.id());
        if let Some(worker) = others {
            break worker;
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    };
    std::thread::sleep(Duration::from_millis(300));
    signal(worker, Signal::KILL);
    let status = wait(&mut baker, Duration::from_secs(20));
    assert_eq!(status.code(), Some(125));
    sandbox.await_no_process();
    assert_eq!(sandbox.run(&bake_with("true")).code(), 0);
}

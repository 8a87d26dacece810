//! Commands that turn on the machine they run in: it goes on.

use std::time::Duration;
use supermachine::Vm;
use supermachine_tests::{config, image};

fn boot() -> Vm {
    image("busybox")
        .start(&config().with_memory_mib(192))
        .expect("a machine")
}

#[track_caller]
fn still_serves(vm: &Vm) {
    let outcome = vm.exec(["echo", "still here"]).expect("a command");
    assert_eq!(outcome.stdout, b"still here\n");
}

#[test]
fn a_memory_hog_is_killed_and_the_agent_is_not() {
    let vm = boot();
    let outcome = vm
        .exec_builder()
        .argv(["tail", "-c", "2000000000", "/dev/zero"])
        .timeout(Duration::from_secs(60))
        .output()
        .expect("a command");
    assert!(!outcome.success());
    assert!(!outcome.timed_out, "nobody stopped it");
    still_serves(&vm);
    vm.stop().expect("an end");
}

#[test]
fn killing_everything_does_not_kill_the_agent() {
    let vm = boot();
    let outcome = vm
        .exec(["sh", "-c", "kill -9 1; kill -9 -1; echo unreached"])
        .map(|outcome| outcome.status.signal);
    assert!(matches!(outcome, Ok(None | Some(9))), "{outcome:?}");
    still_serves(&vm);
    vm.stop().expect("an end");
}

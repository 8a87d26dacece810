//! Limits and settings of what runs in a guest.

use std::time::Duration;
use supermachine_tests::{config, image};

#[test]
fn number_of_processes_is_what_was_configured_and_else_4096() {
    for (wanted, limit) in [(Some(20), "20"), (None, "4096")] {
        let mut config = config().with_memory_mib(1024);
        if let Some(wanted) = wanted {
            config = config.with_max_processes(wanted);
        }
        let vm = image("base").start(&config).unwrap();
        let sh = |script: &str| {
            let command = vm.exec_builder().argv(["bash", "-c", script]);
            let outcome = command.timeout(Duration::from_secs(60)).output().unwrap();
            String::from_utf8(outcome.stdout).unwrap()
        };
        assert_eq!(sh("cat /sys/fs/cgroup/pids.max"), format!("{limit}\n"));
    }
}

#[test]
fn devices_have_the_modes_programs_expect() {
    let vm = image("base").start(&config()).unwrap();
    let names = "null zero full random urandom tty ptmx fuse net/tun";
    let script = format!("cd /dev; stat -c '%a %n' {names}; [ ! -e kvm ]");
    let command = vm.exec_builder().argv(["bash", "-c", &script]);
    let outcome = command.output().unwrap();
    let expected: String = names
        .split(' ')
        .map(|name| format!("666 {name}\n"))
        .collect();
    assert_eq!(
        String::from_utf8_lossy(&outcome.stdout),
        expected,
        "{outcome:?}"
    );
    assert!(outcome.success());
}

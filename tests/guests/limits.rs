//! Limits that the host sets to what runs in a guest.

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

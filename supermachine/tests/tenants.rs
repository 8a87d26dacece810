//! Whatever a tenant does to a pooled machine, the next one finds it as it was.

mod support;

use supermachine::{PooledVm, Vm};
use support::shelf::*;
use support::*;

/// What a tenant sees of the machine: free space, memory, processes, mounts,
/// settings, sockets, CPUs.
const LOOK: &str = r#"
df -k / /dev/shm | awk '{print $4}'; ls -A / /root /tmp /dev/shm /etc
all=$(ps -o comm); echo "$all" | grep -vE '^(kworker|sh|ps|exe|COMMAND)' | sort; cut -d' ' -f2- /proc/mounts | sort
cat /proc/sys/kernel/pid_max /proc/sys/kernel/domainname /proc/sys/kernel/core_pattern
cat /proc/sys/net/ipv4/ip_forward; ip addr | grep -v tentative; netstat -lnt | tail -n +3
nproc; hostname; cat /etc/hosts; ls /sys/fs/cgroup; umask; dmesg | grep -c tenant; true"#;

/// What tenants do, and whether the machine survives that.
const DEEDS: [(&str, &str, bool); 8] = [
    (
        "fills its disk",
        "dd if=/dev/zero of=/fill bs=1M; [ $(df -k / | awk 'END {print $4}') = 0 ]",
        true,
    ),
    (
        "fills its memory",
        "dd if=/dev/zero of=/dev/shm/fill bs=1M count=110",
        true,
    ),
    (
        "changes settings",
        "
        echo 4242 > /proc/sys/kernel/pid_max; echo evil > /proc/sys/kernel/domainname
        echo '|/bin/sh' > /proc/sys/kernel/core_pattern; echo 1 > /proc/sys/net/ipv4/ip_forward
        echo '<3>tenant' > /dev/kmsg; hostname evil; echo '6.6.6.6 evil' >> /etc/hosts",
        true,
    ),
    (
        "starts processes",
        "
        for i in $(seq 100); do sleep 4321 & done; httpd -p 8001 -h /
        mkdir /sys/fs/cgroup/evil; echo $$ > /sys/fs/cgroup/evil/cgroup.procs",
        true,
    ),
    (
        "mounts over things",
        "
        mount -t tmpfs x /root; mount -t tmpfs x /bin; mount --bind /tmp /etc",
        true,
    ),
    (
        "takes devices down",
        "
        ip link set lo down; echo 0 > /sys/devices/system/cpu/cpu1/online; rm -rf /dev/* /etc/*",
        true,
    ),
    ("kills everything", "kill -9 -1", true),
    (
        "turns itself off",
        "reboot -f & poweroff -f & sleep 20",
        false,
    ),
];

fn look(vm: &Vm) -> String {
    sh(vm, LOOK)
}

#[test]
fn the_next_tenant_finds_the_machine_as_it_was() {
    let shelf = Shelf::new("tenants");
    let image = shelf.builder().vcpus(2).build().unwrap();
    let pool = image.pool().vm_config(library_config()).max(1);
    let pool = pool.prestart(0).build().unwrap();
    let acquire = || -> PooledVm { pool.acquire().unwrap() };
    let clean = look(&acquire());
    let mut worker = worker_of(&acquire());
    for (deed, script, is_survived) in DEEDS {
        let vm = acquire();
        let command = vm.exec_builder().argv(["sh", "-c", script]);
        // Some of it ends the command itself.
        let _ = command.timeout(std::time::Duration::from_secs(20)).output();
        drop(vm);
        let vm = acquire();
        let now = look(&vm);
        assert_eq!(now, clean, "after one that {deed}");
        assert!(clock_error_ms(&vm) < 1000, "after one that {deed}");
        let same = worker_of(&vm) == worker;
        assert_eq!(same, is_survived, "after one that {deed}");
        worker = worker_of(&vm);
    }
}

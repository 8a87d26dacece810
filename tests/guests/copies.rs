//! What the agent does so that a copy of a machine is a machine of its own,
//! and the workload that copies are made of.

use crate::agent::Agent;
use exec_proto::client::Event;
use exec_proto::{ErrorKind, ExecRequest, ExitStatus, Resume, Resumed, WorkloadState};
use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use supermachine::Vm;
use supermachine_tests::{COMMAND_TIMEOUT, Guest, sh};

/// 2030-03-17, in ns.
const WALL_NS: u64 = 1_900_000_000_000_000_000;

fn resume(agent: &mut Agent, resume: &Resume<'_>) -> Resumed {
    agent.request(|session| session.resume(resume));
    match agent.answer() {
        Event::Resumed(resumed) => resumed,
        other => panic!("{other:?}"),
    }
}

fn boot_id(vm: &Vm) -> String {
    sh(vm, "cat /proc/sys/kernel/random/boot_id")
        .trim()
        .to_owned()
}

fn hex(id: [u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn resume_makes_the_machine_another() {
    let guest = Guest::boot("busybox", 4, 256);
    let vm = guest.vm();
    let random = "head -c 16 /dev/urandom | od -An -tx1";
    let mut seen = BTreeSet::from([sh(vm, random)]);
    let mut boot_ids = BTreeSet::from([boot_id(vm)]);
    let mut agent = Agent::connect(vm.exec_path());

    for round in 1..=2u8 {
        let name = format!("copy-{round}");
        let done = resume(
            &mut agent,
            &Resume {
                hostname: name.as_bytes(),
                ..Resume::new(&[round; 32], WALL_NS * u64::from(round), [round; 16])
            },
        );
        assert!(done.reseeded && done.hostname_set, "{done:?}");
        assert_eq!(done.vcpus_online, 4);
        assert!(done.clock_step_ns > 0, "{done:?}");
        assert!(seen.insert(sh(vm, random)), "the same random bytes");
        let id = boot_id(vm);
        assert_eq!(id.replace('-', ""), hex(done.boot_id));
        assert!(boot_ids.insert(id), "the same boot id");
        let now: u64 = sh(vm, "date +%s").trim().parse().expect("a number");
        let set = WALL_NS * u64::from(round) / 1_000_000_000;
        assert!((set..set + 300).contains(&now), "{now}");
        assert_eq!(
            sh(vm, "hostname; cat /etc/hostname"),
            format!("{name}\n{name}\n")
        );
        let hosts = sh(vm, "cat /etc/hosts");
        assert!(hosts.contains(&format!("localhost {name}\n")), "{hosts}");
        eprintln!("resume {round}: {} us in the guest", done.work_ns / 1000);
    }

    // Back in time, and nothing else asked for.
    let done = resume(&mut agent, &Resume::new(&[3; 64], WALL_NS, [3; 16]));
    assert!(!done.hostname_set && done.clock_step_ns < 0, "{done:?}");
    assert_eq!(sh(vm, "hostname"), "copy-2\n");
    let failed = sh(vm, "echo x > /proc/sys/kernel/random/boot_id || echo no");
    assert_eq!(failed, "no\n");
    guest.finish();
}

#[test]
fn resume_brings_cpus_offline_and_back() {
    let guest = Guest::boot("busybox", 4, 256);
    let vm = guest.vm();
    let mut agent = Agent::connect(vm.exec_path());
    for (wanted, online) in [(2, 2), (1, 1), (4, 4), (0, 4), (9, 4)] {
        let plain = Resume::new(&[7; 32], WALL_NS, [7; 16]);
        let done = resume(
            &mut agent,
            &Resume {
                vcpus: wanted,
                ..plain
            },
        );
        eprintln!("{wanted} CPUs: {} us in the guest", done.work_ns / 1000);
        assert_eq!(done.vcpus_online, online, "{wanted} wanted");
        assert_eq!(sh(vm, "nproc"), format!("{online}\n"));
    }
    guest.finish();
}

#[test]
fn machine_id_changes_only_if_the_host_says_so() {
    let guest = Guest::boot("busybox", 1, 256);
    let vm = guest.vm();
    sh(vm, "echo uninitialized > /etc/machine-id");
    let mut agent = Agent::connect(vm.exec_path());
    let plain = Resume::new(&[7; 32], WALL_NS, [7; 16]);
    resume(&mut agent, &plain);
    assert_eq!(sh(vm, "cat /etc/machine-id"), "uninitialized\n");
    let with_id = Resume {
        machine_id: Some([0x0a; 16]),
        ..plain
    };
    resume(&mut agent, &with_id);
    assert_eq!(
        sh(vm, "cat /etc/machine-id"),
        format!("{}\n", hex([0x0a; 16]))
    );
    guest.finish();
}

#[test]
fn resume_and_a_command_run_on_one_connection() {
    let guest = Guest::boot("busybox", 1, 256);
    let mut agent = Agent::connect(guest.vm().exec_path());
    agent.request(|session| {
        session.resume(&Resume::new(&[1; 32], WALL_NS, [1; 16]))?;
        session.exec(&ExecRequest::new(["true"]))
    });
    assert!(matches!(agent.answer(), Event::Resumed(_)));
    assert!(matches!(agent.answer(), Event::Started { .. }));
    match agent.answer() {
        Event::Exited(exited) => assert_eq!(exited.status, ExitStatus::Code(0)),
        other => panic!("{other:?}"),
    }
    guest.finish();
}

#[test]
fn quiesce_drops_what_is_cached() {
    let guest = Guest::boot("base", 1, 256);
    let vm = guest.vm();
    let cached = "sed -n 's/^Cached:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/meminfo";
    // More than the shell and sed themselves bring back.
    sh(vm, "cat /usr/bin/* > /dev/null 2>&1 || true");
    let kib = |text: String| text.trim().parse::<u64>().expect("a number");
    let before = kib(sh(vm, cached));
    let mut agent = Agent::connect(vm.exec_path());
    agent.request(|session| session.quiesce(false));
    assert_eq!(agent.answer(), Event::Done);
    agent.request(|session| session.quiesce(true));
    assert_eq!(agent.answer(), Event::Done);
    let after = kib(sh(vm, cached));
    assert!(after < before, "{after} KiB of {before} left");
    guest.finish();
}

#[test]
fn workload_is_awaited_at_its_port_and_killed_as_a_tree() {
    let guest = Guest::boot("busybox", 4, 256);
    let vm = guest.vm();
    let mut agent = Agent::connect(vm.exec_path());
    let script = "echo starting; sleep 0.3; sleep 4321 & httpd -f -p 8080";
    agent.request(|session| session.start_workload(&ExecRequest::new(["sh", "-c", script])));
    assert!(matches!(agent.answer(), Event::Workload(_)));
    agent.request(|session| session.await_listener(8080, 60_000));
    assert_eq!(agent.answer(), Event::Done);
    assert!(sh(vm, "wget -qO- http://127.0.0.1:8080/ 2>&1 || true").contains("404"));
    drop(agent);

    let mut agent = Agent::connect(vm.exec_path());
    agent.request(|session| session.workload_status(100));
    match agent.answer() {
        Event::Workload(report) => {
            assert!(matches!(report.state, WorkloadState::Running { .. }));
            assert_eq!(report.tail, b"starting\n");
        }
        other => panic!("{other:?}"),
    }
    agent.request(|session| session.signal_workload(9));
    assert_eq!(agent.answer(), Event::Done);
    let begin = Instant::now();
    while sh(vm, "ps").contains("sleep 4321") {
        assert!(begin.elapsed() < COMMAND_TIMEOUT, "a descendant lives on");
    }
    agent.request(|session| session.await_listener(8081, 60_000));
    match agent.answer() {
        Event::Failed(failure) => assert_eq!(failure.kind, ErrorKind::WorkloadEnded),
        other => panic!("{other:?}"),
    }
    guest.finish();
}

#[test]
fn agent_has_a_connection_open_whenever_the_host_takes_one() {
    let guest = Guest::boot("busybox", 1, 256);
    let vm = guest.vm();
    // The library takes what the agent dialed; each use makes it dial again.
    for number in 0..20 {
        assert_eq!(sh(vm, &format!("echo {number}")), format!("{number}\n"));
    }
    // One that is held open beside them does no harm.
    let held = UnixStream::connect(vm.exec_path()).expect("the agent listens");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(sh(vm, "echo on"), "on\n");
    drop(held);
    guest.finish();
}

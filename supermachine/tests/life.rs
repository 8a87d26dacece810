//! What a machine's owner and other processes see and do of it while it runs.

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};
use supermachine::running::{self, RunningVm};
use supermachine::{Error, Vm, VmEvent, VmEventKind, VmEvents};
use support::shelf::*;
use support::*;

/// How long the pauses here last at least.
const PAUSE: Duration = Duration::from_secs(2);

/// The same machine, as another process of the user sees it.
fn seen_by_others(vm: &Vm) -> RunningVm {
    running::find(vm.id()).unwrap()
}

fn uptime(vm: &Vm) -> Duration {
    let text = sh(vm, "cat /proc/uptime");
    Duration::from_secs_f64(text.split(' ').next().unwrap().parse().unwrap())
}

fn assert_has_the_hosts_time(vm: &Vm) {
    let before = unix_ms() / 1000;
    let guest: i128 = sh(vm, "date +%s").parse().unwrap();
    let after = unix_ms() / 1000;
    let near = before - 1..=after + 1;
    assert!(near.contains(&guest), "{guest}, not {near:?}");
}

/// The next events until one is as wanted, which is the last of them.
fn await_event(events: &VmEvents, wanted: impl Fn(&VmEventKind) -> bool) -> Vec<VmEventKind> {
    let begun = Instant::now();
    let mut seen: Vec<VmEventKind> = Vec::new();
    while !seen.last().is_some_and(&wanted) {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        match events.next_within(left) {
            Some(VmEvent { kind, .. }) => seen.push(kind),
            None => panic!("after {:?}: {seen:?}", begun.elapsed()),
        }
    }
    seen
}

#[test]
fn paused_machine_does_nothing_and_no_time_passes_in_it() {
    let shelf = Shelf::new("pause");
    let vm = copy(&shelf.bake());
    let mut cat = vm.exec_builder().argv(["cat"]).spawn().unwrap();
    let (mut to, mut from) = (cat.stdin().unwrap(), cat.stdout().unwrap());
    let mut echoed = [0; 4];
    to.write_all(b"one\n").unwrap();
    from.read_exact(&mut echoed).unwrap();

    let others = seen_by_others(&vm);
    for by_owner in [true, false] {
        let (begun, earlier) = (Instant::now(), uptime(&vm));
        if by_owner {
            vm.pause().unwrap();
        } else {
            others.pause().unwrap();
        }
        let stood = Instant::now();
        // Paused it stays, whoever asks for it again.
        vm.pause().unwrap();
        assert!(vm.is_paused() && others.is_paused());
        let exits = vm.stats().unwrap().exits;
        let refused = [
            vm.exec(["true"]).err(),
            vm.write_file("/tmp/file", b"text").err(),
            vm.snapshot(shelf.0.join("paused")).err(),
            vm.fork(1).err(),
            vm.workload_status().err(),
            others.run(&supermachine::Command::new(["true"])).err(),
        ];
        for error in refused {
            assert!(matches!(error, Some(Error::Paused)), "{error:?}");
        }
        std::thread::sleep(PAUSE.saturating_sub(stood.elapsed()));
        let stats = others.stats().unwrap();
        assert!(stats.is_paused);
        assert_eq!(stats.exits, exits, "a vCPU has run");
        let stood = stood.elapsed();
        if by_owner {
            vm.resume().unwrap();
        } else {
            others.resume().unwrap();
        }
        assert!(!vm.is_paused() && !others.is_paused());
        // Not paused it goes on as it does.
        vm.resume().unwrap();
        let passed = uptime(&vm).saturating_sub(earlier);
        let most = begun.elapsed() - stood;
        // The guest tells hundredths of a second.
        let rounding = Duration::from_millis(20);
        assert!(passed <= most + rounding, "{passed:?} in {most:?}");
        assert_has_the_hosts_time(&vm);
        // What was open stays.
        to.write_all(b"two\n").unwrap();
        from.read_exact(&mut echoed).unwrap();
        assert_eq!(&echoed, b"two\n");
    }
    drop(to);
    assert!(cat.wait().unwrap().success());
    assert!(!vm.stats().unwrap().is_paused);
}

#[test]
fn time_limits_of_commands_do_not_run_while_the_machine_is_paused() {
    let shelf = Shelf::new("limits");
    let vm = copy(&shelf.bake());
    let limit = Duration::from_secs(15);
    let command = supermachine::Command::new(["sh", "-c", "echo up; read line; echo $line"]);
    let mut child = vm.spawn(&command.timeout(limit)).unwrap();
    let (mut to, mut from) = (child.stdin().unwrap(), child.stdout().unwrap());
    let mut text = [0; 3];
    from.read_exact(&mut text).unwrap();
    vm.pause().unwrap();
    // Longer than the guest would give it.
    std::thread::sleep(limit + PAUSE);
    vm.resume().unwrap();
    to.write_all(b"on\n").unwrap();
    drop(to);
    let mut rest = String::new();
    from.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "on\n");
    let status = child.wait().unwrap();
    assert!(status.success() && !status.timed_out, "{status:?}");
}

#[test]
fn paused_machines_go_back_to_their_pool_and_can_be_stopped() {
    let shelf = Shelf::new("paused-pool");
    let image = shelf.bake();
    let pool = image.pool().vm_config(library_config()).max(1).prestart(0);
    for restore in [true, false] {
        let pool = pool.clone().restore_on_release(restore).build().unwrap();
        let vm = pool.acquire().unwrap();
        let worker = worker_of(&vm);
        vm.pause().unwrap();
        drop(vm);
        let vm = pool.acquire().unwrap();
        assert_eq!(worker_of(&vm), worker, "another machine");
        assert_eq!(sh(&vm, "echo on"), "on");
        assert_has_the_hosts_time(&vm);
        pool.shutdown_within(Duration::ZERO);
    }
    let vm = copy(&image);
    let others = seen_by_others(&vm);
    vm.pause().unwrap();
    // It cannot answer, so nobody waits for that.
    others.stop(PATIENCE).unwrap();
    assert!(!others.is_running());
    assert!(matches!(
        vm.stats(),
        Err(Error::Ended { .. } | Error::Worker { .. })
    ));
    let vm = copy(&image);
    vm.pause().unwrap();
    assert!(!vm.shutdown(PATIENCE).unwrap());
}

#[test]
fn figures_say_what_a_machine_has_used() {
    let shelf = Shelf::new("stats");
    let image = shelf.bake();
    let pool = image.pool().vm_config(library_config()).max(1).prestart(0);
    let pool = pool.build().unwrap();
    let vm = pool.acquire().unwrap();
    let first = vm.stats().unwrap();
    assert_eq!(first.vcpus, 1);
    assert!(!first.disks.is_empty());
    assert_eq!(first.memory.guest_bytes, 256 << 20);
    // Something of the image that nobody has read yet.
    sh(
        &vm,
        "cat /bin/* > /dev/null; head -c 3000000 /dev/zero > /tmp/written",
    );
    let then = vm.stats().unwrap();
    assert!(then.cpu > first.cpu && then.uptime > first.uptime);
    assert!(then.exits.total > first.exits.total && then.guest > first.guest);
    let read = |stats: &supermachine::VmStats| -> u64 {
        stats.disks.iter().map(|disk| disk.read_bytes).sum()
    };
    assert!(read(&then) > read(&first));
    assert!(
        then.disks
            .iter()
            .all(|disk| (disk.writes, disk.written_bytes) == (0, 0))
    );
    if cfg!(target_os = "linux") {
        let touched = |stats: &supermachine::VmStats| stats.memory.touched_bytes.unwrap();
        assert!(touched(&then) >= touched(&first) + 3_000_000);
        assert!(then.memory.host_bytes > first.memory.host_bytes);
        assert!(then.faults.unwrap().minor > first.faults.unwrap().minor);
        // The pool's first machine is the one that was baked, which read nothing ahead.
        let copied = copy(&image);
        sh(&copied, "true");
        let restored = copied.stats().unwrap().restore;
        let hits = restored.prefetch_hits.unwrap();
        assert!(
            hits > 0 && hits <= restored.pages_prefetched,
            "{restored:?}"
        );
    }
    drop(vm);
    let vm = pool.acquire().unwrap();
    let after = vm.stats().unwrap();
    assert_eq!(after.restore.resets, first.restore.resets + 1);
    assert!(after.restore.pages_restored > 0);
    let json = serde_json::to_value(&after).unwrap();
    assert_eq!(json["restore"]["resets"], after.restore.resets);
}

#[test]
fn events_tell_what_happens_to_a_machine_and_its_workload() {
    let shelf = Shelf::new("events");
    // It serves on the port that is looked at if the image names none, and ends when
    // told to.
    let serve = "nc -l -p 80 & trap 'exit 7' TERM; while :; do sleep 0.1; done";
    let image = shelf.builder().cmd(["sh", "-c", serve]).build().unwrap();
    let vm = copy(&image);
    let events = vm.events().unwrap();
    let others = seen_by_others(&vm).events().unwrap();
    for events in [&events, &others] {
        assert_eq!(events.try_next().unwrap().kind, VmEventKind::Started);
        await_event(events, |kind| *kind == VmEventKind::Listening { port: 80 });
    }
    vm.pause().unwrap();
    vm.resume().unwrap();
    for events in [&events, &others] {
        let seen = await_event(events, |kind| *kind == VmEventKind::Resumed);
        assert_eq!(seen, [VmEventKind::Paused, VmEventKind::Resumed]);
    }
    vm.workload_signal(15).unwrap();
    let exited = VmEventKind::WorkloadExited {
        code: Some(7),
        signal: None,
    };
    for events in [&events, &others] {
        await_event(events, |kind| *kind == exited);
    }
    // More than the machine has, all of it at once.
    let hog = "echo 1 > /proc/sys/vm/overcommit_memory; exec dd if=/dev/zero of=/dev/null \
        bs=300M count=1";
    let out = vm.exec(["sh", "-c", hog]).unwrap();
    assert_eq!(out.status.signal, Some(9), "{out:?}");
    for events in [&events, &others] {
        let seen = await_event(events, |kind| matches!(kind, VmEventKind::OomKilled { .. }));
        let Some(VmEventKind::OomKilled { program, .. }) = seen.last() else {
            unreachable!()
        };
        assert_eq!(program, "dd");
    }
    assert!(vm.console_log().unwrap().contains("Killed process"));
    assert!(
        vm.shutdown(PATIENCE).unwrap(),
        "it was asked to turn itself off"
    );
    for mut events in [events, others] {
        let seen: Vec<VmEventKind> = events.by_ref().map(|event| event.kind).collect();
        let [VmEventKind::Ended { orderly: true, .. }] = &seen[..] else {
            panic!("{seen:?}");
        };
        assert_eq!(events.next_within(PATIENCE), None);
    }
}

#[test]
fn machines_are_stopped_in_good_order_within_the_time_they_get() {
    let shelf = Shelf::new("order");
    let serve = "trap 'echo bye > /dev/console; exit 0' TERM; while :; do sleep 0.1; done";
    let image = shelf.builder().cmd(["sh", "-c", serve]).build().unwrap();
    // What ends last is the machine; its console is in the end of the worker's log.
    let vm = copy(&image);
    let mut events = vm.events().unwrap();
    let seen = std::thread::spawn(move || events.by_ref().map(|event| event.kind).collect());
    assert!(vm.shutdown(PATIENCE).unwrap());
    let seen: Vec<VmEventKind> = seen.join().unwrap();
    let Some(VmEventKind::Ended {
        reason,
        orderly: true,
    }) = seen.last()
    else {
        panic!("{seen:?}");
    };
    assert!(reason.contains("off"), "{reason}");
    // Neither is one asked that gets no time, nor one that does not listen.
    assert!(!copy(&image).shutdown(Duration::ZERO).unwrap());
    let vm = copy(&image);
    stop(worker_of(&vm));
    let begun = Instant::now();
    assert!(!vm.shutdown(Duration::from_secs(1)).unwrap());
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn machines_that_end_otherwise_say_so_and_are_of_no_more_use() {
    let shelf = Shelf::new("ends");
    let image = shelf.bake();
    let vm = copy(&image);
    let events = vm.events().unwrap();
    signal(worker_of(&vm), rustix::process::Signal::KILL);
    let seen = await_event(&events, |kind| matches!(kind, VmEventKind::Ended { .. }));
    let Some(VmEventKind::Ended { reason, orderly }) = seen.last() else {
        unreachable!()
    };
    assert_eq!((&**reason, *orderly), ("its process is gone", false));
    let after = [
        vm.pause().err(),
        vm.stats().map(drop).err(),
        vm.events().map(drop).err(),
        vm.exec(["true"]).map(drop).err(),
    ];
    for error in after {
        let kind = error.map(|error| error.kind());
        assert_eq!(kind, Some(supermachine::ErrorKind::Ended));
    }
    let vm = copy(&image);
    let events = vm.events().unwrap();
    // Somebody in the guest turns it off.
    let _ = vm.exec(["sh", "-c", "echo the end > /dev/console; poweroff -f"]);
    let seen = await_event(&events, |kind| matches!(kind, VmEventKind::Ended { .. }));
    assert!(!seen.is_empty());
    assert!(matches!(vm.stats(), Err(Error::Ended { .. })));
    assert!(vm.console_log().unwrap().contains("the end"));
}

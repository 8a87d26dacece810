//! What a copy has of its own, and what it keeps of the machine it was copied
//! from.

mod support;

use std::collections::BTreeSet;
use std::sync::Mutex;
use supermachine::{Error, ExecChild, Vm};
use support::shelf::*;
use support::*;

/// How far a copy's wall clock may be off the host's.
const CLOCK_MS: i128 = 50;

/// A server that lives on its own, a command whose connection stays open, and
/// a page that says where the server comes from.
fn start_server_and_command(vm: &Vm) -> Result<ExecChild, Error> {
    vm.exec([
        "sh",
        "-c",
        "mkdir /www; echo before > /www/index.html; httpd -p 8001 -h /www",
    ])?;
    let child = vm
        .exec_builder()
        .argv(["sh", "-c", "trap '' HUP TERM; sleep 4321; sleep 4321"])
        .spawn()?;
    while sh(vm, COMMANDS) == "0" {}
    Ok(child)
}

const COMMANDS: &str = "ps | grep -c '[s]leep 4321'; true";
const FETCH: &str = "wget -q -O - http://127.0.0.1:8001/";

/// The command's end is seen by the agent some time after the machine is
/// handed out.
fn await_end_of_commands(vm: &Vm) {
    let script = format!(
        "for i in $(seq 200); do [ $({COMMANDS}) = 0 ] && exit 0; sleep 0.05; done; exit 1"
    );
    sh(vm, &script);
}

#[test]
fn servers_stay_and_commands_of_the_hosts_end_in_every_copy() {
    let shelf = Shelf::new("kept");
    let held = std::sync::Arc::new(Mutex::new(None));
    let keep = held.clone();
    let image = shelf.builder().with_warmup(move |vm| {
        *keep.lock().unwrap() = Some(start_server_and_command(vm)?);
        Ok(())
    });
    let image = image.build().unwrap();
    // The machine that was baked, a copy, and each lease of a pool.
    let baked = image.start(&library_config()).unwrap();
    let pool = image.pool().vm_config(library_config()).max(1);
    let pool = pool.prestart(0).build().unwrap();
    let check = |vm: &Vm| {
        assert_eq!(sh(vm, FETCH), "before");
        sh(vm, "echo after > /www/index.html");
        assert_eq!(sh(vm, FETCH), "after");
        await_end_of_commands(vm);
    };
    check(&baked);
    check(&copy(&image));
    for _ in 0..2 {
        check(&pool.acquire().unwrap());
    }
}

#[test]
fn a_running_machine_keeps_the_command_its_copies_lose() {
    let shelf = Shelf::new("commands");
    let vm = copy(&shelf.bake());
    let child = start_server_and_command(&vm).unwrap();
    let image = vm.snapshot(shelf.0.join("moment")).unwrap();
    let children = vm.fork(1).unwrap();
    for other in [&copy(&image), &children[0]] {
        assert_eq!(sh(other, FETCH), "before");
        await_end_of_commands(other);
    }
    assert_ne!(sh(&vm, COMMANDS), "0");
    drop(child);
    await_end_of_commands(&vm);
}

#[test]
fn clocks_are_the_hosts_and_names_are_nobody_elses() {
    let shelf = Shelf::new("clock");
    let image = shelf.bake();
    let pool = image.pool().vm_config(library_config()).max(1);
    let pool = pool.prestart(0).build().unwrap();
    let mut names = BTreeSet::new();
    let mut errors = Vec::new();
    let mut look = |vm: &Vm| {
        errors.push(clock_error_ms(vm));
        // Both by getrandom(2), and the kernel's own.
        let drawn = sh(vm, "mktemp -u; mktemp -u; cat /proc/sys/kernel/random/uuid");
        for name in drawn.lines() {
            assert!(names.insert(name.to_owned()), "twice: {name}");
        }
        let report = vm.copy_report().unwrap();
        let boot_id = sh(vm, "tr -d - < /proc/sys/kernel/random/boot_id");
        let reported: Vec<String> = report.boot_id.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(boot_id, reported.concat());
        // The next one must be set right again.
        sh(vm, "date -s 2001-01-01 > /dev/null");
        assert!(clock_error_ms(vm) > 1_000_000);
    };
    for _ in 0..3 {
        look(&copy(&image));
        look(&pool.acquire().unwrap());
    }
    // A busy host delays some, but not all of them.
    errors.sort_unstable();
    assert!(errors[0] <= CLOCK_MS, "{errors:?}");
    assert!(errors[5] <= 20 * CLOCK_MS, "{errors:?}");
}

/// The smallest of a few errors: the clock's own, and not how long asking took.
fn least_clock_error_ms(vm: &Vm) -> i128 {
    (0..5).map(|_| clock_error_ms(vm)).min().unwrap()
}

/// Seconds since the guest booted, at the capture and now.
const UPTIMES: &str = "cat /tmp/uptime; cut -d' ' -f1 /proc/uptime";

#[test]
fn clocks_are_the_hosts_however_far_off_they_were_at_the_capture() {
    let shelf = Shelf::new("moved");
    let check = |vm: &Vm| {
        let error = least_clock_error_ms(vm);
        assert!(error <= CLOCK_MS, "{error} ms");
        // Not so what only ever goes on.
        let uptimes = sh(vm, UPTIMES);
        let uptimes: Vec<f64> = uptimes.lines().map(|line| line.parse().unwrap()).collect();
        assert!(uptimes[0] <= uptimes[1], "{uptimes:?}");
        assert!(uptimes[1] < uptimes[0] + 60.0, "{uptimes:?}");
        uptimes[1]
    };
    // As if the host's clock had been set, or the snapshot were that old.
    let now = unix_ms() / 1000;
    for then in [now - 7 * 3600, now + 7 * 3600, 86_400, 4_000_000_000] {
        let set = format!("date -s @{then} > /dev/null; cut -d' ' -f1 /proc/uptime > /tmp/uptime");
        let warmed = shelf.builder().with_warmup_tag(then.to_string());
        let image = warmed.with_warmup(move |vm| {
            sh(vm, &set);
            assert!(clock_error_ms(vm) > 3_600_000);
            Ok(())
        });
        let image = image.build().unwrap();
        // The machine that was baked, a copy, its child, and leases.
        check(&image.start(&library_config()).unwrap());
        let vm = copy(&image);
        let before = check(&vm);
        let children = vm.fork(1).unwrap();
        assert!(check(&children[0]) >= before);
        let pool = image.pool().vm_config(library_config()).max(1);
        let pool = pool.prestart(0).build().unwrap();
        for _ in 0..2 {
            let vm = pool.acquire().unwrap();
            check(&vm);
            sh(&vm, &format!("date -s @{then} > /dev/null"));
        }
    }
}

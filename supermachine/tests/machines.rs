//! The library against real machines: what goes wrong and what must not.

mod support;

use std::fs;
use std::time::{Duration, Instant};
use supermachine::{AssetPaths, Error, Vm};
use support::*;

fn machine() -> Vm {
    library_image().start(&library_config()).unwrap()
}

/// The error of a start, with a deadline that a hang would miss.
fn start_error(assets: AssetPaths) -> (Error, Duration) {
    let config = library_config()
        .with_assets(assets)
        .with_boot_timeout(Duration::from_secs(5));
    let begun = Instant::now();
    let error = library_image().start(&config).unwrap_err();
    (error, begun.elapsed())
}

fn assets_with(name: &str, kernel: Option<&[u8]>, init: Option<&[u8]>) -> AssetPaths {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&dir).unwrap();
    let found = AssetPaths::discover().unwrap();
    let mut assets = AssetPaths::from_dir(&dir);
    match kernel {
        Some(bytes) => fs::write(&assets.kernel, bytes).unwrap(),
        None => assets.kernel = found.kernel,
    }
    match init {
        Some(bytes) => fs::write(&assets.init_oci, bytes).unwrap(),
        None => assets.init_oci = found.init_oci,
    }
    assets
}

#[test]
fn stopped_and_dropped_machines_leave_nothing() {
    for stop in [true, false] {
        let vm = machine();
        let dir = vm.exec_path().parent().unwrap().to_path_buf();
        assert!(dir.join("exec").exists());
        if stop {
            vm.stop().unwrap();
        } else {
            drop(vm);
        }
        assert!(!dir.exists(), "{}", dir.display());
    }
}

#[test]
fn console_of_a_running_guest_can_be_asked_for() {
    let vm = machine();
    let first = vm.status().unwrap();
    assert!(
        vm.exec(["sh", "-c", "echo from inside > /dev/console"])
            .unwrap()
            .success()
    );
    // The driver in the guest keeps what was written, and passes it on when it can.
    let end = Instant::now() + Duration::from_secs(60);
    let second = loop {
        let status = vm.status().unwrap();
        if status.console.contains("from inside") || Instant::now() > end {
            break status;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(second.console.contains("from inside"), "{second:?}");
    assert!(second.exits > first.exits);
}

#[test]
fn kernel_that_is_none_is_refused() {
    for (name, bytes) in [("empty", Vec::new()), ("text", b"no kernel".repeat(100))] {
        let (error, _) = start_error(assets_with(&format!("kernel-{name}"), Some(&bytes), None));
        assert!(matches!(error, Error::Start { .. }), "{error:?}");
        assert!(error.to_string().contains("kernel"), "{error}");
        assert_eq!(error.exit_status(), 125);
    }
    let mut assets = AssetPaths::discover().unwrap();
    assets.kernel = "/no/such/kernel".into();
    let (error, _) = start_error(assets);
    assert!(error.to_string().contains("/no/such/kernel"), "{error}");
}

#[test]
fn kernel_of_noise_behind_a_good_header_ends_with_an_error() {
    let mut bytes = fs::read(AssetPaths::discover().unwrap().kernel).unwrap();
    let (header, body) = bytes.split_at_mut(64);
    assert_eq!(&header[56..60], b"ARM\x64");
    let length = body.len();
    body.copy_from_slice(&noise(length, 99));
    let (error, took) = start_error(assets_with("kernel-noise", Some(&bytes), None));
    assert!(
        matches!(error, Error::BootFailed { .. } | Error::Start { .. }),
        "{error:?}"
    );
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn init_that_is_none_ends_with_the_kernels_words() {
    let (error, took) = start_error(assets_with("init-text", None, Some(b"no initrd")));
    let Error::BootFailed { console, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(console.contains("anic"), "{console}");
    assert!(
        error.to_string().contains("the end of its console"),
        "{error}"
    );
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn slow_boot_is_an_error_after_its_time() {
    let config = library_config().with_boot_timeout(Duration::from_millis(20));
    let begun = Instant::now();
    let error = library_image().start(&config).unwrap_err();
    assert!(
        matches!(error, Error::BootFailed { .. } | Error::Timeout { .. }),
        "{error:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn two_hundred_commands_at_once_all_answer() {
    let vm = machine();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..200)
            .map(|number| {
                let vm = &vm;
                scope.spawn(move || {
                    let text = format!("command {number}");
                    let out = vm.exec(["echo", &text]).unwrap();
                    assert_eq!(out.stdout, format!("{text}\n").into_bytes());
                })
            })
            .collect();
        for run in runs {
            run.join().unwrap();
        }
    });
    vm.stop().unwrap();
}

#[test]
fn fork_bomb_ends_with_its_time_and_the_machine_goes_on() {
    let vm = machine();
    let bomb = "bomb() { bomb | bomb & }; bomb; sleep 1000";
    let begun = Instant::now();
    let outcome = vm
        .exec_builder()
        .argv(["sh", "-c", bomb])
        .timeout(Duration::from_secs(2))
        .output();
    // It may also end by itself once there are no processes left.
    if let Ok(outcome) = &outcome {
        assert!(outcome.timed_out || !outcome.success(), "{outcome:?}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
    let out = vm.exec(["echo", "alive"]).unwrap();
    assert_eq!(out.stdout, b"alive\n");
}

#[test]
fn command_past_its_time_is_killed_with_its_children() {
    let vm = machine();
    let outcome = vm
        .exec_builder()
        .argv(["sh", "-c", "sleep 777 & sleep 777"])
        .timeout(Duration::from_millis(300))
        .output()
        .unwrap();
    assert!(
        outcome.timed_out && outcome.status.signal.is_some(),
        "{outcome:?}"
    );
    let list = vm
        .exec(["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"])
        .unwrap();
    assert!(!String::from_utf8_lossy(&list.stdout).contains("sleep 777"));
}

#[test]
fn output_over_the_limit_ends_the_command_even_with_input_left() {
    let vm = machine();
    let error = vm
        .exec_builder()
        .argv(["sh", "-c", "yes; cat"])
        .stdin(vec![0; 8 << 20])
        .max_output_bytes(1000)
        .output()
        .unwrap_err();
    assert!(
        matches!(error, Error::OutputTooLarge { limit: 1000 }),
        "{error:?}"
    );
    assert!(vm.exec(["true"]).unwrap().success());
}

#[test]
fn machine_that_ends_breaks_off_everything_and_stays_ended() {
    let vm = machine();
    let child = vm.exec_builder().argv(["sleep", "1000"]).spawn().unwrap();
    let error = vm
        .exec_builder()
        .argv(["sh", "-c", "poweroff -f; sleep 1000"])
        .stdin(vec![0; 8 << 20])
        .output()
        .unwrap_err();
    assert!(matches!(error, Error::Ended { .. }), "{error:?}");
    assert!(matches!(child.wait(), Err(Error::Ended { .. })));
    for _ in 0..2 {
        assert!(matches!(vm.status(), Err(Error::Ended { .. })));
        assert!(matches!(vm.exec(["true"]), Err(Error::Ended { .. })));
    }
    vm.stop().unwrap();
}

#[test]
fn abandoned_command_does_not_hold_its_owner() {
    let vm = machine();
    let mut child = vm.exec_builder().argv(["yes"]).spawn().unwrap();
    // Held and never read: the pipe fills up.
    let held = child.stdout();
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    drop(child);
    assert!(begun.elapsed() < Duration::from_secs(20));
    drop(held);
    assert!(vm.exec(["true"]).unwrap().success());
}

#[test]
fn streams_of_a_spawned_command_work_both_ways() {
    use std::io::{Read, Write};
    let vm = machine();
    let script = "read a; echo got $a; echo err >&2; cat";
    let mut child = vm
        .exec_builder()
        .argv(["sh", "-c", script])
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin().unwrap(), child.stdout().unwrap());
    let mut stderr = child.stderr().unwrap();
    stdin.write_all(b"line\n").unwrap();
    assert_eq!(read_until(&mut stdout, "\n"), "got line\n");
    stdin.write_all(b"rest").unwrap();
    stdin.close().unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    stdout.read_to_string(&mut out).unwrap();
    stderr.read_to_string(&mut err).unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("rest", "err\n"));
    assert!(child.wait().unwrap().success());
}

#[test]
fn files_go_in_and_out() {
    let vm = machine();
    let bytes = noise(3 << 20, 5);
    vm.write_file("/tmp/noise", &bytes).unwrap();
    assert!(vm.read_file("/tmp/noise").unwrap() == bytes);
    assert!(matches!(
        vm.read_file("/no/such/file"),
        Err(Error::Exec { .. })
    ));
    assert!(matches!(
        vm.write_file("relative", b""),
        Err(Error::Protocol(_))
    ));
    let out = vm
        .exec_builder()
        .argv(["sh", "-c", "/tmp/tool"])
        .stage_file_mode("/tmp/tool", "#!/bin/sh\necho staged\n", 0o755)
        .output()
        .unwrap();
    assert_eq!(out.stdout, b"staged\n");
}

#[test]
fn refused_configurations_start_nothing() {
    let image = library_image();
    let refused = |config| image.start(&config).unwrap_err();
    assert!(matches!(
        refused(library_config().with_vcpus(17)),
        Error::TooManyVcpus { vcpus: 17, max: 16 }
    ));
    assert!(matches!(
        refused(library_config().with_memory_mib(0)),
        Error::Resources(_)
    ));
    assert!(matches!(
        refused(library_config().with_hostname("a init=/bin/sh")),
        Error::BadHostname { .. }
    ));
}

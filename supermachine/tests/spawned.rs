//! Spawned commands whose streams are read in part, late or never: nothing
//! hangs, and each stream ends.

mod support;

use std::io::Read;
use std::time::{Duration, Instant};
use supermachine::{Error, Vm};
use support::*;

/// What a command here needs at most on a busy machine; a hang is longer.
const LIMIT: Duration = Duration::from_secs(100);

fn machine() -> Vm {
    library_image()
        .start(&library_config().with_vcpus(2))
        .unwrap()
}

fn noise_on_stderr(bytes: u32) -> String {
    format!("head -c {bytes} /dev/zero >&2; echo out")
}

#[test]
fn the_published_example_ends_with_10_mb_on_the_stream_it_does_not_read() {
    let vm = machine();
    for limit in [None, Some(LIMIT)] {
        let script = noise_on_stderr(10_000_000);
        let command = vm.exec_builder().argv(["sh", "-c", &script]);
        let command = match limit {
            Some(limit) => command.timeout(limit),
            None => command,
        };
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin().unwrap();
        stdin.close().unwrap();
        let mut text = String::new();
        child.stdout().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "out\n");
        let mut stderr = child.stderr().unwrap();
        assert!(child.wait().unwrap().success());
        let mut rest = Vec::new();
        assert_eq!(stderr.read_to_end(&mut rest).unwrap(), 10_000_000);
    }
}

#[test]
fn a_time_limit_holds_with_streams_nobody_reads() {
    let vm = machine();
    let limit = Duration::from_secs(1);
    for takes in [false, true] {
        let script = "yes & yes >&2";
        let command = vm.exec_builder().argv(["sh", "-c", script]).timeout(limit);
        let begun = Instant::now();
        let mut child = command.spawn().unwrap();
        let held = takes.then(|| (child.stdout(), child.stderr()));
        let status = child.wait().unwrap();
        assert!(status.timed_out, "{status:?}");
        assert!(begun.elapsed() < LIMIT);
        drop(held);
    }
    assert!(vm.exec(["true"]).unwrap().success());
}

#[test]
fn a_process_that_ends_while_its_reader_stands_still_is_seen_to_end() {
    let vm = machine();
    let script = "head -c 3000000 /dev/zero; exit 7";
    let command = vm.exec_builder().argv(["sh", "-c", script]);
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout().unwrap();
    stdout.read_exact(&mut [0; 1000]).unwrap();
    assert_eq!(child.wait().unwrap().code, Some(7));
    let mut rest = Vec::new();
    assert_eq!(stdout.read_to_end(&mut rest).unwrap(), 2_999_000);
}

#[test]
fn readers_that_leave_early_leave_the_command_running() {
    let vm = machine();
    let script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 5";
    for which in 0..3 {
        let command = vm.exec_builder().argv(["sh", "-c", script]);
        let mut child = command.timeout(LIMIT).spawn().unwrap();
        let (mut stdout, mut stderr) = (child.stdout().unwrap(), child.stderr().unwrap());
        if which != 1 {
            stdout.read_exact(&mut [0; 10]).unwrap();
            drop(stdout);
        }
        if which != 0 {
            drop(stderr);
        } else {
            assert_eq!(stderr.read_to_end(&mut Vec::new()).unwrap(), 3_000_000);
        }
        let status = child.wait().unwrap();
        assert_eq!((status.code, status.timed_out), (Some(5), false));
    }
}

#[test]
fn two_hundred_commands_at_once_end_whatever_becomes_of_their_streams() {
    let vm = machine();
    std::thread::scope(|scope| {
        for number in 0..200_u32 {
            let vm = &vm;
            scope.spawn(move || {
                let script = format!("{}; exit {}", noise_on_stderr(50_000), number % 100);
                let command = vm.exec_builder().argv(["sh", "-c", &script]);
                let mut child = command.timeout(LIMIT).spawn().unwrap();
                match number % 4 {
                    0 => {
                        let mut text = String::new();
                        child.stdout().unwrap().read_to_string(&mut text).unwrap();
                        assert_eq!(text, "out\n");
                    }
                    1 => drop((child.stdout(), child.stderr())),
                    2 => return drop(child),
                    _ => {}
                }
                let status = child.wait().unwrap();
                assert_eq!(status.shell_status(), u8::try_from(number % 100).unwrap());
            });
        }
    });
    assert!(vm.exec(["true"]).unwrap().success());
}

#[test]
fn files_have_the_limits_that_are_documented() {
    const CAP: usize = 4 << 20;
    let vm = machine();
    let bytes = noise(CAP + 1, 11);
    vm.write_file("/new/directory/file", &bytes[..CAP]).unwrap();
    assert!(vm.read_file("/new/directory/file").unwrap() == bytes[..CAP]);
    assert!(matches!(
        vm.write_file("/new/directory/file", &bytes),
        Err(Error::Protocol(_))
    ));
    // A staged file may be longer, and cannot be read back in one piece.
    let out = vm
        .exec_builder()
        .argv(["sha256sum", "/staged/file"])
        .stage_file("/staged/file", bytes.clone())
        .output()
        .unwrap();
    let sum = String::from_utf8(out.stdout).unwrap();
    assert!(sum.starts_with(&sha256_hex(&bytes)), "{sum}");
    let kind = supermachine::ExecErrorKind::TooLarge;
    assert!(matches!(vm.read_file("/staged/file"), Err(Error::Exec { kind: k, .. }) if k == kind));
}

#[test]
fn a_workload_that_ends_during_a_bake_is_reported_with_its_output() {
    let shelf = shelf::Shelf::new("ends-early");
    let error = shelf
        .builder()
        .cmd(["sh", "-c", "echo starting; echo no config >&2; exit 3"])
        .guest_port(8000)
        .listener_required(true)
        .build()
        .unwrap_err();
    let Error::Workload { output, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(output.contains("starting") && output.contains("no config"));
    assert!(error.to_string().contains("no config"), "{error}");
}

#[test]
fn command_is_data_that_any_machine_runs_any_number_of_times() {
    let command = supermachine::Command::new(["sh", "-c", "cat /tmp/staged -; echo $A; pwd"])
        .stage_file("/tmp/staged", "staged\n")
        .stdin("input\n")
        .env("A", "b c")
        .cwd("/usr")
        .timeout(Duration::from_secs(30));
    let expected = b"staged\ninput\nb c\n/usr\n";
    let machines = [machine(), machine()];
    for vm in &machines {
        let again = command.clone();
        std::thread::scope(|scope| {
            for command in [&command, &again] {
                scope.spawn(move || assert_eq!(vm.run(command).unwrap().stdout, expected));
            }
        });
        assert_eq!(
            vm.exec_builder().argv(["true"]).into_command(),
            supermachine::Command::new(["true"])
        );
    }
    let mut child = machines[0].spawn(&command).unwrap();
    std::io::Write::write_all(&mut child.stdin().unwrap(), b"other\n").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stdout().unwrap(), &mut text).unwrap();
    assert_eq!(text, "staged\nother\nb c\n/usr\n");
    assert!(child.wait().unwrap().success());
}

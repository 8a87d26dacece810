//! What the library promises about machines and commands.

use crate::agent::Agent;
use exec_proto::client::Event;
use std::io::{Read, Write};
use std::time::Duration;
use supermachine::{Error, Vm};
use supermachine_tests::{COMMAND_TIMEOUT, Guest, config, image, sh};

fn boot(vcpus: u32) -> Guest {
    Guest::boot("busybox", vcpus, 256)
}

/// Waits until a shell condition holds in the guest.
fn await_condition(vm: &Vm, condition: &str) {
    let script = format!(
        "for i in $(seq 300); do if {condition}; then echo yes; exit; fi; sleep 0.1; done; echo no"
    );
    assert_eq!(sh(vm, &script), "yes\n", "{condition}");
}

#[test]
fn commands_run_as_they_were_built() {
    let guest = boot(1);
    let vm = guest.vm();
    let outcome = vm
        .exec_builder()
        .argv(["sh", "-c", "echo $A-$B; pwd; id -u; id -g; id -G; exit 5"])
        .env("A", "1 2")
        .env("B", "x")
        .env("B", "y")
        .cwd("/made/for/it")
        .user("user")
        .output()
        .expect("runs");
    assert_eq!(
        String::from_utf8_lossy(&outcome.stdout),
        "1 2-y\n/made/for/it\n1000\n1000\n1000 29 100\n"
    );
    assert_eq!(outcome.status.code, Some(5));
    assert!(!outcome.success() && !outcome.timed_out);

    let outcome = vm
        .exec(["sh", "-c", "echo out; echo err >&2; kill -TERM $$"])
        .expect("runs");
    assert_eq!(
        (outcome.stdout.as_slice(), outcome.stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert_eq!(outcome.status.signal, Some(15));
    assert_eq!(outcome.status.shell_status(), 143);

    let outcome = vm
        .exec_builder()
        .stage_file_mode("/opt/a/script", "#!/bin/sh\necho staged $1\n", 0o755)
        .argv(["/opt/a/script", "one"])
        .chain(["sh", "-c", "echo two; exit 4"])
        .chain(["echo", "never"])
        .output()
        .expect("runs");
    assert_eq!(outcome.stdout, b"staged one\ntwo\n");
    assert_eq!(outcome.status.code, Some(4));

    let outcome = vm
        .exec_builder()
        .argv(["sh", "-c", "tty; stty size"])
        .tty(true)
        .winsize(91, 37)
        .output()
        .expect("runs");
    assert_eq!(
        String::from_utf8_lossy(&outcome.stdout),
        "/dev/pts/0\r\n37 91\r\n"
    );
    assert_eq!(sh(vm, "cat | wc -c"), "0\n", "stdin is empty by default");
    guest.finish();
}

#[test]
fn commands_that_cannot_start_say_why() {
    let guest = boot(1);
    let vm = guest.vm();
    for (program, status) in [
        ("no-such-command", 127),
        ("/etc/passwd", 126),
        ("/etc", 126),
    ] {
        let first = vm.exec_builder().argv([program]);
        let chained = vm.exec_builder().argv(["true"]).chain([program]);
        for (command, step) in [(first, 0), (chained, 1)] {
            let out = command.chain(["touch", "/ran"]).output().unwrap();
            let found = (out.status.code, out.status.step, out.status.executed);
            assert_eq!(found, (Some(status), step, false), "{out:?}");
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(said.starts_with(program), "{said}");
        }
        let mut child = vm.exec_builder().argv([program]).spawn().unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr().unwrap(), &mut said).unwrap();
        assert!(said.starts_with(program), "{said}");
        assert_eq!(child.wait().unwrap().code, Some(status));
    }
    assert!(vm.read_file("/ran").is_err());
    let refused = vm
        .exec_builder()
        .argv(["true"])
        .user("nobody-here")
        .output();
    assert!(matches!(refused, Err(Error::Exec { .. })), "{refused:?}");
    assert_eq!(sh(vm, "echo fine"), "fine\n");
    guest.finish();
}

#[test]
fn time_limit_kills_the_whole_tree() {
    let guest = boot(1);
    let vm = guest.vm();
    let script = "sleep 1234 & setsid sleep 1234 & (trap '' TERM; sleep 1234) & wait";
    let outcome = vm
        .exec_builder()
        .argv(["sh", "-c", script])
        .timeout(Duration::from_secs(1))
        .output()
        .expect("ends");
    assert!(outcome.timed_out, "{outcome:?}");
    assert_eq!(outcome.status.signal, Some(9));
    await_condition(vm, "! ps | grep -q '[s]leep 1234'");
    guest.finish();
}

#[test]
fn bytes_arrive_as_they_were_sent() {
    let guest = boot(4);
    let vm = guest.vm();
    let bytes: Vec<u8> = (0..3_000_000u32)
        .flat_map(|number| {
            number
                .wrapping_mul(2_654_435_761)
                .to_le_bytes()
                .into_iter()
                .take(1)
        })
        .collect();
    let outcome = vm
        .exec_builder()
        .argv(["cat"])
        .stdin(bytes.clone())
        .timeout(COMMAND_TIMEOUT)
        .output()
        .expect("runs");
    assert!(outcome.success() && outcome.stdout == bytes);

    vm.write_file("/var/new/file", &bytes).expect("written");
    assert!(vm.read_file("/var/new/file").expect("read") == bytes);
    assert_eq!(sh(vm, "stat -c '%a %s' /var/new/file"), "644 3000000\n");
    assert!(matches!(
        vm.read_file("/not/there"),
        Err(Error::Exec { .. })
    ));
    vm.write_file("/empty", b"").expect("written");
    assert!(vm.read_file("/empty").expect("read").is_empty());

    let mut child = vm.exec_builder().argv(["cat"]).spawn().expect("starts");
    let (mut stdin, mut stdout) = (child.stdin().expect("in"), child.stdout().expect("out"));
    for round in 0..50u8 {
        stdin.write_all(&[round; 100]).expect("taken");
        let mut answer = [0; 100];
        stdout.read_exact(&mut answer).expect("answered");
        assert_eq!(answer, [round; 100], "an echo per line, before the end");
    }
    stdin.close().expect("closed");
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("ends");
    assert!(rest.is_empty());
    assert!(child.wait().expect("ends").success());
    guest.finish();
}

#[test]
fn signals_and_drops_end_commands() {
    let guest = boot(1);
    let vm = guest.vm();
    let mut child = vm
        .exec_builder()
        .argv([
            "sh",
            "-c",
            "trap 'echo usr1; exit 3' USR1; echo up; while :; do sleep 0.1; done",
        ])
        .spawn()
        .expect("starts");
    let mut stdout = child.stdout().expect("out");
    let mut word = [0; 3];
    stdout.read_exact(&mut word).expect("up");
    child.signal(10).expect("sent");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("ends");
    assert_eq!(rest, "usr1\n");
    assert_eq!(child.wait().expect("ends").code, Some(3));

    let dropped = vm
        .exec_builder()
        .argv(["sh", "-c", "sleep 4321 & exec sleep 4321"])
        .spawn()
        .expect("starts");
    await_condition(vm, "ps | grep -q '[s]leep 4321'");
    drop(dropped);
    await_condition(vm, "! ps | grep -q '[s]leep 4321'");

    let endless = vm
        .exec_builder()
        .argv(["yes"])
        .max_output_bytes(100_000)
        .output();
    assert!(
        matches!(endless, Err(Error::OutputTooLarge { limit: 100_000 })),
        "{endless:?}"
    );
    await_condition(vm, "! pidof yes");
    guest.finish();
}

#[test]
fn many_commands_run_at_once() {
    let guest = boot(4);
    let vm = guest.vm();
    std::thread::scope(|scope| {
        let commands: Vec<_> = (0..32)
            .map(|number| {
                scope.spawn(move || {
                    sh(
                        vm,
                        &format!("sleep 0.2; seq {number} 2000 | tail -n 1; echo {number}"),
                    )
                })
            })
            .collect();
        for (number, command) in commands.into_iter().enumerate() {
            let output = command.join().expect("its thread ends");
            assert_eq!(output, format!("2000\n{number}\n"));
        }
    });
    guest.finish();
}

#[test]
fn slow_reader_holds_up_nobody_else() {
    let guest = boot(1);
    let vm = guest.vm();
    let mut stalled = vm
        .exec_builder()
        .argv(["sh", "-c", "yes | head -c 20000000"])
        .spawn()
        .expect("starts");
    for number in 0..5 {
        assert_eq!(sh(vm, &format!("echo {number}")), format!("{number}\n"));
    }
    let mut all = Vec::new();
    let mut stdout = stalled.stdout().expect("out");
    stdout.read_to_end(&mut all).expect("ends");
    assert_eq!(all.len(), 20_000_000);
    assert!(all.chunks(2).all(|line| line == b"y\n"));
    assert!(stalled.wait().expect("ends").success());
    guest.finish();
}

#[test]
fn stopping_ends_running_commands() {
    let vm = image("busybox").start(&config()).expect("boots");
    let socket = vm.exec_path().to_path_buf();
    let child = vm.exec_builder().argv(["sleep", "1000"]).spawn();
    // A child borrows nothing: it sees the machine end.
    let child = child.expect("starts");
    vm.stop().expect("stops");
    assert!(child.wait().is_err());
    assert!(!socket.exists(), "{} is left behind", socket.display());
    assert!(!socket.parent().is_some_and(std::path::Path::exists));
}

#[test]
fn agent_sets_time_takes_seeds_and_powers_off() {
    let guest = boot(1);
    let vm = guest.vm();
    let mut agent = Agent::connect(vm.exec_path());
    let then = Duration::from_secs(1_900_000_000);
    agent.request(|session| session.set_time(u64::try_from(then.as_nanos()).unwrap_or(u64::MAX)));
    assert_eq!(agent.answer(), Event::Done);
    let now: u64 = sh(vm, "date +%s").trim().parse().expect("a number");
    assert!((1_900_000_000..1_900_000_300).contains(&now), "{now}");
    agent.request(|session| session.reseed(&[7; 64]));
    assert_eq!(agent.answer(), Event::Done);
    agent.request(|session| session.ping(99));
    assert_eq!(agent.answer(), Event::Pong(99));
    agent.request(|session| session.sync());
    assert_eq!(agent.answer(), Event::Done);
    agent.request(|session| session.shutdown());
    assert_eq!(agent.answer(), Event::Done);
    agent.await_end();
    let ended = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        matches!(vm.status(), Err(Error::Ended { .. }))
    });
    assert!(ended, "the machine goes on: {:?}", vm.status());
    guest.finish();
}

/// What the guest finds is what docs/architecture.md says: its table has a row
/// for each virtio slot, by the names of the specification's device types.
#[test]
fn devices_are_in_the_slots_that_the_document_says() {
    let types = [
        ("vsock", 19),
        ("rng", 4),
        ("balloon", 5),
        ("mem", 24),
        ("blk", 2),
    ];
    let document = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/architecture.md"),
    )
    .expect("the document is there");
    let mut said: Vec<u32> = Vec::new();
    for row in document
        .lines()
        .filter_map(|line| line.strip_prefix("| virtio "))
    {
        let (slot, rest) = row.split_once(" | ").expect("two columns");
        let slot = slot.split(' ').next().expect("a number");
        assert_eq!(slot, said.len().to_string(), "{row}");
        let name: String = rest
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect();
        let device = types.iter().find(|(known, _)| *known == name);
        said.push(device.unwrap_or_else(|| panic!("{name}: {row}")).1);
    }
    assert!(said.len() > 2, "no table of slots");

    let guest = boot(1);
    // By address, which is the order of slots.
    let script = "for d in /sys/bus/virtio/devices/*; do \
                  echo $(readlink -f $d) $(($(cat $d/device))); done | sort | sed 's/.* //'";
    let there: Vec<u32> = sh(guest.vm(), script)
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    assert_eq!(there, said);
    guest.finish();
}

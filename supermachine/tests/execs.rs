//! Commands that outlive whoever started them, that are limited, and that are many.

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};
use supermachine::{
    Error, ExecChild, ExecErrorKind, ExecId, ExecInfo, ExecState, OutputGap, StreamOffsets, Vm,
};
use support::shelf::*;
use support::*;

/// Longer than anything takes on a host with too much to do.
const LONG: Duration = Duration::from_secs(100);

/// Answers each line, and tells its end.
const TALK: &str = "echo begin; while read word; do echo got $word; done; echo end; exit 7";

fn start(vm: &Vm, script: &str) -> ExecChild {
    vm.exec_builder()
        .argv(["sh", "-c", script])
        .durable(true)
        .spawn()
        .unwrap()
}

/// Reads so much of standard output.
fn expect(child: &mut impl Read, wanted: &str) {
    let mut text = vec![0; wanted.len()];
    child.read_exact(&mut text).unwrap();
    assert_eq!(String::from_utf8_lossy(&text), wanted);
}

/// Waits until the machine says so of a command.
fn await_info(vm: &Vm, id: ExecId, what: &str, is_so: impl Fn(&ExecInfo) -> bool) -> ExecInfo {
    let begun = Instant::now();
    loop {
        let execs = vm.execs().unwrap();
        if let Some(info) = execs.iter().find(|exec| exec.id == id && is_so(exec)) {
            return info.clone();
        }
        assert!(begun.elapsed() < LONG, "not {what}: {execs:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Takes a command that [talks](TALK) up, says one word and hears its end.
fn talk_to_the_end(vm: &Vm, id: ExecId, word: &str) {
    let mut child = vm.attach(id, StreamOffsets::default()).unwrap();
    let mut stdin = child.stdin().unwrap();
    writeln!(stdin, "{word}").unwrap();
    stdin.close().unwrap();
    let mut text = String::new();
    let mut stdout = child.stdout().unwrap();
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("begin\ngot a\ngot {word}\nend\n"));
    assert_eq!(stdout.offset(), text.len() as u64);
    assert_eq!(child.wait().unwrap().code, Some(7));
}

#[test]
fn a_durable_command_goes_on_without_its_owner_and_in_every_copy() {
    let shelf = Shelf::new("durable");
    let vm = copy(&shelf.bake());
    let mut child = start(&vm, TALK);
    let id = child.id().unwrap();
    let mut stdout = child.stdout().unwrap();
    expect(&mut stdout, "begin\n");
    let mut stdin = child.stdin().unwrap();
    stdin.write_all(b"a\n").unwrap();
    expect(&mut stdout, "got a\n");
    // Its owner goes away without a word.
    drop((child, stdout, stdin));
    let info = await_info(&vm, id, "alone", |exec| !exec.is_attached);
    assert!(matches!(info.state, ExecState::Running { pid } if pid > 0));
    assert_eq!(info.argv[..2], [b"sh", &b"-c"[..]]);
    assert_eq!(info.written.stdout, 12);

    let image = vm.snapshot(shelf.0.join("moment")).unwrap();
    let forks = vm.fork(1).unwrap();
    talk_to_the_end(&copy(&image), id, "copy");
    talk_to_the_end(&forks[0], id, "fork");
    talk_to_the_end(&vm, id, "original");
    // It is known after its end too.
    let info = await_info(
        &vm,
        id,
        "ended",
        |exec| matches!(exec.state, ExecState::Exited(status) if status.code == Some(7)),
    );
    assert_eq!(info.written.stdout, 12 + "got original\nend\n".len() as u64);
    let other: ExecId = "99".parse().unwrap();
    assert!(matches!(
        vm.attach(other, StreamOffsets::default()),
        Err(Error::Exec {
            kind: ExecErrorKind::NoSuchExec,
            ..
        })
    ));
}

#[test]
fn commands_are_let_go_and_taken_up_where_their_reader_was() {
    let vm = library_image().start(&library_config()).unwrap();
    // Not durable from its start.
    let mut child = vm
        .exec_builder()
        .argv(["sh", "-c", "echo one; read go; seq -w 1 100000; exit 3"])
        .spawn()
        .unwrap();
    assert!(child.id().is_none() && child.try_wait().unwrap().is_none());
    let mut stdout = child.stdout().unwrap();
    expect(&mut stdout, "one\n");
    let id = child.detach().unwrap();
    let place = StreamOffsets {
        stdout: stdout.offset(),
        stderr: 0,
    };
    assert_eq!(place.stdout, 4);
    assert_eq!(stdout.read(&mut [0; 10]).unwrap(), 0, "it ends here");

    let mut child = vm.attach(id, place).unwrap();
    child.stdin().unwrap().write_all(b"\n").unwrap();
    // More than the guest keeps, and nobody reads it.
    child.detach().unwrap();
    let info = await_info(&vm, id, "ended", |exec| {
        matches!(exec.state, ExecState::Exited(_))
    });
    assert_eq!(info.written.stdout, 4 + 700_000);
    let mut child = vm.attach(id, place).unwrap();
    let mut stdout = child.stdout().unwrap();
    let mut text = Vec::new();
    let error = stdout.read_to_end(&mut text).unwrap_err();
    let gap = OutputGap::of(&error).unwrap();
    assert_eq!((text.len(), stdout.offset()), (0, 4 + gap.bytes));
    stdout.read_to_end(&mut text).unwrap();
    assert_eq!(gap.bytes + text.len() as u64, 700_000);
    assert!(text.ends_with(b"099999\n100000\n"));
    let mut child = child;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code, Some(3));
    assert_eq!(child.wait().unwrap(), status);

    // What is durable is killed on purpose only, with all it started.
    let child = start(&vm, "setsid sleep 1234 & sleep 1234");
    let id = child.id().unwrap();
    drop(child);
    let child = vm.attach(id, StreamOffsets::LATEST).unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal, Some(9));
    await_none_of(&vm, "sleep 1234");
    assert!(vm.execs().unwrap().len() >= 2);
}

fn await_none_of(vm: &Vm, words: &str) {
    let begun = Instant::now();
    let count = format!("ps | grep -v grep | grep -c '{words}'; true");
    while sh(vm, &count) != "0" {
        assert!(begun.elapsed() < LONG, "{}", sh(vm, "ps"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn outcomes_say_what_became_of_each_step_and_of_too_much_output() {
    let vm = library_image().start(&library_config()).unwrap();
    let chained = |words: &[&str]| {
        let builder = vm.exec_builder().argv(["sh", "-c", words[0]]);
        let steps = words[1..].iter();
        let builder = steps.fold(builder, |builder, word| builder.chain(["sh", "-c", word]));
        builder.timeout(LONG).output().unwrap()
    };
    let out = chained(&["echo a", "echo b; exit 4", "echo never"]);
    assert_eq!(out.stdout, b"a\nb\n");
    let codes: Vec<_> = out
        .steps
        .iter()
        .map(|step| (step.step, step.code))
        .collect();
    assert_eq!(codes, [(0, Some(0)), (1, Some(4))]);
    assert_eq!((out.status.step, out.status.code), (1, Some(4)));
    let sum: Duration = out.steps.iter().map(|step| step.duration).sum();
    assert_eq!(sum, out.duration);
    assert!(
        out.steps
            .iter()
            .all(|step| step.peak_rss_kib > 0 && step.executed)
    );
    // One rule for a program that is missing, wherever it is.
    for missing in [0, 1] {
        let mut argv = [["true"], ["true"]];
        argv[missing] = ["/no/such/program"];
        let out = vm
            .exec_builder()
            .argv(argv[0])
            .chain(argv[1])
            .output()
            .unwrap();
        let last = out.steps.last().unwrap();
        assert_eq!(
            (out.steps.len(), last.code, last.executed),
            (missing + 1, Some(127), false)
        );
        assert!(String::from_utf8_lossy(&out.stderr).contains("/no/such/program"));
    }
    let much = || {
        vm.exec_builder()
            .argv(["sh", "-c", "seq 100000; echo done > /tmp/done"])
            .max_output_bytes(10)
            .timeout(LONG)
    };
    let out = much().truncate_output(true).output().unwrap();
    assert!(out.truncated && out.success());
    assert_eq!(out.stdout, b"1\n2\n3\n4\n5\n");
    assert_eq!(vm.read_file("/tmp/done").unwrap(), b"done\n");
    assert!(matches!(
        much().output(),
        Err(Error::OutputTooLarge { limit: 10 })
    ));
    let all = vm
        .exec_builder()
        .argv(["echo", "a"])
        .truncate_output(true)
        .output()
        .unwrap();
    assert!(!all.truncated && all.stdout == b"a\n");
}

#[test]
fn limits_hold_for_all_that_a_command_starts_and_for_nothing_else() {
    let vm = library_image()
        .start(&library_config().with_memory_mib(256))
        .unwrap();
    let run = |script: &str| vm.exec_builder().argv(["sh", "-c", script]).timeout(LONG);
    // One that grows, beside one in a session of its own that does not.
    let hungry = "setsid sleep 4321 & tail /dev/zero; echo survived";
    let out = run(hungry).max_memory_bytes(24 << 20).output().unwrap();
    assert!(out.status.oom && !out.timed_out, "{out:?}");
    assert_eq!((out.status.signal, &out.stdout[..]), (Some(9), &b""[..]));
    await_none_of(&vm, "sleep 4321");
    // What fits is left alone, and so is who has no limit.
    let modest =
        "head -c 8000000 /dev/zero > /dev/shm/f; rm /dev/shm/f; cat /sys/fs/cgroup/memory.max";
    let out = run(modest).max_memory_bytes(64 << 20).output().unwrap();
    assert!(out.success() && !out.status.oom, "{out:?}");
    assert_eq!(
        out.stdout,
        (64 << 20)
            .to_string()
            .into_bytes()
            .into_iter()
            .chain([b'\n'])
            .collect::<Vec<_>>()
    );
    let out = run("head -c 64000000 /dev/zero > /dev/shm/f; rm /dev/shm/f")
        .output()
        .unwrap();
    assert!(out.success(), "{out:?}");

    let many = "i=0; while [ $i -lt 20 ]; do sleep 1000 & i=$((i+1)); done; wait";
    let out = run(many).max_processes(8).output().unwrap();
    assert!(!out.success() && !out.timed_out, "{out:?}");
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("fork"),
        "{out:?}"
    );
    let out = run("cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max")
        .max_processes(8)
        .max_cpus(0.25)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "8\n25000 100000\n");
    // The command cannot lift them.
    let out = run("echo max > /sys/fs/cgroup/pids.max || cat /sys/fs/cgroup/pids.max")
        .max_processes(9)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "9\n");
    let out = run("cat /sys/fs/cgroup/cpu.max").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "max 100000\n");
}

/// Memory of the agent in KiB, and its open descriptors.
fn agent(vm: &Vm) -> (u64, u64) {
    let text = sh(
        vm,
        "awk '/VmRSS/ {print $2}' /proc/1/status; ls /proc/1/fd | wc -l",
    );
    let mut numbers = text.lines().map(|line| line.trim().parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn own_descriptors() -> usize {
    // Without /proc there is nothing to see.
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

#[test]
fn many_commands_at_once_and_in_a_row_leave_nothing_behind() {
    let vm = library_image().start(&library_config()).unwrap();
    let mut children: Vec<ExecChild> = (0..200)
        .map(|number| {
            let script = format!("read word; echo $word {number}");
            let builder = vm.exec_builder().argv(["sh", "-c", &script]);
            builder.spawn().unwrap()
        })
        .collect();
    // All of them run now. A reader that stops holds up nobody.
    let stopped = vm.exec_builder().argv(["yes"]).spawn().unwrap();
    assert_eq!(sh(&vm, "echo through"), "through");
    for (number, child) in children.iter_mut().enumerate() {
        child.stdin().unwrap().write_all(b"hello\n").unwrap();
        let mut text = String::new();
        child.stdout().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("hello {number}\n"));
    }
    for child in children {
        assert!(child.wait().unwrap().success());
    }
    drop(stopped);
    let (settled, descriptors) = (agent(&vm), own_descriptors());
    for number in 0..1000 {
        let out = vm.exec(["echo", "hi"]).unwrap();
        assert_eq!(out.stdout, b"hi\n", "{number}");
    }
    for number in 0..50 {
        let child = vm
            .exec_builder()
            .argv(["true"])
            .durable(true)
            .spawn()
            .unwrap();
        assert!(child.wait().unwrap().success(), "{number}");
    }
    // The groups and threads of the crowd may take a moment to go.
    let begun = Instant::now();
    loop {
        let (kib, open) = agent(&vm);
        if kib < settled.0 + 2048 && open < settled.1 + 64 {
            break;
        }
        assert!(
            begun.elapsed() < LONG,
            "{settled:?}, then {kib} KiB and {open}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let begun = Instant::now();
    while own_descriptors() > descriptors + 128 {
        assert!(
            begun.elapsed() < LONG,
            "{descriptors}, then {}",
            own_descriptors()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn odd_requests_are_refused_or_do_what_they_say() {
    let vm = library_image().start(&library_config()).unwrap();
    // A variable's name may have anything in it but what ends it.
    let out = vm
        .exec_builder()
        .argv(["env"])
        .env("ODD NAME", "=x=")
        .env("EMPTY", "")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        text.contains("ODD NAME==x=\n") && text.contains("EMPTY=\n"),
        "{text}"
    );
    for name in ["", "A=B", "="] {
        let out = vm.exec_builder().argv(["true"]).env(name, "x").output();
        assert!(
            matches!(out, Err(Error::Unsuitable { .. })),
            "{name}: {out:?}"
        );
    }
    let many = (0..100_000).fold(vm.exec_builder().argv(["true"]), |builder, number| {
        builder.env(format!("V{number}"), "x")
    });
    assert!(matches!(many.output(), Err(Error::Protocol(_))));
    let child = vm
        .exec_builder()
        .argv(["cat"])
        .tty(true)
        .winsize(0, 65_535)
        .spawn()
        .unwrap();
    for (columns, rows) in [(0, 0), (65_535, 65_535), (1, 1)] {
        child.resize(columns, rows).unwrap();
    }
    for number in [0, 65, u32::MAX] {
        assert!(
            matches!(child.signal(number), Err(Error::Protocol(_))),
            "{number}"
        );
    }
    child.signal(64).unwrap();
    assert_eq!(child.wait().unwrap().signal, Some(64));
    // Files at the limit, one past it, and what are no files.
    let limit = 4 << 20;
    vm.write_file("/tmp/limit", &vec![7; limit]).unwrap();
    assert_eq!(vm.read_file("/tmp/limit").unwrap().len(), limit);
    assert!(matches!(
        vm.write_file("/tmp/past", &vec![7; limit + 1]),
        Err(Error::Protocol(_))
    ));
    sh(
        &vm,
        "head -c 4194305 /dev/zero > /tmp/past; mkfifo /tmp/fifo",
    );
    for path in [
        "/tmp/past",
        "/dev/zero",
        "/tmp/fifo",
        "/tmp",
        "/no/such",
        "/tmp/limit/x",
    ] {
        assert!(
            matches!(vm.read_file(path), Err(Error::Exec { .. })),
            "{path}"
        );
    }
    for path in ["/dev/zero", "/tmp/fifo", "/tmp", "/proc/version/x", "/"] {
        assert!(
            matches!(vm.write_file(path, b"x"), Err(Error::Exec { .. })),
            "{path}"
        );
    }
    assert!(matches!(
        vm.write_file("tmp/x", b"x"),
        Err(Error::Protocol(_))
    ));
    vm.write_file("/tmp/a/../b", b"x").unwrap();
    assert_eq!(vm.read_file("/tmp/b").unwrap(), b"x");
}

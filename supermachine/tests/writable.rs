//! `run --read-only` and `--tmpfs`: what of a machine's files a command can change.

mod support;

use support::*;

/// What a script writes in a machine, and whether it succeeds.
fn shell(sandbox: &Sandbox, options: &[&str], script: &str) -> (i32, String) {
    let run = sandbox.run_shell(options, script);
    (run.code(), run.out() + &run.err())
}

#[test]
fn a_root_that_is_read_only_takes_nothing_and_what_is_mounted_does() {
    let sandbox = Sandbox::new();
    let script = "for dir in / /etc /tmp; do touch $dir/x && echo wrote $dir; done; \
        for dir in /run /dev/shm /scratch/deep; do echo hi > $dir/x && cat $dir/x; done; pwd";
    let options = [
        "--read-only",
        "--tmpfs",
        "/scratch/deep",
        "-w",
        "/made/for/it",
    ];
    let (code, out) = shell(&sandbox, &options, script);
    assert_eq!(code, 0, "{out}");
    assert_eq!(out.matches("Read-only file system").count(), 3, "{out}");
    assert!(
        out.ends_with("hi\nhi\nhi\n/made/for/it\n") || out.contains("hi\nhi\nhi\n/made"),
        "{out}"
    );
    assert!(!out.contains("wrote"), "{out}");
    // Neither can root in the guest write by another mount of the same files.
    let script = "mkdir -p /run/again && mount --bind / /run/again && touch /run/again/x";
    assert_ne!(shell(&sandbox, &["--read-only"], script).0, 0);
    // The snapshot that these are copies of is not read-only.
    assert_eq!(shell(&sandbox, &[], "touch /x && echo wrote").1, "wrote\n");
}

#[test]
fn memory_that_is_mounted_has_the_size_the_mode_and_the_flags_asked_for() {
    let sandbox = Sandbox::new();
    let script = "dd if=/dev/zero of=/small/x bs=64k count=64 2>/dev/null; \
        stat -c %s /small/x; stat -c %a /small /usual; \
        cp /bin/busybox /usual/b && /usual/b true; echo $?; \
        cp /bin/busybox /runs/b && /runs/busybox true 2>/dev/null; /runs/b true; echo $?";
    let options = [
        "--tmpfs",
        "/small:size=1m,mode=700",
        "--tmpfs",
        "/usual",
        "--tmpfs",
        "/runs:exec",
    ];
    let (_, out) = shell(&sandbox, &options, script);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "1048576", "{out}");
    assert_eq!(lines[1..3], ["700", "1777"], "{out}");
    assert!(out.contains("126\n"), "{out}");
    let refused = sandbox.run(&["run", "--tmpfs", "relative", busybox(), "true"]);
    refused.assert_refused(125, &["absolute path"]);
}

#[test]
fn detached_machines_have_it_too() {
    let sandbox = Sandbox::new();
    let started = sandbox.run(&[
        "run",
        "-d",
        "--read-only",
        "--tmpfs",
        "/t",
        "--name",
        "ro",
        busybox(),
        "sleep",
        "1000",
    ]);
    assert_eq!(started.code(), 0, "{}", started.err());
    let exec = sandbox.run(&["exec", "ro", "sh", "-c", "touch /t/x && touch /x"]);
    assert_eq!(exec.code(), 1);
    assert!(exec.err().contains("Read-only"), "{}", exec.err());
    assert_eq!(sandbox.run(&["rm", "-f", "ro"]).code(), 0);
}

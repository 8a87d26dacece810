//! `snapshot create` and `fork`: copies of a machine that runs.

mod support;

use std::fs;
use std::time::Instant;
use support::*;

/// Standard output of a run of the tool that must succeed.
fn out(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let run = sandbox.run(arguments);
    assert_eq!((run.code(), run.err()), (0, String::new()), "{arguments:?}");
    run.out()
}

/// A detached machine with a file, a program in the background, and a command that
/// says where it starts, knows what no other knows, and waits.
fn detach(sandbox: &Sandbox) -> String {
    let script = "own=$(cat /proc/sys/kernel/random/uuid); echo $WORD began; sleep 4321 & \
        echo $own > /tmp/made; \
        while :; do sleep 0.1; [ -e /tmp/end ] && echo $own ended && exit 7; done";
    let options = [
        "run",
        "-d",
        "--name",
        "web",
        "-e",
        "WORD=it",
        "--read-only",
        "--tmpfs",
        "/tmp",
    ];
    let mut arguments = options.to_vec();
    arguments.extend([busybox(), "sh", "-c", script]);
    out(sandbox, &arguments);
    await_log(sandbox, "web", "it began");
    let begun = Instant::now();
    loop {
        let own = sandbox.run(&["exec", "web", "cat", "/tmp/made"]).out();
        if own.ends_with('\n') {
            return own.trim_end().to_owned();
        }
        assert!(begun.elapsed() < PATIENCE);
    }
}

fn await_log(sandbox: &Sandbox, machine: &str, wanted: &str) {
    let begun = Instant::now();
    while !sandbox.run(&["logs", machine]).out().contains(wanted) {
        assert!(begun.elapsed() < PATIENCE, "no {wanted:?} in the log");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn forks_left(sandbox: &Sandbox) -> usize {
    let entries = fs::read_dir(sandbox.files.join("s/.forks")).unwrap();
    let is_directory = |entry: &fs::DirEntry| entry.file_type().unwrap().is_dir();
    entries
        .filter(|entry| is_directory(entry.as_ref().unwrap()))
        .count()
}

#[test]
fn copies_go_on_with_the_command_and_the_machine_does_too() {
    let sandbox = Sandbox::new();
    let own = detach(&sandbox);
    let ids = out(&sandbox, &["fork", "web", "2", "--name", "copy"]);
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids.len(), 2);
    let names = out(&sandbox, &["ps", "--format", "{{.Name}}"]);
    assert_eq!(names, "web\ncopy-1\ncopy-2\n");
    for name in ["copy-1", "copy-2"] {
        let script =
            "cat /tmp/made; ps | grep -c 'root  *sleep 4321$'; touch /x 2>&1 | grep -c Read-only";
        assert_eq!(
            out(&sandbox, &["exec", name, "sh", "-c", script]),
            format!("{own}\n1\n1\n")
        );
        let about: serde_json::Value =
            serde_json::from_str(&out(&sandbox, &["inspect", name])).unwrap();
        let web = out(&sandbox, &["ps", "-q", "-f", "name=web"]);
        assert_eq!(about[0]["forked_from"], web.trim_end());
    }
    // Each has files of its own.
    out(&sandbox, &["exec", "copy-1", "touch", "/tmp/end"]);
    assert_eq!(out(&sandbox, &["wait", "copy-1"]), "7\n");
    // It did not begin again, and its log has what only it wrote.
    assert_eq!(out(&sandbox, &["logs", "copy-1"]), format!("{own} ended\n"));
    // A copy of a copy has the same command.
    out(&sandbox, &["fork", "copy-2", "--name", "second"]);
    out(&sandbox, &["exec", "second-1", "touch", "/tmp/end"]);
    assert_eq!(out(&sandbox, &["wait", "second-1"]), "7\n");
    assert_eq!(
        out(&sandbox, &["logs", "second-1"]),
        format!("{own} ended\n")
    );
    out(&sandbox, &["rm", "second-1"]);
    assert_eq!(out(&sandbox, &["exec", "web", "ls", "/tmp"]), "made\n");
    assert_eq!(forks_left(&sandbox), 1);
    // What is used is not removed.
    assert_eq!(out(&sandbox, &["gc", "-q", "-f", "kind=fork"]), "");
    let refused = sandbox.run(&["fork", "copy-1"]);
    refused.assert_refused(125, &["has ended"]);
    out(&sandbox, &["stop", "copy-2"]);
    assert_eq!(forks_left(&sandbox), 0);
    out(&sandbox, &["rm", "-f", "web", "copy-1", "copy-2"]);
}

#[test]
fn copies_have_the_directories_and_copies_of_the_volumes_of_their_machine() {
    let sandbox = Sandbox::new();
    let shared = sandbox.files.join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("f"), "of the host\n").unwrap();
    let mount = format!("{}:/mnt", shared.display());
    let script = "echo before > /data/f; echo up; while :; do sleep 0.1; done";
    let run = [
        "run",
        "-d",
        "--name",
        "web",
        "-v",
        "data:/data:16m",
        "-v",
        &mount,
        busybox(),
        "sh",
        "-c",
        script,
    ];
    out(&sandbox, &run);
    await_log(&sandbox, "web", "up");
    out(&sandbox, &["fork", "web", "2", "--name", "copy"]);
    let sh = |name: &str, script: &str| out(&sandbox, &["exec", name, "sh", "-c", script]);
    // In each it is a disk of its own, which is as it was.
    sh("copy-1", "echo first > /data/f; echo more > /data/g; sync");
    sh("web", "echo own > /data/f; sync");
    assert_eq!(
        sh("copy-2", "cat /data/f /mnt/f; ls /data | grep -v lost"),
        "before\nof the host\nf\n"
    );
    assert_eq!(sh("web", "cat /data/f"), "own\n");
    // A copy of a copy has what that has.
    out(&sandbox, &["fork", "copy-1", "--name", "second"]);
    assert_eq!(sh("second-1", "cat /data/f /data/g"), "first\nmore\n");
    out(
        &sandbox,
        &["rm", "-f", "web", "copy-1", "copy-2", "second-1"],
    );
    assert_eq!(forks_left(&sandbox), 0);
    // The volume itself is the machine's that was not copied.
    let text = sandbox.run_shell(
        &["--no-snapshot", "-v", "data:/data"],
        "cat /data/f; ls /data",
    );
    assert_eq!(
        text.out().replace("lost+found\n", ""),
        "own\nf\n",
        "{}",
        text.err()
    );
}

#[test]
fn a_fork_of_what_is_no_detached_machine_is_refused_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&["fork", "nobody"])
        .assert_refused(125, &["nobody"]);
    sandbox
        .run(&["fork", "nobody", "0"])
        .assert_refused(125, &["1..=1000"]);
    detach(&sandbox);
    let refused = sandbox.run(&["fork", "web", "--name", "not a name"]);
    assert_eq!(refused.code(), 125);
    assert_eq!(forks_left(&sandbox), 0);
    assert_eq!(out(&sandbox, &["ps", "-q"]).lines().count(), 1);
    out(&sandbox, &["rm", "-f", "web"]);
}

#[test]
fn a_snapshot_of_a_running_machine_is_as_good_a_reference_as_any() {
    let sandbox = Sandbox::new();
    let mut child = sandbox
        .shell(
            &["-i", "--name", "host"],
            "echo kept > /tmp/mark; echo up; exec cat",
        )
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    read_until(child.stdout.as_mut().unwrap(), "up\n");
    let made = out(&sandbox, &["snapshot", "create", "host", "mine"]);
    assert!(made.trim_end().ends_with("/s/mine/0000000001"), "{made}");
    let elsewhere = sandbox.command(&["snapshot", "create", "--json", "host", "./here"]);
    let elsewhere = {
        let mut command = elsewhere;
        command.current_dir(&sandbox.files);
        finish(command.spawn().unwrap(), PATIENCE)
    };
    assert_eq!((elsewhere.code(), elsewhere.err()), (0, String::new()));
    assert!(
        sandbox
            .files
            .join("here/0000000001/manifest.json")
            .is_file()
    );
    // The machine that it was made of goes on.
    drop(child.stdin.take());
    assert_eq!(finish(child, PATIENCE).code(), 0);
    assert_eq!(
        out(&sandbox, &["run", "mine", "cat", "/tmp/mark"]),
        "kept\n"
    );
    let path = sandbox.files.join("here").display().to_string();
    assert_eq!(out(&sandbox, &["run", &path, "cat", "/tmp/mark"]), "kept\n");
    assert!(out(&sandbox, &["snapshot", "ls", "-q"]).contains("mine\n"));
    sandbox
        .run(&["snapshot", "create", "host", "later"])
        .assert_refused(125, &["host"]);
}

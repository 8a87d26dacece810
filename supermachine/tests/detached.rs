//! Machines that outlive the tool: `run --detach` and what looks after them.

mod support;

use rustix::process::Signal;
use std::time::{Duration, Instant};
use support::*;

/// Starts a machine that runs a script, and returns its id.
fn detach(sandbox: &Sandbox, options: &[&str], script: &str) -> String {
    let mut arguments = vec!["run", "-d"];
    arguments.extend_from_slice(options);
    arguments.extend_from_slice(&[busybox(), "sh", "-c", script]);
    let run = sandbox.run(&arguments);
    assert_eq!((run.code(), run.err()), (0, String::new()));
    let id = run.out().trim().to_owned();
    assert!(
        id.len() == 12 && id.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "{id}"
    );
    id
}

/// Standard output of a run of the tool that must succeed.
fn out(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let run = sandbox.run(arguments);
    assert_eq!((run.code(), run.err()), (0, String::new()), "{arguments:?}");
    run.out()
}

fn inspect(sandbox: &Sandbox, machine: &str) -> serde_json::Value {
    let text = out(sandbox, &["inspect", machine]);
    let mut all: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// Waits until a machine's log has this.
fn await_log(sandbox: &Sandbox, machine: &str, wanted: &str) {
    let begun = Instant::now();
    while !sandbox.run(&["logs", machine]).out().contains(wanted) {
        assert!(begun.elapsed() < PATIENCE, "no {wanted:?} in the log");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn supervisor(sandbox: &Sandbox, machine: &str) -> u32 {
    let pid = inspect(sandbox, machine)["owner_pid"].as_u64().unwrap();
    u32::try_from(pid).unwrap()
}

#[test]
fn machine_runs_on_without_the_tool_and_is_kept_when_it_ends() {
    let sandbox = Sandbox::new();
    let id = detach(
        &sandbox,
        &["--name", "web", "--label", "tier=front", "-e", "WORD=hello"],
        "echo $WORD; echo oops >&2; while :; do sleep 0.1; [ -e /tmp/end ] && exit 7; done",
    );
    await_log(&sandbox, "web", "hello");
    let row = inspect(&sandbox, &id[..6]);
    assert_eq!(row["id"], *id);
    assert_eq!(
        (&row["state"], &row["name"]),
        (&"running".into(), &"web".into())
    );
    assert_eq!(row["labels"]["tier"], "front");
    assert_eq!(row["command"][0], "sh");
    let listed = out(
        &sandbox,
        &[
            "ps",
            "--format",
            "{{.ID}} {{.Names}}",
            "-f",
            "label=tier=front",
        ],
    );
    assert_eq!(listed, format!("{id} web\n"));
    assert_eq!(out(&sandbox, &["ps", "-q", "-f", "name=other"]), "");

    let refused = sandbox.run(&["run", "-d", "--name", "web", busybox(), "true"]);
    refused.assert_refused(125, &["`web` already"]);
    sandbox
        .run(&["rm", "web"])
        .assert_refused(125, &["stop it first"]);

    archives_go_both_ways(&sandbox, "web");
    assert_eq!(
        out(&sandbox, &["exec", "web", "sh", "-c", "echo $WORD"]),
        "\n"
    );
    // The machine may have ended before it can answer.
    sandbox.run(&["exec", "web", "touch", "/tmp/end"]);
    assert_eq!(out(&sandbox, &["wait", "web"]), "7\n");
    assert_eq!(out(&sandbox, &["ps", "-q"]), "");
    let row = inspect(&sandbox, "web");
    assert_eq!(
        (&row["state"], &row["exit_status"]),
        (&"exited".into(), &7.into())
    );
    assert!(out(&sandbox, &["ps", "-a"]).contains("Exited (7)"));
    let logs = sandbox.run(&["logs", "web"]);
    assert_eq!(
        (logs.out(), logs.err()),
        ("hello\n".into(), "oops\n".into())
    );
    sandbox
        .run(&["exec", "web", "true"])
        .assert_refused(125, &["has ended", "exited with 7"]);
    // What is kept keeps its name.
    let refused = sandbox.run(&["run", "-d", "--name", "web", busybox(), "true"]);
    refused.assert_refused(125, &["`web` already"]);
    assert_eq!(out(&sandbox, &["rm", "web"]), format!("{id}\n"));
    assert_eq!(out(&sandbox, &["ps", "-aq"]), "");
}

/// `cp` from and to standard streams.
fn archives_go_both_ways(sandbox: &Sandbox, machine: &str) {
    let plant = "mkdir /tmp/tree /tmp/back; echo deep > /tmp/tree/file; chmod 640 /tmp/tree/file";
    out(sandbox, &["exec", machine, "sh", "-c", plant]);
    let packed = sandbox.run(&["cp", &format!("{machine}:/tmp/tree"), "-"]);
    assert_eq!((packed.code(), packed.err()), (0, String::new()));
    let unpack = |target: &str| {
        let mut command = sandbox.command(&["cp", "-", &format!("{machine}:{target}")]);
        let child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        finish_with_input(child, packed.stdout.clone())
    };
    let unpacked = unpack("/tmp/back");
    assert_eq!((unpacked.code(), unpacked.err()), (0, String::new()));
    let look = "cat /tmp/back/tree/file; stat -c %a /tmp/back/tree/file";
    assert_eq!(
        out(sandbox, &["exec", machine, "sh", "-c", look]),
        "deep\n640\n"
    );
    unpack("/tmp/nowhere").assert_refused(125, &["make it first"]);
    sandbox
        .run(&["cp", "-", "-"])
        .assert_refused(125, &["VM:PATH"]);
}

#[test]
fn stop_lets_the_command_end_and_kill_does_not() {
    let sandbox = Sandbox::new();
    let trap = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done";
    let polite = detach(&sandbox, &[], trap);
    let deaf = detach(
        &sandbox,
        &[],
        "trap '' TERM; echo up; while :; do sleep 0.1; done",
    );
    let signalled = detach(
        &sandbox,
        &[],
        "trap 'echo usr; exit 5' USR1; echo up; while :; do sleep 0.1; done",
    );
    for machine in [&polite, &deaf, &signalled] {
        await_log(&sandbox, machine, "up");
    }
    assert_eq!(
        out(&sandbox, &["stop", "-t", "60", &polite]),
        format!("{polite}\n")
    );
    assert_eq!(inspect(&sandbox, &polite)["exit_status"], 3);
    // The shell may say on standard error what became of its `sleep`.
    assert_eq!(sandbox.run(&["logs", &polite]).out(), "up\nbye\n");

    out(&sandbox, &["kill", "-s", "USR1", &signalled]);
    assert_eq!(out(&sandbox, &["wait", &signalled]), "5\n");

    out(&sandbox, &["stop", "-t", "1", &deaf]);
    let row = inspect(&sandbox, &deaf);
    assert_eq!(
        (&row["exit_status"], &row["reason"]),
        (&137.into(), &"ended by force".into())
    );
    sandbox
        .run(&["kill", &deaf])
        .assert_refused(125, &["has ended"]);
    let mut pruned: Vec<String> = out(&sandbox, &["prune"])
        .lines()
        .map(str::to_owned)
        .collect();
    let mut all = vec![polite, deaf, signalled];
    pruned.sort();
    all.sort();
    assert_eq!(pruned, all);
}

#[test]
fn followed_log_ends_with_the_machine() {
    let sandbox = Sandbox::new();
    let id = detach(
        &sandbox,
        &[],
        "for i in 1 2 3; do echo line $i; sleep 0.2; done",
    );
    let logs = sandbox.run(&["logs", "-f", &id]);
    assert_eq!(logs.out(), "line 1\nline 2\nline 3\n");
    assert_eq!(out(&sandbox, &["wait", &id]), "0\n");
    assert_eq!(out(&sandbox, &["logs", "-n", "1", &id]), "line 3\n");
    out(&sandbox, &["rm", &id]);
}

#[test]
fn nothing_is_kept_of_a_machine_that_is_to_be_removed() {
    let sandbox = Sandbox::new();
    let id = detach(&sandbox, &["--rm"], "echo gone");
    let begun = Instant::now();
    while !out(&sandbox, &["ps", "-aq"]).is_empty() {
        assert!(begun.elapsed() < PATIENCE);
    }
    sandbox
        .run(&["logs", &id])
        .assert_refused(125, &["no running machine"]);
}

#[test]
fn what_never_runs_says_so_where_it_was_asked_for_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let refused = sandbox.run(&["run", "-d", "-u", "nobody-here", busybox(), "true"]);
    // The guest says so only once the machine runs: it is its end.
    if refused.code() == 0 {
        let id = refused.out().trim().to_owned();
        out(&sandbox, &["wait", &id]);
        let row = inspect(&sandbox, &id);
        assert!(
            row["reason"].as_str().unwrap().contains("nobody-here"),
            "{row}"
        );
        out(&sandbox, &["rm", &id]);
    } else {
        refused.assert_refused(refused.code(), &["nobody-here"]);
    }
    let missing = sandbox.run(&["run", "-d", "oci:/nowhere/at/all", "true"]);
    missing.assert_refused(125, &["/nowhere/at/all"]);
    let id = detach(&sandbox, &[], "exec /no/such/program");
    assert_eq!(out(&sandbox, &["wait", &id]), "127\n");
    out(&sandbox, &["rm", &id]);
    sandbox
        .run(&["run", "-d", "--console", busybox(), "true"])
        .assert_refused(125, &["cannot be used with"]);
    assert_eq!(out(&sandbox, &["ps", "-aq"]), "");
}

#[test]
fn killed_supervisor_takes_its_machine_along_and_is_found_out() {
    let sandbox = Sandbox::new();
    let id = detach(
        &sandbox,
        &["--name", "lost"],
        "echo up; while :; do sleep 1; done",
    );
    await_log(&sandbox, &id, "up");
    signal(supervisor(&sandbox, &id), Signal::KILL);
    sandbox.await_no_process();
    assert_eq!(out(&sandbox, &["ps", "-q"]), "");
    assert_eq!(inspect(&sandbox, "lost")["state"], "lost");
    assert_eq!(out(&sandbox, &["logs", "lost"]), "up\n");
    sandbox
        .run(&["exec", "lost", "true"])
        .assert_refused(125, &["supervisor was killed"]);
    assert_eq!(out(&sandbox, &["stop", "lost"]), format!("{id}\n"));
    assert_eq!(out(&sandbox, &["prune"]), format!("{id}\n"));
}

#[test]
fn hung_worker_is_removed_by_force() {
    let sandbox = Sandbox::new();
    let id = detach(&sandbox, &[], "echo up; while :; do sleep 1; done");
    await_log(&sandbox, &id, "up");
    stop(sandbox.worker());
    assert_eq!(out(&sandbox, &["rm", "-f", &id]), format!("{id}\n"));
    assert_eq!(out(&sandbox, &["ps", "-aq"]), "");
}

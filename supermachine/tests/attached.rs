//! `attach`: a detached machine's command with our streams, and how to leave it.

mod support;

use std::process::Stdio;
use support::pty::*;
use support::*;

fn out(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let run = sandbox.run(arguments);
    assert_eq!((run.code(), run.err()), (0, String::new()), "{arguments:?}");
    run.out()
}

#[test]
fn keys_leave_a_terminal_and_it_is_taken_up_again() {
    let sandbox = Sandbox::new();
    let run = ["run", "-d", "-i", "-t", "--name", "shell", busybox(), "sh"];
    out(&sandbox, &run);
    let mut pty = Pty::new();
    let attach = || sandbox.command(&["attach", "shell"]);
    let child = pty.start(attach());
    // The shell's prompt went to nobody: something has to be asked.
    type_in(&mut pty, "stty size; echo he''llo\r");
    let text = pty.until("hello\r\n");
    assert!(text.contains("33 101"), "{text:?}");
    assert!(pty.is_raw());
    type_in(&mut pty, "kept=word\r\x10\x11");
    assert_eq!(pty.wait(child).code(), Some(0));
    pty.assert_restored();
    assert_eq!(out(&sandbox, &["ps", "--format", "{{.Name}}"]), "shell\n");

    // They leave what `exec` has started, too.
    let script = "echo r''eady; exec sleep 987";
    let child = pty.start(sandbox.command(&["exec", "-i", "-t", "shell", "sh", "-c", script]));
    pty.until("ready");
    type_in(&mut pty, "\x10\x11");
    pty.until("the command runs on");
    assert_eq!(pty.wait(child).code(), Some(0));
    pty.assert_restored();
    let listed = out(&sandbox, &["exec", "shell", "ps"]);
    assert!(listed.contains("sleep 987"), "{listed}");

    // With other keys the usual ones are the command's, and both may be there at once.
    let mut second = Pty::new();
    let other = second.start(sandbox.command(&["attach", "--detach-keys", "ctrl-x,d", "shell"]));
    type_in(&mut second, "echo $kept ag''ain\r");
    second.until("word again");
    let child = pty.start(attach());
    type_in(&mut pty, "echo fir''st\r");
    pty.until("first");
    second.until("first");
    type_in(&mut second, "\x18d");
    assert_eq!(second.wait(other).code(), Some(0));
    type_in(&mut pty, "exit 5\r");
    assert_eq!(pty.wait(child).code(), Some(5));
    pty.assert_restored();
    assert_eq!(out(&sandbox, &["wait", "shell"]), "5\n");
    assert!(out(&sandbox, &["logs", "shell"]).contains("hello"));
    out(&sandbox, &["rm", "shell"]);
}

/// Waits until nothing is kept of any machine.
fn await_nothing_kept(sandbox: &Sandbox) {
    let begun = std::time::Instant::now();
    while !out(sandbox, &["ps", "-aq"]).is_empty() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_machine_that_was_started_at_a_terminal_is_left_there_or_ends_with_it() {
    let sandbox = Sandbox::new();
    let run = |options: &[&str]| {
        let mut words = vec!["run", "-it", "--name", "mine"];
        words.extend_from_slice(options);
        words.extend_from_slice(&[busybox(), "sh"]);
        sandbox.command(&words)
    };
    let mut pty = Pty::new();
    let child = pty.start(run(&[]));
    type_in(&mut pty, "kept=word; stty size\r");
    pty.until("33 101");
    // Others see it, and may look on.
    assert_eq!(out(&sandbox, &["ps", "--format", "{{.Name}}"]), "mine\n");
    let mut second = Pty::new();
    let other = second.start(sandbox.command(&["attach", "mine"]));
    type_in(&mut second, "echo fr''om\r");
    second.until("from");
    pty.until("from");
    type_in(&mut second, "\x10\x11");
    assert_eq!(second.wait(other).code(), Some(0));

    type_in(&mut pty, "\x10\x11");
    pty.until("mine runs on; `supermachine attach mine` takes it up again");
    assert_eq!(pty.wait(child).code(), Some(0));
    pty.assert_restored();
    let child = pty.start(sandbox.command(&["attach", "mine"]));
    type_in(&mut pty, "echo $kept ag''ain\r");
    pty.until("word again");
    type_in(&mut pty, "exit 5\r");
    assert_eq!(pty.wait(child).code(), Some(5));
    assert_eq!(out(&sandbox, &["wait", "mine"]), "5\n");
    assert!(out(&sandbox, &["logs", "mine"]).contains("word again"));
    out(&sandbox, &["rm", "mine"]);

    // Of one that was not left nothing is kept, nor of one that is not to be kept.
    let child = pty.start(run(&[]));
    type_in(&mut pty, "exit 6\r");
    assert_eq!(pty.wait(child).code(), Some(6));
    await_nothing_kept(&sandbox);
    let child = pty.start(run(&["--rm"]));
    type_in(&mut pty, "echo u''p\r");
    pty.until("up");
    type_in(&mut pty, "\x10\x11");
    assert_eq!(pty.wait(child).code(), Some(0));
    out(&sandbox, &["stop", "-t", "0", "mine"]);
    await_nothing_kept(&sandbox);

    // It ends with who is at its terminal, if they have not left.
    let mut child = pty.start(run(&[]));
    type_in(&mut pty, "trap '' HUP; echo he''re\r");
    pty.until("here");
    child.kill().unwrap();
    child.wait().unwrap();
    sandbox.await_no_process();
    await_nothing_kept(&sandbox);

    // Whoever has it stopped from elsewhere is told.
    let mut fresh = Pty::new();
    let child = fresh.start(run(&[]));
    type_in(&mut fresh, "echo he''re\r");
    fresh.until("here");
    out(&sandbox, &["stop", "-t", "0", "mine"]);
    fresh.until("ended by force");
    assert_eq!(fresh.wait(child).code(), Some(137));
    fresh.assert_restored();
}

#[test]
fn streams_that_are_no_terminal_are_passed_on_to_their_end() {
    let sandbox = Sandbox::new();
    let script = "cat; echo end; echo err >&2; exit 3";
    out(
        &sandbox,
        &[
            "run",
            "-d",
            "-i",
            "--name",
            "cat",
            busybox(),
            "sh",
            "-c",
            script,
        ],
    );
    let mut command = sandbox.command(&["attach", "cat"]);
    let child = command.stdin(Stdio::piped()).spawn().unwrap();
    let finished = finish_with_input(child, b"in\n".to_vec());
    assert_eq!(finished.code(), 3);
    assert_eq!(
        (finished.out(), finished.err()),
        ("in\nend\n".into(), "err\n".into())
    );
    assert_eq!(out(&sandbox, &["wait", "cat"]), "3\n");
    let late = sandbox.run(&["attach", "cat"]);
    late.assert_refused(125, &["has ended", "exited with 3"]);
    out(&sandbox, &["rm", "cat"]);
}

#[test]
fn a_machine_that_is_stopped_says_so_to_who_is_attached() {
    let sandbox = Sandbox::new();
    let script = "while :; do echo tick; sleep 0.1; done";
    out(
        &sandbox,
        &["run", "-d", "--name", "loop", busybox(), "sh", "-c", script],
    );
    let mut child = sandbox.command(&["attach", "loop"]).spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), "tick\n");
    out(&sandbox, &["stop", "-t", "0", "loop"]);
    let finished = finish(child, PATIENCE);
    assert_eq!(finished.code(), 137, "{}", finished.err());
    out(&sandbox, &["rm", "loop"]);
}

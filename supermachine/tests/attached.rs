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

//! `-t`: a terminal inside, and ours restored whatever happens.

mod support;

use rustix::process::Signal;
use rustix::termios::tcsetwinsize;
use std::time::{Duration, Instant};
use support::pty::*;
use support::*;

#[test]
fn command_sees_a_terminal_of_our_size() {
    let sandbox = Sandbox::new();
    let mut pty = Pty::new();
    let script =
        "test -t 0 && test -t 1 && test -t 2 && echo all; stty size; echo err >&2; echo end";
    let child = pty.spawn(&sandbox, &["-i", "-t"], script);
    let text = pty.until("end");
    assert!(text.contains("all\r\n33 101\r\n"), "{text:?}");
    assert!(text.contains("err\r\n"), "{text:?}");
    assert_eq!(pty.wait(child).code(), Some(0));
    pty.assert_restored();
}

#[test]
fn new_size_reaches_the_command() {
    let sandbox = Sandbox::new();
    let mut pty = Pty::new();
    let script = "trap 'stty size; exit 0' WINCH; echo up; while :; do sleep 0.05; done";
    let child = pty.spawn(&sandbox, &["-i", "-t"], script);
    pty.until("up");
    tcsetwinsize(&pty.terminal, winsize(77, 22)).unwrap();
    // The system sends it only to those whose controlling terminal it is.
    signal(child.id(), Signal::WINCH);
    pty.until("22 77");
    assert_eq!(pty.wait(child).code(), Some(0));
}

#[test]
fn keys_go_to_the_command_and_interrupt_it() {
    let sandbox = Sandbox::new();
    let mut pty = Pty::new();
    let script = "trap 'echo caught; exit 4' INT; read line; echo got $line; \
                  while :; do sleep 0.05; done";
    let child = pty.spawn(&sandbox, &["-i", "-t", "--timings"], script);
    while !pty.is_raw() {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Of a machine that is this process's the keys that leave are the command's, and
    // somebody says why they leave nothing.
    type_in(&mut pty, "wo\x10\x11rds\r");
    let text = pty.until("got wo\x10rds");
    assert!(text.contains("without --console"), "{text:?}");
    type_in(&mut pty, "\x03");
    pty.until("caught");
    assert_eq!(pty.wait(child).code(), Some(4));
    pty.assert_restored();
}

#[test]
fn end_of_input_is_a_key() {
    let sandbox = Sandbox::new();
    let mut pty = Pty::new();
    let child = pty.spawn(&sandbox, &["-i", "-t"], "echo up; cat; echo end");
    pty.until("up");
    type_in(&mut pty, "\x04");
    pty.until("end");
    assert_eq!(pty.wait(child).code(), Some(0));
}

#[test]
fn terminal_is_restored_after_every_kind_of_end() {
    for (end, expected) in [
        ("signal", 143),
        ("impatience", 130),
        ("worker", 125),
        ("status", 7),
    ] {
        let sandbox = Sandbox::new();
        let mut pty = Pty::new();
        let script = "trap '' INT; echo up; read line; exit 7";
        let child = pty.spawn(&sandbox, &["-i", "-t"], script);
        pty.until("up");
        assert!(pty.is_raw());
        match end {
            "signal" => signal(child.id(), Signal::TERM),
            "impatience" => {
                for _ in 0..3 {
                    signal(child.id(), Signal::INT);
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            "worker" => signal(sandbox.worker(), Signal::KILL),
            _ => type_in(&mut pty, "\r"),
        }
        assert_eq!(pty.wait(child).code(), Some(expected), "{end}");
        pty.assert_restored();
        if end == "worker" {
            // On a line of its own, wherever the command had left the cursor.
            let text = pty.until("supermachine:");
            assert!(text.ends_with("\r\n\x1b[1;31msupermachine:"), "{text:?}");
        }
    }
}

#[test]
fn terminal_without_input_keeps_its_interrupt_key() {
    let sandbox = Sandbox::new();
    let mut pty = Pty::new();
    let child = pty.spawn(&sandbox, &["-t"], "test -t 1 && echo up; sleep 1000");
    pty.until("up");
    assert!(!pty.is_raw());
    pty.assert_restored();
    let begun = Instant::now();
    signal(child.id(), Signal::INT);
    assert_eq!(pty.wait(child).code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn terminal_inside_works_without_one_outside() {
    let sandbox = Sandbox::new();
    let finished = sandbox.run_shell(&["-t"], "test -t 1 && echo out; echo err >&2");
    assert_eq!(finished.code(), 0, "{}", finished.err());
    assert_eq!(
        (finished.out().as_str(), finished.err().as_str()),
        ("out\r\nerr\r\n", "")
    );
}

#[test]
fn piped_input_of_a_terminal_ends() {
    for (input, expected) in [
        ("hi\n", "hi\r\nhi\r\n"),
        ("", ""),
        ("no line end", "no line endno line end"),
    ] {
        let sandbox = Sandbox::new();
        let mut command = sandbox.command(&["run", "-i", "-t", busybox(), "--", "cat"]);
        let child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        let finished = finish_with_input(child, input.into());
        assert_eq!(finished.code(), 0, "{}", finished.err());
        assert_eq!(
            finished.out().replace("^D\u{8}\u{8}", ""),
            expected,
            "{input:?}"
        );
    }
}

#[test]
fn a_long_paste_arrives_whole() {
    let sandbox = Sandbox::new();
    let mut pty = Pty::new();
    let script = "stty raw -echo; echo up; head -c 100000 | sha256sum";
    let child = pty.spawn(&sandbox, &["-i", "-t"], script);
    pty.until("up");
    let line = "all that one line of a long text has, pasted into an editor\n";
    let text: String = line.chars().cycle().take(100_000).collect();
    let mut keyboard = pty.keyboard.try_clone().unwrap();
    let pasted = text.clone();
    let paste = std::thread::spawn(move || {
        use std::io::Write;
        keyboard.write_all(pasted.as_bytes())
    });
    pty.until(&sha256_hex(text.as_bytes()));
    paste.join().unwrap().unwrap();
    assert_eq!(pty.wait(child).code(), Some(0));
}

#[test]
fn errors_are_coloured_for_who_wants_that() {
    let sandbox = Sandbox::new();
    for (variable, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let mut pty = Pty::new();
        let mut command = sandbox.command(&["exec", "nobody", "true"]);
        command.env("TERM", "xterm").env(variable, value);
        let terminal = || pty.terminal.try_clone().unwrap();
        command
            .stdin(terminal())
            .stdout(terminal())
            .stderr(terminal());
        let child = command.spawn().unwrap();
        assert_eq!(pty.wait(child).code(), Some(125));
        assert_eq!(pty.until("supermachine:"), "supermachine:");
    }
}

//! `-t`: a terminal inside, and ours restored whatever happens.

mod support;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OutputModes, Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};
use support::*;

/// A terminal with the test at its keyboard.
struct Pty {
    keyboard: File,
    terminal: File,
    before: Termios,
}

fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl Pty {
    fn new() -> Self {
        let keyboard: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let terminal = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty()).unwrap();
        let terminal = File::from(terminal);
        tcsetwinsize(&terminal, winsize(101, 33)).unwrap();
        let before = tcgetattr(&terminal).unwrap();
        Self {
            keyboard: File::from(keyboard),
            terminal,
            before,
        }
    }

    fn spawn(&self, sandbox: &Sandbox, options: &[&str], script: &str) -> Child {
        let terminal = || self.terminal.try_clone().unwrap();
        let mut command = sandbox.shell(options, script);
        command
            .stdin(terminal())
            .stdout(terminal())
            .stderr(terminal());
        command.spawn().unwrap()
    }

    fn is_raw(&self) -> bool {
        let now = tcgetattr(&self.terminal).unwrap();
        !now.local_modes
            .intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    fn assert_restored(&self) {
        let now = tcgetattr(&self.terminal).unwrap();
        assert_eq!(now.local_modes, self.before.local_modes);
        assert_eq!(now.input_modes, self.before.input_modes);
        assert_eq!(now.output_modes, self.before.output_modes);
        assert!(now.output_modes.contains(OutputModes::OPOST));
    }

    fn until(&mut self, wanted: &str) -> String {
        read_until(&mut self.keyboard, wanted)
    }

    fn wait(&self, mut child: Child) -> ExitStatus {
        wait(&mut child, Duration::from_secs(20))
    }
}

fn type_in(pty: &mut Pty, text: &str) {
    use std::io::Write;
    pty.keyboard.write_all(text.as_bytes()).unwrap();
}

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
    let child = pty.spawn(&sandbox, &["-i", "-t"], script);
    while !pty.is_raw() {
        std::thread::sleep(Duration::from_millis(5));
    }
    type_in(&mut pty, "words\r");
    pty.until("got words");
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

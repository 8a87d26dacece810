//! A terminal for the tool, with a test at its keyboard.

use super::{PATIENCE, Sandbox, read_until, wait};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OutputModes, Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};

/// A terminal with the test at its keyboard.
pub struct Pty {
    pub keyboard: File,
    pub terminal: File,
    before: Termios,
}

pub fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl Pty {
    pub fn new() -> Self {
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

    pub fn spawn(&self, sandbox: &Sandbox, options: &[&str], script: &str) -> Child {
        self.start(sandbox.shell(options, script))
    }

    /// Starts the tool in this terminal.
    pub fn start(&self, mut command: Command) -> Child {
        let terminal = || self.terminal.try_clone().unwrap();
        command
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .stdin(terminal())
            .stdout(terminal())
            .stderr(terminal());
        command.spawn().unwrap()
    }

    pub fn is_raw(&self) -> bool {
        let now = tcgetattr(&self.terminal).unwrap();
        !now.local_modes
            .intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    pub fn assert_restored(&self) {
        let now = tcgetattr(&self.terminal).unwrap();
        assert_eq!(now.local_modes, self.before.local_modes);
        assert_eq!(now.input_modes, self.before.input_modes);
        assert_eq!(now.output_modes, self.before.output_modes);
        assert!(now.output_modes.contains(OutputModes::OPOST));
    }

    pub fn until(&mut self, wanted: &str) -> String {
        read_until(&mut self.keyboard, wanted)
    }

    pub fn wait(&self, mut child: Child) -> ExitStatus {
        wait(&mut child, PATIENCE)
    }
}

pub fn type_in(pty: &mut Pty, text: &str) {
    use std::io::Write;
    pty.keyboard.write_all(text.as_bytes()).unwrap();
}

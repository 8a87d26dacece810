//! A command's standard input.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use exec_proto::{STDIN_WINDOW_BYTES, StdinState};

use crate::sys;

/// End-of-file character of a terminal in its default settings (`VEOF`, ^D).
const TERMINAL_EOF: u8 = 4;
/// First and longest pause before a terminal whose input has ended gets another
/// end-of-file character: one ends the input of one reader only, of a shell's
/// child, say, and not of the shell.
const FIRST_REPEAT_NS: u64 = 50_000_000;
const LAST_REPEAT_NS: u64 = 1_000_000_000;
/// Grants are collected to this size before they are worth a frame.
const GRANT_BYTES: usize = STDIN_WINDOW_BYTES / 4;

/// What has become of bytes that came too early or too late.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    Yes,
    /// More than the window: the host breaks the protocol.
    BeyondWindow,
}

/// Buffers at most one window of input between host and command.
#[derive(Debug)]
pub(super) struct Stdin {
    target: Option<OwnedFd>,
    is_terminal: bool,
    buffer: Vec<u8>,
    written: usize,
    window: usize,
    /// Bytes passed on and not yet granted back.
    grant: usize,
    at_end: bool,
    /// The last byte accepted, if any, ended a line.
    at_line_start: bool,
    /// The host is to be told that nobody reads any more.
    closed_by_command: bool,
    /// When a terminal gets its next end of file.
    repeat: Option<Repeat>,
}

#[derive(Debug, Clone, Copy)]
struct Repeat {
    at_ns: u64,
    pause_ns: u64,
}

impl Stdin {
    /// `target` must not block.
    pub(super) fn new(target: Option<OwnedFd>, is_terminal: bool) -> Self {
        Self {
            target,
            window: STDIN_WINDOW_BYTES,
            is_terminal,
            buffer: Vec::new(),
            written: 0,
            grant: 0,
            at_end: false,
            at_line_start: true,
            closed_by_command: false,
            repeat: None,
        }
    }

    /// Replaces a terminal by the next command's.
    pub(super) fn retarget(&mut self, target: Option<OwnedFd>) {
        if self.target.is_some() {
            self.target = target;
            if self.at_end {
                self.repeat_at(0, FIRST_REPEAT_NS);
            }
        }
    }

    fn repeat_at(&mut self, at_ns: u64, pause_ns: u64) {
        self.repeat = Some(Repeat { at_ns, pause_ns });
    }

    /// When [`Stdin::repeat_end`] has something to do.
    pub(super) fn next_end_ns(&self) -> Option<u64> {
        let repeat = self.repeat.filter(|_| self.target.is_some());
        repeat.map(|repeat| repeat.at_ns)
    }

    /// Ends a terminal's input once more, if it is time.
    pub(super) fn repeat_end(&mut self, now_ns: u64) {
        let is_due = |repeat: &Repeat| now_ns >= repeat.at_ns;
        let Some(repeat) = self.repeat.filter(is_due) else {
            return;
        };
        let next = now_ns.saturating_add(repeat.pause_ns);
        self.repeat_at(next, (repeat.pause_ns * 2).min(LAST_REPEAT_NS));
        // What nobody has read yet is enough.
        if self.buffer.is_empty() && self.target.is_some() {
            self.buffer.push(TERMINAL_EOF);
            self.pump();
        }
    }

    /// Takes bytes from the host. What nobody will read is dropped.
    pub(super) fn accept(&mut self, data: &[u8]) -> Accepted {
        if self.target.is_none() || self.at_end {
            return Accepted::Yes;
        }
        let Some(left) = self.window.checked_sub(data.len()) else {
            return Accepted::BeyondWindow;
        };
        self.window = left;
        if let Some(last) = data.last() {
            self.at_line_start = *last == b'\n' || *last == b'\r';
        }
        if !self.buffer.is_empty() {
            self.buffer.extend_from_slice(data);
            return Accepted::Yes;
        }
        // What the command's pipe takes at once is not kept here first.
        let mut rest = data;
        while let Some(target) = self.target.as_ref().filter(|_| !rest.is_empty()) {
            match Self::write_once(target.as_fd(), rest) {
                Ok(count) => {
                    self.grant += count;
                    rest = rest.get(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.buffer.extend_from_slice(rest);
                    break;
                }
                Err(_) => {
                    self.close_by_command();
                    break;
                }
            }
        }
        Accepted::Yes
    }

    pub(super) fn end(&mut self) {
        if !self.at_end {
            self.at_end = true;
            if self.is_terminal {
                self.buffer.push(TERMINAL_EOF);
                // Behind an unfinished line the first only ends the line.
                if !self.at_line_start {
                    self.buffer.push(TERMINAL_EOF);
                }
                let first = sys::monotonic_ns().saturating_add(FIRST_REPEAT_NS);
                self.repeat_at(first, FIRST_REPEAT_NS);
            }
            self.pump();
        }
    }

    /// What another host may send from here on, the one before having gone. What it
    /// was granted and has not sent is void.
    pub(super) fn hand_over(&mut self) -> StdinState {
        self.closed_by_command = false;
        self.grant = 0;
        if self.target.is_none() || self.at_end {
            return StdinState::Closed;
        }
        self.window = STDIN_WINDOW_BYTES.saturating_sub(self.buffer.len() - self.written);
        // What is still to be passed on is granted as it goes.
        StdinState::Open(u32::try_from(self.window).unwrap_or(0))
    }

    /// Gives up without a word.
    fn abandon(&mut self) {
        self.target = None;
        self.buffer = Vec::new();
        self.written = 0;
    }

    /// The descriptor and events to wait for: room if there is something to
    /// write, otherwise only the reader's end.
    pub(super) fn watch(&self) -> Option<sys::Watch> {
        let events = if self.buffer.is_empty() {
            0
        } else {
            sys::POLLOUT
        };
        // A terminal whose other side nobody has open reports a hang-up that
        // the output side handles.
        let target = self.target.as_ref()?;
        (events != 0 || !self.is_terminal).then(|| super::watch(target.as_fd(), events))
    }

    pub(super) fn handle(&mut self, events: i16) {
        if events & sys::POLLERR != 0 && !self.is_terminal {
            self.close_by_command();
        } else if events != 0 {
            self.pump();
        }
    }

    fn close_by_command(&mut self) {
        self.abandon();
        self.closed_by_command = true;
    }

    fn write_once(target: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match sys::write(target, bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn pump(&mut self) {
        while let Some(target) = &self.target {
            let rest = self.buffer.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.buffer.clear();
                self.written = 0;
                if self.at_end && !self.is_terminal {
                    self.target = None;
                }
                return;
            }
            match Self::write_once(target.as_fd(), rest) {
                Ok(count) => {
                    self.written += count;
                    self.grant += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Keeps the buffer to one window.
                    self.buffer.drain(..self.written);
                    self.written = 0;
                    return;
                }
                Err(_) => return self.close_by_command(),
            }
        }
    }

    /// Bytes to grant to the host now, if any are worth a frame.
    pub(super) fn take_grant(&mut self) -> Option<u32> {
        // The end-of-file character was not the host's.
        let grant = self.grant.min(STDIN_WINDOW_BYTES - self.window);
        if grant < GRANT_BYTES || self.at_end {
            return None;
        }
        self.grant -= grant;
        self.window += grant;
        u32::try_from(grant).ok()
    }

    /// True once, after the command closed its input with the host still sending.
    pub(super) fn take_closed(&mut self) -> bool {
        std::mem::take(&mut self.closed_by_command)
    }
}

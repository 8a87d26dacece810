//! One of a command's output streams.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::durable::Durable;
use super::link::{CHUNK_BYTES, Link, OUTPUT_LIMIT};
use super::stream::Stream;
use crate::sys;

/// Most that is taken from a terminal after its command has ended: more than
/// its buffers hold, so only a background writer can reach it.
const TERMINAL_TAIL_BYTES: usize = 256 * 1024;

/// Room that the pipe of a command gets which writes a frame and more before the agent
/// looks: each time it is full costs two changes of the running program.
const FAST_PIPE_BYTES: i32 = 256 * 1024;

/// What becomes of what a command writes.
#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    /// It is queued for the host.
    Host,
    /// It is kept.
    Keep(&'a Durable),
}

#[derive(Debug)]
pub(super) struct Output {
    stream: Stream,
    /// What was read from it, and from those before it of the same chain.
    total: u64,
    source: Option<OwnedFd>,
    is_terminal: bool,
    /// The pipe was given more room.
    is_fast: bool,
    /// A terminal that nothing in the guest has open at the moment. Closing it
    /// would hang up a command that has only turned its back on it.
    parked: Option<OwnedFd>,
    /// After the command's end: how much of its output is still in the pipe.
    left: Option<usize>,
}

impl Output {
    pub(super) fn new(stream: Stream, source: Option<OwnedFd>, is_terminal: bool) -> Self {
        Self {
            stream,
            total: 0,
            source,
            is_terminal,
            is_fast: false,
            parked: None,
            left: None,
        }
    }

    /// Goes on with another source.
    pub(super) fn reopen(&mut self, source: OwnedFd) {
        let total = self.total;
        *self = Self::new(self.stream, Some(source), self.is_terminal);
        self.total = total;
    }

    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    /// All that was read so far, in bytes.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn is_open(&self) -> bool {
        self.source.is_some()
    }

    pub(super) fn source(&self) -> Option<&OwnedFd> {
        self.source.as_ref()
    }

    pub(super) fn watch(&self) -> Option<sys::Watch> {
        self.source
            .as_ref()
            .map(|source| super::watch(source.as_fd(), sys::POLLIN))
    }

    /// Called when the command has ended: what it wrote is in the pipe by now,
    /// and only that much will be taken from it. A background process that
    /// holds the other end delays nothing.
    pub(super) fn limit_to_pending(&mut self) {
        if let Some(source) = &self.source
            && !self.is_terminal
        {
            match sys::pending_bytes(source.as_fd()) {
                0 => self.source = None,
                left => self.left = Some(left),
            }
        }
    }

    /// Reads what is there, as long as the link takes it. Call only when the source is
    /// readable.
    pub(super) fn read_all(&mut self, link: &mut Link<'_>, to: To<'_>) {
        while self.read(link, to) >= CHUNK_BYTES && link.pending() < OUTPUT_LIMIT {
            let Some(source) = self.source.as_ref().filter(|_| matches!(to, To::Host)) else {
                return;
            };
            if !std::mem::replace(&mut self.is_fast, true) {
                sys::grow_pipe(source.as_fd(), FAST_PIPE_BYTES);
            }
            if sys::pending_bytes(source.as_fd()) == 0 {
                return;
            }
        }
    }

    /// Reads once what is there. Call only when the source is readable.
    pub(super) fn read(&mut self, link: &mut Link<'_>, to: To<'_>) -> usize {
        let Some(source) = &self.source else {
            return 0;
        };
        let want = self.left.unwrap_or(usize::MAX);
        let got = match to {
            To::Host => {
                // One read of all that is there wakes the program once.
                let most = if self.is_fast {
                    usize::MAX
                } else {
                    CHUNK_BYTES
                };
                link.queue_read(source.as_fd(), want.min(most), self.stream.kind())
            }
            To::Keep(_) => {
                let chunk = &mut link.buffers.chunk;
                let want = want.min(chunk.len());
                sys::read(source.as_fd(), chunk.get_mut(..want).unwrap_or_default())
            }
        };
        let count = match got {
            Ok(count) => count,
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => return 0,
                // A terminal reports EIO when its other side is closed.
                _ => 0,
            },
        };
        if count == 0 {
            let source = self.source.take();
            self.parked = source.filter(|_| self.is_terminal);
            return 0;
        }
        self.total = self.total.saturating_add(count as u64);
        if let To::Keep(durable) = to {
            let kept = link.buffers.chunk.get(..count).unwrap_or_default();
            durable.keep(self.stream, kept);
        }
        if let Some(left) = &mut self.left {
            *left -= count;
            if *left == 0 {
                self.source = None;
            }
        }
        count
    }

    /// Takes the rest of a terminal's output after its command has ended. The
    /// kernel moves it between buffers in the background, which `poll` waits for.
    pub(super) fn drain_terminal(&mut self, link: &mut Link<'_>, to: To<'_>) {
        if !self.is_terminal {
            return;
        }
        let mut taken = 0;
        while let Some(mut watch) = self.watch().map(|w| [w]) {
            let ready = sys::poll(&mut watch, Some(Duration::ZERO));
            if !matches!(ready, Ok(1)) || taken >= TERMINAL_TAIL_BYTES {
                break;
            }
            taken += self.read(link, to);
        }
        self.source = None;
        self.parked = None;
    }
}

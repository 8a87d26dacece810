//! What a running command writes, kept until somebody reads it.
//!
//! Both outputs come over one connection, so a stream that nobody reads would
//! hold up the other and the command's end behind it. Each therefore has a queue
//! of its own. As a rule the command waits once [`SOFT_BYTES`] are in one; a queue
//! grows beyond that only while somebody waits for what comes behind.

use super::{Channel, Sinks};
use crate::Error;
use crate::limits::FULL_STREAM_PAUSE;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is kept of a stream while nobody waits for anything else.
const SOFT_BYTES: usize = 256 << 10;
/// The most that is ever kept of a stream, if the command does not say.
pub const MAX_UNREAD_BYTES: usize = 16 << 20;

/// The two streams, by their place in [`State::streams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Stdout,
    Stderr,
}

impl Which {
    fn other(self) -> Self {
        match self {
            Self::Stdout => Self::Stderr,
            Self::Stderr => Self::Stdout,
        }
    }
}

/// How the command ended, as far as its streams are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Everything it wrote is here.
    Whole,
    /// Its owner let go of it.
    LetGo,
    /// The connection to it broke, or its time was over.
    Broken,
}

#[derive(Debug, Default)]
struct Stream {
    queue: VecDeque<u8>,
    /// Somebody has it, to read it.
    is_taken: bool,
    /// Somebody waits for more of it.
    is_awaited: bool,
    /// Nobody will read it any more.
    is_closed: bool,
    /// Some of it had to be dropped, after what is in the queue.
    is_cut: bool,
}

#[derive(Debug, Default)]
struct State {
    streams: [Stream; 2],
    /// Somebody waits for the command's end.
    end_is_awaited: bool,
    end: Option<End>,
}

impl State {
    fn stream(&mut self, which: Which) -> &mut Stream {
        let [stdout, stderr] = &mut self.streams;
        match which {
            Which::Stdout => stdout,
            Which::Stderr => stderr,
        }
    }
}

/// The streams of one command.
#[derive(Debug)]
pub struct Outputs {
    state: Mutex<State>,
    moved: Condvar,
    max_bytes: usize,
}

/// What became of bytes that were to be kept.
enum Kept {
    Yes,
    NotYet,
}

impl Outputs {
    /// Keeps at most `max_bytes` of a stream that is not read.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            moved: Condvar::new(),
            max_bytes,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a stream to who reads it.
    pub fn take(self: &Arc<Self>, which: Which) -> ExecOutput {
        self.state().stream(which).is_taken = true;
        ExecOutput {
            outputs: self.clone(),
            which,
        }
    }

    /// Somebody waits for the command's end: what nobody has taken by now is
    /// not kept, and what somebody has taken must not be in the way.
    pub fn await_end(&self) {
        let mut state = self.state();
        state.end_is_awaited = true;
        for stream in &mut state.streams {
            if !stream.is_taken {
                stream.close();
            }
        }
        drop(state);
        self.moved.notify_all();
    }

    /// The command's owner let go of it: nothing more is kept.
    pub fn let_go(&self) {
        self.finish(End::LetGo);
    }

    fn finish(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.moved.notify_all();
    }

    /// Keeps bytes of a stream, waiting while it is full and nobody waits for
    /// anything behind it, at most until the command's time limit.
    fn push(&self, which: Which, bytes: &[u8], limits: Limits<'_>) {
        let mut state = self.state();
        while let Kept::NotYet = self.keep(&mut state, which, bytes, limits.have_passed()) {
            let wait = self.moved.wait_timeout(state, limits.watch());
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.moved.notify_all();
    }

    fn keep(&self, state: &mut State, which: Which, bytes: &[u8], is_late: bool) -> Kept {
        let other = state.stream(which.other());
        let is_starving = is_late || other.is_awaited || state.end_is_awaited;
        let was_let_go = state.end.is_some();
        let stream = state.stream(which);
        if was_let_go || stream.is_closed || stream.is_cut {
            return Kept::Yes;
        }
        let after = stream.queue.len().saturating_add(bytes.len());
        // Anything fits into an empty queue: frames are small.
        let fits = stream.queue.is_empty() || after <= SOFT_BYTES.min(self.max_bytes);
        if fits || (is_starving && after <= self.max_bytes) {
            stream.queue.extend(bytes);
            return Kept::Yes;
        }
        // Its reader may come yet, if it has one and there is time.
        if !is_starving || (stream.is_taken && !is_late) {
            return Kept::NotYet;
        }
        stream.is_cut = true;
        Kept::Yes
    }
}

impl Stream {
    fn close(&mut self) {
        self.is_closed = true;
        self.is_awaited = false;
        self.queue = VecDeque::new();
    }
}

/// A command's time limit, for who keeps its output.
#[derive(Clone, Copy)]
struct Limits<'a> {
    channel: &'a Channel,
    /// By how much the channel's own limit is later.
    reserve: Duration,
}

impl Limits<'_> {
    /// Whether the command must have been ended in the guest by now.
    fn have_passed(&self) -> bool {
        let left = self.channel.deadline().left();
        left.is_some_and(|left| left <= self.reserve)
    }

    /// How long to wait before looking again.
    fn watch(&self) -> Duration {
        match self.channel.deadline().left() {
            Some(_) => FULL_STREAM_PAUSE,
            None => Duration::MAX,
        }
    }
}

/// Passes what a command writes to its streams.
pub struct Pour<'a> {
    outputs: &'a Outputs,
    limits: Limits<'a>,
}

impl<'a> Pour<'a> {
    /// The command's own time limit ends `reserve` before that of `channel`.
    pub fn new(outputs: &'a Outputs, channel: &'a Channel, reserve: Duration) -> Self {
        Self {
            outputs,
            limits: Limits { channel, reserve },
        }
    }

    /// The command ended, well or not.
    pub fn finish(self, is_whole: bool) {
        self.outputs
            .finish(if is_whole { End::Whole } else { End::Broken });
    }
}

impl Sinks for Pour<'_> {
    fn stdout(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.outputs.push(Which::Stdout, bytes, self.limits);
        Ok(())
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.outputs.push(Which::Stderr, bytes, self.limits);
        Ok(())
    }
}

/// A command's standard output or error. It ends when the command has ended;
/// dropping it lets the command write into nothing.
///
/// Reading fails where output is missing: after a connection that broke, and
/// after more than can be kept of a stream that was not read in time.
#[derive(Debug)]
pub struct ExecOutput {
    outputs: Arc<Outputs>,
    which: Which,
}

impl Read for ExecOutput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let outputs = &self.outputs;
        let mut state = outputs.state();
        loop {
            let end = state.end;
            let stream = state.stream(self.which);
            if !stream.queue.is_empty() {
                stream.is_awaited = false;
                let count = stream.queue.read(buffer)?;
                if stream.queue.is_empty() && stream.queue.capacity() > 4 * SOFT_BYTES {
                    stream.queue = VecDeque::new();
                }
                drop(state);
                outputs.moved.notify_all();
                return Ok(count);
            }
            if stream.is_cut {
                let limit = outputs.max_bytes;
                return Err(io::Error::other(Error::OutputTooLarge { limit }));
            }
            match end {
                Some(End::Whole | End::LetGo) => return Ok(0),
                Some(End::Broken) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the command's output ends here because of an error, which \
                         `ExecChild::wait` gives",
                    ));
                }
                None => {}
            }
            if !std::mem::replace(&mut stream.is_awaited, true) {
                outputs.moved.notify_all();
            }
            state = outputs
                .moved
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for ExecOutput {
    fn drop(&mut self) {
        self.outputs.state().stream(self.which).close();
        self.outputs.moved.notify_all();
    }
}

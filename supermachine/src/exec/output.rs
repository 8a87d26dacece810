//! What a running command writes, kept until somebody reads it.
//!
//! Both outputs come over one connection, so a stream that nobody reads would
//! hold up the other and the command's end behind it. Each therefore has a queue
//! of its own. As a rule the command waits once [`SOFT_BYTES`] are in one; a queue
//! grows beyond that only while somebody waits for what comes behind.

use super::ends::Finished;
use super::{Channel, OutputGap, Sinks, StreamOffsets};
use crate::Error;
use crate::limits::FULL_STREAM_PAUSE;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
#[cfg(feature = "tokio")]
use std::task::{Context, Poll, Waker};
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
    /// Where its reader is, in bytes from the command's start.
    offset: u64,
    /// What is missing, and behind how many of the bytes in the queue.
    gaps: VecDeque<(usize, u64)>,
    /// Wakes a task that waits for more.
    #[cfg(feature = "tokio")]
    waker: Option<Waker>,
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
    /// The command is let go: what is on its way is all that comes.
    is_leaving: bool,
    end: Option<End>,
    /// The same for who waits for the command.
    result: Option<Result<Finished, Error>>,
    /// Wakes a task that waits for it.
    #[cfg(feature = "tokio")]
    waker: Option<Waker>,
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
    pub fn new(max_bytes: usize, begins: StreamOffsets) -> Self {
        let mut state = State::default();
        state.stream(Which::Stdout).offset = begins.stdout;
        state.stream(Which::Stderr).offset = begins.stderr;
        Self {
            state: Mutex::new(state),
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
        self.tell(state);
    }

    /// As [`Outputs::await_end`], for a command that is let go: what was sent before
    /// it is gone is kept.
    pub fn await_rest(&self) {
        self.state().is_leaving = true;
        self.await_end();
    }

    /// The command's owner let go of it: nothing more is kept.
    pub fn let_go(&self) {
        let mut state = self.state();
        state.end.get_or_insert(End::LetGo);
        self.tell(state);
    }

    /// The command is over, well or not.
    pub fn finish(&self, result: Result<Finished, Error>) {
        let mut state = self.state();
        state.end.get_or_insert(match result {
            Ok(_) => End::Whole,
            Err(_) => End::Broken,
        });
        state.result = Some(result);
        self.tell(state);
    }

    /// Whether nothing more will come.
    pub fn has_ended(&self) -> bool {
        self.state().end.is_some()
    }

    /// Waits for the command to be over.
    pub fn result(&self) -> Result<Finished, Error> {
        let mut state = self.state();
        loop {
            if let Some(result) = state.take_result() {
                return result;
            }
            state = self
                .moved
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The same if it is over by now.
    pub fn try_result(&self) -> Option<Result<Finished, Error>> {
        self.state().take_result()
    }

    /// The same for a task, which is woken when it is.
    #[cfg(feature = "tokio")]
    pub fn poll_result(&self, context: &mut Context<'_>) -> Poll<Result<Finished, Error>> {
        let mut state = self.state();
        match state.take_result() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Wakes whoever waits for something to move.
    fn tell(&self, state: MutexGuard<'_, State>) {
        #[cfg(feature = "tokio")]
        let wakers = {
            let mut state = state;
            let [stdout, stderr] = &mut state.streams;
            let mut wakers = [stdout.waker.take(), stderr.waker.take(), None];
            if state.result.is_some() {
                wakers[2] = state.waker.take();
            }
            wakers
        };
        #[cfg(not(feature = "tokio"))]
        drop(state);
        self.moved.notify_all();
        #[cfg(feature = "tokio")]
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Keeps bytes of a stream, waiting while it is full and nobody waits for
    /// anything behind it, at most until the command's time limit.
    fn push(&self, which: Which, bytes: &[u8], limits: Limits<'_>) {
        let mut state = self.state();
        while let Kept::NotYet = self.keep(&mut state, which, bytes, limits.have_passed()) {
            let wait = self.moved.wait_timeout(state, limits.watch());
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.tell(state);
    }

    /// Notes that bytes of a stream are missing behind what is there.
    fn gap(&self, which: Which, bytes: u64) {
        let mut state = self.state();
        let was_let_go = state.end.is_some();
        let stream = state.stream(which);
        if was_let_go || stream.is_closed || stream.is_cut || bytes == 0 {
            return;
        }
        let place = stream.queue.len();
        match stream.gaps.back_mut() {
            // However often a guest says so.
            Some((last, missing)) if *last == place => *missing = missing.saturating_add(bytes),
            _ => stream.gaps.push_back((place, bytes)),
        }
        self.tell(state);
    }

    fn keep(&self, state: &mut State, which: Which, bytes: &[u8], is_late: bool) -> Kept {
        let other = state.stream(which.other());
        let is_starving = is_late || other.is_awaited || state.end_is_awaited;
        let (was_let_go, is_leaving) = (state.end.is_some(), state.is_leaving);
        let stream = state.stream(which);
        if was_let_go || stream.is_closed || stream.is_cut {
            return Kept::Yes;
        }
        let after = stream.queue.len().saturating_add(bytes.len());
        if is_leaving {
            // An honest guest has much less than that on its way.
            stream.is_cut = after > self.max_bytes.max(MAX_UNREAD_BYTES);
            if !stream.is_cut {
                stream.queue.extend(bytes);
            }
            return Kept::Yes;
        }
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

impl State {
    /// How the command ended: whether it did so well can be asked again, why not once.
    fn take_result(&mut self) -> Option<Result<Finished, Error>> {
        let told = || {
            Err(Error::Unsuitable {
                what: "asking again why a command failed",
                needs: "the error that it gave the first time",
            })
        };
        match self.result.as_mut()? {
            Ok(finished) => Some(Ok(*finished)),
            failed => Some(std::mem::replace(failed, told())),
        }
    }

    /// Reads what there is of a stream; `None` while nothing is.
    fn read(&mut self, which: Which, buffer: &mut [u8], limit: usize) -> Option<io::Result<usize>> {
        let end = self.end;
        let stream = self.stream(which);
        if let Some((0, bytes)) = stream.gaps.front().copied() {
            stream.gaps.pop_front();
            stream.offset = stream.offset.saturating_add(bytes);
            return Some(Err(io::Error::other(OutputGap { bytes })));
        }
        if !stream.queue.is_empty() {
            return Some(stream.take(buffer));
        }
        if stream.is_cut {
            return Some(Err(io::Error::other(Error::OutputTooLarge { limit })));
        }
        match end? {
            End::Whole | End::LetGo => Some(Ok(0)),
            End::Broken => Some(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the command's output ends here because of an error, which \
                 `ExecChild::wait` gives",
            ))),
        }
    }
}

impl Stream {
    fn close(&mut self) {
        self.is_closed = true;
        self.is_awaited = false;
        self.queue = VecDeque::new();
        self.gaps = VecDeque::new();
    }

    /// Bytes up to the next gap.
    fn take(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_awaited = false;
        let most = self.gaps.front().map_or(usize::MAX, |(place, _)| *place);
        let room = buffer.len().min(most);
        let count = self.queue.read(&mut buffer[..room])?;
        self.offset = self.offset.saturating_add(count as u64);
        for (place, _) in &mut self.gaps {
            *place -= count;
        }
        if self.queue.is_empty() && self.queue.capacity() > 4 * SOFT_BYTES {
            self.queue = VecDeque::new();
        }
        Ok(count)
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

    fn gap(&mut self, is_stderr: bool, bytes: u64) -> Result<(), Error> {
        let which = if is_stderr {
            Which::Stderr
        } else {
            Which::Stdout
        };
        self.outputs.gap(which, bytes);
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

impl ExecOutput {
    /// Where the next read begins, in bytes from the command's start: where to go on
    /// if the command's streams are taken up again ([`crate::Vm::attach`]).
    pub fn offset(&self) -> u64 {
        self.outputs.state().stream(self.which).offset
    }

    /// Reads for a task, which is woken when there is something.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let outputs = &self.outputs;
        let mut state = outputs.state();
        if let Some(result) = state.read(self.which, buffer, outputs.max_bytes) {
            outputs.tell(state);
            return Poll::Ready(result);
        }
        let stream = state.stream(self.which);
        let was_awaited = std::mem::replace(&mut stream.is_awaited, true);
        stream.waker = Some(context.waker().clone());
        drop(state);
        if !was_awaited {
            outputs.moved.notify_all();
        }
        Poll::Pending
    }
}

impl Read for ExecOutput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let outputs = &self.outputs;
        let mut state = outputs.state();
        loop {
            if let Some(result) = state.read(self.which, buffer, outputs.max_bytes) {
                outputs.tell(state);
                return result;
            }
            let stream = state.stream(self.which);
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
        let mut state = self.outputs.state();
        state.stream(self.which).close();
        self.outputs.tell(state);
    }
}

//! One connection to the guest's agent, shared by a reader and writers.

use super::ends::{Finished, Sinks};
use super::liveness::Liveness;
use super::wanted::Wanted;
use super::{ExecId, ExecStatus};
use crate::Error;
use crate::deadline::Deadline;
use crate::error::with_causes;
use crate::limits::{
    GUEST_ANSWER_TIMEOUT, KEPT_CONNECTION, LATE_PROBE_TIMEOUT, MACHINE_END_TIMEOUT, PROBE_INTERVAL,
    PROBE_TIMEOUT, WANTED_LOOK,
};
use exec_proto::client::{Event, Session};
use exec_proto::{Printable, ProtoError};
use rustix::event::{PollFd, PollFlags};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
#[cfg(feature = "tokio")]
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tracing::debug;

/// Bytes read from the connection at once: a full frame.
const READ_BYTES: usize = 64 * 1024;
/// Most bytes that are taken after a time limit has passed: an end that came in
/// time counts, however late this process looks.
const LATE_BYTES: usize = 1 << 20;

/// A connection. Reading happens on one thread; requests, stdin and signals
/// may come from others meanwhile.
#[derive(Debug)]
pub struct Channel {
    /// Does not block.
    stream: UnixStream,
    session: Mutex<Session>,
    /// Wakes stdin writers: there is room, or nothing more to write to.
    stdin_moved: Condvar,
    /// A task that waits for the same.
    #[cfg(feature = "tokio")]
    stdin_task: Mutex<Option<Waker>>,
    /// Nobody reads the agent's answers any more, so no writer may wait.
    unread: AtomicBool,
    /// It was closed here, and says nothing of the machine.
    closed: AtomicBool,
    /// The command's input is not this side's to end.
    keeps_stdin: AtomicBool,
    /// Until when the guest may do what it was asked for.
    limit: Mutex<Deadline>,
    /// What the machine had stood still for when the connection was made.
    paused_before: Duration,
    /// Taken after the limit had passed.
    late_bytes: AtomicUsize,
    /// Whether its reader wants what it waits for, if somebody asked it to find out.
    wanted: OnceLock<Wanted>,
    /// When it was last given something to do.
    used: Instant,
    /// Knows whether the machine ended when the connection breaks.
    worker: Arc<dyn Liveness>,
}

impl Channel {
    pub fn new(stream: UnixStream, worker: Arc<dyn Liveness>) -> Result<Self, Error> {
        stream
            .set_nonblocking(true)
            .map_err(Error::system("set a connection up"))?;
        Ok(Self {
            stream,
            session: Mutex::new(Session::new()),
            stdin_moved: Condvar::new(),
            #[cfg(feature = "tokio")]
            stdin_task: Mutex::default(),
            unread: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            keeps_stdin: AtomicBool::new(false),
            limit: Mutex::new(Deadline::none()),
            paused_before: worker.paused(),
            late_bytes: AtomicUsize::new(0),
            wanted: OnceLock::new(),
            used: Instant::now(),
            worker,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues requests and sends them.
    pub fn request(
        &self,
        queue: impl FnOnce(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<(), Error> {
        self.queue(queue)?;
        self.flush()
    }

    /// Queues requests, to be sent by who sends or reads next.
    pub fn queue(
        &self,
        queue: impl FnOnce(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<(), Error> {
        // Before each, so that nothing is made of what came to its end too late.
        if let Some(wanted) = self.wanted.get() {
            wanted.check()?;
        }
        Ok(queue(&mut self.lock())?)
    }

    /// Sends all that is queued.
    pub fn flush(&self) -> Result<(), Error> {
        while !self.send_some()? {
            self.wait(PollFlags::OUT)?;
        }
        Ok(())
    }

    /// Sends what the connection takes at once; whether that was all. Nobody
    /// waits for anything with the session locked, so that who reads is not
    /// held up by who writes.
    pub fn send_some(&self) -> Result<bool, Error> {
        let mut session = self.lock();
        while !session.outgoing().is_empty() {
            match (&self.stream).write(session.outgoing()) {
                Ok(count) => session.sent(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                // The reader sees why the agent left: its last frames, or none.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    let rest = session.outgoing().len();
                    session.sent(rest);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(Error::connection("sending")(error)),
            }
        }
        Ok(true)
    }

    /// Waits for the agent's hello. Until then nothing that was requested has
    /// begun; an error of [`Error::Connection`] means that it never will.
    pub fn greeting(&self) -> Result<(), Error> {
        match self.event(&mut Vec::new())? {
            Event::Failed(failure) => Err(failure.into()),
            _ => Ok(()),
        }
    }

    /// Whether a connection that was kept can take a request: the agent has not
    /// hung up, and is not about to.
    pub fn is_usable(&self) -> bool {
        let now = Deadline::within(Duration::ZERO);
        let is_quiet = now.wait(&mut [PollFd::new(&self.stream, PollFlags::IN)]);
        self.used.elapsed() < KEPT_CONNECTION && matches!(is_quiet, Ok(false))
    }

    fn time_limit(&self) -> MutexGuard<'_, Deadline> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when the agent may do what is asked of it over this connection, or
    /// that is [`Error::Timeout`], whatever it sends meanwhile. Without an end,
    /// as long as its worker lives. What the machine is paused for is added.
    pub fn limit(&self, deadline: Deadline) {
        *self.time_limit() = deadline;
    }

    /// The limit, as it is by now.
    pub fn deadline(&self) -> Deadline {
        let paused = self.worker.paused().saturating_sub(self.paused_before);
        self.time_limit().later_by(paused)
    }

    /// Has whoever reads or waits ask from time to time, and before each request, whether
    /// that is still wanted; if not, it is [`Error::Cancelled`].
    pub fn want(&self, wanted: Wanted) {
        let _ = self.wanted.set(wanted);
    }

    fn check_wanted(&self) -> Result<(), Error> {
        match self.wanted.get() {
            Some(wanted) if !wanted.is_wanted() => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }

    fn timeout(&self) -> Error {
        self.time_limit().error("an answer of the guest")
    }

    /// Waits until the connection can be read or written, or both. Called when
    /// it can not be, and so the place where a limit that has passed is seen.
    fn wait(&self, readiness: PollFlags) -> Result<(), Error> {
        let look = match self.wanted.get() {
            Some(_) => WANTED_LOOK,
            None => PROBE_INTERVAL,
        };
        let mut silent = Instant::now();
        loop {
            let deadline = self.deadline();
            if deadline.has_passed() {
                // If all of the worker stands still, whoever comes next need
                // not wait for it as well.
                self.worker.probe(LATE_PROBE_TIMEOUT)?;
                return Err(self.timeout());
            }
            let turn = deadline.at_most(look);
            let waited = turn.wait(&mut [PollFd::new(&self.stream, readiness)]);
            if waited.map_err(Error::system("wait for the guest"))? {
                return Ok(());
            }
            self.check_wanted()?;
            // Where little is left, the limit is looked at first.
            let is_far = deadline.left().is_none_or(|left| left > PROBE_TIMEOUT);
            if is_far && silent.elapsed() >= PROBE_INTERVAL {
                self.worker.probe(PROBE_TIMEOUT)?;
                silent = Instant::now();
            }
        }
    }

    /// Waits for the next event. If the machine's end broke the connection,
    /// the error says so.
    pub fn next_event(&self, buffer: &mut Vec<u8>) -> Result<Event, Error> {
        self.event(buffer).map_err(|error| match error {
            Error::Connection { .. } if !self.closed.load(Ordering::SeqCst) => {
                self.worker.end_within(MACHINE_END_TIMEOUT).unwrap_or(error)
            }
            error => error,
        })
    }

    /// Waits for the next event. A broken connection is just that.
    pub fn event(&self, buffer: &mut Vec<u8>) -> Result<Event, Error> {
        buffer.resize(READ_BYTES, 0);
        loop {
            if let Some(event) = self.lock().next_event()? {
                return Ok(event);
            }
            self.check_wanted()?;
            let count = match (&self.stream).read(buffer) {
                Ok(0) => {
                    return Err(Error::connection("waiting for it")(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the guest closed it",
                    )));
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // What a writer could not send goes as soon as it can.
                    let readiness = if self.send_some()? {
                        PollFlags::IN
                    } else {
                        PollFlags::IN | PollFlags::OUT
                    };
                    self.wait(readiness)?;
                    continue;
                }
                Err(error) => return Err(Error::connection("waiting for it")(error)),
            };
            self.count_late(count)?;
            self.lock().feed(&buffer[..count]);
        }
    }

    /// Waits for the one event that answers a request.
    pub fn answer<T>(&self, pick: impl Fn(Event) -> Option<T>) -> Result<T, Error> {
        self.answer_until(Deadline::within(GUEST_ANSWER_TIMEOUT), pick)
    }

    /// Waits for an answer as [`Channel::answer`] does, but until the caller's deadline.
    pub fn answer_until<T>(
        &self,
        deadline: Deadline,
        pick: impl Fn(Event) -> Option<T>,
    ) -> Result<T, Error> {
        self.limit(deadline);
        let mut buffer = Vec::new();
        loop {
            match self.next_event(&mut buffer)? {
                Event::Failed(failure) => return Err(failure.into()),
                event => {
                    if let Some(answer) = pick(event) {
                        return Ok(answer);
                    }
                }
            }
        }
    }

    /// What comes too late is bounded: a guest that always has more to say gets
    /// no further than a silent one.
    fn count_late(&self, count: usize) -> Result<(), Error> {
        if !self.deadline().has_passed() {
            return Ok(());
        }
        let late = self.late_bytes.fetch_add(count, Ordering::Relaxed);
        if late.saturating_add(count) > LATE_BYTES {
            return Err(self.timeout());
        }
        Ok(())
    }

    /// Reads output into `sinks` until the command ends. An error of a sink
    /// ends the command.
    pub fn read_to_end(&self, sinks: &mut impl Sinks) -> Result<ExecStatus, Error> {
        self.read_to_finish(sinks)?.status()
    }

    /// As [`Channel::read_to_end`], or until the command goes on alone.
    pub fn read_to_finish(&self, sinks: &mut impl Sinks) -> Result<Finished, Error> {
        let result = self.read_events(sinks);
        // Also after a good end: an agent that takes no more must not hold up
        // who still writes.
        self.close();
        self.unread.store(true, Ordering::SeqCst);
        self.wake_writers();
        match &result {
            Ok(Finished::Ended(status)) => debug!(
                code = status.code,
                signal = status.signal,
                took = ?status.duration,
                "command ended"
            ),
            Ok(Finished::LetGo(id)) => debug!(%id, "command goes on alone"),
            Err(error) => debug!(error = %Printable::line(&with_causes(error)), "command failed"),
        }
        result
    }

    fn read_events(&self, sinks: &mut impl Sinks) -> Result<Finished, Error> {
        let mut buffer = Vec::new();
        loop {
            match self.next_event(&mut buffer)? {
                Event::Stdout(bytes) => sinks.stdout(&bytes)?,
                Event::Stderr(bytes) => sinks.stderr(&bytes)?,
                Event::StdinReady | Event::StdinClosed => self.wake_writers(),
                Event::Gap { stderr, bytes } => sinks.gap(stderr, bytes)?,
                Event::Step(exited) => sinks.step(ExecStatus::from_wire(&exited)),
                Event::Exited(exited) => {
                    return Ok(Finished::Ended(ExecStatus::from_wire(&exited)));
                }
                Event::Detached { id, .. } => return Ok(Finished::LetGo(ExecId::from_wire(id))),
                Event::Failed(failure) => return Err(failure.into()),
                _ => (),
            }
        }
    }

    /// Writes to the command's stdin, waiting while the command does not read.
    /// What a command that closed its stdin or ended does not take is dropped;
    /// `false` says that there is no one to write to any more.
    pub fn write_stdin(&self, mut bytes: &[u8]) -> Result<bool, Error> {
        while !bytes.is_empty() {
            let mut session = self.lock();
            let over = self.unread.load(Ordering::SeqCst);
            if over || session.is_over() || !session.is_busy() {
                return Ok(false);
            }
            let taken = session.write_stdin(bytes);
            bytes = &bytes[taken..];
            if taken == 0 {
                drop(
                    self.stdin_moved
                        .wait(session)
                        .unwrap_or_else(PoisonError::into_inner),
                );
            } else {
                drop(session);
                self.flush()?;
            }
        }
        Ok(true)
    }

    /// Asks that the command goes on without this connection;
    /// [`Channel::read_to_finish`] tells the answer.
    pub fn detach(&self) -> Result<(), Error> {
        self.keep_stdin();
        self.request(|session| {
            session.detach();
            Ok(())
        })
    }

    /// Leaves the command's input to others.
    pub fn keep_stdin(&self) {
        self.keeps_stdin.store(true, Ordering::SeqCst);
    }

    /// Ends the command's stdin.
    pub fn close_stdin(&self) -> Result<(), Error> {
        if self.keeps_stdin.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.lock().close_stdin();
        self.flush()
    }

    /// Closes standard input as [`Channel::close_stdin`] does, without waiting: what
    /// cannot be sent at once is sent by the reader.
    pub fn let_go_of_stdin(&self) {
        if self.keeps_stdin.load(Ordering::SeqCst) {
            return;
        }
        self.lock().close_stdin();
        // A broken connection is the reader's news.
        let _ = self.send_some();
    }

    /// Sends a signal to the command.
    pub fn signal(&self, number: u32) -> Result<(), Error> {
        self.request(|session| session.signal(number))
    }

    /// Tells the command's terminal its new size.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<(), Error> {
        self.request(|session| {
            session.resize(exec_proto::WinSize {
                cols: columns,
                rows,
            });
            Ok(())
        })
    }

    /// Takes bytes for the command's input, for a task, which is woken when there is
    /// room; `None` when there is no one to write to any more. What is taken is sent
    /// by [`Channel::send_some`].
    #[cfg(feature = "tokio")]
    pub fn poll_write_stdin(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Option<usize>> {
        let mut session = self.lock();
        let over = self.unread.load(Ordering::SeqCst);
        if over || session.is_over() || !session.is_busy() {
            return Poll::Ready(None);
        }
        match session.write_stdin(bytes) {
            0 => {
                // With the session locked: nobody makes room unseen.
                *self.stdin_task() = Some(context.waker().clone());
                Poll::Pending
            }
            count => Poll::Ready(Some(count)),
        }
    }

    /// Ends the command's input, once this is sent.
    #[cfg(feature = "tokio")]
    pub fn queue_end_of_stdin(&self) {
        if !self.keeps_stdin.load(Ordering::SeqCst) {
            self.lock().close_stdin();
        }
    }

    #[cfg(feature = "tokio")]
    fn stdin_task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.stdin_task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes stdin writers to look again.
    fn wake_writers(&self) {
        // A writer that holds the lock has not decided to wait yet, or waits already.
        drop(self.lock());
        self.stdin_moved.notify_all();
        #[cfg(feature = "tokio")]
        if let Some(task) = self.stdin_task().take() {
            task.wake();
        }
    }

    /// The connection itself, and what was received on it behind the last answer.
    pub fn into_raw(self) -> (UnixStream, Vec<u8>) {
        let session = self.session.into_inner();
        let rest = session.unwrap_or_else(PoisonError::into_inner).take_rest();
        (self.stream, rest)
    }

    /// Closes the connection, which kills a command that still runs.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

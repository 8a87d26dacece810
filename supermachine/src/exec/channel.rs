//! One connection to the guest's agent, shared by a reader and writers.

use super::ExecStatus;
use crate::Error;
use crate::engine::spawn::WeakWorker;
use exec_proto::ProtoError;
use exec_proto::client::{Event, Session};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes read from the connection at once: a full frame.
const READ_BYTES: usize = 64 * 1024;
/// How long a machine may take to end after it closed its connections.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// How long an agent that took a connection may take to greet.
const GREETING_LIMIT: Duration = Duration::from_secs(30);
/// How long an agent without a time limit is silent before its worker is asked
/// whether it still lives.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a worker may take to say that it lives.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);
/// The same of one whose guest has been silent for longer than it may.
const LATE_PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// Longest time limit of a connection; one above it is none.
const LONGEST_LIMIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Where a command's output goes. A sink that blocks slows the command down.
pub trait Sinks {
    /// Takes standard output.
    fn stdout(&mut self, bytes: &[u8]) -> Result<(), Error>;
    /// Takes standard error.
    fn stderr(&mut self, bytes: &[u8]) -> Result<(), Error>;
}

/// A connection. Reading happens on one thread; requests, stdin and signals
/// may come from others meanwhile.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    session: Mutex<Session>,
    /// Wakes stdin writers: there is room, or nothing more to write to.
    stdin_moved: Condvar,
    /// Nobody reads the agent's answers any more, so no writer may wait.
    unread: AtomicBool,
    /// The agent may be silent for as long as its worker lives.
    unlimited: AtomicBool,
    /// Knows whether the machine ended when the connection breaks.
    worker: WeakWorker,
}

impl Channel {
    pub fn new(stream: UnixStream, worker: WeakWorker) -> Self {
        Self {
            stream,
            session: Mutex::new(Session::new()),
            stdin_moved: Condvar::new(),
            unread: AtomicBool::new(false),
            unlimited: AtomicBool::new(true),
            worker,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues requests and sends them.
    pub fn request(
        &self,
        queue: impl FnOnce(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<(), Error> {
        let mut session = self.lock();
        queue(&mut session)?;
        self.flush(&mut session)
    }

    fn flush(&self, session: &mut Session) -> Result<(), Error> {
        while !session.outgoing().is_empty() {
            match (&self.stream).write(session.outgoing()) {
                Ok(count) => session.sent(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                // The reader sees why the agent left: its last frames, or none.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    let rest = session.outgoing().len();
                    session.sent(rest);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.on_silence()?,
                Err(error) => return Err(Error::connection("sending")(error)),
            }
        }
        Ok(())
    }

    /// Waits for the agent's hello. Until then nothing that was requested has
    /// begun; an error of [`Error::Connection`] means that it never will.
    pub fn greeting(&self) -> Result<(), Error> {
        self.limit(Some(GREETING_LIMIT))?;
        match self.event(&mut Vec::new())? {
            Event::Failed(failure) => Err(failure.into()),
            _ => self.limit(None),
        }
    }

    /// How long the agent may be silent, or take nothing, before that is
    /// [`Error::Timeout`]; without a limit, as long as its worker lives. What a
    /// machine is paused for does not count.
    pub fn limit(&self, limit: Option<Duration>) -> Result<(), Error> {
        let limit = limit.filter(|limit| *limit <= LONGEST_LIMIT);
        self.unlimited.store(limit.is_none(), Ordering::SeqCst);
        // Zero would mean no limit, and not every system takes a large one.
        let wait = limit.unwrap_or(PROBE_INTERVAL);
        let wait = Some(wait.max(Duration::from_millis(1)));
        self.stream
            .set_read_timeout(wait)
            .and_then(|()| self.stream.set_write_timeout(wait))
            .map_err(Error::system("set a time limit"))
    }

    /// The agent said or took nothing for as long as was waited: an error if
    /// it may not do that.
    fn on_silence(&self) -> Result<(), Error> {
        if self.worker.is_occupied() {
            return Ok(());
        }
        if self.unlimited.load(Ordering::SeqCst) {
            return self.worker.probe(PROBE_PATIENCE);
        }
        // If all of the worker stands still, whoever comes next need not wait
        // for it as well.
        self.worker.probe(LATE_PROBE_PATIENCE)?;
        Err(Error::Timeout {
            what: "an answer of the guest",
            after: self
                .stream
                .read_timeout()
                .ok()
                .flatten()
                .unwrap_or_default(),
        })
    }

    /// Waits for the next event. If the machine's end broke the connection,
    /// the error says so.
    pub fn next_event(&self, buffer: &mut Vec<u8>) -> Result<Event, Error> {
        self.event(buffer).map_err(|error| match error {
            Error::Connection { .. } => self.worker.end_within(END_PATIENCE).unwrap_or(error),
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
                    self.on_silence()?;
                    continue;
                }
                Err(error) => return Err(Error::connection("waiting for it")(error)),
            };
            self.lock().feed(&buffer[..count]);
        }
    }

    /// Reads output into `sinks` until the command ends. An error of a sink
    /// ends the command.
    pub fn read_to_end(&self, sinks: &mut impl Sinks) -> Result<ExecStatus, Error> {
        let result = self.read_events(sinks);
        if result.is_err() {
            self.close();
        }
        self.unread.store(true, Ordering::SeqCst);
        self.wake_writers();
        result
    }

    fn read_events(&self, sinks: &mut impl Sinks) -> Result<ExecStatus, Error> {
        let mut buffer = Vec::new();
        loop {
            match self.next_event(&mut buffer)? {
                Event::Stdout(bytes) => sinks.stdout(&bytes)?,
                Event::Stderr(bytes) => sinks.stderr(&bytes)?,
                Event::StdinReady | Event::StdinClosed => self.wake_writers(),
                Event::Exited(exited) => return Ok(ExecStatus::from_wire(&exited)),
                Event::Failed(failure) => return Err(failure.into()),
                _ => (),
            }
        }
    }

    /// Writes to the command's stdin, waiting while the command does not read.
    /// What a command that closed its stdin or ended does not take is dropped;
    /// `false` says that there is no one to write to any more.
    pub fn write_stdin(&self, mut bytes: &[u8]) -> Result<bool, Error> {
        let mut session = self.lock();
        while !bytes.is_empty() {
            let over = self.unread.load(Ordering::SeqCst);
            if over || session.is_over() || !session.is_busy() {
                return Ok(false);
            }
            let taken = session.write_stdin(bytes);
            self.flush(&mut session)?;
            bytes = &bytes[taken..];
            if !bytes.is_empty() {
                session = self
                    .stdin_moved
                    .wait(session)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
        Ok(true)
    }

    /// Ends the command's stdin.
    pub fn close_stdin(&self) -> Result<(), Error> {
        let mut session = self.lock();
        session.close_stdin();
        self.flush(&mut session)
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

    /// Wakes stdin writers to look again.
    fn wake_writers(&self) {
        // Who holds the lock has not decided to wait yet, or waits already.
        drop(self.lock());
        self.stdin_moved.notify_all();
    }

    /// Closes the connection, which kills a command that still runs.
    pub fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

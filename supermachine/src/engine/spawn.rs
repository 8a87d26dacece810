//! The embedder's side: finds, starts and ends a worker process.

use super::executable::find_worker;
use super::process::{FIRST_PAUSE, Process};
use super::protocol::{self, EngineIdentity, FromWorker, ToWorker, VERSION, check_version};
use super::runtime_dir::RuntimeDir;
use crate::{Error, VmConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use snapshot::SnapshotError;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

/// How much of a worker's log goes into an error.
const LOG_TAIL_BYTES: u64 = 4096;
/// How long a worker may take to end after it was told to.
const END_TIMEOUT: Duration = Duration::from_secs(15);
/// Settings of the GNU C library's allocator, if it is that: one heap instead
/// of one for each thread, and what is large and freed goes back to the host.
const TUNABLES: &str = "GLIBC_TUNABLES";
const SMALL_HEAP: &str = "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=65536:\
    glibc.malloc.trim_threshold=65536";
/// How long a worker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a worker may take to show the console of a guest that hangs.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a worker that broke its connection may take to be gone.
const FATE_PATIENCE: Duration = Duration::from_secs(1);

/// A worker process and its control connection.
#[derive(Debug)]
pub struct Worker {
    process: Arc<Process>,
    control: UnixStream,
    log: File,
    /// Name of the engine, once the machine is prepared.
    engine: Option<String>,
    /// How the machine ended, once that is known.
    ended: Option<Ended>,
    /// It once did not answer in time, and is not asked again.
    is_silent: bool,
}

#[derive(Clone, Debug)]
struct Ended {
    reason: String,
    console: String,
}

/// How a machine is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VmStatus {
    /// VM exits since the start.
    pub exits: u64,
    /// End of the guest's console, at most 64 KiB.
    pub console: String,
    /// Bytes of its memory that the guest gave up to its balloon.
    pub ballooned_bytes: u64,
    /// Bytes the guest got beside the memory it booted with.
    pub added_bytes: u64,
}

/// A worker for those who may outlive the machine's owner.
#[derive(Clone, Debug, Default)]
pub struct WeakWorker(Weak<Mutex<Worker>>);

impl WeakWorker {
    pub fn new(worker: &Arc<Mutex<Worker>>) -> Self {
        Self(Arc::downgrade(worker))
    }

    /// As [`Worker::end_within`]; `None` also if the owner is gone.
    pub fn end_within(&self, patience: Duration) -> Option<Error> {
        let worker = self.0.upgrade()?;
        let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
        worker.end_within(patience)
    }

    /// Whether the worker carries out an order right now, for which its
    /// machine may be paused.
    pub fn is_occupied(&self) -> bool {
        let worker = self.0.upgrade();
        worker.is_some_and(|worker| matches!(worker.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Asks the worker whether it lives, and waits for its answer up to
    /// `patience`. One that carries out an order is
    /// watched by whoever gave that, and one that is gone breaks its
    /// connections.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not answer, or how its machine ended.
    pub fn probe(&self, patience: Duration) -> Result<(), Error> {
        let Some(worker) = self.0.upgrade() else {
            return Ok(());
        };
        let mut worker = match worker.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Ok(worker) => worker,
        };
        worker.patience(patience)?;
        let status = worker.inspect();
        worker.patience(ANSWER_TIMEOUT)?;
        status.map(drop)
    }
}

impl Worker {
    /// Starts a worker and gives it its first order, which it carries out by
    /// itself: to prepare a machine, or to identify its engine.
    pub fn spawn(config: &VmConfig, order: &ToWorker, dir: &RuntimeDir) -> Result<Self, Error> {
        let mut command = find_worker(config)?;
        let log_path = dir.path().join("log");
        let log = File::options()
            .read(true)
            .append(true)
            .create_new(true)
            .open(&log_path)
            .map_err(Error::host("cannot create the worker's log", &log_path))?;
        let failed = |what| {
            move |source| Error::Worker {
                what,
                log: String::new(),
                source,
            }
        };
        let (control, theirs) =
            UnixStream::pair().map_err(failed("making its control connection"))?;
        let stderr = if config.console {
            Stdio::inherit()
        } else {
            Stdio::from(log.try_clone().map_err(failed("opening its log"))?)
        };
        if std::env::var_os(TUNABLES).is_none() {
            command.env(TUNABLES, SMALL_HEAP);
        }
        let child = command
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(stderr)
            // The terminal's Ctrl-C is for the guest's command.
            .process_group(0)
            .spawn()
            .map_err(|source| {
                let executable = PathBuf::from(command.get_program());
                Error::host("cannot start the worker", executable)(source)
            })?;
        let worker = Self {
            process: Arc::new(Process::of_child(child)),
            control,
            log,
            engine: None,
            ended: None,
            is_silent: false,
        };
        worker.patience(ANSWER_TIMEOUT)?;
        worker.send(&ToWorker::Hello { version: VERSION })?;
        worker.send(order)?;
        Ok(worker)
    }

    /// Takes over a worker that was forked from another one and calls on
    /// `control`.
    pub fn adopt(control: UnixStream, dir: &RuntimeDir) -> Result<Self, Error> {
        let log_path = dir.path().join("log");
        let log = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(&log_path)
            .map_err(Error::host("cannot create the worker's log", &log_path))?;
        let broken = |source| Error::Worker {
            what: "taking it over",
            log: String::new(),
            source,
        };
        control
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .map_err(broken)?;
        let unexpected = || broken(io::Error::other("it did not introduce itself"));
        match protocol::receive(&control).map_err(broken)? {
            Some(FromWorker::Hello { version }) => check_version(version).map_err(broken)?,
            _ => return Err(unexpected()),
        }
        match protocol::receive(&control).map_err(broken)? {
            Some(FromWorker::Born { pid, engine }) => Ok(Self {
                process: Arc::new(Process::other(pid).map_err(broken)?),
                control,
                log,
                engine: Some(engine),
                ended: None,
                is_silent: false,
            }),
            Some(FromWorker::Failed { message, .. }) => Err(Error::Start { message }),
            _ => Err(unexpected()),
        }
    }

    /// Its process.
    pub fn process(&self) -> Arc<Process> {
        self.process.clone()
    }

    /// How long to wait for each answer.
    fn patience(&self, patience: Duration) -> Result<(), Error> {
        let patience = patience.max(Duration::from_millis(1));
        self.control
            .set_read_timeout(Some(patience))
            .map_err(Error::system("set a time limit"))
    }

    fn greet(&mut self) -> Result<(), Error> {
        match self.receive()? {
            FromWorker::Hello { version } => {
                check_version(version).map_err(|source| self.broken("greeting it", source))
            }
            other => Err(self.unexpected(&other)),
        }
    }

    /// Waits for what a worker that was told to identify its engine says.
    pub fn identity(&mut self) -> Result<EngineIdentity, Error> {
        self.greet()?;
        match self.receive()? {
            FromWorker::Identity(identity) => Ok(*identity),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Waits until the machine is prepared; the name of its engine.
    pub fn engine(&mut self) -> Result<String, Error> {
        if let Some(engine) = &self.engine {
            return Ok(engine.clone());
        }
        self.greet()?;
        match self.receive()? {
            FromWorker::Prepared { engine } => {
                self.engine = Some(engine.clone());
                Ok(engine)
            }
            other => Err(self.unexpected(&other)),
        }
    }

    /// Gives an order and waits for the answer, not longer than `patience`.
    /// After an error the worker is of no use any more.
    pub fn order(&mut self, order: &ToWorker, patience: Duration) -> Result<FromWorker, Error> {
        // It may be sent before the machine is prepared: the worker reads in
        // order.
        self.send(order)?;
        self.patience(patience)?;
        self.engine()?;
        let answer = self.receive();
        self.patience(ANSWER_TIMEOUT)?;
        answer
    }

    /// The error for an answer that is not the one expected.
    pub fn unexpected(&mut self, message: &FromWorker) -> Error {
        match message {
            FromWorker::Failed { message, rebake } if *rebake => Error::Rebake {
                reason: message.clone(),
            },
            FromWorker::Failed { message, .. } => Error::Start {
                message: message.clone(),
            },
            FromWorker::Refused { message } => Error::Refused {
                message: message.clone(),
            },
            FromWorker::NotWritten { reason } => Error::Snapshot(SnapshotError::NotWritten {
                reason: reason.clone(),
            }),
            FromWorker::Ended {
                reason, console, ..
            } => {
                let ended = self.ended.insert(Ended {
                    reason: reason.clone(),
                    console: console.clone(),
                });
                ended.clone().into()
            }
            other => self.broken(
                "talking to it",
                io::Error::other(format!("unexpected message {other:?}")),
            ),
        }
    }

    pub fn send(&self, message: &ToWorker) -> Result<(), Error> {
        protocol::send(&self.control, message).map_err(|source| self.broken("sending", source))
    }

    /// The next message; an error if the worker is gone.
    pub fn receive(&mut self) -> Result<FromWorker, Error> {
        match protocol::receive(&self.control) {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(self.broken(
                "waiting for it",
                io::Error::new(io::ErrorKind::UnexpectedEof, "it ended"),
            )),
            Err(source) if source.kind() == io::ErrorKind::WouldBlock => {
                self.is_silent = true;
                Err(self.silence())
            }
            Err(source) => Err(self.broken("waiting for it", source)),
        }
    }

    /// Whether it once did not answer in time: who waited in vain then has
    /// waited for all.
    pub fn check_silence(&self) -> Result<(), Error> {
        if self.is_silent {
            return Err(self.silence());
        }
        Ok(())
    }

    /// The error for an answer that did not come.
    fn silence(&self) -> Error {
        let patience = self.control.read_timeout().ok().flatten();
        Error::Timeout {
            what: "an answer of the worker process",
            after: patience.unwrap_or_default(),
        }
    }

    pub(super) fn broken(&self, what: &'static str, source: io::Error) -> Error {
        // That the connection broke says less than how the process ended.
        let source = match source.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => match self.process.fate(FATE_PATIENCE) {
                Some(fate) => io::Error::new(source.kind(), fate),
                None => source,
            },
            _ => source,
        };
        Error::Worker {
            what,
            log: self.log_tail().unwrap_or_default(),
            source,
        }
    }

    /// Its last words.
    pub fn last_words(&self) -> String {
        self.log_tail().unwrap_or_default()
    }

    fn log_tail(&self) -> io::Result<String> {
        let mut log = &self.log;
        let length = log.seek(SeekFrom::End(0))?;
        log.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut tail = Vec::new();
        log.take(LOG_TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).trim_end().to_owned())
    }

    /// The control connection, to wait on.
    pub fn control(&self) -> &UnixStream {
        &self.control
    }

    /// How the machine is doing; [`Error::Ended`] once it has ended.
    pub fn inspect(&mut self) -> Result<VmStatus, Error> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone().into());
        }
        self.check_silence()?;
        let sent = self.send(&ToWorker::Inspect);
        // Its last message is there even if it takes none any more.
        match self.receive() {
            Ok(FromWorker::Status {
                exits,
                console,
                ballooned_bytes,
                added_bytes,
            }) => Ok(VmStatus {
                exits,
                console,
                ballooned_bytes,
                added_bytes,
            }),
            Ok(FromWorker::Ended {
                reason, console, ..
            }) => {
                let ended = self.ended.insert(Ended { reason, console });
                Err(ended.clone().into())
            }
            Ok(other) => Err(self.unexpected(&other)),
            Err(error) => Err(sent.err().unwrap_or(error)),
        }
    }

    /// The end of the console of a guest that came up or did not.
    pub fn last_console(&mut self) -> String {
        let _ = self.patience(CONSOLE_TIMEOUT);
        match (self.inspect(), &self.ended) {
            (Ok(status), _) => status.console,
            (Err(_), Some(ended)) => ended.console.clone(),
            (Err(_), None) => String::new(),
        }
    }

    /// How the machine or its worker ended, if it has or does within
    /// `patience`.
    pub fn end_within(&mut self, patience: Duration) -> Option<Error> {
        if self.ended.is_none() {
            let wait = Timespec::try_from(patience).ok()?;
            let mut fds = [PollFd::new(&self.control, PollFlags::IN)];
            if !matches!(poll(&mut fds, Some(&wait)), Ok(1..)) {
                return None;
            }
        }
        self.inspect().err()
    }

    /// Ends the worker and its machine without a word.
    pub fn kill(&mut self) {
        self.process.kill();
        while self.process.is_alive() {
            std::thread::sleep(FIRST_PAUSE);
        }
    }

    /// Tells the worker to stop and waits until it is gone. Safe to call twice.
    pub fn end(&mut self) {
        if self.is_silent {
            return self.kill();
        }
        let _ = protocol::send(&self.control, &ToWorker::Stop);
        let _ = rustix::net::shutdown(self.control.as_fd(), rustix::net::Shutdown::Write);
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        while self.process.is_alive() {
            if start.elapsed() > END_TIMEOUT {
                self.kill();
                return;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Self {
        Self::Ended {
            reason: ended.reason,
        }
    }
}

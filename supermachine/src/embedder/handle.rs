//! The embedder's side: finds, starts and ends a worker process.

mod ending;

use super::executable::find_worker;
use super::pauses::Pauses;
use super::process::Process;
use crate::deadline::{Deadline, Timed};
use crate::limits::{ANSWER_TIMEOUT, CONSOLE_TIMEOUT, FATE_TIMEOUT};
use crate::link::protocol::{self, EngineIdentity, FromWorker, ToWorker, VERSION, check_version};
use crate::link::runtime_dir::RuntimeDir;
use crate::{Error, VmConfig, log};
use snapshot::SnapshotError;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, warn};

/// How much of a worker's log goes into an error.
const LOG_TAIL_BYTES: u64 = 4096;
/// Settings of the GNU C library's allocator, if it is that: one heap instead
/// of one for each thread, and what is large and freed goes back to the host.
const TUNABLES: &str = "GLIBC_TUNABLES";
const SMALL_HEAP: &str = "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=65536:\
    glibc.malloc.trim_threshold=65536";
/// What a worker gets of this process's environment: where libraries and programs
/// are, and what helps to find a fault. Nothing else of it is its business.
const ENVIRONMENT: [&str; 9] = [
    "PATH",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "RUST_BACKTRACE",
    log::NAME,
    "LLVM_PROFILE_FILE",
    TUNABLES,
];

/// A worker process and its control connection.
#[derive(Debug)]
pub struct Worker {
    process: Arc<Process>,
    /// Shared with who waits for its end.
    control: Arc<UnixStream>,
    log: File,
    /// Name of the engine, once the machine is prepared.
    engine: Option<String>,
    /// How the machine ended, once that is known.
    ended: Option<Ended>,
    /// It once did not answer within this time, and is not asked again.
    silent_for: Option<Duration>,
    /// It does not keep to the protocol, so it is not told to end but ended.
    is_lost: bool,
    /// A thread waits for its end; nobody else needs to.
    is_left: bool,
    /// How it ended was told of.
    is_told: bool,
    /// When it made the machine stand still.
    pauses: Arc<Pauses>,
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
    /// For how long its vCPUs, all together, had run the guest's code when each last
    /// exited. Waiting for interrupts is not part of it.
    pub guest: Duration,
    /// Blocks of code that its vCPUs decoded when they needed them. Zero on engines that
    /// decode nothing.
    pub blocks_decoded: u64,
    /// Blocks of code that had been decoded by then, since the snapshot names them.
    pub blocks_ahead: u64,
    /// Instructions of the blocks that its vCPUs decoded.
    pub instructions_decoded: u64,
    /// How long decoding them took.
    pub decoding: Duration,
    /// Instructions that its vCPUs compiled, those that were compiled again included.
    pub instructions_compiled: u64,
    /// How long compiling them took.
    pub compiling: Duration,
    /// What its compiled code has executed, of a machine of
    /// [`Tier::Census`](crate::Tier::Census); else empty. A line has a number of
    /// instructions, why they are in this line (`executed`: all of them; `no-template`:
    /// by the interpreter, always; `declined`: by the interpreter, because of what they
    /// met), and for the latter two which instruction.
    pub census: String,
    /// End of the guest's console, at most 64 KiB.
    pub console: String,
    /// Bytes of its memory that the guest gave up to its balloon.
    pub ballooned_bytes: u64,
    /// Bytes the guest got beside the memory it booted with.
    pub added_bytes: u64,
}

impl Worker {
    /// Starts a worker and gives it its first order, which it carries out by
    /// itself: to prepare a machine, or to identify its engine. The files of the order
    /// go along.
    pub fn spawn(
        config: &VmConfig,
        order: &ToWorker,
        files: &[BorrowedFd<'_>],
        dir: &RuntimeDir,
    ) -> Result<Self, Error> {
        debug_assert_eq!(order.files(), files.len());
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
        // Lines that were asked for go to who asked, not into texts of errors.
        let stderr = if config.console || log::is_wanted() {
            Stdio::inherit()
        } else {
            Stdio::from(log.try_clone().map_err(failed("opening its log"))?)
        };
        command.env_clear().env(TUNABLES, SMALL_HEAP);
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
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
        debug!(pid = child.id(), "worker started");
        let mut worker = Self::over(Process::of_child(child), control, log)?;
        let deadline = Deadline::within(ANSWER_TIMEOUT);
        worker.send(&ToWorker::Hello { version: VERSION }, deadline)?;
        worker.send(order, deadline)?;
        worker.pass(files, deadline)?;
        Ok(worker)
    }

    /// A worker over what there is of it.
    pub(super) fn over(process: Process, control: UnixStream, log: File) -> Result<Self, Error> {
        control
            .set_nonblocking(true)
            .map_err(Error::system("set a connection up"))?;
        Ok(Self {
            process: Arc::new(process),
            control: Arc::new(control),
            log,
            engine: None,
            ended: None,
            silent_for: None,
            is_lost: false,
            is_left: false,
            is_told: false,
            pauses: Arc::default(),
        })
    }

    /// Takes over a worker that was forked from another one and calls on
    /// `control`.
    pub fn adopt(control: UnixStream, dir: &RuntimeDir, deadline: Deadline) -> Result<Self, Error> {
        let log_path = dir.path().join("log");
        let log = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(&log_path)
            .map_err(Error::host("cannot create the worker's log", &log_path))?;
        let broken = |source: io::Error| match source.kind() {
            io::ErrorKind::TimedOut => deadline.error("the word of a forked worker"),
            _ => Error::Worker {
                what: "taking it over",
                log: String::new(),
                source,
            },
        };
        control.set_nonblocking(true).map_err(broken)?;
        let mut timed = Timed::new(&control, deadline);
        let unexpected = || broken(io::Error::other("it did not introduce itself"));
        match protocol::receive(&mut timed).map_err(broken)? {
            Some(FromWorker::Hello { version }) => check_version(version).map_err(broken)?,
            _ => return Err(unexpected()),
        }
        match protocol::receive(&mut timed).map_err(broken)? {
            Some(FromWorker::Born { pid, engine }) => {
                let process = Process::other(pid).map_err(broken)?;
                debug!(pid, engine, "worker forked");
                let mut worker = Self::over(process, control, log)?;
                worker.engine = Some(engine);
                Ok(worker)
            }
            Some(FromWorker::Failed { message, .. }) => Err(Error::Start { message }),
            _ => Err(unexpected()),
        }
    }

    /// Its process.
    pub fn process(&self) -> Arc<Process> {
        self.process.clone()
    }

    /// When it made the machine stand still.
    pub fn pauses(&self) -> Arc<Pauses> {
        self.pauses.clone()
    }

    fn greet(&mut self, deadline: Deadline) -> Result<(), Error> {
        match self.receive(deadline)? {
            FromWorker::Hello { version } => {
                check_version(version).map_err(|source| self.broken("greeting it", source))
            }
            other => Err(self.unexpected(&other)),
        }
    }

    /// Waits for what a worker that was told to identify its engine says.
    pub fn identity(&mut self) -> Result<EngineIdentity, Error> {
        let deadline = Deadline::within(ANSWER_TIMEOUT);
        self.greet(deadline)?;
        match self.receive(deadline)? {
            FromWorker::Identity(identity) => Ok(*identity),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Waits until the machine is prepared; the name of its engine.
    pub fn engine(&mut self, deadline: Deadline) -> Result<String, Error> {
        if let Some(engine) = &self.engine {
            return Ok(engine.clone());
        }
        self.greet(deadline)?;
        match self.receive(deadline)? {
            FromWorker::Prepared { engine } => {
                self.engine = Some(engine.clone());
                Ok(engine)
            }
            other => Err(self.unexpected(&other)),
        }
    }

    /// Gives an order and waits for the answer, not beyond `deadline`. After an
    /// error the worker is of no use any more.
    pub fn order(&mut self, order: &ToWorker, deadline: Deadline) -> Result<FromWorker, Error> {
        self.order_with(order, &[], deadline)
    }

    /// The same for an order that [takes so many files](ToWorker::files).
    pub fn order_with(
        &mut self,
        order: &ToWorker,
        files: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<FromWorker, Error> {
        debug_assert_eq!(order.files(), files.len());
        let pauses = self.pauses.clone();
        let _paused = order.stops_the_machine().then(|| pauses.begin());
        // It may be sent before the machine is prepared: the worker reads in
        // order.
        self.send(order, deadline)?;
        self.pass(files, deadline)?;
        self.engine(deadline)?;
        self.receive(deadline)
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
            FromWorker::NotWritten { reason } => SnapshotError::NotWritten {
                reason: reason.clone(),
            }
            .into(),
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

    fn send(&mut self, message: &ToWorker, deadline: Deadline) -> Result<(), Error> {
        protocol::send(Timed::new(&self.control, deadline), message)
            .map_err(|source| self.failed("sending", source, deadline))
    }

    fn pass(&mut self, files: &[BorrowedFd<'_>], deadline: Deadline) -> Result<(), Error> {
        let passed = Timed::new(&self.control, deadline).pass(files);
        passed.map_err(|source| self.failed("passing it files", source, deadline))
    }

    /// The next message; an error if the worker is gone.
    pub fn receive(&mut self, deadline: Deadline) -> Result<FromWorker, Error> {
        match protocol::receive(Timed::new(&self.control, deadline)) {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(self.broken(
                "waiting for it",
                io::Error::new(io::ErrorKind::UnexpectedEof, "it ended"),
            )),
            Err(source) => Err(self.failed("waiting for it", source, deadline)),
        }
    }

    /// The error for what the connection did not do.
    fn failed(&mut self, what: &'static str, source: io::Error, deadline: Deadline) -> Error {
        if source.kind() != io::ErrorKind::TimedOut {
            return self.broken(what, source);
        }
        warn!(pid = self.process.pid(), after = ?deadline.limit(), "worker does not answer");
        self.silent_for = Some(deadline.limit());
        self.is_lost = true;
        silence(deadline.limit())
    }

    /// Whether it once did not answer in time: who waited in vain then has
    /// waited for all.
    pub fn check_silence(&self) -> Result<(), Error> {
        self.silent_for.map_or(Ok(()), |after| Err(silence(after)))
    }

    pub(super) fn broken(&mut self, what: &'static str, source: io::Error) -> Error {
        self.is_lost = true;
        // That the connection broke says less than how the process ended.
        let source = match source.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => match self.process.fate(FATE_TIMEOUT) {
                Some(fate) => io::Error::new(source.kind(), fate),
                None => source,
            },
            _ => source,
        };
        warn!(pid = self.process.pid(), what, %source, "worker is lost");
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
    pub fn control(&self) -> &Arc<UnixStream> {
        &self.control
    }

    /// How the machine is doing; [`Error::Ended`] once it has ended.
    pub fn inspect(&mut self, deadline: Deadline) -> Result<VmStatus, Error> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone().into());
        }
        self.check_silence()?;
        let sent = self.send(&ToWorker::Inspect, deadline);
        // Its last message is there even if it takes none any more.
        match self.receive(deadline) {
            Ok(FromWorker::Status {
                exits,
                guest_ns,
                blocks_decoded,
                blocks_ahead,
                work,
                census,
                console,
                ballooned_bytes,
                added_bytes,
            }) => Ok(VmStatus {
                exits,
                guest: Duration::from_nanos(guest_ns),
                blocks_decoded,
                blocks_ahead,
                instructions_decoded: work.decoded.0,
                decoding: Duration::from_nanos(work.decoded.1),
                instructions_compiled: work.compiled.0,
                compiling: Duration::from_nanos(work.compiled.1),
                census,
                console,
                ballooned_bytes,
                added_bytes,
            }),
            Ok(other) => Err(self.unexpected(&other)),
            Err(error) => Err(sent.err().unwrap_or(error)),
        }
    }

    /// The end of the console of a guest that came up or did not.
    pub fn last_console(&mut self) -> String {
        let inspected = self.inspect(Deadline::within(CONSOLE_TIMEOUT));
        match (inspected, &self.ended) {
            (Ok(status), _) => status.console,
            (Err(_), Some(ended)) => ended.console.clone(),
            (Err(_), None) => String::new(),
        }
    }
}

/// The error for an answer that did not come.
fn silence(after: Duration) -> Error {
    Error::Timeout {
        what: "an answer of the worker process",
        after,
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end_soon();
    }
}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Self {
        Self::Ended {
            reason: ended.reason,
        }
    }
}

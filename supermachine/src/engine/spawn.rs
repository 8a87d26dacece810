//! The embedder's side: finds, starts and ends a worker process.

use super::host;
use super::protocol::{self, FromWorker, Setup, ToWorker, VERSION, check_version};
use super::runtime_dir::RuntimeDir;
use crate::{Error, VmConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use snapshot::SnapshotError;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
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
/// How long to wait before looking again whether a worker has ended.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
/// How long a worker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a worker may take to show the console of a guest that hangs.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a worker that broke its connection may take to be gone.
const FATE_PATIENCE: Duration = Duration::from_secs(1);

/// The only argument of an executable that is entered again as a worker.
const REENTRY: &str = "--supermachine-worker";
/// Whether this executable can be entered again.
static CAN_REENTER: AtomicBool = AtomicBool::new(false);

/// For programs that ship as one executable: to be called first in `main`.
/// Where the process was started as a worker, it is one and does not return;
/// otherwise this returns at once, and workers are started from the running
/// executable instead of a `supermachine-worker` beside it or in `PATH`.
///
/// ```no_run
/// fn main() -> Result<(), supermachine::Error> {
///     supermachine::worker_main();
///     let image = supermachine::Image::builder("oci:image").build()?;
///     let vm = image.acquire()?;
///     println!("{:?}", vm.exec(["uname", "-a"])?.stdout);
///     Ok(())
/// }
/// ```
pub fn worker_main() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|word| word == REENTRY) && arguments.next().is_none() {
        std::process::exit(super::worker::run().into());
    }
    CAN_REENTER.store(true, Ordering::Relaxed);
}

/// What to start a worker with: the configured executable; else this one, if
/// it [can be entered again](worker_main); else the one beside it, else the
/// one in `PATH`.
fn find_worker(config: &VmConfig) -> Result<Command, Error> {
    const NAME: &str = "supermachine-worker";
    if let Some(path) = &config.worker {
        return Ok(Command::new(path));
    }
    let own = std::env::current_exe().unwrap_or_default();
    if CAN_REENTER.load(Ordering::Relaxed) {
        let mut command = Command::new(&own);
        command.arg(REENTRY);
        return Ok(command);
    }
    let beside = own.parent().unwrap_or(Path::new("/")).to_path_buf();
    // Tests and examples are built one directory below the executables.
    let below = beside.ends_with("deps") || beside.ends_with("examples");
    let above = beside.parent().filter(|_| below);
    for dir in [Some(beside.as_path()), above].into_iter().flatten() {
        let candidate = dir.join(NAME);
        if candidate.is_file() {
            return Ok(Command::new(candidate));
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(NAME))
        .find(|candidate| candidate.is_file())
        .map(Command::new)
        .ok_or(Error::NoWorker { beside })
}

/// A worker process, for those who may not wait for who talks to it.
#[derive(Debug)]
pub struct Process {
    kind: Mutex<Kind>,
    pid: u32,
}

#[derive(Debug)]
enum Kind {
    /// Started by this process.
    Child(Child),
    /// Forked from another worker: known by a descriptor, so that its number
    /// cannot come to mean another process.
    Other(OwnedFd),
}

impl Process {
    fn of_child(child: Child) -> Self {
        Self {
            pid: child.id(),
            kind: Mutex::new(Kind::Child(child)),
        }
    }

    /// A process that is no child of this one.
    fn other(pid: u32) -> io::Result<Self> {
        Ok(Self {
            pid,
            kind: Mutex::new(Kind::Other(host::process_descriptor(pid)?)),
        })
    }

    fn kind(&self) -> MutexGuard<'_, Kind> {
        self.kind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it at once. Whoever waits for its answer learns so.
    pub fn kill(&self) {
        match &mut *self.kind() {
            Kind::Child(child) => {
                let _ = child.kill();
            }
            Kind::Other(process) => host::kill(process.as_fd()),
        }
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        match &mut *self.kind() {
            Kind::Child(child) => matches!(child.try_wait(), Ok(None)),
            // The descriptor of a process is readable once it has ended.
            Kind::Other(process) => {
                let mut fds = [PollFd::new(process, PollFlags::IN)];
                let now = Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                matches!(poll(&mut fds, Some(&now)), Ok(0))
            }
        }
    }

    /// How it ended, if that was not by its own will and becomes known within
    /// `patience`. Of processes that others started that cannot be known.
    fn fate(&self, patience: Duration) -> Option<String> {
        let begun = Instant::now();
        loop {
            let status = match &mut *self.kind() {
                Kind::Child(child) => child.try_wait().ok()?,
                Kind::Other(_) => return None,
            };
            match status {
                Some(status) => return status.signal().map(killed_by),
                None if begun.elapsed() > patience => return None,
                None => std::thread::sleep(FIRST_PAUSE),
            }
        }
    }

    /// Memory it has of its own, in bytes; 0 if the system does not tell.
    pub fn memory_bytes(&self) -> u64 {
        host::private_bytes(self.pid)
    }
}

/// What it means that a worker was ended by a signal.
fn killed_by(signal: i32) -> String {
    use rustix::process::Signal;
    let meaning = match Signal::from_named_raw(signal) {
        Some(Signal::BUS) => {
            ": a file it has mapped was cut short or cannot be read, or there is no memory left"
        }
        Some(Signal::KILL) => ": somebody ended it, or the system did for want of memory",
        _ => "",
    };
    format!("it was killed by signal {signal}{meaning}")
}

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

    /// Asks the worker whether it lives. One that carries out an order is
    /// watched by whoever gave that, and one that is gone breaks its
    /// connections.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not answer, or how its machine ended.
    pub fn probe(&self) -> Result<(), Error> {
        let Some(worker) = self.0.upgrade() else {
            return Ok(());
        };
        let status = match worker.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().inspect(),
            Ok(mut worker) => worker.inspect(),
        };
        status.map(drop)
    }
}

impl Worker {
    /// Starts a worker, which begins to prepare a machine by itself.
    pub fn spawn(config: &VmConfig, setup: Setup, dir: &RuntimeDir) -> Result<Self, Error> {
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
        worker.send(&ToWorker::Prepare(Box::new(setup)))?;
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

    /// Waits until the machine is prepared; the name of its engine.
    pub fn engine(&mut self) -> Result<String, Error> {
        if let Some(engine) = &self.engine {
            return Ok(engine.clone());
        }
        match self.receive()? {
            FromWorker::Hello { version } => {
                check_version(version).map_err(|source| self.broken("greeting it", source))?;
            }
            other => return Err(self.unexpected(&other)),
        }
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

//! The embedder's side: finds, starts and ends a worker process.

use super::protocol::{self, FromWorker, Machine, ToWorker, VERSION, check_version};
use crate::{Error, VmConfig};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How much of a worker's log goes into an error.
const LOG_TAIL_BYTES: u64 = 4096;
/// How long a worker may take to end after it was told to.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// A private directory for one machine's sockets, removed on drop.
#[derive(Debug)]
pub struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// Makes one in `XDG_RUNTIME_DIR` or the temporary directory. Its path is
    /// short, because socket paths must be.
    pub fn create() -> Result<Self, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let base = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|dir| dir.is_dir())
            .unwrap_or_else(std::env::temp_dir);
        let process = std::process::id();
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("supermachine-{process}-{count}"));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                // A process of the same number left one behind.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => {
                    return Err(Error::host("cannot create a runtime directory", path)(
                        error,
                    ));
                }
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The worker executable: the configured one, else the one beside the running
/// executable, else the one in `PATH`.
fn find_worker(config: &VmConfig) -> Result<PathBuf, Error> {
    const NAME: &str = "supermachine-worker";
    if let Some(path) = &config.worker {
        return Ok(path.clone());
    }
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.parent().unwrap_or(Path::new("/")).to_path_buf();
    // Test executables are one directory below the ones they test.
    for dir in [Some(beside.as_path()), beside.parent()]
        .into_iter()
        .flatten()
    {
        let candidate = dir.join(NAME);
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(NAME))
        .find(|candidate| candidate.is_file())
        .ok_or(Error::NoWorker { beside })
}

/// A worker process and its control connection.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    control: UnixStream,
    log: File,
}

impl Worker {
    /// Starts a worker and has it make `machine`. Returns when the first vCPU
    /// runs, with the name of the engine.
    pub fn start(
        config: &VmConfig,
        machine: Machine,
        dir: &RuntimeDir,
    ) -> Result<(Self, String), Error> {
        let executable = find_worker(config)?;
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
        let child = Command::new(&executable)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(stderr)
            // The terminal's Ctrl-C is for the guest's command.
            .process_group(0)
            .spawn()
            .map_err(Error::host("cannot start the worker", executable))?;
        let mut worker = Self {
            child,
            control,
            log,
        };
        let engine = worker.handshake(machine)?;
        Ok((worker, engine))
    }

    fn handshake(&mut self, machine: Machine) -> Result<String, Error> {
        self.send(&ToWorker::Hello { version: VERSION })?;
        self.send(&ToWorker::Start(Box::new(machine)))?;
        match self.receive()? {
            FromWorker::Hello { version } => {
                check_version(version).map_err(|source| self.broken("greeting it", source))?;
            }
            other => return Err(self.unexpected(&other)),
        }
        match self.receive()? {
            FromWorker::Started { engine } => Ok(engine),
            FromWorker::Failed { message } => Err(Error::Start { message }),
            other => Err(self.unexpected(&other)),
        }
    }

    pub fn send(&self, message: &ToWorker) -> Result<(), Error> {
        protocol::send(&self.control, message).map_err(|source| self.broken("sending", source))
    }

    /// The next message; an error if the worker is gone.
    pub fn receive(&self) -> Result<FromWorker, Error> {
        match protocol::receive(&self.control) {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(self.broken(
                "waiting for it",
                io::Error::new(io::ErrorKind::UnexpectedEof, "it ended"),
            )),
            Err(source) => Err(self.broken("waiting for it", source)),
        }
    }

    fn unexpected(&self, message: &FromWorker) -> Error {
        self.broken(
            "talking to it",
            io::Error::other(format!("unexpected message {message:?}")),
        )
    }

    fn broken(&self, what: &'static str, source: io::Error) -> Error {
        Error::Worker {
            what,
            log: self.log_tail().unwrap_or_default(),
            source,
        }
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

    /// Tells the worker to stop and waits until it is gone.
    pub fn end(&mut self) {
        let _ = protocol::send(&self.control, &ToWorker::Stop);
        let _ = rustix::net::shutdown(self.control.as_fd(), rustix::net::Shutdown::Write);
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        while let Ok(None) = self.child.try_wait() {
            if start.elapsed() > END_TIMEOUT {
                let _ = self.child.kill();
                let _ = self.child.wait();
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

//! One machine.

use crate::engine::protocol::{FromWorker, Machine};
use crate::engine::runtime_dir::RuntimeDir;
use crate::engine::spawn::{VmStatus, WeakWorker, Worker};
use crate::exec::Channel;
use crate::{AssetPaths, Error, ExecBuilder, ExecOutcome, Image, VmConfig};
use exec_proto::client::{Event, Session};
use exec_proto::{ErrorKind, ProtoError, READY_PORT};
use oci_bake::ImageConfig;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the agent may refuse connections before that is an error.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(20);
/// First and longest pause before it is asked again.
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LAST_RETRY: Duration = Duration::from_millis(100);
/// Longest single wait, so that it fits every system's clock type.
const LONGEST_POLL: Duration = Duration::from_secs(3600);

/// A running machine in a worker process of its own. Dropping it stops it.
#[derive(Debug)]
pub struct Vm {
    image: ImageConfig,
    engine: String,
    boot_time: Duration,
    exec_socket: PathBuf,
    /// The connection the agent opened when it came up, for the first command.
    first: Mutex<Option<UnixStream>>,
    /// Where the agent keeps the next one open, in the backlog.
    ready: UnixListener,
    worker: Arc<Mutex<Worker>>,
    dir: RuntimeDir,
}

impl Vm {
    /// Boots a machine from `image`. Returns when it serves commands.
    ///
    /// # Errors
    /// [`Error::Resources`], [`Error::TooManyVcpus`], [`Error::BadHostname`]
    /// for what `config` must not say; [`Error::Assets`] and
    /// [`Error::NoWorker`] for an incomplete installation; [`Error::Start`]
    /// when the machine cannot be made here; [`Error::BootFailed`], with the
    /// end of the guest's console, when the guest ended or hung before it
    /// served commands.
    pub fn start(image: &Image, config: &VmConfig) -> Result<Self, Error> {
        let begun = Instant::now();
        config.validate()?;
        let assets = match &config.assets {
            Some(assets) => assets.clone(),
            None => AssetPaths::discover()?,
        };
        let dir = RuntimeDir::create()?;
        let mux = dir.path().join("mux");
        let exec_socket = dir.path().join("exec");
        let ready_path = dir.path().join(format!("mux_{READY_PORT}"));
        let ready = UnixListener::bind(&ready_path)
            .map_err(Error::host("cannot listen on", &ready_path))?;
        let machine = Machine {
            engine: config.engine,
            kernel: assets.kernel,
            init: assets.init_oci,
            memory_mib: config.memory_mib,
            vcpus: config.vcpus,
            layers: image.layers().to_vec(),
            cmdline: command_line(image, config),
            runtime_dir: dir.path().to_path_buf(),
            mux,
            exec: exec_socket.clone(),
            console: config.console,
        };
        let (mut worker, engine) = Worker::start(config, machine, &dir)?;
        let first = await_agent(&mut worker, &ready, config.boot_timeout)?;
        ready
            .set_nonblocking(true)
            .map_err(Error::host("cannot listen on", &ready_path))?;
        Ok(Self {
            image: image.config().clone(),
            engine,
            boot_time: begun.elapsed(),
            exec_socket,
            first: Mutex::new(Some(first)),
            ready,
            worker: Arc::new(Mutex::new(worker)),
            dir,
        })
    }

    /// Name of the engine that runs the guest.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// From the start of the worker to the agent's first word.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// What the image says about running it.
    pub fn image_config(&self) -> &ImageConfig {
        &self.image
    }

    /// The Unix socket that leads to the guest's agent.
    pub fn exec_path(&self) -> &std::path::Path {
        &self.exec_socket
    }

    /// Stem of the machine's vsock sockets: connect there and send
    /// `CONNECT port` for a guest port; a guest that connects to port P of the
    /// host reaches the socket with `_P` appended.
    pub fn vsock_path(&self) -> PathBuf {
        self.dir.path().join("mux")
    }

    /// A command to run.
    pub fn exec_builder(&self) -> ExecBuilder<'_> {
        ExecBuilder::new(self)
    }

    /// Runs a command and collects its output.
    pub fn exec<S: Into<Vec<u8>>>(
        &self,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<ExecOutcome, Error> {
        self.exec_builder().argv(argv).output()
    }

    /// Writes a file of at most 4 MiB in the guest, mode 0644. The path is
    /// absolute; its directory must exist.
    ///
    /// # Errors
    /// [`Error::Exec`] when the guest cannot write it, [`Error::Protocol`] for
    /// a path or a size that is not allowed.
    pub fn write_file(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let channel =
            self.open_session(|session| session.write_file(path.as_bytes(), 0o644, bytes))?;
        answer(&channel, |event| {
            matches!(event, Event::FileWritten { .. }).then_some(())
        })
    }

    /// Reads a file of at most 4 MiB from the guest. The path is absolute.
    ///
    /// # Errors
    /// [`Error::Exec`] when the guest cannot read it or it is larger.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>, Error> {
        let channel = self.open_session(|session| session.read_file(path.as_bytes()))?;
        answer(&channel, |event| match event {
            Event::File(bytes) => Some(bytes),
            _ => None,
        })
    }

    /// Connects to the agent and sends requests. The agent refuses connections
    /// while many others wait to be accepted, by closing them without a hello,
    /// or says that it is busy. Nothing was begun then, so trying again is safe.
    pub(crate) fn open_session(
        &self,
        queue: impl Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Channel, Error> {
        let begun = Instant::now();
        let mut pause = FIRST_RETRY;
        loop {
            match self.try_session(&queue) {
                Err(
                    error @ (Error::Connection { .. }
                    | Error::Exec {
                        kind: ErrorKind::Busy,
                        ..
                    }),
                ) => {
                    if let Some(ended) = lock(&self.worker).end_within(Duration::ZERO) {
                        return Err(ended);
                    }
                    if begun.elapsed() > REFUSAL_PATIENCE {
                        return Err(error);
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LAST_RETRY);
                }
                result => return result,
            }
        }
    }

    fn try_session(
        &self,
        queue: impl Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Channel, Error> {
        let first = lock(&self.first).take();
        let stream = match first.or_else(|| self.dialed()) {
            Some(stream) => stream,
            None => UnixStream::connect(&self.exec_socket)
                .map_err(Error::connection("connecting to it"))?,
        };
        let channel = Channel::new(stream, WeakWorker::new(&self.worker));
        channel.request(queue)?;
        channel.greeting()?;
        Ok(channel)
    }

    /// The connection the agent has open for us, if it is there already.
    fn dialed(&self) -> Option<UnixStream> {
        let (stream, _) = self.ready.accept().ok()?;
        // Some systems pass the listener's setting on.
        stream.set_nonblocking(false).ok()?;
        Some(stream)
    }

    /// How the machine is doing.
    ///
    /// # Errors
    /// [`Error::Ended`] once it has ended.
    pub fn status(&self) -> Result<VmStatus, Error> {
        lock(&self.worker).inspect()
    }

    /// Stops the machine at once, as pulling the plug would.
    pub fn stop(self) -> Result<(), Error> {
        self.end();
        Ok(())
    }

    /// As [`Vm::stop`], for those who share the machine.
    pub(crate) fn end(&self) {
        lock(&self.worker).end();
        self.dir.remove();
    }

    /// Kills the worker, for a process that must end now. Whoever holds the
    /// worker is ending it already.
    pub(crate) fn abandon(&self) {
        if let Ok(mut worker) = self.worker.try_lock() {
            worker.kill();
        }
        self.dir.remove();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits for the one event that answers a request.
fn answer<T>(channel: &Channel, pick: impl Fn(Event) -> Option<T>) -> Result<T, Error> {
    let mut buffer = Vec::new();
    loop {
        match channel.next_event(&mut buffer)? {
            Event::Failed(failure) => return Err(failure.into()),
            event => {
                if let Some(answer) = pick(event) {
                    return Ok(answer);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What init is told on the kernel's command line.
fn command_line(image: &Image, config: &VmConfig) -> String {
    let hostname = config.hostname.clone().unwrap_or_else(|| {
        let digest = image.digest();
        let hex = digest.rsplit(':').next().unwrap_or_default();
        hex.chars().take(12).collect()
    });
    // The base is quiet, and the later setting wins.
    let loglevel = if config.console { " loglevel=7" } else { "" };
    format!(
        "{}{loglevel} sm.layers={} sm.hostname={hostname}",
        kernel::recipe::BASE_COMMAND_LINE,
        image.layers().len()
    )
}

/// Waits for the agent's connection or the machine's end, whichever is first.
fn await_agent(
    worker: &mut Worker,
    ready: &UnixListener,
    timeout: Duration,
) -> Result<UnixStream, Error> {
    let begun = Instant::now();
    loop {
        let left = timeout.saturating_sub(begun.elapsed());
        let mut fds = [
            PollFd::new(ready, PollFlags::IN),
            PollFd::new(worker.control(), PollFlags::IN),
        ];
        let wait = Timespec::try_from(left.min(LONGEST_POLL)).unwrap_or(Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        });
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(error) => return Err(Error::system("wait for the guest")(error.into())),
        }
        if !fds[0].revents().is_empty() {
            let (stream, _) = ready
                .accept()
                .map_err(Error::system("accept the guest's connection"))?;
            return Ok(stream);
        }
        if !fds[1].revents().is_empty() {
            return Err(match worker.receive()? {
                FromWorker::Ended {
                    reason, console, ..
                } => Error::BootFailed { reason, console },
                _ => Error::Ended {
                    reason: "its worker spoke out of turn".into(),
                },
            });
        }
        if left.is_zero() {
            return Err(hung(worker, timeout));
        }
    }
}

/// The error for a guest that says nothing, with what its console shows.
fn hung(worker: &mut Worker, after: Duration) -> Error {
    Error::BootFailed {
        reason: format!("no word from it within {after:?}"),
        console: worker.last_console(),
    }
}

//! One machine.

use crate::engine::protocol::{FromWorker, Machine, ToWorker};
use crate::engine::spawn::{RuntimeDir, Worker};
use crate::exec::Channel;
use crate::{AssetPaths, Error, ExecBuilder, ExecOutcome, Image, VmConfig};
use exec_proto::READY_PORT;
use exec_proto::client::Event;
use oci_bake::ImageConfig;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A running machine in a worker process of its own. Dropping it stops it.
#[derive(Debug)]
pub struct Vm {
    image: ImageConfig,
    engine: String,
    boot_time: Duration,
    exec_socket: PathBuf,
    /// The connection the agent opened when it came up, for the first command.
    first: Mutex<Option<UnixStream>>,
    worker: Mutex<Worker>,
    /// Last field: the sockets go after the worker.
    dir: RuntimeDir,
}

/// How a machine is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VmStatus {
    /// VM exits since the start.
    pub exits: u64,
    /// End of the guest's console.
    pub console: String,
}

impl Vm {
    /// Boots a machine from `image`. Returns when it serves commands.
    pub fn start(image: &Image, config: &VmConfig) -> Result<Self, Error> {
        let begun = Instant::now();
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
            mux,
            exec: exec_socket.clone(),
            console: config.console,
        };
        let (worker, engine) = Worker::start(config, machine, &dir)?;
        let first = await_agent(&worker, &ready, config.boot_timeout)?;
        Ok(Self {
            image: image.config().clone(),
            engine,
            boot_time: begun.elapsed(),
            exec_socket,
            first: Mutex::new(Some(first)),
            worker: Mutex::new(worker),
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

    /// Writes a file of at most 4 MiB in the guest, mode 0644.
    pub fn write_file(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let channel = self.connect_agent()?;
        channel.request(|session| session.write_file(path.as_bytes(), 0o644, bytes))?;
        self.answer(&channel, |event| {
            matches!(event, Event::FileWritten { .. }).then_some(())
        })
    }

    /// Reads a file of at most 4 MiB from the guest.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>, Error> {
        let channel = self.connect_agent()?;
        channel.request(|session| session.read_file(path.as_bytes()))?;
        self.answer(&channel, |event| match event {
            Event::File(bytes) => Some(bytes),
            _ => None,
        })
    }

    fn answer<T>(&self, channel: &Channel, pick: impl Fn(Event) -> Option<T>) -> Result<T, Error> {
        let mut buffer = Vec::new();
        loop {
            match channel.next_event(&mut buffer)? {
                Event::Failed(failure) => {
                    return Err(Error::Exec {
                        kind: failure.kind,
                        message: failure.message,
                    });
                }
                event => {
                    if let Some(answer) = pick(event) {
                        return Ok(answer);
                    }
                }
            }
        }
    }

    /// A fresh connection to the agent.
    pub(crate) fn connect_agent(&self) -> Result<Channel, Error> {
        let first = lock(&self.first).take();
        let stream = match first {
            Some(stream) => stream,
            None => UnixStream::connect(&self.exec_socket)
                .map_err(Error::connection("connecting to the guest"))?,
        };
        Ok(Channel::new(stream))
    }

    /// How the machine is doing; an error once it has ended.
    pub fn status(&self) -> Result<VmStatus, Error> {
        let worker = lock(&self.worker);
        worker.send(&ToWorker::Inspect)?;
        match worker.receive()? {
            FromWorker::Status { exits, console } => Ok(VmStatus { exits, console }),
            FromWorker::Ended { reason, .. } => Err(Error::Ended { reason }),
            _ => Err(Error::Ended {
                reason: "its worker answered out of turn".into(),
            }),
        }
    }

    /// Stops the machine at once, as pulling the plug would.
    pub fn stop(self) -> Result<(), Error> {
        lock(&self.worker).end();
        Ok(())
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
    format!(
        "{} sm.layers={} sm.hostname={hostname}",
        kernel::recipe::BASE_COMMAND_LINE,
        image.layers().len()
    )
}

/// Waits for the agent's connection or the machine's end, whichever is first.
fn await_agent(
    worker: &Worker,
    ready: &UnixListener,
    timeout: Duration,
) -> Result<UnixStream, Error> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [
            PollFd::new(ready, PollFlags::IN),
            PollFd::new(worker.control(), PollFlags::IN),
        ];
        let wait = Timespec::try_from(left).unwrap_or(Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        });
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(error) => return Err(Error::connection("waiting for it")(io::Error::from(error))),
        }
        if !fds[0].revents().is_empty() {
            let (stream, _) = ready
                .accept()
                .map_err(Error::connection("accepting the agent"))?;
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
fn hung(worker: &Worker, after: Duration) -> Error {
    let console = worker
        .send(&ToWorker::Inspect)
        .and_then(|()| worker.receive())
        .ok()
        .and_then(|message| match message {
            FromWorker::Status { console, .. } | FromWorker::Ended { console, .. } => Some(console),
            _ => None,
        })
        .unwrap_or_default();
    Error::BootFailed {
        reason: format!("no word from it within {after:?}"),
        console,
    }
}

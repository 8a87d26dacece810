//! A worker with its sockets, and the agent in its guest.

use super::dial::{connect, patiently};
use super::handle::{VmStatus, Worker};
use super::pauses::Pauses;
use super::place::Place;
use super::process::Process;
use super::share::Share;
use super::watched::{WeakWorker, end_within};
use crate::clock::LastSet;
use crate::config::HostLimits;
use crate::deadline::Deadline;
use crate::exec::{Asked, Channel, Liveness};
use crate::limits::ANSWER_TIMEOUT;
use crate::link::monitor::paused_mark;
use crate::link::protocol::{FromWorker, ToWorker};
use crate::link::runtime_dir::{self, RuntimeDir};
use crate::link::sockets::{Sockets, exec};
use crate::sync::lock;
use crate::{Error, VmConfig, spans};
use exec_proto::ProtoError;
use exec_proto::client::Session;
use rustix::event::{PollFd, PollFlags};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tracing::debug;

/// A worker process, its directory, and the connections of its guest's agent.
#[derive(Debug)]
pub struct Instance {
    exec_socket: PathBuf,
    /// A connection for the next command.
    next: Mutex<Option<Next>>,
    /// Where the agent keeps the one after that open, in the backlog.
    ready: UnixListener,
    worker: Arc<Mutex<Worker>>,
    watched: Arc<WeakWorker>,
    process: Arc<Process>,
    /// There while the machine is paused.
    paused_mark: PathBuf,
    /// Its owner has paused it, and what it stands still for counts.
    paused: Mutex<Option<Arc<Pauses>>>,
    dir: RuntimeDir,
    pub(super) clock_set: LastSet,
    /// Goes after the worker, and with the last child that has it too.
    pub(super) share: Option<Arc<Share>>,
}

/// A connection to the agent that is free.
#[derive(Debug)]
enum Next {
    /// Nothing was said on it yet.
    Fresh(UnixStream),
    /// The agent has greeted, and answered.
    Known(Box<Channel>),
}

impl Instance {
    /// Starts a worker that prepares a machine.
    pub fn spawn(config: &VmConfig, vcpus: u32) -> Result<Self, Error> {
        let place = Place::make()?;
        let order = ToWorker::Prepare(Box::new(place.setup(config, vcpus)));
        let _machine = spans::machine(place.dir.path(), config.name.as_deref()).entered();
        let sockets = Sockets::make(place.dir.path())?;
        let worker = Worker::spawn(config, &order, &sockets.descriptors(), &place.dir)?;
        let mut instance = Self::new(place, worker, None);
        if config.host_limits != HostLimits::default() {
            let name = runtime_dir::id(instance.dir()).unwrap_or_default();
            let share = Share::of(&config.host_limits, instance.process.pid(), name)?;
            instance.share = Some(Arc::new(share));
        }
        Ok(instance)
    }

    pub(super) fn new(place: Place, worker: Worker, share: Option<Arc<Share>>) -> Self {
        let Place { dir, ready } = place;
        let (process, pauses) = (worker.process(), worker.pauses());
        let worker = Arc::new(Mutex::new(worker));
        Self {
            exec_socket: exec(dir.path()),
            next: Mutex::default(),
            ready,
            process,
            watched: Arc::new(WeakWorker::new(&worker, &pauses)),
            worker,
            paused_mark: paused_mark(dir.path()),
            paused: Mutex::default(),
            dir,
            clock_set: LastSet::default(),
            share,
        }
    }

    /// Whether somebody has paused the machine.
    pub fn is_paused(&self) -> bool {
        self.paused_mark.exists()
    }

    /// Counts for how long its owner has it stand still.
    pub fn is_paused_by_owner(&self, is_paused: bool) {
        let mut paused = lock(&self.paused);
        if is_paused && paused.is_none() {
            let pauses = self.worker().pauses();
            pauses.enter();
            *paused = Some(pauses);
        } else if !is_paused && let Some(pauses) = paused.take() {
            pauses.leave();
        }
    }

    /// A paused machine does nothing that is asked of it.
    pub fn check_running(&self) -> Result<(), Error> {
        match self.is_paused() {
            true => Err(Error::Paused),
            false => Ok(()),
        }
    }

    pub fn exec_socket(&self) -> &Path {
        &self.exec_socket
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The worker's process, whoever is talking to it now.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    pub fn worker(&self) -> MutexGuard<'_, Worker> {
        lock(&self.worker)
    }

    /// The connection that breaks when the worker ends.
    pub fn control(&self) -> Arc<UnixStream> {
        self.worker().control().clone()
    }

    /// Waits until the machine is prepared; the name of its engine.
    pub fn engine(&self) -> Result<String, Error> {
        self.worker().engine(Deadline::within(ANSWER_TIMEOUT))
    }

    /// What tells whether its worker lives.
    pub fn watched(&self) -> Arc<dyn Liveness> {
        self.watched.clone()
    }

    /// Connects to the agent and sends requests.
    pub fn open_session(
        &self,
        deadline: Deadline,
        queue: &dyn Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Channel, Error> {
        self.check_running()?;
        patiently(
            deadline,
            || self.try_session(deadline, queue),
            || end_within(&self.worker, Duration::ZERO),
        )
    }

    /// Sends requests over a connection that is there, as far as it takes them at once,
    /// and waits for nothing. `None` if there is no connection.
    pub fn ask_at_once(
        &self,
        queue: &dyn Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Option<Asked>, Error> {
        self.check_running()?;
        let (channel, is_greeted) = match self.connected()? {
            Some(Next::Known(channel)) if channel.is_usable() => (*channel, true),
            Some(Next::Fresh(stream)) => (Channel::new(stream, self.watched())?, false),
            _ => return Ok(None),
        };
        channel.queue(queue)?;
        channel.send_some()?;
        Ok(Some(Asked {
            channel,
            is_greeted,
        }))
    }

    /// A connection that is there.
    fn connected(&self) -> Result<Option<Next>, Error> {
        // One that carries out an order right now will answer.
        if let Ok(worker) = self.worker.try_lock() {
            worker.check_silence()?;
        }
        let next = lock(&self.next).take();
        Ok(next.or_else(|| self.dialed().map(Next::Fresh)))
    }

    fn try_session(
        &self,
        deadline: Deadline,
        queue: impl Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Channel, Error> {
        let stream = match self.connected()? {
            Some(Next::Known(channel)) if channel.is_usable() => {
                channel.limit(deadline);
                channel.request(queue)?;
                return Ok(*channel);
            }
            Some(Next::Fresh(stream)) => stream,
            _ => connect(&self.exec_socket, deadline)?,
        };
        let channel = Channel::new(stream, self.watched())?;
        channel.limit(deadline);
        channel.request(queue)?;
        channel.greeting()?;
        Ok(channel)
    }

    /// Keeps a connection for the next command.
    pub(super) fn keep(&self, channel: Channel) {
        *lock(&self.next) = Some(Next::Known(channel.into()));
    }

    /// The same with one on which nothing was said yet.
    pub(super) fn keep_fresh(&self, stream: UnixStream) {
        *lock(&self.next) = Some(Next::Fresh(stream));
    }

    /// Lets go of what the last user left: commands, and the agent's next connection.
    pub(super) fn forget_connections(&self, deadline: Deadline) {
        *lock(&self.next) = None;
        while self.dialed().is_some() && !deadline.has_passed() {}
    }

    /// The connection the agent has open for us, if it is there already.
    fn dialed(&self) -> Option<UnixStream> {
        let (stream, _) = self.ready.accept().ok()?;
        Some(stream)
    }

    /// How the machine is doing.
    pub fn status(&self) -> Result<VmStatus, Error> {
        self.worker().inspect(Deadline::within(ANSWER_TIMEOUT))
    }

    /// Ends the worker and removes what it had. Safe to call twice.
    pub fn end(&self) {
        let _machine = spans::machine(self.dir(), None).entered();
        self.worker().end();
        self.dir.remove();
    }

    /// Kills the worker, for a process that must end now.
    pub fn abandon(&self) {
        debug!(pid = self.process.pid(), "worker is not needed any more");
        self.process.kill();
        self.dir.remove();
    }

    /// Waits for the agent's connection or the machine's end, whichever is first;
    /// nothing if `deadline` was before both.
    pub(super) fn await_call(&self, deadline: Deadline) -> Result<Option<UnixStream>, Error> {
        loop {
            // First: who always calls again gets no further than who never does.
            if deadline.has_passed() {
                return Ok(None);
            }
            if let Some(stream) = self.dialed() {
                return Ok(Some(stream));
            }
            let mut worker = self.worker();
            let mut fds = [
                PollFd::new(&self.ready, PollFlags::IN),
                PollFd::new(worker.control(), PollFlags::IN),
            ];
            deadline
                .wait(&mut fds)
                .map_err(Error::system("wait for the guest"))?;
            if !fds[1].revents().is_empty() {
                return Err(match worker.receive(deadline)? {
                    FromWorker::Ended {
                        reason, console, ..
                    } => Error::BootFailed { reason, console },
                    other => worker.unexpected(&other),
                });
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _machine = spans::machine(self.dir(), None).entered();
        self.worker().end_soon();
        self.dir.remove();
    }
}

//! A worker with its sockets, and the agent in its guest.

use super::dial::{connect, patiently};
use super::handle::{VmStatus, Worker};
use super::pauses::Pauses;
use super::personalise::{Personality, await_done, release_guest, resume_guest};
use super::process::Process;
use super::share::Share;
use super::watched::{WeakWorker, end_within};
use crate::clock::{LastSet, Reading, WallClock};
use crate::config::HostLimits;
use crate::deadline::Deadline;
use crate::exec::{Channel, Liveness};
use crate::limits::{ANSWER_TIMEOUT, CALL_TIMEOUT, CAPTURE_TIMEOUT};
use crate::link::monitor::paused_mark;
use crate::link::passing::{descriptors, in_parts};
use crate::link::protocol::{
    Boot, FromWorker, MAX_BIRTHS, Restore, RestoreStages, Setup, ToWorker,
};
use crate::link::runtime_dir::{self, RuntimeDir};
use crate::{Error, VmConfig, random, spans};
use exec_proto::client::Session;
use exec_proto::{ProtoError, READY_PORT, Resumed};
use rustix::event::{PollFd, PollFlags};
use snapshot::{OpenFiles, Written};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    clock_set: LastSet,
    /// Goes after the worker, and with the last child that has it too.
    share: Option<Arc<Share>>,
}

// The machine lets only privileged processes of the guest call there.
const _: () = assert!(READY_PORT == vmm_core::spec::AGENT_HOST_PORT);

/// Where a worker's sockets are.
struct Place {
    dir: RuntimeDir,
    ready: UnixListener,
}

impl Place {
    fn make() -> Result<Self, Error> {
        let dir = RuntimeDir::create()?;
        let path = dir.path().join(format!("mux_{READY_PORT}"));
        let ready = UnixListener::bind(&path)
            .and_then(|ready| ready.set_nonblocking(true).map(|()| ready))
            .map_err(Error::host("cannot listen on", &path))?;
        Ok(Self { dir, ready })
    }

    fn setup(&self, config: &VmConfig, vcpus: u32) -> Setup {
        let dir = self.dir.path();
        Setup {
            engine: config.engine,
            tier: config.tier,
            vcpus,
            runtime_dir: dir.to_path_buf(),
            mux: dir.join("mux"),
            exec: dir.join(Instance::EXEC),
            console: config.console,
        }
    }
}

/// A connection to the agent that is free.
#[derive(Debug)]
enum Next {
    /// Nothing was said on it yet.
    Fresh(UnixStream),
    /// The agent has greeted, and answered.
    Known(Box<Channel>),
}

/// A child of a running machine, made one of its own.
pub struct Made {
    pub instance: Instance,
    pub stages: RestoreStages,
    pub identity: Personality,
    pub resumed: Resumed,
}

impl Instance {
    /// Name of the socket bridged to the agent.
    pub const EXEC: &str = "exec";

    /// Starts a worker that prepares a machine.
    pub fn spawn(config: &VmConfig, vcpus: u32) -> Result<Self, Error> {
        let place = Place::make()?;
        let order = ToWorker::Prepare(Box::new(place.setup(config, vcpus)));
        let _machine = spans::machine(place.dir.path(), config.name.as_deref()).entered();
        let worker = Worker::spawn(config, &order, &place.dir)?;
        let mut instance = Self::new(place, worker);
        if config.host_limits != HostLimits::default() {
            let name = runtime_dir::id(instance.dir()).unwrap_or_default();
            let share = Share::of(&config.host_limits, instance.process.pid(), name)?;
            instance.share = Some(Arc::new(share));
        }
        Ok(instance)
    }

    fn new(place: Place, worker: Worker) -> Self {
        let Place { dir, ready } = place;
        let (process, pauses) = (worker.process(), worker.pauses());
        let worker = Arc::new(Mutex::new(worker));
        Self {
            exec_socket: dir.path().join(Self::EXEC),
            next: Mutex::default(),
            ready,
            process,
            watched: Arc::new(WeakWorker::new(&worker, &pauses)),
            worker,
            paused_mark: paused_mark(dir.path()),
            paused: Mutex::default(),
            dir,
            clock_set: LastSet::default(),
            share: None,
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

    /// Makes children of the running machine, which share its memory, and
    /// makes each a machine of its own. Gives also how long the parent stood
    /// still.
    pub fn fork(&self, config: &VmConfig, count: usize) -> Result<(Duration, Vec<Made>), Error> {
        let mut places = Vec::with_capacity(count);
        let mut births = Vec::with_capacity(count);
        for _ in 0..count {
            let place = Place::make()?;
            let control = UnixStream::pair();
            let (ours, theirs) = control.map_err(Error::system("make a connection"))?;
            births.push((place.setup(config, 0), theirs));
            places.push((place, ours));
        }
        let deadline = Deadline::within(config.restore_timeout);
        let answer = self.copied(
            |unheld| self.order_fork(&births, unheld, deadline),
            deadline,
        )?;
        let FromWorker::Forked { paused_us } = answer else {
            return Err(self.worker().unexpected(&answer));
        };
        // Whoever waits for a child learns of its end.
        drop(births);
        let paused = Duration::from_micros(paused_us);
        let mut children = Vec::with_capacity(count);
        for (place, control) in places {
            let _child = spans::machine(place.dir.path(), None).entered();
            let worker = Worker::adopt(control, &place.dir, deadline)?;
            let mut child = Self::new(place, worker);
            child.share.clone_from(&self.share);
            children.push(child);
        }
        let unique = |child: Self| {
            let answer = child.worker().receive(deadline)?;
            let FromWorker::Restored(stages) = answer else {
                return Err(child.worker().unexpected(&answer));
            };
            let identity = Personality {
                machine_id: config.machine_id.resolve()?,
                clock: config.clock.clone(),
                ..Personality::default()
            };
            let resumed = child.make_unique(stages, &identity, deadline)?;
            Ok(Made {
                instance: child,
                stages,
                identity,
                resumed,
            })
        };
        let children: Result<Vec<_>, Error> = children.into_iter().map(unique).collect();
        Ok((paused, children?))
    }

    /// Orders that children be made, all of one moment.
    fn order_fork(
        &self,
        births: &[(Setup, UnixStream)],
        unheld: bool,
        deadline: Deadline,
    ) -> Result<FromWorker, Error> {
        let mut batches = births.chunks(MAX_BIRTHS).peekable();
        let mut worker = self.worker();
        loop {
            let batch = batches.next().unwrap_or_default();
            let controls: Vec<BorrowedFd<'_>> = batch.iter().map(|birth| birth.1.as_fd()).collect();
            let order = ToWorker::Fork {
                births: batch.iter().map(|birth| birth.0.clone()).collect(),
                more: batches.peek().is_some(),
                unheld,
            };
            match worker.order_with(&order, &controls, deadline)? {
                FromWorker::Noted => {}
                answer => return Ok(answer),
            }
        }
    }

    /// Has copies made. Those of a guest whose kernel would not hold their programs
    /// are made only while there are none, which its agent knows.
    fn copied(
        &self,
        order: impl Fn(bool) -> Result<FromWorker, Error>,
        deadline: Deadline,
    ) -> Result<FromWorker, Error> {
        match order(false)? {
            FromWorker::Unheld => {}
            answer => return Ok(answer),
        }
        let channel = self.open_session(deadline, &Session::alone)?;
        channel.limit(deadline);
        await_done(&channel)?;
        *lock(&self.next) = Some(Next::Known(channel.into()));
        order(true)
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

    /// Boots a machine of these files and waits until its agent serves.
    pub fn boot(&self, boot: Boot, files: &[File], deadline: Deadline) -> Result<(), Error> {
        let mut worker = self.worker();
        let order = ToWorker::Boot(Box::new(boot));
        let booted = match worker.order_with(&order, &descriptors(files), deadline) {
            Ok(FromWorker::Booted) => Ok(()),
            Ok(other) => Err(worker.unexpected(&other)),
            Err(error) => Err(error),
        };
        // A guest may end before its start was answered.
        if let Err(Error::Ended { reason }) = booted {
            let console = worker.last_console();
            return Err(Error::BootFailed { reason, console });
        }
        booted?;
        drop(worker);
        let first = self.await_agent(deadline)?;
        *lock(&self.next) = Some(Next::Fresh(first));
        Ok(())
    }

    /// Makes a copy of a captured machine and makes it one of its own.
    pub fn restore(
        &self,
        restore: Restore,
        files: &[File],
        identity: &Personality,
        deadline: Deadline,
    ) -> Result<(RestoreStages, Resumed), Error> {
        let order = ToWorker::Restore(Box::new(restore));
        let answer = self
            .worker()
            .order_with(&order, &descriptors(files), deadline)?;
        let FromWorker::Restored(stages) = answer else {
            return Err(self.worker().unexpected(&answer));
        };
        let resumed = self.make_unique(stages, identity, deadline)?;
        Ok((stages, resumed))
    }

    /// Brings the machine back to its snapshot and makes it one of its own.
    pub fn reset(
        &self,
        identity: &Personality,
        deadline: Deadline,
    ) -> Result<(RestoreStages, Resumed), Error> {
        // What the last user left: commands, and the agent's next connection.
        *lock(&self.next) = None;
        while self.dialed().is_some() && !deadline.has_passed() {}
        let answer = self.worker().order(&ToWorker::Reset, deadline)?;
        let FromWorker::WasReset(stages) = answer else {
            return Err(self.worker().unexpected(&answer));
        };
        self.is_paused_by_owner(false);
        let resumed = self.make_unique(stages, identity, deadline)?;
        Ok((stages, resumed))
    }

    /// Gives a machine that booted what only copies are given otherwise.
    pub fn identify(&self, identity: &Personality, deadline: Deadline) -> Result<(), Error> {
        let mut generation = [0; 16];
        random::fill_random(&mut generation)?;
        let channel = self.open_session(deadline, &|_| Ok(()))?;
        let time = Reading::of(&identity.clock);
        resume_guest(&channel, generation, identity, time, false, deadline)?;
        self.clock_set.note(time);
        *lock(&self.next) = Some(Next::Known(channel.into()));
        Ok(())
    }

    /// Sets the guest's clock again if the one that it was set by was moved.
    pub fn correct_clock(&self, clock: &WallClock) -> Result<(), Error> {
        match self.clock_is_off(clock) {
            true => self.set_clock(clock),
            false => Ok(()),
        }
    }

    /// Sets the guest's clock.
    pub fn set_clock(&self, clock: &WallClock) -> Result<(), Error> {
        let deadline = Deadline::within(ANSWER_TIMEOUT);
        let channel = self.open_session(deadline, &|_| Ok(()))?;
        let time = Reading::of(clock);
        channel.request(|session| session.set_time(time.wall_ns))?;
        await_done(&channel)?;
        self.clock_set.note(time);
        *lock(&self.next) = Some(Next::Known(channel.into()));
        Ok(())
    }

    pub fn clock_is_off(&self, clock: &WallClock) -> bool {
        self.clock_set.is_off(Reading::of(clock))
    }

    /// Lets the programs of a copy go on that stayed held.
    fn release(&self, deadline: Deadline) -> Result<(), Error> {
        let channel = self.open_session(deadline, &|_| Ok(()))?;
        release_guest(&channel, deadline)?;
        *lock(&self.next) = Some(Next::Known(channel.into()));
        Ok(())
    }

    /// Pauses the machine and writes it into the directory of a draft. It
    /// stays paused until [`Instance::go_on`].
    pub fn capture(&self, directory: &Path) -> Result<Written, Error> {
        let (files, open) = in_parts(OpenFiles::to_write(directory)?);
        let order = |unheld| {
            let files = files.clone();
            let order = ToWorker::Capture { files, unheld };
            self.worker().order_with(
                &order,
                &descriptors(&open),
                Deadline::within(CAPTURE_TIMEOUT),
            )
        };
        match self.copied(order, Deadline::within(ANSWER_TIMEOUT))? {
            FromWorker::Captured { written, .. } => Ok(*written),
            other => Err(self.worker().unexpected(&other)),
        }
    }

    /// Lets a captured machine go on as it was.
    pub fn go_on(&self) -> Result<(), Error> {
        self.continue_with(OpenFiles::default()).map(drop)
    }

    /// Lets a captured machine go on as another one than was captured, on the
    /// memory that was written to `directory`.
    pub fn go_on_from(&self, directory: &Path, identity: &Personality) -> Result<Resumed, Error> {
        let generation = self.continue_with(OpenFiles::to_map(directory)?)?;
        let generation = generation.unwrap_or_default();
        let deadline = Deadline::within(ANSWER_TIMEOUT);
        let channel = self.open_session(deadline, &|_| Ok(()))?;
        let time = Reading::of(&identity.clock);
        let resumed = resume_guest(&channel, generation, identity, time, false, deadline)?;
        self.clock_set.note(time);
        *lock(&self.next) = Some(Next::Known(channel.into()));
        Ok(resumed)
    }

    fn continue_with(&self, files: OpenFiles) -> Result<Option<[u8; 16]>, Error> {
        let (rebase, open) = in_parts(files);
        let order = ToWorker::Continue { rebase };
        let deadline = Deadline::within(ANSWER_TIMEOUT);
        let answer = self
            .worker()
            .order_with(&order, &descriptors(&open), deadline)?;
        match answer {
            FromWorker::Continued { generation } => Ok(generation),
            other => Err(self.worker().unexpected(&other)),
        }
    }

    /// Which pages of the machine's memory were touched since it was mapped.
    pub fn touched(&self) -> Result<Vec<std::ops::Range<u64>>, Error> {
        let answer = self
            .worker()
            .order(&ToWorker::Touched, Deadline::within(ANSWER_TIMEOUT))?;
        match answer {
            FromWorker::Touched(runs) => Ok(runs),
            other => Err(self.worker().unexpected(&other)),
        }
    }

    /// Waits for the agent of a copy to call, and has it reseed, set its clock
    /// and take its name. Without that nobody gets the machine.
    fn make_unique(
        &self,
        stages: RestoreStages,
        identity: &Personality,
        deadline: Deadline,
    ) -> Result<Resumed, Error> {
        let wanted = identity.memory_mib;
        let memory_mib = wanted.filter(|mib| *mib as u64 != stages.memory_mib);
        // Programs do not go on before the memory is what it will be.
        let stay_held = memory_mib.is_some();
        let (channel, resumed) = loop {
            let stream = self.await_copy(deadline)?;
            let made = Channel::new(stream, self.watched()).and_then(|channel| {
                let (generation, time) = (stages.generation, Reading::of(&identity.clock));
                let resumed =
                    resume_guest(&channel, generation, identity, time, stay_held, deadline)?;
                self.clock_set.note(time);
                Ok((channel, resumed))
            });
            match made {
                // The machine that was there before had dialed it.
                Err(Error::Connection { .. }) => {}
                Err(error) => {
                    // Nobody gets it: there is nothing to end in good order.
                    self.process.kill();
                    return Err(error);
                }
                Ok(made) => break made,
            }
        };
        *lock(&self.next) = Some(Next::Known(channel.into()));
        if let Some(mib) = memory_mib {
            self.set_memory(mib, deadline)?;
            self.release(deadline)?;
        }
        Ok(resumed)
    }

    /// Waits until the guest has so much memory.
    fn set_memory(&self, mib: usize, deadline: Deadline) -> Result<(), Error> {
        // Its word that it could not says more than that it did not come.
        let patience = deadline.left_of(ANSWER_TIMEOUT).mul_f64(0.9);
        let order = ToWorker::SetMemory {
            mib,
            patience_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        };
        let answer = self.worker().order(&order, deadline)?;
        match answer {
            FromWorker::MemorySet => Ok(()),
            other => Err(self.worker().unexpected(&other)),
        }
    }

    /// Who knows of its worker.
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

    fn try_session(
        &self,
        deadline: Deadline,
        queue: impl Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Channel, Error> {
        // One that carries out an order right now will answer.
        if let Ok(worker) = self.worker.try_lock() {
            worker.check_silence()?;
        }
        let next = lock(&self.next).take();
        let stream = match next.or_else(|| self.dialed().map(Next::Fresh)) {
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

    /// Waits for the agent of a copy to call, and calls it if it does not: whoever
    /// calls in it may be starting a program, which does not get on before others
    /// are released.
    fn await_copy(&self, deadline: Deadline) -> Result<UnixStream, Error> {
        match self.await_call(deadline.at_most(CALL_TIMEOUT))? {
            Some(stream) => Ok(stream),
            None if deadline.has_passed() => Err(hung(&mut self.worker(), deadline.limit())),
            None => connect(&self.exec_socket, deadline),
        }
    }

    /// Waits for the agent's connection or the machine's end, whichever is
    /// first.
    fn await_agent(&self, deadline: Deadline) -> Result<UnixStream, Error> {
        let call = self.await_call(deadline)?;
        call.ok_or_else(|| hung(&mut self.worker(), deadline.limit()))
    }

    /// The same; nothing if `deadline` was first.
    fn await_call(&self, deadline: Deadline) -> Result<Option<UnixStream>, Error> {
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The error for a guest that says nothing, with what its console shows.
fn hung(worker: &mut Worker, after: Duration) -> Error {
    Error::BootFailed {
        reason: format!("no word from it within {after:?}"),
        console: worker.last_console(),
    }
}

//! The worker's side: prepares one machine, makes it what it is told, and runs
//! it to its end.

mod choose;
mod files;
mod hangup;
pub(crate) mod identity;

use crate::error::with_causes;
use crate::limits::SETTLING_TIME;
use crate::link::protocol::{
    Boot, EngineIdentity, FromWorker, MAX_TOUCHED_RUNS, Restore, RestoreStages, Setup, ToWorker,
    VERSION, check_version, receive, send,
};
use crate::link::{passing, runtime_dir};
use crate::{Engine, log, spans};
use hangup::while_wanted;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use snapshot::{Inspection, Snapshot, SnapshotError, Written};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{Span, debug, info, trace, warn};
use vmm_core::machine::{
    DeviceCounters, ExitReason, ForkedMachine, MachineError, PrepareOptions, PreparedMachine,
    RestoreOptions, RunningMachine, SavedMachine,
};
use vmm_core::memory::close_inherited_descriptors;
use vmm_core::spec::DEFAULT_CMDLINE;
use vmm_core::{Endpoints, HostFile, MachineSpec, Share};

/// Runs the worker: the control connection is standard input. Returns the exit
/// status of the process.
pub fn run() -> u8 {
    close_inherited_descriptors();
    let control = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(error) => return report(&error),
    };
    let served = match log::begin() {
        Ok(()) => serve(&control),
        Err(error) => refuse_all(&control, &error),
    };
    match served {
        Ok(()) => 0,
        Err(error) => report(&error),
    }
}

/// Says instead of all else that there is a mistake in the environment.
fn refuse_all(control: &UnixStream, error: &log::BadFilter) -> io::Result<()> {
    send(control, &FromWorker::Hello { version: VERSION })?;
    send(
        control,
        &FromWorker::Failed {
            message: error.to_string(),
            rebake: false,
        },
    )?;
    // Until the embedder goes, or what it sends meets a closed door first.
    while receive::<ToWorker>(control)?.is_some() {}
    Ok(())
}

fn report(error: &io::Error) -> u8 {
    // Without a standard error there is no one to tell.
    let mut stderr = io::stderr();
    let _ = writeln!(stderr, "supermachine-worker: {error}");
    if error.raw_os_error() == Some(rustix::io::Errno::NOTSOCK.raw_os_error()) {
        let _ = writeln!(stderr, "it is started by supermachine, not by hand");
    }
    1
}

pub(crate) fn serve(control: &UnixStream) -> io::Result<()> {
    let replies = Arc::new(Mutex::new(control.try_clone()?));
    say(&replies, &FromWorker::Hello { version: VERSION })?;
    match receive::<ToWorker>(control)? {
        Some(ToWorker::Hello { version }) => check_version(version)?,
        None => return Ok(()),
        Some(_) => return Err(io::Error::other("the first message was no hello")),
    }
    let setup = match receive::<ToWorker>(control)? {
        Some(ToWorker::Prepare(setup)) => setup,
        Some(ToWorker::Identify(engine)) => return identify(&replies, engine),
        None | Some(ToWorker::Stop) => return Ok(()),
        Some(_) => return Err(io::Error::other("the second message was no preparation")),
    };
    // Held against the sweep of other processes, and removed at the end: the
    // embedder may be gone by then.
    let _lock = runtime_dir::occupy(&setup.runtime_dir)?;
    let _machine = spans::machine(&setup.runtime_dir, None).entered();
    let mut served = Served::new(replies, &setup);
    let result = match served.prepare(&setup) {
        Ok(engine) => say(&served.replies, &FromWorker::Prepared { engine })
            .and_then(|()| served.serve(control)),
        Err(error) => served.refuse(&error),
    };
    served.end();
    let _ = std::fs::remove_dir_all(&setup.runtime_dir);
    debug!("worker ends");
    result
}

/// Whether something comes in within a time.
fn is_readable_within(control: &UnixStream, patience: Duration) -> bool {
    let Ok(wait) = Timespec::try_from(patience) else {
        return true;
    };
    let mut fds = [PollFd::new(control, PollFlags::IN)];
    !matches!(poll(&mut fds, Some(&wait)), Ok(0))
}

/// Says what this process's engine is.
fn identify(replies: &Mutex<UnixStream>, engine: Engine) -> io::Result<()> {
    let answer = match identity::of_this_process(engine) {
        Ok(identity) => FromWorker::Identity(Box::new(identity)),
        Err(error) => FromWorker::Failed {
            message: with_causes(&error),
            rebake: false,
        },
    };
    say(replies, &answer)
}

/// Why an order was not carried out. The worker ends: what it has is in no
/// state to go on from.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("the worker was told to {0} and cannot now")]
    Untimely(&'static str),
    #[error("the host refused a thread or a connection")]
    Host(#[from] io::Error),
}

impl Refusal {
    /// Whether making the snapshot anew would help.
    fn wants_rebake(&self) -> bool {
        match self {
            Self::Snapshot(error) | Self::Machine(MachineError::Snapshot(error)) => {
                error.wants_rebake()
            }
            _ => false,
        }
    }
}

/// A worker between two orders.
struct Served {
    replies: Arc<Mutex<UnixStream>>,
    /// What the engine turned out to be, once a machine is prepared.
    identity: Option<EngineIdentity>,
    /// Removed at the end.
    runtime_dir: PathBuf,
    /// The machine's read-only disks.
    layers: Vec<HostFile>,
    /// Directories of the host that it can mount.
    shares: Vec<Share>,
    /// The machine was reset, and nothing was asked of it since.
    is_fresh: bool,
    prepared: Option<PreparedMachine>,
    machine: Option<Arc<RunningMachine>>,
    watcher: Option<JoinHandle<()>>,
    /// What the machine goes back to.
    baseline: Option<SavedMachine>,
    /// The state of the paused machine, and what was written of it.
    captured: Option<(SavedMachine, Written)>,
    /// Children that are to be made.
    births: Vec<(Setup, OwnedFd)>,
}

impl Served {
    fn new(replies: Arc<Mutex<UnixStream>>, setup: &Setup) -> Self {
        Self {
            replies,
            identity: None,
            runtime_dir: setup.runtime_dir.clone(),
            prepared: None,
            machine: None,
            watcher: None,
            baseline: None,
            captured: None,
            births: Vec::new(),
            layers: Vec::new(),
            shares: Vec::new(),
            is_fresh: false,
        }
    }

    /// Carries out orders until there are no more.
    fn serve(&mut self, control: &UnixStream) -> io::Result<()> {
        loop {
            if std::mem::take(&mut self.is_fresh) && !is_readable_within(control, SETTLING_TIME) {
                self.give_back();
            }
            let order = match receive::<ToWorker>(control) {
                Ok(Some(order)) => order,
                // The embedder is gone, or the machine.
                Ok(None) | Err(_) => return Ok(()),
            };
            trace!(order = order.name(), "order");
            let files = passing::take(control, order.files())?;
            let outcome = match order {
                ToWorker::Boot(boot) => self.boot(&boot, files),
                ToWorker::Restore(restore) => self.restore(&restore, files),
                ToWorker::Reset => self.reset(),
                ToWorker::Capture {
                    files: names,
                    unheld,
                } => {
                    let dir = self.runtime_dir.clone();
                    while_wanted(control, &dir, || {
                        self.or_go_on(|served| served.capture(&names, files, unheld))
                    })
                }
                ToWorker::Continue { rebase } => self.go_on(&rebase, files),
                ToWorker::Fork {
                    births,
                    more,
                    unheld,
                } => {
                    self.births.extend(births.into_iter().zip(files));
                    match more {
                        true => Ok(FromWorker::Noted),
                        false => self.or_go_on(|served| served.fork(unheld)),
                    }
                }
                ToWorker::SetMemory { mib, patience_ms } => {
                    while_wanted(control, &self.runtime_dir, || {
                        self.set_memory(mib, patience_ms)
                    })
                }
                ToWorker::Touched => self.touched(),
                ToWorker::Inspect => self.inspect(),
                ToWorker::Stop => return Ok(()),
                ToWorker::Hello { .. } | ToWorker::Prepare(_) | ToWorker::Identify(_) => {
                    Err(Refusal::Untimely("prepare again"))
                }
            };
            match outcome {
                Ok(reply) if say(&self.replies, &reply).is_err() => return Ok(()),
                Ok(_) => {}
                Err(error) => return self.refuse(&error),
            }
        }
    }

    /// Discards the pages that resets have copied and that the snapshot still has. If
    /// somebody is using the machine, it pauses for a moment.
    fn give_back(&self) {
        if let Some(machine) = &self.machine
            && machine.pause().is_ok()
        {
            // What went wrong is found out by the next reset.
            let _ = machine.give_back();
            machine.resume();
        }
    }

    /// Carries out an order after which the machine goes on if it fails.
    fn or_go_on(
        &mut self,
        order: impl FnOnce(&mut Self) -> Result<FromWorker, Refusal>,
    ) -> Result<FromWorker, Refusal> {
        match order(self) {
            Err(error @ (Refusal::Machine(_) | Refusal::Snapshot(_))) => {
                self.machine("go on")?.resume();
                let reason = with_causes(&error);
                warn!(reason, "order refused, machine goes on");
                Ok(match error {
                    Refusal::Snapshot(_) | Refusal::Machine(MachineError::Snapshot(_)) => {
                        FromWorker::NotWritten { reason }
                    }
                    _ => FromWorker::Refused { message: reason },
                })
            }
            outcome => outcome,
        }
    }

    fn refuse(&self, error: &Refusal) -> io::Result<()> {
        let message = FromWorker::Failed {
            message: with_causes(error),
            rebake: error.wants_rebake(),
        };
        warn!(reason = with_causes(error), "order failed, worker ends");
        say(&self.replies, &message)
    }

    fn prepare(&mut self, setup: &Setup) -> Result<String, Refusal> {
        let console: Option<Box<dyn Write + Send>> = if setup.console {
            Some(Box::new(io::stderr()))
        } else {
            None
        };
        let options = PrepareOptions {
            endpoints: Endpoints {
                mux: Some(setup.mux.clone()),
                exec: Some(setup.exec.clone()),
                ..Endpoints::default()
            },
            console,
            vcpus: setup.vcpus,
        };
        let engine = choose::engine(setup.engine).map_err(MachineError::from)?;
        self.identity = Some(identity::of_engine(&engine).map_err(MachineError::from)?);
        let prepared = PreparedMachine::new(&engine, options)?;
        let name = prepared.engine().to_owned();
        debug!(engine = name, "worker is prepared");
        self.prepared = Some(prepared);
        Ok(name)
    }

    fn boot(&mut self, boot: &Boot, mut files: Vec<OwnedFd>) -> Result<FromWorker, Refusal> {
        self.shares = files::shares(&boot.mounts, &mut files);
        let prepared = self.prepared.take().ok_or(Refusal::Untimely("boot"))?;
        let names = [&boot.kernel, &boot.init].into_iter().chain(&boot.layers);
        let mut files = files::in_order(names, files);
        let kernel = files
            .next()
            .ok_or(Refusal::Untimely("boot without a kernel"))?;
        let initrd = files.next();
        self.layers = files.collect();
        let spec = MachineSpec {
            initrd,
            cmdline: format!("{DEFAULT_CMDLINE} {}", boot.cmdline),
            memory_bytes: bytes(boot.memory_mib),
            vcpus: boot.vcpus,
            possible_vcpus: boot.possible_vcpus,
            disks: self.layers.clone(),
            shares: self.shares.clone(),
            ..MachineSpec::new(kernel)
        };
        self.started(prepared.boot(&spec)?)?;
        Ok(FromWorker::Booted)
    }

    fn restore(
        &mut self,
        restore: &Restore,
        mut files: Vec<OwnedFd>,
    ) -> Result<FromWorker, Refusal> {
        self.shares = files::shares(&restore.mounts, &mut files);
        let prepared = self.prepared.take().ok_or(Refusal::Untimely("restore"))?;
        let begun = Instant::now();
        let here = self
            .identity("restore")?
            .clone()
            .stamp(restore.guest.clone());
        let files = files::named(&restore.files, files);
        self.layers = files::among(&files, &restore.layers)?;
        let path = Path::new(&restore.snapshot);
        let snapshot = Inspection::of_open(files, path)?.admit(&here)?;
        let saved = SavedMachine::decode(snapshot.state())?;
        let read = begun.elapsed();
        let snapshot = Arc::new(snapshot);
        read_ahead(&snapshot);
        let options = RestoreOptions {
            disks: self.layers.clone(),
            shares: self.shares.clone(),
            vcpus: restore.vcpus,
            hot_bytes: bytes(restore.memory_mib).saturating_sub(saved.ram_bytes()),
            ..RestoreOptions::default()
        };
        let (machine, generation) = prepared.restore(&snapshot, &saved, &options)?;
        let memory_mib = memory_mib(&machine);
        machine.resume();
        let load = begun.elapsed() - read;
        self.started(machine)?;
        self.baseline = Some(saved);
        Ok(FromWorker::Restored(RestoreStages {
            read_us: micros(read),
            load_us: micros(load),
            generation,
            pages: None,
            memory_mib,
        }))
    }

    /// Watches a machine from now on.
    fn started(&mut self, machine: RunningMachine) -> Result<(), Refusal> {
        let machine = Arc::new(machine);
        let (watched, replies) = (machine.clone(), self.replies.clone());
        let span = Span::current();
        self.watcher = Some(
            std::thread::Builder::new()
                .name("watch".into())
                .spawn(move || span.in_scope(|| watch(&watched, &replies)))?,
        );
        self.machine = Some(machine);
        Ok(())
    }

    fn identity(&self, order: &'static str) -> Result<&EngineIdentity, Refusal> {
        self.identity.as_ref().ok_or(Refusal::Untimely(order))
    }

    fn machine(&self, order: &'static str) -> Result<&Arc<RunningMachine>, Refusal> {
        self.machine.as_ref().ok_or(Refusal::Untimely(order))
    }

    fn reset(&mut self) -> Result<FromWorker, Refusal> {
        let machine = self.machine("reset")?;
        let baseline = self.baseline.as_ref().ok_or(Refusal::Untimely("reset"))?;
        let report = machine.reset(baseline)?;
        let memory_mib = memory_mib(machine);
        machine.resume();
        self.is_fresh = true;
        Ok(FromWorker::WasReset(RestoreStages {
            read_us: 0,
            load_us: micros(report.took),
            generation: report.generation,
            pages: report.pages,
            memory_mib,
        }))
    }

    fn capture(
        &mut self,
        names: &[String],
        files: Vec<OwnedFd>,
        unheld: bool,
    ) -> Result<FromWorker, Refusal> {
        let machine = self.machine("capture")?;
        if !unheld && !machine.holds_programs() {
            return Ok(FromWorker::Unheld);
        }
        let begun = Instant::now();
        machine.pause()?;
        let saved = machine.save()?;
        let state = saved.encode()?;
        let files = files::named(names, files);
        let written = machine.store_memory(|memory| {
            Written::write(&files, Path::new(""), memory, &state).map_err(Refusal::from)
        })?;
        self.captured = Some((saved, written.clone()));
        Ok(FromWorker::Captured {
            written: Box::new(written),
            paused_us: micros(begun.elapsed()),
        })
    }

    fn go_on(&mut self, rebase: &[String], files: Vec<OwnedFd>) -> Result<FromWorker, Refusal> {
        let untimely = Refusal::Untimely("continue");
        let (saved, written) = self.captured.take().ok_or(untimely)?;
        let machine = self.machine("continue")?.clone();
        let mut generation = None;
        if !rebase.is_empty() {
            machine.rebase(&files::named(rebase, files), &written)?;
            generation = Some(machine.renew_generation()?);
            self.baseline = Some(saved);
        }
        machine.resume();
        Ok(FromWorker::Continued { generation })
    }

    /// Makes all children that were named, of one moment.
    fn fork(&mut self, unheld: bool) -> Result<FromWorker, Refusal> {
        let births = std::mem::take(&mut self.births);
        let machine = self.machine("fork")?;
        if !unheld && !machine.holds_programs() {
            return Ok(FromWorker::Unheld);
        }
        let parts = (self.layers.clone(), self.shares.clone());
        let keep = |number: usize| {
            let control = births.get(number).map(|(_, control)| control.as_fd());
            let directories = self.shares.iter().map(|share| &share.directory);
            let files = self.layers.iter().chain(directories);
            let files = files.filter_map(HostFile::as_fd);
            control.into_iter().chain(files).collect()
        };
        let paused = machine.fork(births.len(), keep, |number, forked| {
            match births.get(number) {
                Some((setup, control)) => be_born(setup, control, parts, forked),
                None => 0,
            }
        })?;
        Ok(FromWorker::Forked {
            paused_us: micros(paused),
        })
    }

    /// Makes a machine of what a fork left.
    fn adopt(&mut self, forked: ForkedMachine) -> Result<FromWorker, Refusal> {
        let prepared = self.prepared.take().ok_or(Refusal::Untimely("adopt"))?;
        let begun = Instant::now();
        let options = RestoreOptions {
            disks: self.layers.clone(),
            shares: self.shares.clone(),
            ..RestoreOptions::default()
        };
        let (machine, generation) = prepared.adopt(forked, &options)?;
        let memory_mib = memory_mib(&machine);
        machine.resume();
        let load = begun.elapsed();
        self.started(machine)?;
        Ok(FromWorker::Restored(RestoreStages {
            read_us: 0,
            load_us: micros(load),
            generation,
            pages: None,
            memory_mib,
        }))
    }

    fn set_memory(&self, mib: usize, patience_ms: u64) -> Result<FromWorker, Refusal> {
        let machine = self.machine("change its memory")?;
        machine.set_memory(bytes(mib), Duration::from_millis(patience_ms))?;
        Ok(FromWorker::MemorySet)
    }

    fn touched(&self) -> Result<FromWorker, Refusal> {
        // What to read ahead is a convenience: where the host does not tell,
        // copies wait for each page.
        let machine = self.machine("list its pages")?;
        let pages = machine.touched_pages().unwrap_or_default();
        let runs = pages.runs().iter().take(MAX_TOUCHED_RUNS);
        Ok(FromWorker::Touched(runs.cloned().collect()))
    }

    fn inspect(&self) -> Result<FromWorker, Refusal> {
        let machine = self.machine("inspect")?;
        let balance = machine.memory_balance();
        Ok(FromWorker::Status {
            exits: machine.total_exits(),
            console: machine.console().text(),
            ballooned_bytes: balance.ballooned_bytes,
            added_bytes: balance.added_bytes,
        })
    }

    /// Ends whatever there is.
    fn end(&mut self) {
        self.prepared = None;
        let stopped = self.machine.take().is_none_or(|m| m.stop().is_ok());
        if let (true, Some(watcher)) = (stopped, self.watcher.take()) {
            let _ = watcher.join();
        }
    }
}

/// The life of a forked worker; its exit status.
fn be_born(
    setup: &Setup,
    control: &OwnedFd,
    (layers, shares): (Vec<HostFile>, Vec<Share>),
    forked: ForkedMachine,
) -> u8 {
    let live = || {
        let control = UnixStream::from(control.try_clone()?);
        let replies = Arc::new(Mutex::new(control.try_clone()?));
        say(&replies, &FromWorker::Hello { version: VERSION })?;
        let _lock = runtime_dir::occupy(&setup.runtime_dir)?;
        let _machine = spans::machine(&setup.runtime_dir, None).entered();
        let mut served = Served::new(replies, setup);
        served.layers = layers;
        served.shares = shares;
        let born = served.prepare(setup).and_then(|engine| {
            let pid = std::process::id();
            say(&served.replies, &FromWorker::Born { pid, engine })?;
            let restored = served.adopt(forked)?;
            Ok(say(&served.replies, &restored)?)
        });
        let result = match born {
            Ok(()) => served.serve(&control),
            Err(error) => served.refuse(&error),
        };
        served.end();
        let _ = std::fs::remove_dir_all(&setup.runtime_dir);
        result
    };
    match live() {
        Ok(()) => 0,
        Err(error) => report(&error),
    }
}

/// Reads the copy's working set ahead, while the copy is being made.
/// Where that fails, the guest waits for each page itself.
fn read_ahead(snapshot: &Arc<Snapshot>) {
    let snapshot = snapshot.clone();
    let thread = std::thread::Builder::new().name("read-ahead".into());
    let _ = thread.spawn(move || snapshot.read_ahead());
}

fn bytes(mib: usize) -> u64 {
    (mib as u64).saturating_mul(1 << 20)
}

/// Memory that a machine's guest has, in MiB.
fn memory_mib(machine: &RunningMachine) -> u64 {
    machine.memory_bytes() >> 20
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn say(replies: &Mutex<UnixStream>, message: &FromWorker) -> io::Result<()> {
    let stream = replies.lock().unwrap_or_else(PoisonError::into_inner);
    send(&*stream, message)
}

/// Reports the machine's end, and ends the worker with it: its sockets close,
/// so that nobody waits for a guest that is no more.
fn watch(machine: &RunningMachine, replies: &Mutex<UnixStream>) {
    let reason = machine.wait();
    info!(
        reason = with_causes(&reason),
        exits = machine.total_exits(),
        "machine ended"
    );
    for device in machine.device_counters() {
        let DeviceCounters {
            slot, kind, mmio, ..
        } = device;
        debug!(slot, kind, ?mmio, "device counters");
    }
    let message = FromWorker::Ended {
        orderly: matches!(reason, ExitReason::PowerOff | ExitReason::Stopped),
        reason: with_causes(&reason),
        console: machine.console().text(),
    };
    // The embedder may be gone already.
    let _ = say(replies, &message);
    let stream = replies.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = stream.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests;

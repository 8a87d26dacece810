//! What a worker has, and the orders that it carries out on it.

mod still;

use super::files::Given;
use super::hangup::while_wanted;
use super::monitor::{Monitor, News, Turn};
use super::oom::OomWatch;
use super::{
    Refusal, bytes, choose, files, identity, memory_mib, micros, nanoseconds, read_ahead, report,
    say, watch,
};
use crate::VmEventKind;
use crate::error::with_causes;
use crate::limits::SETTLING_TIME;
use crate::link::protocol::{
    Boot, CodeWork, EngineIdentity, FromWorker, MAX_TOUCHED_RUNS, Restore, RestoreStages, Setup,
    ToWorker, VERSION, files_of_a_birth, receive,
};
use crate::link::sockets::Sockets;
use crate::link::{passing, runtime_dir, sockets};
use crate::spans;
use crate::template::{CODE_NOTES_FILE, MAX_CODE_NOTES_BYTES};
use snapshot::{Inspection, Snapshot, WorkingSet, Written};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{Span, debug, trace, warn};
use vmm_core::machine::{
    ForkedMachine, MachineError, PrepareOptions, PreparedMachine, RestoreOptions, RunningMachine,
    SavedMachine, Standstill,
};
use vmm_core::spec::{DEFAULT_CMDLINE, VsockSocket};
use vmm_core::{Endpoints, MachineSpec};

/// A worker between two orders.
pub(super) struct Served {
    pub(super) replies: Arc<Mutex<UnixStream>>,
    /// Where others ask, and who is told what happens.
    monitor: Monitor,
    /// What the engine turned out to be, once a machine is prepared.
    identity: Option<EngineIdentity>,
    /// Removed at the end.
    pub(super) runtime_dir: PathBuf,
    /// What the machine has of the host.
    pub(super) given: Given,
    /// The machine was reset, and nothing was asked of it since.
    is_fresh: bool,
    prepared: Option<PreparedMachine>,
    pub(super) machine: Option<Arc<RunningMachine>>,
    watcher: Option<JoinHandle<()>>,
    /// What the machine goes back to.
    baseline: Option<SavedMachine>,
    /// The state of the paused machine, and what was written of it.
    pub(super) captured: Option<(SavedMachine, Written)>,
    /// Children that are to be made.
    births: Vec<(Setup, Vec<OwnedFd>)>,
    /// Where the machine stands still, if somebody has paused it.
    pub(super) still: Option<Standstill>,
    /// What was read ahead for the copy.
    pub(super) prefetched: WorkingSet,
    pub(super) resets: u64,
    pub(super) pages_restored: u64,
}

impl Served {
    pub(super) fn new(
        replies: Arc<Mutex<UnixStream>>,
        setup: &Setup,
        monitor: UnixListener,
    ) -> io::Result<Self> {
        Ok(Self {
            replies,
            monitor: Monitor::of(monitor)?,
            identity: None,
            runtime_dir: setup.runtime_dir.clone(),
            prepared: None,
            machine: None,
            watcher: None,
            baseline: None,
            captured: None,
            births: Vec::new(),
            given: Given::default(),
            is_fresh: false,
            still: None,
            prefetched: WorkingSet::default(),
            resets: 0,
            pages_restored: 0,
        })
    }

    /// Those who are told what happens to the machine.
    pub(super) fn news(&self) -> &News {
        &self.monitor.news
    }

    /// Carries out orders, and answers questions, until there are no more.
    pub(super) fn serve(&mut self, control: &UnixStream) -> io::Result<()> {
        loop {
            let patience = std::mem::take(&mut self.is_fresh).then_some(SETTLING_TIME);
            match self.monitor.next(control, patience) {
                Turn::Order => {}
                Turn::Question(visitor, question) => {
                    self.is_fresh = patience.is_some();
                    self.answer(visitor, question);
                    continue;
                }
                Turn::Quiet => {
                    self.give_back();
                    continue;
                }
            }
            let order = match receive::<ToWorker>(control) {
                Ok(Some(order)) => order,
                // The embedder is gone, or the machine.
                Ok(None) | Err(_) => return Ok(()),
            };
            trace!(order = order.name(), "order");
            let files = passing::take(control, order.files())?;
            if order == ToWorker::Stop {
                return Ok(());
            }
            match self.carry_out(control, order, files) {
                Ok(reply) if say(&self.replies, &reply).is_err() => return Ok(()),
                Ok(_) => {}
                Err(error) => return self.refuse(&error),
            }
        }
    }

    fn carry_out(
        &mut self,
        control: &UnixStream,
        order: ToWorker,
        files: Vec<OwnedFd>,
    ) -> Result<FromWorker, Refusal> {
        match order {
            ToWorker::Boot(boot) => self.boot(&boot, files),
            ToWorker::Restore(restore) => self.restore(&restore, files),
            ToWorker::Reset => self.reset(),
            ToWorker::Capture { .. } | ToWorker::Fork { .. } if self.still.is_some() => {
                let message = "it is paused".to_owned();
                Ok(FromWorker::Refused { message })
            }
            ToWorker::Capture {
                files: names,
                volumes: _,
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
                volumes,
                more,
                unheld,
            } => {
                if volumes != self.given.volumes.len() {
                    return Err(Refusal::Untimely("fork with other volumes"));
                }
                let mut files = files.into_iter();
                let each = files_of_a_birth(volumes);
                let files = std::iter::repeat_with(|| files.by_ref().take(each).collect());
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
            ToWorker::Hello { .. }
            | ToWorker::Prepare(_)
            | ToWorker::Identify(_)
            | ToWorker::Stop => Err(Refusal::Untimely("prepare again")),
        }
    }

    /// Discards the pages that resets have copied and that the snapshot still has. If
    /// somebody is using the machine, it pauses for a moment.
    fn give_back(&self) {
        if let Some(machine) = &self.machine
            && self.still.is_none()
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

    pub(super) fn refuse(&self, error: &Refusal) -> io::Result<()> {
        let message = FromWorker::Failed {
            message: with_causes(error),
            rebake: error.wants_rebake(),
        };
        warn!(reason = with_causes(error), "order failed, worker ends");
        say(&self.replies, &message)
    }

    pub(super) fn prepare(
        &mut self,
        setup: &Setup,
        mux: UnixListener,
        exec: UnixListener,
    ) -> Result<String, Refusal> {
        let listener: Option<Box<dyn Write + Send>> = if setup.console {
            Some(Box::new(io::stderr()))
        } else {
            None
        };
        let console = Some(Box::new(OomWatch::new(listener, self.news().clone())) as _);
        let options = PrepareOptions {
            endpoints: Endpoints {
                mux: Some(VsockSocket::Open(mux.into())),
                stem: Some(sockets::stem(&setup.runtime_dir)),
                exec: Some(VsockSocket::Open(exec.into())),
                ..Endpoints::default()
            },
            console,
            vcpus: setup.vcpus,
        };
        let engine = choose::engine(setup.engine, setup.tier).map_err(MachineError::from)?;
        self.identity = Some(identity::of_engine(&engine).map_err(MachineError::from)?);
        let prepared = PreparedMachine::new(&engine, options)?;
        let name = prepared.engine().to_owned();
        debug!(engine = name, "worker is prepared");
        self.prepared = Some(prepared);
        Ok(name)
    }

    fn boot(&mut self, boot: &Boot, mut files: Vec<OwnedFd>) -> Result<FromWorker, Refusal> {
        self.given.volumes = files::volumes(&boot.volumes, &mut files);
        self.given.shares = files::shares(&boot.mounts, &mut files);
        let prepared = self.prepared.take().ok_or(Refusal::Untimely("boot"))?;
        let names = [&boot.kernel, &boot.init].into_iter().chain(&boot.layers);
        let mut files = files::in_order(names, files);
        let kernel = files
            .next()
            .ok_or(Refusal::Untimely("boot without a kernel"))?;
        let initrd = files.next();
        self.given.layers = files.collect();
        self.given.network = boot.network.clone();
        self.given.secrets = boot.secrets.clone();
        let spec = MachineSpec {
            initrd,
            cmdline: format!("{DEFAULT_CMDLINE} {}", boot.cmdline),
            memory_bytes: bytes(boot.memory_mib),
            vcpus: boot.vcpus,
            possible_vcpus: boot.possible_vcpus,
            disks: self.given.layers.clone(),
            shares: self.given.shares.clone(),
            volumes: self.given.volumes.clone(),
            network: self.given.interface(),
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
        self.given.volumes = files::volumes(&restore.volumes, &mut files);
        self.given.shares = files::shares(&restore.mounts, &mut files);
        let prepared = self.prepared.take().ok_or(Refusal::Untimely("restore"))?;
        let begun = Instant::now();
        let here = self
            .identity("restore")?
            .clone()
            .stamp(restore.guest.clone());
        let files = files::named(&restore.files, files);
        files::begin_with(&mut self.given.volumes, &restore.bases, &files)?;
        self.given.layers = files::among(&files, &restore.layers)?;
        self.given.network = restore.network.clone();
        self.given.secrets = restore.secrets.clone();
        let path = Path::new(&restore.snapshot);
        let snapshot = Inspection::of_open(files, path)?.admit(&here)?;
        let saved = SavedMachine::decode(snapshot.state())?;
        let read = begun.elapsed();
        let snapshot = Arc::new(snapshot);
        self.prefetched = snapshot.working_set().clone();
        read_ahead(&snapshot);
        let options = RestoreOptions {
            vcpus: restore.vcpus,
            hot_bytes: bytes(restore.memory_mib).saturating_sub(saved.ram_bytes()),
            code_notes: code_notes(&snapshot),
            starts_idle: restore.starts_idle,
            ..self.given.options()
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
        let news = self.news().clone();
        let span = Span::current();
        self.watcher = Some(
            std::thread::Builder::new()
                .name("watch".into())
                .spawn(move || span.in_scope(|| watch(&watched, &replies, &news)))?,
        );
        self.machine = Some(machine);
        Ok(())
    }

    fn identity(&self, order: &'static str) -> Result<&EngineIdentity, Refusal> {
        self.identity.as_ref().ok_or(Refusal::Untimely(order))
    }

    pub(super) fn machine(&self, order: &'static str) -> Result<&Arc<RunningMachine>, Refusal> {
        self.machine.as_ref().ok_or(Refusal::Untimely(order))
    }

    fn reset(&mut self) -> Result<FromWorker, Refusal> {
        let machine = self.machine("reset")?;
        let baseline = self.baseline.as_ref().ok_or(Refusal::Untimely("reset"))?;
        if self.given.volumes.iter().any(|v| v.overlay.is_some()) {
            machine.pause()?;
            files::rewind_volumes(&self.given.volumes)?;
        }
        let report = machine.reset(baseline)?;
        let memory_mib = memory_mib(machine);
        machine.resume();
        self.is_fresh = true;
        self.given.flows.forget();
        self.resets += 1;
        self.pages_restored = self
            .pages_restored
            .saturating_add(report.pages.unwrap_or(0));
        // A pause ends with whoever had the machine.
        self.is_running_again();
        self.news().tell(VmEventKind::Reset);
        Ok(FromWorker::WasReset(RestoreStages {
            read_us: 0,
            load_us: micros(report.took),
            generation: report.generation,
            pages: report.pages,
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
        Ok(FromWorker::Touched {
            runs: runs.cloned().collect(),
            code_notes: machine.take_code_notes().unwrap_or_default(),
        })
    }

    fn inspect(&self) -> Result<FromWorker, Refusal> {
        let machine = self.machine("inspect")?;
        let balance = machine.memory_balance();
        let code = machine.code_counts();
        Ok(FromWorker::Status {
            blocks_decoded: code.decoded,
            blocks_ahead: code.ahead,
            work: CodeWork {
                decoded: (code.instructions_decoded, nanoseconds(code.decoding)),
                compiled: (code.instructions_compiled, nanoseconds(code.compiling)),
            },
            census: machine.code_census(),
            exits: machine.total_exits(),
            guest_ns: nanoseconds(machine.guest_time()),
            console: machine.console().text(),
            ballooned_bytes: balance.ballooned_bytes,
            added_bytes: balance.added_bytes,
        })
    }

    /// Ends whatever there is.
    pub(super) fn end(&mut self) {
        self.prepared = None;
        let stopped = self.machine.take().is_none_or(|m| m.stop().is_ok());
        if let (true, Some(watcher)) = (stopped, self.watcher.take()) {
            let _ = watcher.join();
        }
    }
}

/// What the machine of `snapshot` noted of the code of its first steps; nothing if there
/// is no such file, or it is damaged: its copies decode what they execute then.
fn code_notes(snapshot: &Snapshot) -> Vec<u8> {
    let notes = snapshot.read_extra_file(CODE_NOTES_FILE, MAX_CODE_NOTES_BYTES);
    notes.unwrap_or_default()
}

/// The life of a forked worker; its exit status.
pub(super) fn be_born(setup: &Setup, files: &[OwnedFd], given: Given, forked: ForkedMachine) -> u8 {
    let live = || {
        let (control, files) = files.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let control = UnixStream::from(control.try_clone()?);
        let sockets: io::Result<Vec<OwnedFd>> = files
            .iter()
            .take(sockets::COUNT)
            .map(OwnedFd::try_clone)
            .collect();
        let Sockets { mux, exec, monitor } = Sockets::of(sockets?)?;
        let replies = Arc::new(Mutex::new(control.try_clone()?));
        say(&replies, &FromWorker::Hello { version: VERSION })?;
        let _lock = runtime_dir::occupy(&setup.runtime_dir)?;
        let _machine = spans::machine(&setup.runtime_dir, None).entered();
        let mut served = Served::new(replies, setup, monitor)?;
        served.given = given.of_child();
        let born = served.prepare(setup, mux, exec).and_then(|engine| {
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

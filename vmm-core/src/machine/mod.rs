//! A running machine: its vCPU threads, its devices, its end.

mod assembly;
mod console;
mod control;
#[cfg(all(feature = "softhv", any(test, feature = "fuzzing")))]
mod damaged;
mod elastic;
mod error;
mod events;
mod fork;
mod generation;
mod line;
mod prepared;
mod restore;
mod rewind;
#[cfg(all(test, feature = "softhv"))]
mod rewound_tests;
mod saved;
#[cfg(all(test, feature = "softhv"))]
mod saved_tests;
mod standstill;
mod vcpu_thread;
mod window;

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use devices::reactor::MioReactor;
use devices::virtio::DeviceState;
use devices::virtio::blk::BlkState;
use linux_loader::cmdline::Cmdline;
use tracing::{debug, trace};

use self::assembly::{Devices, FIXED_VIRTIO};
use self::control::Control;
use self::generation::Generation;
use self::rewind::Rewound;
use crate::arch::Arch;
use crate::hypervisor::{DynVm, ExitCount, ExitCounters, Hypervisor};
use crate::memory::GuestMemory;
use crate::spec::MachineSpec;

pub use assembly::{DeviceCounters, GUEST_CID};
pub use console::{CONSOLE_TAIL_BYTES, ConsoleTail};
#[cfg(all(feature = "softhv", any(test, feature = "fuzzing")))]
pub(crate) use damaged::fuzz_saved_machine;
pub use elastic::{ADDED_UNIT_BYTES, MIN_LEFT_BYTES, MemoryBalance, memory_range};
pub use error::{ExitReason, MachineError};
pub use fork::ForkedMachine;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use prepared::check_boot;
pub use prepared::{PrepareOptions, PreparedMachine};
pub use restore::{ResetReport, RestoreOptions};
pub use saved::{STATE_VERSION, SavedMachine};
pub use standstill::Standstill;

/// Held by tests that make machines: a process has one at a time.
#[cfg(all(test, feature = "softhv"))]
pub(crate) static ONE_MACHINE: Mutex<()> = Mutex::new(());

/// How long a machine may take to come to rest. Devices answer a vCPU in
/// microseconds; this is for hosts with nothing left to give.
const REST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last console output may take to reach a slow listener.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long vCPUs may take to stop for a moment, so that their time is counted, and
/// how often they are looked at.
const GUEST_TIME_PATIENCE: Duration = Duration::from_millis(20);
const GUEST_TIME_PAUSE: Duration = Duration::from_micros(50);
/// How often a machine is asked whether it is ready.
const READY_POLL: Duration = Duration::from_millis(1);

/// Starts machines.
#[derive(Debug)]
pub struct Machine;

impl Machine {
    /// Boots the machine that `spec` describes on `engine`. `console` gets
    /// everything the guest writes to its console, on a thread of its own.
    ///
    /// When this returns, the first vCPU runs the kernel's first instruction.
    pub fn start<H: Hypervisor>(
        engine: &H,
        spec: &MachineSpec,
        console: Option<Box<dyn Write + Send>>,
    ) -> Result<RunningMachine, MachineError> {
        // What is wrong with the description is said before anything is made.
        prepared::check_boot(engine.name(), &engine.capabilities()?, spec)?;
        let prepared = PreparedMachine::new(
            engine,
            PrepareOptions {
                endpoints: spec.endpoints.clone(),
                console,
                vcpus: 0,
            },
        )?;
        prepared.boot(spec)
    }
}

/// A machine that was started. It is stopped when this is dropped.
pub struct RunningMachine {
    engine: &'static str,
    after_fork: Option<fn()>,
    started: Instant,
    control: Arc<Control>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    console: ConsoleTail,
    parts: Mutex<Option<Parts>>,
}

/// What a machine gives back when it has stopped, in this order.
struct Parts {
    devices: Devices,
    vm: Arc<dyn DynVm>,
    memory: GuestMemory,
    rewound: Mutex<Rewound>,
    generation: Generation,
    /// vCPUs the guest knows of, present or not.
    possible_vcpus: u32,
    arch: &'static dyn Arch,
    reactor: Arc<MioReactor>,
}

impl std::fmt::Debug for RunningMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningMachine")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

impl RunningMachine {
    /// Name of the engine it runs on.
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// Time since it was started.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The end of what the guest wrote to its console.
    pub fn console(&self) -> &ConsoleTail {
        &self.console
    }

    /// Types into the guest's console; returns how many bytes it had room for.
    pub fn type_into_console(&self, bytes: &[u8]) -> usize {
        match &*self.parts() {
            Some(parts) => parts.devices.board.type_in(bytes),
            None => 0,
        }
    }

    /// How often the engine stopped running the guest, for each vCPU.
    pub fn exits(&self) -> Vec<ExitCounters> {
        self.control.exits()
    }

    /// The same of one kind, over all vCPUs.
    pub fn exit_count(&self, kind: ExitCount) -> u64 {
        self.exits().iter().map(|vcpu| vcpu.get(kind)).sum()
    }

    /// The same of every kind, over all vCPUs.
    pub fn total_exits(&self) -> u64 {
        self.exits().iter().map(ExitCounters::total).sum()
    }

    /// For how long its vCPUs, all together, had executed guest code when each last
    /// stopped for the machine. Waiting for interrupts is not part of it.
    pub fn guest_time(&self) -> Duration {
        self.exits().iter().map(ExitCounters::guest_time).sum()
    }

    /// The same up to now: has the vCPUs that run stop for a moment. One that does
    /// not in time is counted up to where it last did.
    pub fn guest_time_now(&self) -> Duration {
        let begun = Instant::now();
        let mut kicked = self.control.kick();
        loop {
            kicked.retain(|(exits, before)| exits.total() == *before);
            if kicked.is_empty() || begun.elapsed() >= GUEST_TIME_PATIENCE {
                return self.guest_time();
            }
            std::thread::sleep(GUEST_TIME_PAUSE);
        }
    }

    /// How often things happened at each virtio device; none of a machine that was
    /// stopped.
    pub fn device_counters(&self) -> Vec<DeviceCounters> {
        let parts = self.parts();
        parts
            .as_ref()
            .map(|parts| parts.devices.counters())
            .unwrap_or_default()
    }

    /// Has a disk look how long its file is now, and tell the guest if it was grown: the
    /// one in this place among read-only disks and volumes. Not while the machine is
    /// paused. False if there is no such disk.
    pub fn look_at_disk(&self, place: usize) -> bool {
        let parts = self.parts();
        let devices = parts.as_ref().map(|parts| &parts.devices.virtio);
        let found = devices.and_then(|devices| devices.get(FIXED_VIRTIO.checked_add(place)?));
        let disk = found.filter(|device| device.state_format() == BlkState::FORMAT);
        disk.map(|disk| disk.backing_changed()).is_some()
    }

    /// Brings all vCPUs to rest, their state whole, and then the devices: what
    /// they had begun is finished, and memory does not change any more.
    pub fn pause(&self) -> Result<(), MachineError> {
        if self.control.pause(REST_TIMEOUT) {
            if let Some(parts) = &*self.parts() {
                parts.devices.virtio.iter().for_each(|d| d.pause());
            }
            trace!("machine paused");
            Ok(())
        } else {
            self.control.resume();
            Err(MachineError::NotResting {
                after: REST_TIMEOUT,
            })
        }
    }

    /// Lets devices and vCPUs go on after [`RunningMachine::pause`].
    pub fn resume(&self) {
        if let Some(parts) = &*self.parts() {
            parts.devices.virtio.iter().for_each(|d| d.resume());
        }
        self.control.resume();
        trace!("machine goes on");
    }

    /// Stops the machine and gives back what it took: threads, sockets,
    /// memory. Safe to call twice.
    pub fn stop(&self) -> Result<(), MachineError> {
        self.control.end(ExitReason::Stopped);
        if !self.control.wait_gone(REST_TIMEOUT) {
            return Err(MachineError::NotResting {
                after: REST_TIMEOUT,
            });
        }
        for thread in lock(&self.threads).drain(..) {
            // A panic has been reported as the machine's end.
            let _ = thread.join();
        }
        let parts = self.parts().take();
        if let Some(parts) = parts {
            parts.devices.board.flush(CONSOLE_TIMEOUT);
            for DeviceCounters {
                slot, kind, mmio, ..
            } in parts.devices.counters()
            {
                debug!(slot, kind, ?mmio, "device counters");
            }
            let reactor = parts.reactor.clone();
            drop(parts);
            reactor.stop();
            debug!(exits = self.total_exits(), "machine stopped");
        }
        Ok(())
    }

    /// Waits until the machine ends.
    pub fn wait(&self) -> ExitReason {
        loop {
            if let Some(reason) = self.wait_timeout(Duration::from_secs(3600)) {
                return reason;
            }
        }
    }

    /// Whether the machine has ended.
    pub fn has_ended(&self) -> bool {
        self.control.wait_ended(Some(Duration::ZERO)).is_some()
    }

    /// Waits until the machine ends, or not longer than `timeout`.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<ExitReason> {
        let reason = self.control.wait_ended(Some(timeout))?;
        self.flush_console();
        // Told to restart on a panic, a kernel does just that.
        Some(match reason {
            ExitReason::Reset if self.console.shows_panic() => ExitReason::GuestCrash,
            reason => reason,
        })
    }

    /// Waits until `ready` says so. A guest that ends first or takes longer
    /// than `timeout` is an error with the end of its console; the machine is
    /// stopped then.
    pub fn wait_ready(
        &self,
        timeout: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), MachineError> {
        let start = Instant::now();
        while !ready() {
            let ended = self.wait_timeout(READY_POLL);
            let late = start.elapsed() >= timeout;
            if ended.is_none() && !late {
                continue;
            }
            self.flush_console();
            let console = self.console.text();
            self.stop()?;
            return Err(match ended {
                Some(reason) => MachineError::EndedEarly { reason, console },
                None => MachineError::NotReady {
                    after: timeout,
                    console,
                },
            });
        }
        Ok(())
    }

    fn flush_console(&self) {
        let board = self
            .parts()
            .as_ref()
            .map(|parts| parts.devices.board.clone());
        if let Some(board) = board {
            board.flush(CONSOLE_TIMEOUT);
        }
    }

    fn parts(&self) -> MutexGuard<'_, Option<Parts>> {
        lock(&self.parts)
    }
}

impl Drop for RunningMachine {
    fn drop(&mut self) {
        // There is no one left to tell; threads that hang keep what they use.
        let _ = self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel's command line of at most `max` bytes: both parts, without the
/// space around them.
pub(crate) fn command_line(cmdline: &str, extra: &str, max: usize) -> Result<String, MachineError> {
    let refused = |_| MachineError::BadCommandLine { max };
    // It counts the zero byte that ends the line.
    let mut line = Cmdline::new(max.saturating_add(1)).map_err(refused)?;
    for part in [cmdline, extra] {
        // It would put a space before nothing, too.
        if !part.trim().is_empty() {
            line.insert_str(part).map_err(refused)?;
        }
    }
    let text = line.as_cstring().map_err(refused)?;
    Ok(text.to_string_lossy().into_owned())
}

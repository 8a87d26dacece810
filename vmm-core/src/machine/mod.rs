//! A running machine: its vCPU threads, its devices, its end.

mod assembly;
mod console;
mod control;
mod error;
mod vcpu_thread;

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use devices::Bus;
use devices::legacy::pl011::Pl011;
use devices::reactor::Reactor;

use self::assembly::Devices;
use self::console::ConsoleSink;
use self::control::Control;
use crate::arch::aarch64::fdt::{self, FdtSpec};
use crate::arch::aarch64::{affinity, layout};
use crate::boot;
use crate::hypervisor::{
    Access, Capabilities, EngineError, ExitCount, ExitCounters, GicKind, Hypervisor, Kick, Vcpu,
    Vm, VmSpec,
};
use crate::memory::{GuestMemory, MemoryError};
use crate::resources::{ResourceError, VmResources};

pub use assembly::GUEST_CID;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use assembly::virtio_count;
pub use console::{CONSOLE_TAIL_BYTES, ConsoleTail};
pub use error::{ExitReason, MachineError};

/// How long a machine may take to come to rest. Devices answer a vCPU in
/// microseconds; this is for hosts with nothing left to give.
const REST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last console output may take to reach a slow listener.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest kernel command line (Linux, arch/arm64/include/uapi/asm/setup.h).
pub(crate) const MAX_CMDLINE_BYTES: usize = 2047;
/// How often a machine is asked whether it is ready.
const READY_POLL: Duration = Duration::from_millis(1);

/// What a machine needs beyond its description.
#[derive(Default)]
pub struct MachineOptions {
    /// Gets everything the guest writes to its console, on a thread of its
    /// own.
    pub console: Option<Box<dyn Write + Send>>,
    /// Added to the kernel's command line.
    pub extra_cmdline: String,
    /// Let the kernel choose a random place for itself.
    pub randomize_kernel: bool,
}

/// Starts machines.
#[derive(Debug)]
pub struct Machine;

impl Machine {
    /// Boots the machine that `resources` describes on `engine`.
    ///
    /// When this returns, the first vCPU runs the kernel's first instruction.
    pub fn start<H: Hypervisor>(
        engine: &H,
        resources: &VmResources,
        options: MachineOptions,
    ) -> Result<RunningMachine, MachineError> {
        resources.validate_for_run()?;
        refuse_unsupported(resources)?;
        let kernel = resources
            .kernel_path
            .as_deref()
            .ok_or(ResourceError::MissingKernel)?;
        let cmdline = command_line(&resources.cmdline, &options.extra_cmdline)?;
        let capabilities = engine.capabilities()?;
        if resources.vcpus > capabilities.max_vcpus {
            return Err(MachineError::TooManyVcpus {
                vcpus: resources.vcpus,
                max: capabilities.max_vcpus,
                engine: engine.name(),
            });
        }

        let GicKind::V3 {
            first_spi,
            spi_count,
            distributor_bytes,
            redistributor_bytes,
        } = capabilities.gic;
        let virtio_devices =
            assembly::virtio_count(resources, first_spi.saturating_add(spi_count))?;

        let memory = allocate(resources)?;
        let loaded = boot::load(
            &memory,
            Path::new(kernel),
            resources.initrd_path.as_deref().map(Path::new),
        )?;
        let random = random(options.randomize_kernel)?;
        let blob = fdt::build(&FdtSpec {
            cmdline: &cmdline,
            vcpus: resources.vcpus,
            ram_bytes: memory.bytes(),
            initrd: loaded.initrd,
            virtio_devices,
            distributor_bytes,
            redistributor_bytes,
            rng_seed: &random.seed,
            kaslr_seed: random.kaslr,
        })
        // Only a zero byte or a tree of many megabytes could fail here.
        .map_err(|_| MachineError::BadCommandLine {
            max: MAX_CMDLINE_BYTES,
        })?;
        boot::write_fdt(&memory, &loaded, &blob)?;

        let vm = Arc::new(engine.create_vm(&spec(resources, &capabilities))?);
        vm.map(memory.lease(), Access::ReadWriteExecute)?;
        let tail = ConsoleTail::default();
        let sink = ConsoleSink {
            tail: tail.clone(),
            listener: options.console,
        };
        let devices = assembly::attach(&vm, memory.ram(), resources, Box::new(sink))?;
        let machine = RunningMachine::new(engine.name(), devices, tail);
        machine.create_vcpus(&vm, resources.vcpus)?;
        machine
            .control
            .cpu_on(affinity(0), loaded.entry, loaded.fdt);
        machine.control.resume();
        Ok(machine)
    }
}

/// A machine that was started. It is stopped when this is dropped.
pub struct RunningMachine {
    engine: &'static str,
    started: Instant,
    control: Arc<Control>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    console: ConsoleTail,
    parts: Mutex<Option<Parts>>,
}

/// What a machine gives back when it has stopped, in this order.
struct Parts {
    bus: Arc<Bus>,
    uart: Arc<Pl011>,
    reactor: Arc<Reactor>,
}

impl std::fmt::Debug for RunningMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningMachine")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

impl RunningMachine {
    fn new(engine: &'static str, devices: Devices, console: ConsoleTail) -> Self {
        let Devices {
            bus, uart, reactor, ..
        } = devices;
        Self {
            engine,
            started: Instant::now(),
            control: Arc::new(Control::new()),
            threads: Mutex::default(),
            console,
            parts: Mutex::new(Some(Parts {
                bus: Arc::new(bus),
                uart,
                reactor,
            })),
        }
    }

    /// Starts a thread for each vCPU. Each creates its vCPU before the next
    /// thread starts, and all before any runs: the guest finds a whole
    /// interrupt controller.
    fn create_vcpus<V: Vm>(&self, vm: &Arc<V>, count: u32) -> Result<(), MachineError> {
        let bus = match &*self.parts() {
            Some(parts) => parts.bus.clone(),
            None => return Ok(()),
        };
        for index in 0..count {
            let (created, outcome) = sync_channel(1);
            let (vm, control, bus) = (vm.clone(), self.control.clone(), bus.clone());
            let thread = std::thread::Builder::new()
                .name(format!("vm-vcpu{index}"))
                .spawn(move || {
                    if let Some(vcpu) = create_vcpu(&*vm, index, &control, &created) {
                        drop(vm);
                        vcpu_thread::run(vcpu, index, &control, &bus);
                    }
                })
                .map_err(|source| MachineError::Host {
                    what: "a vCPU thread",
                    source,
                })?;
            lock(&self.threads).push(thread);
            match outcome.recv() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error.into()),
                // The thread went away without a word: it panicked.
                Err(_) => {
                    return Err(MachineError::EndedEarly {
                        reason: ExitReason::VcpuLost { index },
                        console: String::new(),
                    });
                }
            }
        }
        Ok(())
    }

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
            Some(parts) => parts.uart.enqueue(bytes),
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

    /// Brings all vCPUs to rest, their state whole.
    pub fn pause(&self) -> Result<(), MachineError> {
        if self.control.pause(REST_TIMEOUT) {
            Ok(())
        } else {
            self.control.resume();
            Err(MachineError::NotResting {
                after: REST_TIMEOUT,
            })
        }
    }

    /// Lets the vCPUs go on after [`RunningMachine::pause`].
    pub fn resume(&self) {
        self.control.resume();
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
        if let Some(Parts { bus, uart, reactor }) = parts {
            uart.flush(CONSOLE_TIMEOUT);
            drop((bus, uart));
            reactor.stop();
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
        let uart = self.parts().as_ref().map(|parts| parts.uart.clone());
        if let Some(uart) = uart {
            uart.flush(CONSOLE_TIMEOUT);
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

/// Creates a vCPU on this thread and tells the one that waits for it.
fn create_vcpu<V: Vm>(
    vm: &V,
    index: u32,
    control: &Control,
    created: &SyncSender<Result<(), EngineError>>,
) -> Option<V::Vcpu> {
    let (vcpu, outcome) = match vm.create_vcpu(index) {
        Ok(vcpu) => {
            let kick = vcpu.kick();
            control.add_cpu(Box::new(move || kick.kick()), vcpu.exits().clone());
            (Some(vcpu), Ok(()))
        }
        Err(error) => (None, Err(error)),
    };
    // The one who waits holds its end until it hears from us.
    let _ = created.send(outcome);
    vcpu
}

fn refuse_unsupported(resources: &VmResources) -> Result<(), MachineError> {
    let snapshot = &resources.snapshot;
    let endpoints = &resources.endpoints;
    let parts = [
        (resources.is_restore(), "going on from a saved machine"),
        (
            snapshot.after_ms.is_some() || snapshot.at_heartbeat.is_some() || snapshot.on_listener,
            "saving a machine",
        ),
        (endpoints.http_port.is_some(), "forwarding an HTTP port"),
        (
            endpoints.vsock_mux_handoff.is_some(),
            "taking over client connections",
        ),
        (
            resources.balloon_target_pages.is_some(),
            "taking memory back from the guest",
        ),
    ];
    match parts.into_iter().find(|(asked_for, _)| *asked_for) {
        Some((_, what)) => Err(MachineError::Unsupported { what }),
        None => Ok(()),
    }
}

pub(crate) fn command_line(cmdline: &str, extra: &str) -> Result<String, MachineError> {
    let whole = if extra.is_empty() {
        cmdline.to_owned()
    } else {
        format!("{cmdline} {extra}")
    };
    if whole.len() > MAX_CMDLINE_BYTES || whole.contains('\0') {
        return Err(MachineError::BadCommandLine {
            max: MAX_CMDLINE_BYTES,
        });
    }
    Ok(whole)
}

fn allocate(resources: &VmResources) -> Result<GuestMemory, MachineError> {
    let bytes = resources.memory_bytes() as u64;
    if bytes < layout::MIN_RAM_BYTES {
        return Err(MemoryError::TooSmall {
            bytes,
            min_bytes: layout::MIN_RAM_BYTES,
        }
        .into());
    }
    if bytes > layout::MAX_RAM_BYTES {
        return Err(MemoryError::TooLarge {
            bytes,
            max_bytes: layout::MAX_RAM_BYTES,
        }
        .into());
    }
    Ok(GuestMemory::allocate(layout::RAM, bytes)?)
}

/// Asks for wider addresses only where the default would not reach.
fn spec(resources: &VmResources, capabilities: &Capabilities) -> VmSpec {
    let end = layout::DAX_WINDOW + layout::DAX_WINDOW_BYTES;
    let bits = u64::BITS - (end - 1).leading_zeros();
    VmSpec {
        ipa_bits: (capabilities.default_ipa_bits < bits).then_some(bits),
        vcpus: resources.vcpus,
        distributor: layout::GIC_DISTRIBUTOR,
        redistributors: layout::GIC_REDISTRIBUTORS,
    }
}

struct Random {
    seed: [u8; 64],
    kaslr: Option<u64>,
}

fn random(kaslr: bool) -> Result<Random, MachineError> {
    let mut bytes = [0; 72];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source: io::Error| MachineError::Host {
            what: "random numbers",
            source,
        })?;
    let mut seed = [0; 64];
    seed.copy_from_slice(&bytes[..64]);
    let mut place = [0; 8];
    place.copy_from_slice(&bytes[64..]);
    Ok(Random {
        seed,
        kaslr: kaslr.then(|| u64::from_le_bytes(place)),
    })
}

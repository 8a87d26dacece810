//! A machine before its content is known: everything that takes time and does
//! not depend on what it will run.

use std::io::Write;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use devices::Bus;
use devices::reactor::MioReactor;
use tracing::{Span, debug};

use super::assembly::{self, EarlyDevices};
use super::console::ConsoleSink;
use super::control::Control;
use super::error::{ExitReason, MachineError, no_random};
use super::generation::Generation;
use super::rewind::Rewound;
use super::window::Windows;
use super::{ConsoleTail, Parts, RunningMachine, command_line, vcpu_thread};
use crate::arch::{self, Arch, BootSpec, Layout};
use crate::boot::BootFiles;
use crate::hypervisor::{
    Access, Capabilities, DynVm, EngineError, GicKind, Hypervisor, Kick, PowerControl, Vcpu, Vm,
};
use crate::memory::{GuestMemory, MAPPING_UNIT_BYTES, MemoryError};
use crate::spec::{Endpoints, MachineSpec};

/// What a machine is prepared with.
#[derive(Default)]
pub struct PrepareOptions {
    /// Host sockets that lead into the guest.
    pub endpoints: Endpoints,
    /// Gets everything the guest writes to its console, on a thread of its
    /// own.
    pub console: Option<Box<dyn Write + Send>>,
    /// How many vCPUs to create in advance. Others follow when needed.
    pub vcpus: u32,
}

/// Starts the thread of one vCPU, which creates it.
type SpawnVcpu =
    Box<dyn Fn(u32, &Arc<Control>, &Arc<OnceLock<Bus>>) -> Result<JoinHandle<()>, MachineError>>;

/// A machine with an engine, an interrupt controller and sockets, waiting to
/// be told what to run.
pub struct PreparedMachine {
    engine: &'static str,
    after_fork: Option<fn()>,
    arch: &'static dyn Arch,
    capabilities: Capabilities,
    vm: Arc<dyn DynVm>,
    spawn: SpawnVcpu,
    threads: Threads,
    bus: Arc<OnceLock<Bus>>,
    early: EarlyDevices,
    reactor: Arc<MioReactor>,
    console: ConsoleTail,
}

/// The threads of the vCPUs; whoever takes them over ends them.
struct Threads {
    control: Arc<Control>,
    handles: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        if !self.handles.is_empty() {
            self.control.end(ExitReason::Stopped);
        }
        for thread in self.handles.drain(..) {
            // None has run: they are waiting for orders.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for PreparedMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedMachine")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

impl PreparedMachine {
    /// Prepares a machine on `engine`.
    pub fn new<H: Hypervisor>(engine: &H, options: PrepareOptions) -> Result<Self, MachineError> {
        let capabilities = engine.capabilities()?;
        let fits = MAPPING_UNIT_BYTES.checked_rem(capabilities.page_bytes) == Some(0);
        if !fits {
            return Err(MachineError::Unsupported {
                what: "an engine that maps memory in other units than 16 KiB or a part of that",
            });
        }
        let arch = arch::of(capabilities.architecture);
        let vm = Arc::new(engine.create_vm(&arch.vm_spec(&capabilities))?);
        let any: Arc<dyn DynVm> = vm.clone();
        let console = ConsoleTail::default();
        let sink = ConsoleSink {
            tail: console.clone(),
            listener: options.console,
        };
        let reactor = Arc::new(MioReactor::spawn()?);
        let early = EarlyDevices::new(
            arch,
            &any,
            &options.endpoints,
            reactor.handle(),
            Box::new(sink),
        )?;
        let spawn: SpawnVcpu =
            Box::new(move |index, control, bus| spawn_vcpu(&vm, index, control, bus));
        let mut prepared = Self {
            engine: engine.name(),
            after_fork: engine.after_fork(),
            arch,
            capabilities,
            vm: any,
            spawn,
            threads: Threads {
                control: Arc::new(Control::new(arch)),
                handles: Vec::new(),
            },
            bus: Arc::default(),
            early,
            reactor,
            console,
        };
        let vcpus = options.vcpus.min(capabilities.max_vcpus);
        prepared.create_vcpus(vcpus)?;
        debug!(engine = prepared.engine, vcpus, "machine prepared");
        Ok(prepared)
    }

    /// Name of the engine it is on.
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// The architecture of its guests.
    pub(super) fn arch(&self) -> &'static dyn Arch {
        self.arch
    }

    /// Where its devices get windows onto files.
    pub(super) fn windows(&self) -> Windows<'_> {
        Windows::new(&self.vm, self.arch.layout())
    }

    /// Creates vCPUs until there are `count`. Each is created before the next,
    /// and all before any runs: the guest finds a whole interrupt controller.
    pub(super) fn create_vcpus(&mut self, count: u32) -> Result<(), MachineError> {
        if count > self.capabilities.max_vcpus {
            return Err(MachineError::TooManyVcpus {
                vcpus: count,
                max: self.capabilities.max_vcpus,
                engine: self.engine,
            });
        }
        let threads = &mut self.threads;
        let have = u32::try_from(threads.handles.len()).unwrap_or(u32::MAX);
        for index in have..count {
            let thread = (self.spawn)(index, &threads.control, &self.bus)?;
            threads.handles.push(thread);
        }
        Ok(())
    }

    /// Boots what `spec` describes. Its endpoints are not used: the machine has
    /// those it was prepared with.
    ///
    /// When this returns, the first vCPU runs the kernel's first instruction.
    pub fn boot(mut self, spec: &MachineSpec) -> Result<RunningMachine, MachineError> {
        let checked = check_boot(self.engine, &self.capabilities, spec)?;
        let memory = allocate(self.arch.layout(), spec.memory_bytes)?;
        let random = random(spec.randomize_kernel)?;
        let possible_vcpus = checked.possible_vcpus;
        let files = BootFiles {
            kernel: &spec.kernel,
            initrd: spec.initrd.as_ref(),
        };
        let boot = BootSpec {
            cmdline: &checked.cmdline,
            vcpus: possible_vcpus,
            virtio_devices: checked.virtio_devices,
            capabilities: &self.capabilities,
            rng_seed: &random.seed,
            kaslr_seed: random.kaslr,
        };
        let start = self.arch.load(&memory, &files, &boot)?;
        self.create_vcpus(spec.vcpus)?;
        let others = assembly::open_others(
            &spec.disks,
            &spec.volumes,
            &spec.shares,
            spec.network.as_ref(),
            self.windows(),
        )?;
        let first = self.arch.vcpu_id(0);
        let power = self.capabilities.power;
        let machine = self.assemble(memory, others, possible_vcpus)?;
        machine.control.cpu_on(first, start.entry, start.argument);
        if power == PowerControl::Engine {
            machine.control.run_all();
        }
        machine.control.resume();
        debug!(
            memory_bytes = spec.memory_bytes,
            vcpus = spec.vcpus,
            "machine booted"
        );
        Ok(machine)
    }

    /// Puts memory and devices in place. The machine is paused.
    pub(super) fn assemble(
        mut self,
        memory: GuestMemory,
        others: Vec<Box<dyn devices::virtio::VirtioDevice>>,
        possible_vcpus: u32,
    ) -> Result<RunningMachine, MachineError> {
        for lease in memory.leases() {
            self.vm.map(lease, Access::ReadWriteExecute)?;
        }
        let generation = Generation::new(&*self.vm, self.arch.layout())?;
        let (bus, devices) = self.early.complete(self.arch, &self.vm, &memory, others)?;
        // It was empty: this is the only place that fills it.
        let _ = self.bus.set(bus);
        Ok(RunningMachine {
            engine: self.engine,
            after_fork: self.after_fork,
            started: Instant::now(),
            control: self.threads.control.clone(),
            threads: Mutex::new(std::mem::take(&mut self.threads.handles)),
            console: self.console,
            parts: Mutex::new(Some(Parts {
                rewound: Mutex::new(Rewound::new(&memory)),
                devices,
                vm: self.vm,
                memory,
                generation,
                possible_vcpus,
                arch: self.arch,
                reactor: self.reactor,
            })),
        })
    }
}

/// What [`check_boot`] found out.
pub(crate) struct Checked {
    cmdline: String,
    pub(crate) virtio_devices: u32,
    pub(crate) possible_vcpus: u32,
}

/// Refuses a description that cannot be booted on this engine.
pub(crate) fn check_boot(
    engine: &'static str,
    capabilities: &Capabilities,
    spec: &MachineSpec,
) -> Result<Checked, MachineError> {
    if spec.vcpus == 0 {
        return Err(MachineError::NoVcpus);
    }
    if spec.vcpus > capabilities.max_vcpus {
        return Err(MachineError::TooManyVcpus {
            vcpus: spec.vcpus,
            max: capabilities.max_vcpus,
            engine,
        });
    }
    let possible_vcpus = spec
        .possible_vcpus
        .clamp(spec.vcpus, capabilities.max_vcpus);
    // The others are absent: the kernel must not wait for them.
    let extra = (possible_vcpus > spec.vcpus).then(|| format!("maxcpus={}", spec.vcpus));
    let GicKind::V3 {
        first_spi,
        spi_count,
        ..
    } = capabilities.gic;
    let arch = arch::of(capabilities.architecture);
    let slots = &arch.layout().virtio;
    let end_line = first_spi.saturating_add(spi_count);
    let disks = spec.disks.len() + spec.volumes.len();
    let others = disks + spec.shares.len() + usize::from(spec.network.is_some());
    Ok(Checked {
        cmdline: command_line(
            &spec.cmdline,
            extra.as_deref().unwrap_or_default(),
            arch.max_cmdline_bytes(),
        )?,
        virtio_devices: assembly::virtio_count(slots, others, end_line)?,
        possible_vcpus,
    })
}

fn spawn_vcpu<V: Vm>(
    vm: &Arc<V>,
    index: u32,
    control: &Arc<Control>,
    bus: &Arc<OnceLock<Bus>>,
) -> Result<JoinHandle<()>, MachineError> {
    let (created, outcome) = sync_channel(1);
    let (vm, control, bus) = (vm.clone(), control.clone(), bus.clone());
    let span = Span::current();
    let thread = std::thread::Builder::new()
        .name(format!("vm-vcpu{index}"))
        .spawn(move || {
            let _machine = span.entered();
            if let Some(vcpu) = create_vcpu(&*vm, index, &control, &created) {
                drop(vm);
                vcpu_thread::run(vcpu, index, &control, &bus);
            }
        })
        .map_err(|source| MachineError::Host {
            what: "a vCPU thread",
            source,
        })?;
    match outcome.recv() {
        Ok(Ok(())) => Ok(thread),
        outcome => {
            // It holds the machine until it ends, and a process has one at a time: who
            // hears of the error may make the next. A panic was told of.
            let _ = thread.join();
            match outcome {
                Ok(Err(error)) => Err(error.into()),
                // The thread went away without a word: it panicked.
                _ => Err(MachineError::EndedEarly {
                    reason: ExitReason::VcpuLost { index },
                    console: String::new(),
                }),
            }
        }
    }
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

fn allocate(layout: &Layout, bytes: u64) -> Result<GuestMemory, MachineError> {
    if bytes < layout.min_ram_bytes {
        return Err(MemoryError::TooSmall {
            bytes,
            min_bytes: layout.min_ram_bytes,
        }
        .into());
    }
    if bytes > layout.max_ram_bytes {
        return Err(MemoryError::TooLarge {
            bytes,
            max_bytes: layout.max_ram_bytes,
        }
        .into());
    }
    Ok(GuestMemory::allocate(layout.ram, bytes)?)
}

struct Random {
    seed: [u8; 64],
    kaslr: Option<u64>,
}

fn random(kaslr: bool) -> Result<Random, MachineError> {
    let mut bytes = [0; 72];
    getrandom::fill(&mut bytes).map_err(no_random)?;
    let mut seed = [0; 64];
    seed.copy_from_slice(&bytes[..64]);
    let mut place = [0; 8];
    place.copy_from_slice(&bytes[64..]);
    Ok(Random {
        seed,
        kaslr: kaslr.then(|| u64::from_le_bytes(place)),
    })
}

//! What the machine needs from an engine, and nothing else.
//!
//! Implementations live in [`crate::backend`]. Words here are the machine's,
//! not any engine's: an [`Exit`] is something the machine must act on, and
//! what an engine or its adapter can settle alone never becomes one.

mod counters;
mod error;
mod identity;
mod state;

pub use counters::{ExitCount, ExitCounters};
pub use error::{EngineError, Refusal};
pub use identity::{CpuIdentity, EngineId};
pub use state::{Registers, VcpuState};

use crate::memory::{MemoryLease, PageSet};
use std::time::Duration;

/// An engine that can make virtual machines.
pub trait Hypervisor: Send + Sync {
    /// Its machines.
    type Vm: Vm;

    /// Name for people, like `hvf` or `soft`.
    fn name(&self) -> &'static str;

    /// Which engine it is, whatever it is called.
    fn id(&self) -> EngineId;

    /// What guests see of the processor. A snapshot needs the same.
    fn identity(&self) -> Result<CpuIdentity, EngineError>;

    /// What a process just forked calls before it makes a machine; `None` if
    /// processes with a machine of this engine cannot fork.
    fn after_fork(&self) -> Option<fn()>;

    /// What it can do on this host.
    fn capabilities(&self) -> Result<Capabilities, EngineError>;

    /// Makes a machine without memory or vCPUs.
    fn create_vm(&self, spec: &VmSpec) -> Result<Self::Vm, EngineError>;
}

/// An architecture of guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit Arm.
    Aarch64,
}

/// What an engine can do on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// What guests it runs.
    pub architecture: Architecture,
    /// Largest guest physical address width, in bits.
    pub max_ipa_bits: u32,
    /// Width a machine gets without asking, in bits.
    pub default_ipa_bits: u32,
    /// Unit of guest mappings, in bytes.
    pub page_bytes: usize,
    /// Most vCPUs in one machine.
    pub max_vcpus: u32,
    /// How writes to guest memory can be followed.
    pub dirty_tracking: DirtyTracking,
    /// The interrupt controller inside the engine.
    pub gic: GicKind,
    /// Who turns vCPUs on and off.
    pub power: PowerControl,
}

/// Who answers when a guest turns a vCPU on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerControl {
    /// The machine: the engine makes [`Exit::CpuOn`], [`Exit::CpuStatus`] and
    /// [`Exit::CpuOff`] of such calls.
    Machine,
    /// The engine itself. All vCPUs are [run](Vcpu::run) from the start, which
    /// for one that is off lasts until the guest has turned it on, or until a
    /// kick; whether it is on is part of its [state](Vcpu::save).
    Engine,
}

/// How an engine lets the machine follow writes to guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirtyTracking {
    /// The engine notes writes itself, in pages of 4 KiB.
    Log,
    /// By taking write access away and giving it back at the first write to
    /// a page of [`Capabilities::page_bytes`]. The machine sees none of that.
    WriteProtection,
}

/// The interrupt controller inside an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicKind {
    /// A GICv3 without message-signalled interrupts.
    V3 {
        /// First shared peripheral interrupt.
        first_spi: u32,
        /// Number of shared peripheral interrupts.
        spi_count: u32,
        /// Bytes of the distributor's window.
        distributor_bytes: u64,
        /// Bytes of one vCPU's redistributor.
        redistributor_bytes: u64,
    },
}

/// What must be decided when a machine is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmSpec {
    /// Guest physical address width in bits, or the engine's default.
    pub ipa_bits: Option<u32>,
    /// Most vCPUs that will be created.
    pub vcpus: u32,
    /// Guest physical address of the interrupt distributor.
    pub distributor: u64,
    /// Guest physical address of the first redistributor.
    pub redistributors: u64,
}

/// What the guest may do with mapped memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and fetch instructions.
    ReadExecute,
    /// Ordinary RAM.
    ReadWriteExecute,
}

/// How vCPUs came by the code that they executed. Zeroes where an engine decodes none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeCounts {
    /// They decoded so many blocks when they needed them,
    pub decoded: u64,
    /// and so many had been decoded ahead.
    pub ahead: u64,
    /// Instructions of the blocks that they decoded,
    pub instructions_decoded: u64,
    /// and how long that took.
    pub decoding: Duration,
    /// Instructions that were compiled for them,
    pub instructions_compiled: u64,
    /// and how long that took.
    pub compiling: Duration,
    /// Instructions that they had begun when each last exited or began to wait, if the
    /// engine was chosen to count that; else zero.
    pub instructions_begun: u64,
}

/// A machine, as far as it does not matter of which engine it is. Usable from
/// any thread.
pub trait DynVm: Send + Sync {
    /// Gives the guest memory; the machine keeps the lease while it is mapped.
    fn map(&self, memory: MemoryLease, access: Access) -> Result<(), EngineError>;

    /// Changes what the guest may do with mapped memory, in whole pages.
    fn protect(&self, ipa: u64, bytes: usize, access: Access) -> Result<(), EngineError>;

    /// Takes away what one [`DynVm::map`] gave at `ipa`. vCPUs may run: on
    /// return none of them reaches the memory any more, and an access of theirs
    /// is one to a device. Not to be called on a thread that is in
    /// [`Vcpu::run`].
    fn unmap(&self, ipa: u64) -> Result<(), EngineError>;

    /// Drives an interrupt by its absolute number. On a line the guest set to
    /// edge-triggered, `true` is one edge.
    fn set_irq(&self, intid: u32, level: bool) -> Result<(), EngineError>;

    /// Captures the interrupt controller but not its CPU interfaces. No vCPU
    /// may run.
    fn save_interrupts(&self) -> Result<Vec<u8>, EngineError>;

    /// Restores it, exactly: nothing that was pending, active or driven
    /// before stays. After all vCPUs are created, while none runs, and before
    /// the vCPUs' own states are [loaded](Vcpu::load), which is what brings
    /// back their CPU interfaces and the lines of their timers.
    fn restore_interrupts(&self, state: &[u8]) -> Result<(), EngineError>;

    /// Starts to follow the writes of vCPUs: all memory mapped now counts as
    /// unwritten. No vCPU may run.
    fn track_writes(&self) -> Result<(), EngineError>;

    /// Adds the pages that vCPUs wrote since [`DynVm::track_writes`] or the last
    /// call, and starts over. No vCPU may run. Reports whole pages of the
    /// engine's unit, and nothing if writes are not followed.
    fn take_written(&self, into: &mut PageSet) -> Result<(), EngineError>;

    /// Says that the machine changed what is in these pages while no vCPU
    /// ran, so that none goes on executing what used to be there. Page tables
    /// among them are read anew only once each vCPU is
    /// [loaded](Vcpu::load).
    fn content_replaced(&self, pages: &PageSet) -> Result<(), EngineError>;

    /// Has the engine forget all code it decoded, and note what it decodes from now on,
    /// if it decodes any. No vCPU may run.
    fn note_code(&self) -> Result<(), EngineError> {
        Ok(())
    }

    /// What was noted since [`DynVm::note_code`], for [`DynVm::decode_ahead`] of
    /// machines with the same memory; at most 128 KiB, and empty if the engine notes
    /// nothing. Nothing is noted any more.
    fn take_code_notes(&self) -> Result<Vec<u8>, EngineError> {
        Ok(Vec::new())
    }

    /// Has the engine decode what was noted before vCPUs need it. Whatever the bytes
    /// are, guests execute what is in memory; whether they were of use. Unless the
    /// machine is at work at once, it takes no memory that only work needs.
    fn decode_ahead(&self, _notes: &[u8], _at_work: bool) -> bool {
        false
    }

    /// How the vCPUs came by the code that they executed.
    fn code_counts(&self) -> Result<CodeCounts, EngineError> {
        Ok(CodeCounts::default())
    }

    /// What compiled code has executed, by lines, if the engine was chosen to count
    /// that; else empty.
    fn code_census(&self) -> Result<String, EngineError> {
        Ok(String::new())
    }

    /// The engine's counter, which guest counters are offset from.
    fn counter(&self) -> u64;

    /// Ticks per second of the counter and of guest timers.
    fn counter_hz(&self) -> u64;
}

/// A machine with its vCPUs.
pub trait Vm: DynVm + 'static {
    /// Its vCPUs.
    type Vcpu: Vcpu;

    /// Creates vCPU number `index` on the calling thread. The machine creates
    /// them in order, and all of them before the first runs.
    fn create_vcpu(&self, index: u32) -> Result<Self::Vcpu, EngineError>;
}

/// A vCPU, on the thread that created it.
pub trait Vcpu {
    /// Its handle for other threads.
    type Kick: Kick;

    /// A handle that interrupts [`Vcpu::run`].
    fn kick(&self) -> Self::Kick;

    /// Puts the vCPU into the state in which a kernel or a `CPU_ON` starts:
    /// EL1, interrupts masked, address translation off.
    fn reset(&mut self, entry: u64, argument: u64) -> Result<(), EngineError>;

    /// Runs the guest until something needs the machine.
    ///
    /// What the last exit asked for must have been [completed](Vcpu::complete).
    fn run(&mut self) -> Result<Exit, EngineError>;

    /// Answers the last exit, if it was one that [expects](Exit::expects_value)
    /// a value. After this the vCPU's state is whole again.
    fn complete(&mut self, value: u64) -> Result<(), EngineError>;

    /// Captures everything but the engine's interrupt controller.
    fn save(&mut self) -> Result<VcpuState, EngineError>;

    /// Restores what [`Vcpu::save`] captured, on a new vCPU or on one that has
    /// run: nothing of what it did stays, but a kick that is under way may
    /// still arrive. `counter` is the engine's
    /// [counter](DynVm::counter) at which the guest's is `state.counter`: the
    /// same value for all vCPUs.
    fn load(&mut self, state: &VcpuState, counter: u64) -> Result<(), EngineError>;

    /// Sets the guest's counter so that it is `guest` when the engine's
    /// [counter](DynVm::counter) is `counter`, and changes nothing else: for a
    /// vCPU that is off, which must agree with the others once it is on.
    fn set_counter(&mut self, guest: u64, counter: u64) -> Result<(), EngineError>;

    /// Makes an interrupt of the vCPU's own pending, by its absolute number:
    /// one that the guest has enabled is taken before the next instruction for
    /// which it is not masked.
    fn interrupt(&mut self, intid: u32) -> Result<(), EngineError>;

    /// How often the engine stopped running the guest, by reason.
    fn exits(&self) -> &ExitCounters;
}

/// Makes a vCPU leave [`Vcpu::run`] with [`Exit::Kicked`], now or the next
/// time it runs.
pub trait Kick: Clone + Send + Sync + 'static {
    /// Asks for the exit. One that comes too late, for a vCPU that is gone,
    /// does nothing.
    fn kick(&self);
}

/// Why [`Vcpu::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A read of a device; expects the value.
    MmioRead {
        /// Guest physical address.
        address: u64,
        /// Length in bytes: 1, 2, 4 or 8.
        bytes: u8,
    },
    /// A write to a device.
    MmioWrite {
        /// Guest physical address.
        address: u64,
        /// Length in bytes: 1, 2, 4 or 8.
        bytes: u8,
        /// The value, zero-extended.
        value: u64,
    },
    /// The guest starts another vCPU; expects a [`PowerReply`].
    CpuOn {
        /// Affinity of the other vCPU.
        target: u64,
        /// Guest physical address to start at.
        entry: u64,
        /// What its first register is to hold.
        argument: u64,
    },
    /// The guest asks whether a vCPU is on; expects a [`PowerReply`].
    CpuStatus {
        /// Affinity of that vCPU.
        target: u64,
    },
    /// This vCPU turned itself off.
    CpuOff,
    /// This vCPU waits for an interrupt, which the engine leaves to us.
    WaitForInterrupt,
    /// The guest turned the machine off.
    Shutdown,
    /// The guest asked for a restart.
    Reset,
    /// Somebody kicked, perhaps long ago: look around and run again.
    Kicked,
    /// The virtual timer fired, which the engine has told the guest.
    VtimerFired,
    /// The guest did what no machine can go on from.
    GuestFault(GuestFault),
}

impl Exit {
    /// Whether [`Vcpu::complete`] must answer this exit.
    pub const fn expects_value(self) -> bool {
        matches!(
            self,
            Self::MmioRead { .. } | Self::CpuOn { .. } | Self::CpuStatus { .. }
        )
    }
}

/// What the guest did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestFault {
    /// An access to memory that cannot be served as a device access: page
    /// tables in a hole, a device read by an instruction that moves several
    /// registers, code in a device.
    #[error("guest access to {address:#x} at pc {pc:#x} cannot be served, syndrome {syndrome:#x}")]
    Access {
        /// Guest physical address.
        address: u64,
        /// Guest program counter.
        pc: u64,
        /// What the engine said, as `ESR_EL2`.
        syndrome: u64,
    },
    /// An exception no one expects from a guest.
    #[error("unexpected guest exception at pc {pc:#x}, syndrome {syndrome:#x}")]
    Exception {
        /// Guest program counter.
        pc: u64,
        /// What the engine said, as `ESR_EL2`.
        syndrome: u64,
    },
    /// The engine stopped for a reason unknown to us.
    #[error("engine stopped the guest at pc {pc:#x} for unknown reason {reason}")]
    Unknown {
        /// Guest program counter.
        pc: u64,
        /// The engine's number.
        reason: u32,
    },
}

/// Answers to [`Exit::CpuOn`] and [`Exit::CpuStatus`], as PSCI numbers them
/// (Arm DEN 0022, §5.2.2 and §5.1.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerReply {
    /// `CpuOn`: done. `CpuStatus`: on.
    Done,
    /// `CpuStatus`: off.
    Off,
    /// `CpuStatus`: about to start.
    Pending,
    /// There is no such vCPU.
    InvalidParameters,
    /// `CpuOn`: it is on.
    AlreadyOn,
    /// `CpuOn`: it is about to start.
    OnPending,
}

impl PowerReply {
    /// The value the guest sees.
    pub const fn value(self) -> u64 {
        match self {
            Self::Done => 0,
            Self::Off => 1,
            Self::Pending => 2,
            Self::InvalidParameters => (-2_i64).cast_unsigned(),
            Self::AlreadyOn => (-4_i64).cast_unsigned(),
            Self::OnPending => (-5_i64).cast_unsigned(),
        }
    }
}

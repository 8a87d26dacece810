use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::boot::BootError;
use crate::hypervisor::{EngineError, GuestFault};
use crate::memory::MemoryError;

/// Why a machine ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExitReason {
    /// The guest turned itself off.
    #[error("the guest turned itself off")]
    PowerOff,
    /// The guest asked for a restart.
    #[error("the guest restarted itself")]
    Reset,
    /// The guest's kernel panicked.
    #[error("the guest's kernel panicked")]
    GuestCrash,
    /// The guest did what no machine can go on from.
    #[error(transparent)]
    GuestFault(#[from] GuestFault),
    /// The engine refused to go on.
    #[error("the engine failed")]
    EngineFailed(#[source] EngineError),
    /// A thread of ours failed; its own message says more.
    #[error("vCPU {index} failed inside")]
    VcpuLost {
        /// Number of the vCPU.
        index: u32,
    },
    /// [`RunningMachine::stop`](super::RunningMachine::stop) was called.
    #[error("the machine was stopped")]
    Stopped,
}

/// Why a machine could not be started, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// The description has no vCPU.
    #[error("no vCPU was asked for, a machine has at least one")]
    NoVcpus,
    /// The description asks for what this version does not have.
    #[error("{what} is not supported by this version")]
    Unsupported {
        /// The part of the description.
        what: &'static str,
    },
    /// More vCPUs than the engine has.
    #[error("{vcpus} vCPUs were asked for, engine {engine} has at most {max}")]
    TooManyVcpus {
        /// How many were asked for.
        vcpus: u32,
        /// How many there can be.
        max: u32,
        /// The engine's name.
        engine: &'static str,
    },
    /// More disks than there is room for.
    #[error("{devices} devices were asked for, a machine has at most {max}")]
    TooManyDevices {
        /// How many there would be.
        devices: usize,
        /// How many there can be.
        max: u32,
    },
    /// The kernel's command line is too long or holds more than printable
    /// ASCII.
    #[error("the kernel command line must be at most {max} printable ASCII characters")]
    BadCommandLine {
        /// How long it may be.
        max: usize,
    },
    /// There is no memory for the guest.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel or its initial RAM disk could not be loaded.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The engine refused.
    #[error("the engine refused to make the machine")]
    Engine(#[from] EngineError),
    /// A disk or volume could not be opened.
    #[error("cannot use {} as a disk", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A volume is used by another machine.
    #[error("volume {} is in use by another machine", path.display())]
    VolumeInUse {
        /// The file.
        path: PathBuf,
    },
    /// A disk file is not one.
    #[error("cannot use {} as a disk", path.display())]
    Blk {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: devices::virtio::blk::BlkError,
    },
    /// A directory of the host cannot be shared.
    #[error("cannot share {} with the guest", path.display())]
    Share {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: devices::virtio::fs::FsError,
    },
    /// The vsock device could not be made.
    #[error("cannot make the guest's sockets")]
    Vsock(#[from] devices::virtio::vsock::VsockError),
    /// The device thread could not be started.
    #[error("cannot start the device thread")]
    Reactor(#[from] devices::reactor::ReactorError),
    /// A thread could not be started, or random numbers not be read.
    #[error("the host refused {what}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The machine did not come to rest in time.
    #[error("the machine did not come to rest within {}", seconds(*.after))]
    NotResting {
        /// How long we waited.
        after: Duration,
    },
    /// The machine must be paused for this.
    #[error("the machine is running; pause it first")]
    NotPaused,
    /// The machine has ended.
    #[error("the machine has ended")]
    Gone,
    /// A snapshot cannot be written or used.
    #[error(transparent)]
    Snapshot(#[from] snapshot::SnapshotError),
    /// A part of a snapshot holds what no machine could have saved.
    #[error("the snapshot's state of {what} is damaged")]
    Damaged {
        /// The part.
        what: &'static str,
    },
    /// The guest did not give up or take the memory it was asked to.
    #[error(
        "the guest does not get to {wanted_bytes} bytes of memory: its balloon has \
         {ballooned_bytes} bytes, {added_bytes} were added"
    )]
    MemoryNotReached {
        /// Bytes it was to have.
        wanted_bytes: u64,
        /// Bytes its balloon holds.
        ballooned_bytes: u64,
        /// Bytes it got beside its RAM.
        added_bytes: u64,
    },
    /// A device does not take its saved state.
    #[error("virtio device {slot} does not take its saved state")]
    Device {
        /// Its slot.
        slot: u32,
        /// Why.
        #[source]
        source: devices::virtio::RestoreError,
    },
    /// A device of the board does not take its saved state.
    #[error("the machine's board does not take its saved state")]
    Board {
        /// Why.
        #[source]
        source: devices::virtio::RestoreError,
    },
    /// The snapshot was made with another number of disks.
    #[error("the snapshot was made with {saved} disks, {given} were given")]
    OtherDisks {
        /// Disks it was made with.
        saved: u32,
        /// Disks given now.
        given: usize,
    },
    /// The snapshot was made with a network and is restored without, or the other
    /// way round.
    #[error(
        "the snapshot was made {} a network interface, and a copy has what it was made with",
        if *saved { "with" } else { "without" }
    )]
    OtherNetwork {
        /// Whether it was made with one.
        saved: bool,
    },
    /// The snapshot was made with another number of directories of the host.
    #[error("the snapshot was made with {saved} mounts, {given} were given")]
    OtherShares {
        /// Directories it was made with.
        saved: u32,
        /// Directories given now.
        given: usize,
    },
    /// Guest memory could not be brought back to what it was.
    #[error("guest memory cannot be brought back")]
    Rewind(#[source] io::Error),
    /// The guest ended before it was ready.
    #[error("the guest ended before it was ready: {reason}")]
    EndedEarly {
        /// Why it ended.
        reason: ExitReason,
        /// The end of its console.
        console: String,
    },
    /// The guest was not ready in time.
    #[error("the guest was not ready within {}", seconds(*.after))]
    NotReady {
        /// How long we waited.
        after: Duration,
        /// The end of its console.
        console: String,
    },
}

impl MachineError {
    /// The end of the guest's console, where it says why.
    pub fn console(&self) -> Option<&str> {
        match self {
            Self::EndedEarly { console, .. } | Self::NotReady { console, .. } => Some(console),
            _ => None,
        }
    }
}

pub(super) fn no_random(error: getrandom::Error) -> MachineError {
    MachineError::Host {
        what: "random numbers",
        source: error.into(),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

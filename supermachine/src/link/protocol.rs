//! The control protocol between an embedder and its worker.
//!
//! Each message is a little-endian u32 length and that much JSON, at most
//! [`MAX_MESSAGE_BYTES`]. The first message of each side is a hello; a version
//! that is not ours ends the conversation.
//!
//! Files go along open ([`super::passing`]): a worker is told what errors call them
//! and opens none itself.

use super::sockets;
use crate::{Engine, Tier};
use net::policy::Policy;
use serde::{Deserialize, Serialize};
use snapshot::{EngineId, Stamp, Written};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use vmm_core::spec::{Dax, Owners, SymlinkPolicy};
use zeroize::Zeroizing;

/// Version of this protocol. Both ends come from one build, so it only guards
/// against an installation that mixes two.
pub const VERSION: u32 = 17;
/// Longest message in bytes: a console tail and room.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Most runs of pages that a worker tells of, so that they fit in a message:
/// about 50 bytes each.
pub const MAX_TOUCHED_RUNS: usize = 8192;

/// Most children that one message names, so that it fits: each has the path of a
/// directory with sockets, which have at most 108 bytes.
pub const MAX_BIRTHS: usize = 64;

/// What a worker prepares before it knows what it will run. Its [`sockets`] come along,
/// listening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Which engine.
    pub engine: Engine,
    /// How it executes code, if that can be chosen.
    pub tier: Tier,
    /// vCPUs to create in advance.
    pub vcpus: u32,
    /// The directory with the machine's sockets, and those that the guest reaches. The
    /// worker removes it when it ends, because the embedder may be gone by then.
    pub runtime_dir: PathBuf,
    /// Guest kernel messages go to the worker's standard error.
    pub console: bool,
}

/// A machine to boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Kernel image: the first file.
    pub kernel: String,
    /// Initial file system: the second file.
    pub init: String,
    /// Guest memory in MiB.
    pub memory_mib: usize,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// vCPUs a restored copy may have.
    pub possible_vcpus: u32,
    /// Read-only disks, in order: the next files.
    pub layers: Vec<String>,
    /// Directories of the host: the next files.
    pub mounts: Vec<Mount>,
    /// What errors call writable disks: the other files.
    pub volumes: Vec<String>,
    /// Added to the kernel's command line.
    pub cmdline: String,
    /// What the guest may reach, if it has a network interface.
    pub network: Option<Policy>,
    /// Secrets for hosts that it reaches.
    pub secrets: Option<Box<broker::Orders>>,
}

/// A directory of the host that a guest can mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// What errors call it.
    pub directory: String,
    /// What the guest mounts it by.
    pub tag: String,
    /// The host refuses every change.
    pub read_only: bool,
    /// What becomes of symbolic links.
    pub symlinks: SymlinkPolicy,
    /// Whom files belong to, for the guest and on the host.
    pub owners: Owners,
    /// The guest maps files, into a window of its own.
    pub dax: Option<Dax>,
    /// The guest is told what the host changes.
    pub watched: bool,
}

/// Digests of the files that guests boot from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestFiles {
    /// Of the kernel.
    pub kernel: String,
    /// Of init and agent.
    pub init: String,
}

/// The fact of a snapshot that is [`GuestFiles::kernel`].
const KERNEL_FACT: &str = "kernel";
/// The fact of a snapshot that is [`GuestFiles::init`].
const INIT_FACT: &str = "init";

impl GuestFiles {
    /// What a stamp that [`EngineIdentity::stamp`] made says of them.
    pub fn of(stamp: &Stamp) -> Self {
        let value = |fact| stamp.value(fact).unwrap_or_default().to_owned();
        Self {
            kernel: value(KERNEL_FACT),
            init: value(INIT_FACT),
        }
    }
}

/// A machine to make from a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// What errors call the directory of the generation.
    pub snapshot: String,
    /// Names that its files have there, in the order in which they come. Those of
    /// the mounts come after them, and then those of the volumes.
    pub files: Vec<String>,
    /// Directories of the host, in the order of the snapshot.
    pub mounts: Vec<Mount>,
    /// What errors call writable disks, as many as the snapshot has.
    pub volumes: Vec<String>,
    /// What the first of these begin with, by names among the files: what they change of
    /// that is in their own.
    pub bases: Vec<String>,
    /// What guests boot from here. The worker compares it with what the
    /// snapshot was made from, and the snapshot's engine and processor with its
    /// own.
    pub guest: GuestFiles,
    /// Read-only disks, in order, by their names among the files.
    pub layers: Vec<String>,
    /// vCPUs that should be there; 0 for as many as there were.
    pub vcpus: u32,
    /// Guest memory in MiB that it may be told to have.
    pub memory_mib: usize,
    /// Nobody waits for the copy's first steps.
    pub starts_idle: bool,
    /// What the guest may reach, if it has a network interface.
    pub network: Option<Policy>,
    /// Secrets for hosts that it reaches.
    pub secrets: Option<Box<broker::Orders>>,
}

/// From the embedder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// First message.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// Second message: prepare a machine.
    Prepare(Box<Setup>),
    /// Or: tell which engine this would choose, and what guests see of the
    /// processor, and end.
    Identify(Engine),
    /// Boot and run this machine.
    Boot(Box<Boot>),
    /// Make and run a copy of a captured machine.
    Restore(Box<Restore>),
    /// Go back to the moment of the snapshot and run again.
    Reset,
    /// Pause the machine and write it into the files.
    Capture {
        /// Names that the files have, in the order in which they come.
        files: Vec<String>,
        /// As many more files come, for what the first of the machine's volumes hold.
        volumes: usize,
        /// Even if programs of the copies would not be held: there are none.
        unheld: bool,
    },
    /// Let a captured machine go on.
    Continue {
        /// Names of the files with the memory that was written, to be put under
        /// the machine, which goes on as another one then; or none.
        rebase: Vec<String>,
    },
    /// Make children of the running machine.
    Fork {
        /// At most [`MAX_BIRTHS`]. For each its control connection and its [`sockets`]
        /// come along, and then its own files for the machine's volumes, empty.
        births: Vec<Setup>,
        /// How many volumes the machine has.
        volumes: usize,
        /// Others follow in the next message, and all are made then.
        more: bool,
        /// As for a capture.
        unheld: bool,
    },
    /// Have the guest have so much memory.
    SetMemory {
        /// In MiB.
        mib: usize,
        /// How long that may take, in milliseconds.
        patience_ms: u64,
    },
    /// Tell which memory was touched since it was mapped, and which code was executed
    /// since the machine went on from what was written.
    Touched,
    /// Tell how the machine is doing.
    Inspect,
    /// Stop the machine and end.
    Stop,
}

/// How many files come along for each child of a machine with so many volumes.
pub fn files_of_a_birth(volumes: usize) -> usize {
    volumes.saturating_add(1 + sockets::COUNT)
}

impl ToWorker {
    /// How many files go with it.
    pub fn files(&self) -> usize {
        match self {
            Self::Boot(boot) => {
                let files = boot.layers.len().saturating_add(boot.mounts.len());
                files.saturating_add(boot.volumes.len()).saturating_add(2)
            }
            Self::Restore(restore) => {
                let files = restore.files.len().saturating_add(restore.mounts.len());
                files.saturating_add(restore.volumes.len())
            }
            Self::Capture { files, volumes, .. } => files.len().saturating_add(*volumes),
            Self::Continue { rebase } => rebase.len(),
            Self::Fork {
                births, volumes, ..
            } => files_of_a_birth(*volumes).saturating_mul(births.len()),
            Self::Prepare(_) => sockets::COUNT,
            Self::Hello { .. }
            | Self::Identify(_)
            | Self::Reset
            | Self::SetMemory { .. }
            | Self::Touched
            | Self::Inspect
            | Self::Stop => 0,
        }
    }

    /// What it is called where it is told of.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Prepare(_) => "prepare",
            Self::Identify(_) => "identify",
            Self::Boot(_) => "boot",
            Self::Restore(_) => "restore",
            Self::Reset => "reset",
            Self::Capture { .. } => "capture",
            Self::Continue { .. } => "continue",
            Self::Fork { .. } => "fork",
            Self::SetMemory { .. } => "set memory",
            Self::Touched => "touched",
            Self::Inspect => "inspect",
            Self::Stop => "stop",
        }
    }

    /// Whether the machine stands still while this is carried out.
    pub fn stops_the_machine(&self) -> bool {
        matches!(
            self,
            Self::Reset
                | Self::Capture { .. }
                | Self::Continue { .. }
                | Self::Fork { more: false, .. }
        )
    }
}

/// An engine and what guests see of the processor under it, which a snapshot's
/// copies must find again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineIdentity {
    /// The engine.
    pub engine: EngineId,
    /// Identification registers, by name.
    pub registers: BTreeMap<String, u64>,
    /// Rate of the guest's counter in Hz.
    pub counter_hz: u64,
}

impl EngineIdentity {
    /// The stamp of the engine's machines that boot from these files.
    pub fn stamp(self, guest: GuestFiles) -> Stamp {
        let stamp = Stamp::new(self.engine)
            .require("architecture", "aarch64")
            .require("gic_version", 3)
            .require("counter_hz", self.counter_hz)
            .require("granule_bytes", 16 << 10)
            .require(KERNEL_FACT, guest.kernel)
            .require(INIT_FACT, guest.init)
            .note(
                "producer",
                concat!("supermachine ", env!("CARGO_PKG_VERSION")),
            );
        let registers = self.registers.iter();
        registers.fold(stamp, |stamp, (name, value)| {
            stamp.require(format!("cpu.{name}"), format!("{value:#x}"))
        })
    }
}

/// What making code executable took the vCPUs of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeWork {
    /// Instructions that they decoded, and nanoseconds that it took.
    pub decoded: (u64, u64),
    /// Instructions that they compiled, and nanoseconds that it took.
    pub compiled: (u64, u64),
}

/// How long the parts of a restore took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreStages {
    /// Manifest and state read and checked.
    pub read_us: u64,
    /// Memory mapped, devices made, state in place.
    pub load_us: u64,
    /// The copy's generation id.
    pub generation: [u8; 16],
    /// Pages of 4 KiB that were brought back by a reset, if it counted them.
    pub pages: Option<u64>,
    /// Guest memory in MiB that the copy has to begin with.
    pub memory_mib: u64,
}

/// From the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// First message.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// Answer to [`ToWorker::Identify`].
    Identity(Box<EngineIdentity>),
    /// The machine is prepared.
    Prepared {
        /// Name of the engine chosen.
        engine: String,
    },
    /// The first vCPU runs.
    Booted,
    /// The copy runs.
    Restored(RestoreStages),
    /// The machine is where it began, and runs.
    WasReset(RestoreStages),
    /// The machine is written, and paused.
    Captured {
        /// What was written.
        written: Box<Written>,
        /// Which of the volumes hold what they began with; their files are empty.
        unwritten: Vec<usize>,
        /// Microseconds it has been paused so far.
        paused_us: u64,
    },
    /// The captured machine runs again.
    Continued {
        /// Its new generation id, if it goes on as another one.
        generation: Option<[u8; 16]>,
    },
    /// The children are on their way; each says hello on its own connection,
    /// and then that it is restored.
    Forked {
        /// Microseconds the parent was paused.
        paused_us: u64,
    },
    /// Further children may be named.
    Noted,
    /// The guest's kernel would not hold the programs of a copy, and none was made:
    /// only a guest without programs can be copied.
    Unheld,
    /// First message of a child, after its hello.
    Born {
        /// Its process id.
        pid: u32,
        /// Name of its engine.
        engine: String,
    },
    /// The guest has the memory it was to have.
    MemorySet,
    /// Answer to [`ToWorker::Touched`].
    Touched {
        /// Runs of 4 KiB pages, the first [`MAX_TOUCHED_RUNS`].
        runs: Vec<std::ops::Range<u64>>,
        /// What the engine noted of the code that was executed, 128 KiB at most; empty
        /// if it notes nothing.
        code_notes: Vec<u8>,
    },
    /// What was asked cannot be done; the worker ends.
    Failed {
        /// Why, with all causes.
        message: String,
        /// The snapshot does not fit this host or version: baking it again
        /// would help.
        rebake: bool,
    },
    /// What was asked cannot be done; the machine goes on.
    Refused {
        /// Why, with all causes.
        message: String,
    },
    /// A snapshot could not be written; the machine goes on.
    NotWritten {
        /// Why, with all causes.
        reason: String,
    },
    /// Answer to [`ToWorker::Inspect`].
    Status {
        /// VM exits so far.
        exits: u64,
        /// What its vCPUs had run of the guest by their last exits, in nanoseconds.
        guest_ns: u64,
        /// Blocks of code that its vCPUs decoded when they needed them,
        blocks_decoded: u64,
        /// and blocks that had been decoded ahead by then.
        blocks_ahead: u64,
        /// What making code executable took.
        work: CodeWork,
        /// What compiled code has executed, of a machine that counts.
        census: String,
        /// End of the guest's console.
        console: String,
        /// Bytes the guest's balloon holds.
        ballooned_bytes: u64,
        /// Bytes the guest got beside the memory it booted with.
        added_bytes: u64,
    },
    /// The machine ended; the worker ends.
    Ended {
        /// How.
        reason: String,
        /// The guest turned itself off or was stopped.
        orderly: bool,
        /// End of the guest's console.
        console: String,
    },
}

/// Writes one message.
pub fn send<T: Serialize>(mut to: impl Write, message: &T) -> io::Result<()> {
    // A secret may be in it.
    let body = Zeroizing::new(serde_json::to_vec(message)?);
    let length = u32::try_from(body.len())
        .ok()
        .filter(|length| *length as usize <= MAX_MESSAGE_BYTES)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "message too long"))?;
    let mut frame = Zeroizing::new(Vec::with_capacity(size_of::<u32>() + body.len()));
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    to.write_all(&frame)
}

/// Reads one message; `None` at the end of the stream.
pub fn receive<T: for<'de> Deserialize<'de>>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("control message of {length} bytes, at most {MAX_MESSAGE_BYTES} are allowed"),
        ));
    }
    let mut body = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// Checks the version of a peer's hello.
pub fn check_version(theirs: u32) -> io::Result<()> {
    if theirs == VERSION {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("control protocol version {theirs}, this side speaks {VERSION}"),
    ))
}

#[cfg(test)]
mod tests;

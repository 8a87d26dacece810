//! A machine's state as plain data, and as the sections of a snapshot.

use std::sync::Arc;

use devices::virtio::SavedState;
use devices::virtio::mmio::MmioState;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use snapshot::{Scope, Section, SectionKind, StateFile, StateWriter};

use super::assembly::{FIXED_VIRTIO, virtio_formats};
use super::control::Power;
use super::error::MachineError;
use crate::arch::Arch;
use crate::hypervisor::VcpuState;

/// Version of the layout of every section. There is no conversion: a snapshot
/// of another version is baked again.
pub const STATE_VERSION: u16 = 7;

/// Devices that are no virtio devices, in the order of their board.
const LEGACY: SectionKind = SectionKind::device(0x8000);

/// The board: what is there, and which of its vCPUs are on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Board {
    /// Bytes of RAM.
    pub(super) ram_bytes: u64,
    /// Devices that are older than virtio.
    pub(super) legacy: u16,
    /// vCPUs the guest was told of.
    pub(super) possible_vcpus: u32,
    /// Disks, read-only ones and volumes.
    pub(super) disks: u32,
    /// Directories of the host, after the disks.
    pub(super) shares: u32,
    /// The guest's kernel holds programs when it is told to.
    pub(super) holds: bool,
    /// One for each vCPU that is there.
    pub(super) power: Vec<Power>,
    /// The machine identification of each virtio device, by slot.
    pub(super) virtio: Vec<u32>,
}

/// Everything of a machine but its memory, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedMachine {
    pub(super) board: Board,
    /// By index; those that are off have none.
    pub(super) vcpus: Vec<Option<Arc<VcpuState>>>,
    pub(super) interrupts: Vec<u8>,
    pub(super) legacy: Vec<SavedState>,
    pub(super) virtio: Vec<MmioState>,
}

impl SavedMachine {
    /// Bytes of RAM the machine has.
    pub fn ram_bytes(&self) -> u64 {
        self.board.ram_bytes
    }

    /// vCPUs that were there.
    pub fn vcpus(&self) -> u32 {
        u32::try_from(self.board.power.len()).unwrap_or(u32::MAX)
    }

    /// The state of a vCPU that was on.
    pub(super) fn vcpu(&self, index: u32) -> Option<&Arc<VcpuState>> {
        self.vcpus.get(index as usize)?.as_ref()
    }

    /// The guest's counter when the last vCPU was saved.
    pub(super) fn latest_counter(&self) -> u64 {
        let states = self.vcpus.iter().flatten();
        states.map(|state| state.counter).max().unwrap_or(0)
    }

    /// Refuses a state of virtio devices that a machine of its board has not,
    /// or of other versions of them: before anything is made of it.
    pub(super) fn check_devices(&self, arch: &dyn Arch) -> Result<(), MachineError> {
        let formats = arch.board_formats();
        if self.legacy.len() != formats.len() {
            return Err(MachineError::Damaged { what: "the board" });
        }
        for (state, format) in self.legacy.iter().zip(formats) {
            state
                .check(*format)
                .map_err(|source| MachineError::Board { source })?;
        }
        let formats = virtio_formats(self.board.disks, self.board.shares);
        for (slot, (state, format)) in (0..).zip(self.virtio.iter().zip(formats)) {
            state
                .device
                .check(format)
                .map_err(|source| MachineError::Device { slot, source })?;
        }
        Ok(())
    }

    /// Whether the machine has a network interface.
    pub fn has_network(&self) -> bool {
        self.board.virtio.len() > FIXED_VIRTIO + self.board.others()
    }

    /// vCPUs the guest was told of, and so the most it can ever have.
    pub fn possible_vcpus(&self) -> u32 {
        self.board.possible_vcpus
    }

    /// What is different in another state of the machine, but for the time
    /// that has passed on its counters.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let timeless = |vcpus: &[Option<Arc<VcpuState>>]| -> Vec<Option<VcpuState>> {
            let vcpus = vcpus.iter().map(|vcpu| {
                vcpu.as_deref().map(|state| VcpuState {
                    counter: 0,
                    registers: state.registers.clone(),
                })
            });
            vcpus.collect()
        };
        let parts = [
            (self.board == other.board, "the board"),
            (timeless(&self.vcpus) == timeless(&other.vcpus), "a vCPU"),
            (self.interrupts == other.interrupts, "the interrupts"),
            (self.legacy == other.legacy, "the console or the clock"),
            (self.virtio == other.virtio, "a virtio device"),
        ];
        let different = parts.iter().filter(|(same, _)| !same);
        different.map(|(_, what)| *what).collect()
    }

    /// The state file of a snapshot.
    pub fn encode(&self) -> Result<Vec<u8>, MachineError> {
        let mut out = StateWriter::new();
        let mut put = |kind, instance: usize, scope, bytes: Vec<u8>| {
            out.section(&Section {
                kind,
                instance: u16::try_from(instance).unwrap_or(u16::MAX),
                version: STATE_VERSION,
                scope,
                bytes: &bytes,
            })
        };
        put(SectionKind::MACHINE, 0, Scope::Machine, bytes(&self.board)?)?;
        for (n, vcpu) in self.vcpus.iter().enumerate() {
            if let Some(vcpu) = vcpu {
                put(SectionKind::VCPU, n, Scope::Machine, bytes(&**vcpu)?)?;
            }
        }
        // Opaque to all but the engine that wrote it.
        let interrupts = self.interrupts.clone();
        put(SectionKind::INTERRUPTS, 0, Scope::Engine, interrupts)?;
        for (n, device) in self.legacy.iter().enumerate() {
            put(LEGACY, n, Scope::Machine, bytes(device)?)?;
        }
        for (slot, device) in self.virtio.iter().enumerate() {
            let kind = virtio_kind(device.device_id)?;
            put(kind, slot, Scope::Machine, bytes(device)?)?;
        }
        Ok(out.finish()?)
    }

    /// Reads a state file. Nothing in it is trusted: what is inconsistent is
    /// refused here, what a vCPU, the interrupt controller or a device cannot
    /// be is refused by them.
    pub fn decode(file: &StateFile) -> Result<Self, MachineError> {
        let mut claims = file.claim();
        let versions = STATE_VERSION..=STATE_VERSION;
        let mut take = |kind, instance: usize| {
            let instance = u16::try_from(instance).unwrap_or(u16::MAX);
            Ok::<_, MachineError>(claims.take(kind, instance, versions.clone())?.bytes)
        };
        let board: Board = value("the board", take(SectionKind::MACHINE, 0)?)?;
        board.check()?;
        let mut vcpus = Vec::with_capacity(board.power.len());
        for (n, power) in board.power.iter().enumerate() {
            vcpus.push(match power {
                Power::On => {
                    let state = take(SectionKind::VCPU, n)?;
                    Some(Arc::new(value("a vCPU", state)?))
                }
                Power::Off | Power::Starting(..) => None,
            });
        }
        let interrupts = take(SectionKind::INTERRUPTS, 0)?.to_vec();
        let mut legacy = Vec::new();
        for n in 0..usize::from(board.legacy) {
            legacy.push(value("a device of the board", take(LEGACY, n)?)?);
        }
        let mut virtio = Vec::with_capacity(board.virtio.len());
        for (slot, id) in board.virtio.iter().enumerate() {
            virtio.push(value("a virtio device", take(virtio_kind(*id)?, slot)?)?);
        }
        claims.finish()?;
        Ok(Self {
            board,
            vcpus,
            interrupts,
            legacy,
            virtio,
        })
    }
}

impl Board {
    /// Devices between those that every machine has and the network.
    fn others(&self) -> usize {
        self.disks as usize + self.shares as usize
    }

    fn check(&self) -> Result<(), MachineError> {
        let limit = usize::from(snapshot::limits::MAX_VCPUS);
        let vcpus = self.power.len();
        let good = (1..=limit).contains(&vcpus)
            && vcpus <= self.possible_vcpus as usize
            && self.possible_vcpus as usize <= limit
            && self.power.contains(&Power::On)
            && self.virtio.len() <= usize::from(snapshot::limits::MAX_DEVICES)
            && (FIXED_VIRTIO + self.others()..=FIXED_VIRTIO + self.others() + 1)
                .contains(&self.virtio.len());
        if good {
            Ok(())
        } else {
            Err(MachineError::Damaged { what: "the board" })
        }
    }
}

fn virtio_kind(id: u32) -> Result<SectionKind, MachineError> {
    match u16::try_from(id) {
        Ok(id) if id < 0x8000 => Ok(SectionKind::device(id)),
        _ => Err(MachineError::Damaged {
            what: "a virtio device",
        }),
    }
}

fn bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, MachineError> {
    // Plain data into memory: nothing that could fail.
    postcard::to_allocvec(value).map_err(|_| MachineError::Damaged { what: "itself" })
}

/// Decodes all of `bytes`.
fn value<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, MachineError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(MachineError::Damaged { what }),
    }
}

//! What a machine must know of its guests' architecture.
//!
//! The machine sees [`Arch`] and [`Board`] only; an architecture is a directory
//! beside [`aarch64`], one more [`Architecture`] and one more kind of
//! [`Registers`](crate::hypervisor::Registers).

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use devices::virtio::{RestoreError, SavedState, StateFormat};
use devices::{IrqLine, MmioDevice};

use crate::boot::{BootError, BootFiles};
use crate::hypervisor::{Architecture, Capabilities, VmSpec};
use crate::memory::GuestMemory;

pub mod aarch64;
mod layout;

pub use layout::{Layout, VirtioSlots};

/// What there is to know of an architecture.
pub fn of(architecture: Architecture) -> &'static dyn Arch {
    match architecture {
        Architecture::Aarch64 => &aarch64::Aarch64,
    }
}

/// What differs from machine to machine of one architecture, for its guest's
/// kernel to be told.
#[derive(Clone, Debug)]
pub struct BootSpec<'a> {
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// vCPUs the guest is told of.
    pub vcpus: u32,
    /// Number of virtio devices.
    pub virtio_devices: u32,
    /// The engine's side: sizes of its interrupt controller.
    pub capabilities: &'a Capabilities,
    /// Seed for the guest's random numbers.
    pub rng_seed: &'a [u8; 64],
    /// Seed for where the kernel puts itself, if it is to move.
    pub kaslr_seed: Option<u64>,
}

/// Where the first vCPU starts, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Guest physical address of the first instruction.
    pub entry: u64,
    /// What the kernel is told at its entry.
    pub argument: u64,
}

/// An interrupt line by its absolute number.
pub type Lines<'a> = &'a dyn Fn(u32) -> Arc<dyn IrqLine>;

/// An architecture, as a machine sees it.
pub trait Arch: Send + Sync + fmt::Debug {
    /// Which one it is.
    fn architecture(&self) -> Architecture;

    /// Guest physical addresses and interrupts.
    fn layout(&self) -> &'static Layout;

    /// What must be decided when a machine is made, with room for all vCPUs
    /// that the engine could have.
    fn vm_spec(&self, capabilities: &Capabilities) -> VmSpec;

    /// The number that a guest names vCPU `index` by.
    fn vcpu_id(&self, index: u32) -> u64;

    /// The vCPU that a guest means, if there can be one.
    fn vcpu_index(&self, id: u64) -> Option<u32>;

    /// Longest command line of a kernel, in bytes.
    fn max_cmdline_bytes(&self) -> usize;

    /// Puts kernel, initial RAM disk and what tells the kernel of its machine
    /// into guest memory.
    fn load(
        &self,
        memory: &GuestMemory,
        files: &BootFiles<'_>,
        spec: &BootSpec<'_>,
    ) -> Result<Start, BootError>;

    /// The devices that every machine has beside virtio's. The guest's console
    /// goes to `console`.
    fn board(&self, lines: Lines<'_>, console: Box<dyn Write + Send>) -> Arc<dyn Board>;

    /// What states those devices take, in the order of [`Board::save`].
    fn board_formats(&self) -> &'static [StateFormat];
}

/// The devices of a machine that are older than virtio: its console among them.
pub trait Board: Send + Sync {
    /// Where they are: guest physical address, length in bytes, registers.
    fn windows(&self) -> Vec<(u64, u64, Arc<dyn MmioDevice>)>;

    /// Types into the console; how many bytes it had room for.
    fn type_in(&self, bytes: &[u8]) -> usize;

    /// Waits until all output so far is written, but not longer than `timeout`.
    fn flush(&self, timeout: Duration);

    /// The state of each device.
    fn save(&self) -> Vec<SavedState>;

    /// Brings each device back to such a state, which is not trusted.
    fn reset_to(&self, states: &[SavedState]) -> Result<(), RestoreError>;
}

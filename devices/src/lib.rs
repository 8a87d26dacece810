//! Device models for a virtual machine monitor: virtio over MMIO and the few
//! legacy devices an arm64 Linux guest wants.
//!
//! Nothing here knows a hypervisor. A device owns its registers, queues and
//! state; whoever embeds it owns memory, threads and wiring, and hands in what
//! the device needs through the traits of [`seams`].
//!
//! Each device has a feature of its name, all on by default.
#![forbid(unsafe_code)]

pub mod bus;
#[cfg(any(all(test, feature = "default"), feature = "fuzzing"))]
pub mod fuzzing;
pub mod legacy;
pub mod reactor;
pub mod seams;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod virtio;
pub mod written_pages;

pub use bus::{Bus, BusError, MmioDevice};
pub use seams::{Clock, DeviceMemory, HostClock, HotMemory, IrqLine, RamAdvisor};
pub use written_pages::WrittenPages;

/// Guest RAM that notes the pages that devices write: the memory that devices
/// take if their owner does not say otherwise. Whoever embeds a device takes
/// the marks when it likes; one that has no use for them may leave them, or
/// give its devices any other [`DeviceMemory`].
pub type Ram = vm_memory::GuestMemoryMmap<WrittenPages>;

/// Guest RAM as devices share it.
pub type GuestRam = std::sync::Arc<Ram>;

/// Compiles the README's example.
#[cfg(all(doctest, feature = "default"))]
#[doc = include_str!("../README.md")]
struct Readme;

//! Device models for a virtual machine monitor: virtio over MMIO and the few
//! legacy devices an arm64 Linux guest wants.
//!
//! Nothing here knows a hypervisor. A device owns its registers, queues and
//! state; whoever embeds it owns memory, threads and wiring, and hands in what
//! the device needs through the traits of [`seams`].
#![forbid(unsafe_code)]

pub mod bus;
#[cfg(any(test, feature = "testing"))]
pub mod fuzzing;
pub mod legacy;
pub mod reactor;
pub mod seams;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod virtio;
pub mod written_pages;

pub use bus::{Bus, BusError, MmioDevice};
pub use seams::{Clock, HostClock, HotMemory, IrqLine, RamAdvisor};
pub use written_pages::WrittenPages;

/// Guest RAM, which notes the pages that devices write. Whoever embeds a device
/// takes the marks when it likes; one that has no use for them may leave them.
pub type Ram = vm_memory::GuestMemoryMmap<WrittenPages>;

/// Guest RAM as devices share it.
pub type GuestRam = std::sync::Arc<Ram>;

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

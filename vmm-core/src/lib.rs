//! The virtual machine: engines, boot, interrupts, devices and lifecycle.

pub mod arch;
pub mod backend;
pub mod boot;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod hypervisor;
pub mod machine;
pub mod memory;
pub mod spec;
mod sync;
mod watch;

pub use spec::{
    Dax, DaxPolicy, Endpoints, HostFile, MachineSpec, Network, Overlay, OverlayError, Share, Volume,
};

/// What a guest's network interface leads to, for whoever brings that along.
pub mod network {
    pub use devices::virtio::net::{
        NetBackend, NetConfig, NetFrame, NetOffloads, NetPort, NetSegmentation, NetSent,
    };
}

#[cfg(all(doctest, feature = "softhv"))]
#[doc = include_str!("../README.md")]
struct Readme;

//! Safe binding of Apple's Hypervisor.framework C ABI, as a table of entry
//! points any engine can fill.
//!
//! [`sys`] is the ABI. [`system_api`] is the table of the host's own framework,
//! where there is one. [`Vm`], [`Vcpu`] and [`Gic`] own what a table creates
//! and keep its rules: which thread may call what, what must outlive what, and
//! which register numbers do not mean what they seem to.

mod engine_id;
mod error;
mod exception;
#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
mod framework;
#[cfg(not(all(target_os = "macos", target_arch = "aarch64")))]
#[path = "no_framework.rs"]
mod framework;
#[cfg(target_os = "macos")]
pub mod fs_events;
mod gic;
mod owner;
pub mod probe;
pub mod sys;
#[cfg(feature = "testing")]
pub mod testing;
mod vcpu;
mod vm;

pub use engine_id::EngineId;
pub use error::HvfError;
pub use exception::ExceptionClass;
pub use framework::{host_description, system_api};
pub use gic::{Gic, GicAddresses, GicGeometry};
pub use vcpu::{Vcpu, VcpuKick};
pub use vm::{Capabilities, Vm, feature_reg};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

const _: () = {
    const fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<Vm>();
    crosses_threads::<Gic>();
    crosses_threads::<VcpuKick>();
};

//! Engines behind [`crate::hypervisor`].

#[cfg(all(feature = "kvm", target_os = "linux", target_arch = "x86_64"))]
mod kvm_speed;
pub mod table;

pub mod kvm_probe;

//! Engines behind [`crate::hypervisor`].

pub mod hvf;
#[cfg(all(feature = "kvm", target_os = "linux", target_arch = "x86_64"))]
mod kvm_speed;

pub mod kvm_probe;

//! Engines behind [`crate::hypervisor`].

pub mod hvf;

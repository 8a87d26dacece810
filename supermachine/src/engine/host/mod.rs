//! What each operating system does its own way.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;

#[cfg(target_os = "linux")]
pub use linux::{memory_bytes, private_bytes};
#[cfg(not(target_os = "linux"))]
pub use other::{memory_bytes, private_bytes};

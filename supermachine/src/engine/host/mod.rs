//! What each operating system does its own way.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;

#[cfg(target_os = "linux")]
pub use linux::{kill, kill_if, memory_bytes, private_bytes, process_descriptor, stream_socket};
#[cfg(not(target_os = "linux"))]
pub use other::{kill, kill_if, memory_bytes, private_bytes, process_descriptor, stream_socket};

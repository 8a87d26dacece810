//! What each operating system does its own way.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;

#[cfg(target_os = "linux")]
pub use linux::{
    RECEIVE_FLAGS, SEND_FLAGS, close_on_exec, has_running_thread, is_hung_up, kill, memory_bytes,
    page_faults, private_bytes, process_descriptor, share_content, signal_if, stream_socket,
};
#[cfg(all(target_os = "linux", feature = "cli"))]
pub use linux::{ignored_signals, watch_limits};
#[cfg(not(target_os = "linux"))]
pub use other::{
    RECEIVE_FLAGS, SEND_FLAGS, close_on_exec, has_running_thread, is_hung_up, kill, memory_bytes,
    page_faults, private_bytes, process_descriptor, share_content, signal_if, stream_socket,
};
#[cfg(all(not(target_os = "linux"), feature = "cli"))]
pub use other::{ignored_signals, watch_limits};

mod sparse;
pub use sparse::{copy_content, copy_pieces};

/// Descriptors this process has open, if the system tells.
pub fn open_descriptors() -> Option<u64> {
    // The one that reads the directory is among them.
    let entries = std::fs::read_dir("/dev/fd").ok()?.count();
    u64::try_from(entries).ok()
}

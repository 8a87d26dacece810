//! Systems whose figures need calls that are not wrapped safely: there pools
//! count with what their configuration expects of a worker.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// There are none.
pub fn process_descriptor(_pid: u32) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There is nothing to end: see [`process_descriptor`].
pub fn kill(_process: BorrowedFd<'_>) {}

/// Not told.
pub fn private_bytes(_pid: u32) -> u64 {
    0
}

/// Not told.
pub fn memory_bytes() -> Option<u64> {
    None
}

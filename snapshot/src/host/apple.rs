//! macOS.

use rustix::mm::Advice;
use std::fs::File;
use std::io;

/// Lets the system take pages when it needs them; until then they keep their
/// content.
pub(crate) const DISCARD: Advice = Advice::DontNeed;

/// Starts to read a range of a file into the page cache.
pub(crate) fn read_ahead(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    Ok(rustix::fs::fcntl_rdadvise(file, offset, bytes)?)
}

/// Not told.
pub(crate) fn each_present_page(
    _address: usize,
    _bytes: usize,
    _each: impl FnMut(u64),
) -> io::Result<bool> {
    Ok(false)
}

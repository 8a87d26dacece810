//! macOS.

use std::fs::File;
use std::io;

/// Starts to read a range of a file into the page cache.
pub(crate) fn read_ahead(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    Ok(rustix::fs::fcntl_rdadvise(file, offset, bytes)?)
}

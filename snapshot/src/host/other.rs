//! Linux and other systems with `posix_fadvise`.

use rustix::fs::Advice;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;

/// Starts to read a range of a file into the page cache.
pub(crate) fn read_ahead(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let bytes = NonZeroU64::new(bytes);
    Ok(rustix::fs::fadvise(file, offset, bytes, Advice::WillNeed)?)
}

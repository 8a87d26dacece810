//! Linux and other systems with `posix_fadvise`.

use rustix::fs::Advice;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;

/// Takes pages away at once.
#[cfg(target_os = "linux")]
pub(crate) const DISCARD: rustix::mm::Advice = rustix::mm::Advice::LinuxDontNeed;
/// Lets the system take pages when it needs them.
#[cfg(not(target_os = "linux"))]
pub(crate) const DISCARD: rustix::mm::Advice = rustix::mm::Advice::DontNeed;

/// Starts to read a range of a file into the page cache.
pub(crate) fn read_ahead(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let bytes = NonZeroU64::new(bytes);
    Ok(rustix::fs::fadvise(file, offset, bytes, Advice::WillNeed)?)
}

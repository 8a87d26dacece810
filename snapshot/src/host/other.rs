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

/// Pages of 4 KiB of a range that this process has in memory or in swap (Linux,
/// Documentation/admin-guide/mm/pagemap.rst: bits 63 and 62).
#[cfg(target_os = "linux")]
pub(crate) fn present_pages(address: usize, bytes: usize) -> io::Result<Vec<u64>> {
    present_pages_by("/proc/self/pagemap", address, bytes)
}

#[cfg(target_os = "linux")]
fn present_pages_by(map: &str, address: usize, bytes: usize) -> io::Result<Vec<u64>> {
    use crate::limits::PAGE_BYTES;
    use std::os::unix::fs::FileExt;

    const PRESENT: u64 = 1 << 63 | 1 << 62;
    const ENTRY: usize = 8;
    let page = rustix::param::page_size();
    let small = PAGE_BYTES.min(page as u64);
    let each = page as u64 / small;
    // Told where there is a /proc and it may be read.
    let Ok(map) = File::open(map) else {
        return Ok(Vec::new());
    };
    let mut entries = vec![0; 64 << 10];
    let mut pages = Vec::new();
    let (mut at, end) = (address / page, (address + bytes) / page);
    let first = at;
    while at < end {
        let piece = &mut entries[..((end - at) * ENTRY).min(64 << 10)];
        map.read_exact_at(piece, (at * ENTRY) as u64)?;
        for entry in piece.as_chunks::<ENTRY>().0 {
            if u64::from_ne_bytes(*entry) & PRESENT != 0 {
                let start = (at - first) as u64 * each;
                pages.extend(start..start + each);
            }
            at += 1;
        }
    }
    Ok(pages)
}

/// Not told.
#[cfg(not(target_os = "linux"))]
pub(crate) fn present_pages(_address: usize, _bytes: usize) -> io::Result<Vec<u64>> {
    Ok(Vec::new())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn without_proc_no_pages_are_told_and_nothing_fails() {
        let memory = vec![1_u8; 64 << 10];
        let told = |map| present_pages_by(map, memory.as_ptr().addr(), memory.len()).unwrap();
        assert!(!told("/proc/self/pagemap").is_empty());
        assert!(told("/proc/self/no-such-file").is_empty());
    }
}

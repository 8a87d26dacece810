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

/// Tells `each` of the pages of 4 KiB of a range that this process has in memory or in
/// swap (Linux, Documentation/admin-guide/mm/pagemap.rst: bits 63 and 62), in order;
/// whether it could.
#[cfg(target_os = "linux")]
pub(crate) fn each_present_page(
    address: usize,
    bytes: usize,
    each: impl FnMut(u64),
) -> io::Result<bool> {
    each_present_page_by("/proc/self/pagemap", address, bytes, each)
}

#[cfg(target_os = "linux")]
fn each_present_page_by(
    map: &str,
    address: usize,
    bytes: usize,
    mut each: impl FnMut(u64),
) -> io::Result<bool> {
    use crate::limits::PAGE_BYTES;
    use std::os::unix::fs::FileExt;

    const PRESENT: u64 = 1 << 63 | 1 << 62;
    const ENTRY: usize = 8;
    let page = rustix::param::page_size();
    let small = PAGE_BYTES.min(page as u64);
    let parts = page as u64 / small;
    // Told where there is a /proc and it may be read.
    let Ok(map) = File::open(map) else {
        return Ok(false);
    };
    let mut entries = vec![0; 64 << 10];
    let (mut at, end) = (address / page, (address + bytes) / page);
    let first = at;
    while at < end {
        let piece = &mut entries[..((end - at) * ENTRY).min(64 << 10)];
        map.read_exact_at(piece, (at * ENTRY) as u64)?;
        for entry in piece.as_chunks::<ENTRY>().0 {
            if u64::from_ne_bytes(*entry) & PRESENT != 0 {
                let start = (at - first) as u64 * parts;
                (start..start + parts).for_each(&mut each);
            }
            at += 1;
        }
    }
    Ok(true)
}

/// Not told.
#[cfg(not(target_os = "linux"))]
pub(crate) fn each_present_page(
    _address: usize,
    _bytes: usize,
    _each: impl FnMut(u64),
) -> io::Result<bool> {
    Ok(false)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn without_proc_no_pages_are_told_and_nothing_fails() {
        let memory = vec![1_u8; 64 << 10];
        let told = |map| {
            let mut pages = 0;
            let address = memory.as_ptr().addr();
            let told = each_present_page_by(map, address, memory.len(), |_| pages += 1);
            (told.unwrap(), pages > 0)
        };
        assert_eq!(told("/proc/self/pagemap"), (true, true));
        assert_eq!(told("/proc/self/no-such-file"), (false, false));
    }
}

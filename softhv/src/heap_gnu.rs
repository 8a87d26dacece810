//! Memory of the host, with the GNU C library's allocator.

/// Gives whole pages of freed memory back, which the allocator keeps where they lie
/// between blocks in use.
pub fn trim() {
    // SAFETY: the function takes the allocator's own locks, and may be called
    // at any time from any thread.
    let _any = unsafe { libc::malloc_trim(0) };
}

/// Bytes that a page has on all hosts, or a part of them: the host refuses others.
const PAGE_BYTES: usize = 4096;

/// Has the host back the room of an empty list with large pages, if it likes to: it
/// costs one page fault then, and as much memory as such a page has.
pub fn prefer_huge_pages<T>(room: &Vec<T>) {
    let start = room.as_ptr().addr();
    let end = (start + room.capacity() * size_of::<T>()) & !(PAGE_BYTES - 1);
    let skipped = start.next_multiple_of(PAGE_BYTES) - start;
    let Some(bytes) = end.checked_sub(start + skipped) else {
        return;
    };
    // SAFETY: whole pages of one allocation, whose content this does not change. A host
    // that cannot do it says so, and nothing is different.
    let _any = unsafe {
        let start = room.as_ptr().cast_mut().byte_add(skipped);
        libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE)
    };
}

/// Gives each page of these bytes memory of this process, as if all were written, which
/// takes less than as many page faults.
///
/// # Safety
/// It is memory of this process, which nobody unmaps meanwhile.
pub unsafe fn make_own(start: *mut u8, bytes: usize) {
    /// From Linux 5.14; older kernels refuse it, and pages come one by one.
    const MADV_POPULATE_WRITE: libc::c_int = 23;
    let skipped = start.addr() % PAGE_BYTES;
    // SAFETY: whole pages of what the caller says; what is in them stays.
    let _any = unsafe {
        let start = start.wrapping_sub(skipped);
        libc::madvise(start.cast(), bytes + skipped, MADV_POPULATE_WRITE)
    };
}

//! Giving freed memory back to the host with the GNU C library's allocator,
//! which keeps what lies between blocks in use.

/// Gives whole pages of freed memory back.
pub fn trim() {
    // SAFETY: the function takes the allocator's own locks, and may be called
    // at any time from any thread.
    let _any = unsafe { libc::malloc_trim(0) };
}

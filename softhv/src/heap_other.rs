//! Memory of the host where the allocator is not the GNU C library's.

/// Gives freed memory back to the host: other allocators do that by themselves.
pub fn trim() {}

/// Has the host back the room of an empty list with large pages: nothing to be done.
pub fn prefer_huge_pages<T>(_room: &Vec<T>) {}

/// Gives each page of these bytes memory of this process: they come one by one.
///
/// # Safety
/// None is needed.
pub unsafe fn make_own(_start: *mut u8, _bytes: usize) {}

//! The guest's pages: 4 KiB, the one granule there is.

/// Bytes per page.
pub const PAGE_SIZE: u64 = 4096;
/// Mask of the page-number bits of an address.
pub const PAGE_MASK: u64 = !(PAGE_SIZE - 1);

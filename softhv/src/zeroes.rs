//! Large arrays of zeroes.

use std::sync::atomic::AtomicU64;

/// Zeroes, which cost the host no memory until they are written.
pub fn atomic_words(count: usize) -> Box<[AtomicU64]> {
    // SAFETY: an atomic integer of zeroes is 0.
    unsafe { Box::new_zeroed_slice(count).assume_init() }
}

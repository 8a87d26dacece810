//! The flag of a vCPU that looks at memory and is about to keep what it finds.

use crate::sync::atomic::{AtomicBool, Ordering, fence};

/// Whether a vCPU is looking at something that it is about to keep.
#[derive(Debug, Default)]
pub struct Looking(AtomicBool);

impl Looking {
    /// Before the first look.
    #[inline]
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// After what was seen is noted, or will not be kept.
    #[inline]
    pub fn end(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// For others, after a full barrier; what they look for in notes they must
    /// look for after this.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

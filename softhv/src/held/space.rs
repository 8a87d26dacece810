//! The address space that a vCPU uses.

use crate::sync::atomic::{AtomicU32, Ordering, fence};

const NONE: u32 = u32::MAX;

/// The current address space of a vCPU, for others to read.
#[derive(Debug)]
pub struct CurrentSpace(AtomicU32);

impl CurrentSpace {
    /// None yet.
    pub fn new() -> Self {
        Self(AtomicU32::new(NONE))
    }

    /// It is `asid` from now on. Owner only, who must look at its mail after
    /// this and before it uses a translation of that space.
    pub fn set(&self, asid: u16) {
        if self.0.load(Ordering::Relaxed) != u32::from(asid) {
            self.0.store(u32::from(asid), Ordering::Release);
            fence(Ordering::SeqCst);
        }
    }

    /// Whether it is `asid`. For one that has posted a message about that space
    /// and passed a full barrier since: if it is not, the message is seen before
    /// a translation of that space is used.
    pub fn is(&self, asid: u16) -> bool {
        self.0.load(Ordering::Acquire) == u32::from(asid)
    }
}

impl Default for CurrentSpace {
    fn default() -> Self {
        Self::new()
    }
}

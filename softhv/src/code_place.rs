//! Where a vCPU has its decoded code, for a process forked from this one.

use std::sync::atomic::{AtomicPtr, Ordering};

/// An address of a [`crate::code::CodeCache`], as long as there is one.
#[derive(Debug, Default)]
pub struct CodePlace(AtomicPtr<()>);

impl CodePlace {
    /// The code is at `place` until [`CodePlace::close`].
    pub fn open(&self, place: *mut ()) {
        self.0.store(place, Ordering::SeqCst);
    }

    /// It is about to go.
    pub fn close(&self) {
        self.0.store(std::ptr::null_mut(), Ordering::SeqCst);
    }

    /// Where it is, or null.
    pub fn get(&self) -> *mut () {
        self.0.load(Ordering::SeqCst)
    }
}

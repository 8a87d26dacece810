//! Memory that workers may use together.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Decides whether there is memory for another worker.
pub trait Budget: fmt::Debug + Send + Sync + 'static {
    /// Takes `bytes`, or refuses. With `must` it never refuses: the pool that
    /// asks has no worker, and would else be of no use to anyone.
    fn reserve(&self, bytes: u64, must: bool) -> bool;

    /// Changes a reservation to what was measured.
    fn adjust(&self, reserved: u64, measured: u64);

    /// Gives a reservation back.
    fn release(&self, bytes: u64);
}

/// No limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unlimited;

impl Budget for Unlimited {
    fn reserve(&self, _bytes: u64, _must: bool) -> bool {
        true
    }

    fn adjust(&self, _reserved: u64, _measured: u64) {}

    fn release(&self, _bytes: u64) {}
}

/// A number of bytes, for the pools of one process.
#[derive(Debug)]
pub struct ByteBudget {
    limit: u64,
    used: AtomicU64,
}

impl ByteBudget {
    /// Allows `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
        }
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl Fn(u64) -> Option<u64>) -> bool {
        // The count guards no other memory, so it needs no ordering.
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, change)
            .is_ok()
    }
}

impl Budget for ByteBudget {
    fn reserve(&self, bytes: u64, must: bool) -> bool {
        self.change(|used| {
            let after = used.saturating_add(bytes);
            (must || after <= self.limit).then_some(after)
        })
    }

    fn adjust(&self, reserved: u64, measured: u64) {
        self.change(|used| Some(used.saturating_sub(reserved).saturating_add(measured)));
    }

    fn release(&self, bytes: u64) {
        self.change(|used| Some(used.saturating_sub(bytes)));
    }
}

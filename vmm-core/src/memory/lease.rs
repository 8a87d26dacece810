//! What an engine gets of the host's memory.

use std::fmt::Debug;
use std::ptr::NonNull;
use std::sync::Arc;

/// Memory that stays in place as long as this exists, so that an engine may
/// show it to a guest.
#[derive(Debug)]
pub struct MemoryLease {
    pub(super) ipa: u64,
    pub(super) host: NonNull<u8>,
    pub(super) bytes: usize,
    pub(super) kind: LeaseKind,
    /// Keeps the host's mapping in place.
    pub(super) _lender: Arc<dyn Debug + Send + Sync>,
}

/// What is leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseKind {
    /// Memory of the guest's own.
    Memory,
    /// Pieces of files.
    Files,
}

// SAFETY: `host` is only a number here; the memory behind it may be reached from any
// thread, by atomic and volatile accesses, as long as the lender is kept.
unsafe impl Send for MemoryLease {}
// SAFETY: as above; nothing here changes through a shared reference.
unsafe impl Sync for MemoryLease {}

impl MemoryLease {
    /// Guest physical address of the first byte.
    pub fn ipa(&self) -> u64 {
        self.ipa
    }

    /// First byte on the host.
    pub fn host(&self) -> NonNull<u8> {
        self.host
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it is memory of the guest's own, and no file: what it writes there is
    /// followed, and belongs to a snapshot.
    pub fn is_memory(&self) -> bool {
        self.kind == LeaseKind::Memory
    }
}

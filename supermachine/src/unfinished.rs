//! Snapshots this process is making, for an exit that drops nothing.

use crate::embedder::process::Process;
use snapshot::Store;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

#[cfg_attr(
    not(feature = "cli"),
    expect(dead_code, reason = "only the tool ends without dropping anything")
)]
struct Entry {
    number: u64,
    store: Store,
    image: String,
    /// The worker that writes into the draft.
    worker: Option<Arc<Process>>,
}

static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());
/// Read by who publishes, written by who ends the process: a snapshot is
/// published whole or taken back whole.
static EXIT: RwLock<()> = RwLock::new(());

fn entries() -> MutexGuard<'static, Vec<Entry>> {
    ENTRIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A snapshot is being made, until this is dropped.
#[derive(Debug)]
pub struct Unfinished(u64);

impl Unfinished {
    /// From before there is a draft: what this process has unfinished of the
    /// image is taken back if it must end.
    pub fn begin(store: &Store, image: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        entries().push(Entry {
            number,
            store: store.clone(),
            image: image.to_owned(),
            worker: None,
        });
        Self(number)
    }

    /// From here on this worker may write into the draft.
    pub fn written_by(&self, worker: Arc<Process>) {
        if let Some(entry) = entries().iter_mut().find(|entry| entry.number == self.0) {
            entry.worker = Some(worker);
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        entries().retain(|entry| entry.number != self.0);
    }
}

/// The process does not end by a signal while this is there.
#[derive(Debug)]
pub struct NoExit {
    _guard: RwLockReadGuard<'static, ()>,
}

/// Before a draft becomes a snapshot, until what it replaces is taken care of: waits for
/// the process's end if that came first.
pub fn no_exit() -> NoExit {
    NoExit {
        _guard: EXIT.read().unwrap_or_else(PoisonError::into_inner),
    }
}

#[cfg(feature = "cli")]
/// Takes back what this process has begun, which must end now: nothing is
/// published any more.
pub fn remove_all_for_exit() {
    std::mem::forget(EXIT.write().unwrap_or_else(PoisonError::into_inner));
    for entry in entries().iter() {
        if let Some(worker) = &entry.worker {
            worker.kill();
        }
        // The next to bake the image removes what cannot be removed now.
        let _ = entry.store.abandon(&entry.image);
    }
    // A snapshot that is published already may have others in whose place it came.
    crate::aside::wait();
}

//! Older generations of snapshots, which are removed while others go on: that can take
//! longer than a bake, where the file system tells the disk of each block that is free.

use snapshot::SetAside;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

static REMOVALS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Removes them in a thread. If the process ends before that is done, whoever bakes the
/// same next removes what is left.
pub fn remove(older: SetAside) {
    if older.is_empty() {
        return;
    }
    let thread = Builder::new().name("remove-older".into());
    // Without a thread they are removed here, with what was to run in it.
    if let Ok(removal) = thread.spawn(move || drop(older)) {
        let mut removals = REMOVALS.lock().unwrap_or_else(PoisonError::into_inner);
        removals.retain(|removal| !removal.is_finished());
        removals.push(removal);
    }
}

/// Waits until all are removed, in a process that is about to end.
#[cfg_attr(
    not(feature = "cli"),
    expect(dead_code, reason = "only the tool knows when it ends")
)]
pub fn wait() {
    let mut removals = REMOVALS.lock().unwrap_or_else(PoisonError::into_inner);
    for removal in removals.drain(..) {
        let _ = removal.join();
    }
}

//! Locks. A poisoned one is used on (decision 0099).

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic of another thread: every change is whole before anything
/// that could panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! What the threads of a pool meet through: the standard library's, except in
//! `tests/hand_over.rs`, which compiles this crate with a model checker's instead.

pub use std::sync::{Condvar, Mutex, MutexGuard};
pub use std::time::Instant;

/// Threads, and waiting for one another.
pub mod thread {
    pub use std::thread::{Builder, Thread, current, park};
}

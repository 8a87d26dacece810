//! What the threads of a disk meet through: the standard library's, except in
//! `tests/blk_model.rs`, which compiles the workers with a model checker's instead.

pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
pub(super) use std::thread::{Builder, JoinHandle};

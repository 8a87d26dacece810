//! What the threads of a machine meet through: the standard library's, except in
//! `tests/model.rs`, which compiles the files that use this with a model checker's
//! instead.

pub use std::sync::atomic;
pub use std::sync::{Condvar, Mutex, MutexGuard};

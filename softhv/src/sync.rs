//! What vCPUs meet through: the standard library's, except in `tests/model.rs`,
//! which compiles the files that use this with a model checker's instead.

pub use std::sync::atomic;
pub use std::sync::{Arc, Mutex, PoisonError};
pub use std::thread::{Thread, current, park, park_timeout};

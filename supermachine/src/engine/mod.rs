//! The worker: one process per machine, and how it is spoken to.

pub(crate) mod choose;
pub(crate) mod dial;
pub(crate) mod executable;
pub(crate) mod host;
pub(crate) mod identity;
pub(crate) mod instance;
pub(crate) mod process;
pub(crate) mod protocol;
pub(crate) mod resume;
pub(crate) mod runtime_dir;
pub(crate) mod spawn;
mod wanted;
pub(crate) mod watched;
pub mod worker;

#[cfg(test)]
mod misbehaving;

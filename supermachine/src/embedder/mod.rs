//! The embedder's side: worker processes, and the agents in their guests.

pub(crate) mod ask;
pub(crate) mod birth;
pub(crate) mod dial;
pub(crate) mod executable;
pub(crate) mod handle;
pub(crate) mod identity;
pub(crate) mod instance;
mod life;
mod moment;
mod pauses;
pub(crate) mod personalise;
mod place;
pub(crate) mod process;
mod share;
pub(crate) mod watched;

#[cfg(test)]
mod misbehaving;

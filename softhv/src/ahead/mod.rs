//! Code that is decoded before it is needed.
//!
//! A copy of a snapshot executes what the copies before it executed, in the same
//! order, and has nothing decoded when it starts. So the machine that the snapshot
//! was made of notes which blocks its first steps decode ([`Plan`]), and a thread of
//! each copy ([`helper`]) decodes these, while the vCPU runs. A vCPU that needs a
//! block takes the thread's, once it has compared the words that it was decoded from
//! with those that are in memory now.
//!
//! A plan says where code was and for what it was decoded, never what is executed:
//! whatever is in it, the ops come from this decoder and from the guest's memory.

pub mod helper;
pub mod plan;
pub mod shared;
pub mod store;
#[cfg(test)]
mod tests;

pub use plan::Plan;
pub use shared::Ahead;

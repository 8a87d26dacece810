//! Instruction semantics: pure ones over the register file, and handlers for
//! those that reach memory, other blocks or the system.

pub mod atomic;
pub mod bind;
pub mod branch;
pub mod fused;
pub mod int;
pub mod ldst;
pub mod maintenance;
pub mod simd_ldst;
pub mod system;
pub mod tally;
#[cfg(compiles)]
pub mod tier;
pub mod transfer;

//! No second tier: this host's instructions cannot be emitted here, or handlers
//! do not jump to each other.

use crate::tier::Compiler;

#[path = "jit/policy.rs"]
pub mod policy;

pub use policy::{COUNTS, Policy, set_policy};

/// Never one.
#[must_use]
pub fn compiler() -> Option<Box<dyn Compiler>> {
    None
}

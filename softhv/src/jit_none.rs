//! No second tier: this host's instructions cannot be emitted here, or handlers
//! do not jump to each other.

use crate::tier::{CodeMemory, Compiler, Tier};
use std::sync::Arc;

#[path = "jit/policy.rs"]
pub mod policy;

pub use policy::{COUNTS, Refusal};

/// Whether this build has a second tier.
pub const IS_BUILT: bool = false;

/// Always why not.
///
/// # Errors
/// [`Refusal::NotBuilt`].
pub fn probe() -> Result<(), Refusal> {
    Err(Refusal::NotBuilt)
}

/// Nothing is counted where nothing is compiled.
#[must_use]
pub fn census(_: u64, _: usize) -> String {
    String::new()
}

/// Never one.
#[must_use]
pub fn compiler(_: Tier, _: &Arc<CodeMemory>) -> Option<Box<dyn Compiler>> {
    None
}

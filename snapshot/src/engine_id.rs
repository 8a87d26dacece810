//! What ran the machine.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// Name of the engine (hypervisor, emulator) that ran a machine: given by
/// whoever uses the crate, and compared by it before all else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EngineId(Cow<'static, str>);

impl EngineId {
    /// An engine by its name: letters, digits, `.`, `_` and `-`, which is
    /// checked when a snapshot is written and read.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for EngineId {
    fn from(name: String) -> Self {
        Self(Cow::Owned(name))
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

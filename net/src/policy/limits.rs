//! How much of the network a guest may take.

use std::num::NonZeroU64;

use super::PolicyError;

/// Most connections that a limit can allow: what there is room for without one.
pub const MAX_FLOWS: u64 = 10_000;

/// How much of the network a guest may take; what is not set is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Limits {
    /// Bytes a second that the guest gets, without headers.
    pub rate_in: Option<NonZeroU64>,
    /// Bytes a second that others get from it, without headers.
    pub rate_out: Option<NonZeroU64>,
    /// Bytes beyond the rate that may pass after a silence, each way; a tenth of a
    /// second's if it is not set.
    pub burst: Option<NonZeroU64>,
    /// Connections at a time, and as many exchanges of datagrams.
    pub max_flows: Option<NonZeroU64>,
}

impl Limits {
    /// Refuses limits that say nothing, or more than there is.
    pub(super) fn check(&self) -> Result<(), PolicyError> {
        let has_rate = self.rate_in.is_some() || self.rate_out.is_some();
        if self.burst.is_some() && !has_rate {
            return Err(PolicyError::BurstWithoutRate);
        }
        match self.max_flows {
            Some(flows) if flows.get() > MAX_FLOWS => Err(PolicyError::TooManyFlows(flows.get())),
            _ => Ok(()),
        }
    }
}

//! The host handlers of [`super::crypto`] on hosts for which there are none.

use crate::cpu::op::Handler;

/// A handler that needs a host feature, which this host does not have.
pub struct HostHandler;

impl HostHandler {
    /// Always `portable`.
    pub fn choose(&self, portable: Handler) -> Handler {
        portable
    }
}

pub const AESE: HostHandler = HostHandler;
pub const AESD: HostHandler = HostHandler;
pub const AESMC: HostHandler = HostHandler;
pub const AESIMC: HostHandler = HostHandler;
pub const PMULL: HostHandler = HostHandler;
pub const SHA256H: HostHandler = HostHandler;
pub const SHA256H2: HostHandler = HostHandler;
pub const SHA256SU0: HostHandler = HostHandler;
pub const SHA256SU1: HostHandler = HostHandler;

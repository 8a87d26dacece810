//! What happens at a device beyond what its driver asks for, in the way of
//! `vm-superio`'s event traits: an owner that wants to log or count implements
//! what it wants to hear of.

use crate::virtio::ActivateError;
use crate::virtio::chain::QueueError;

/// Hears of what goes wrong behind a transport; all methods do nothing unless
/// implemented. They are called on vCPU threads and the device's own, some with
/// locks held: an implementation must not call the transport.
pub trait VirtioEvents: Send + Sync {
    /// The driver broke a queue; the device is still until it is reset.
    fn driver_mistake(&self, _mistake: &QueueError) {}
    /// The device did not start when its driver said it was ready.
    fn not_started(&self, _error: &ActivateError) {}
    /// The guest wrote to a register that is not there.
    fn invalid_access(&self, _offset: u64) {}
}

/// Ignores all events.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NoEvents;

impl VirtioEvents for NoEvents {}

/// How often things happened at a transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MmioCounters {
    /// The driver said that there are buffers.
    pub notifications: u64,
    /// The device interrupted its driver.
    pub interrupts: u64,
    /// The device was reset, by its driver or to go back to a saved state.
    pub resets: u64,
    /// The driver broke a queue.
    pub mistakes: u64,
}

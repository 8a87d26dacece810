//! What a device needs from the machine around it, as constructor arguments.

/// One interrupt line of the guest's interrupt controller.
pub trait IrqLine: Send + Sync {
    /// Drives a level-triggered line.
    fn set_level(&self, high: bool);

    /// Signals one edge on an edge-triggered line.
    fn pulse(&self);
}

/// Wall-clock time for devices that show it to the guest.
pub trait Clock: Send + Sync {
    /// Seconds since the Unix epoch.
    fn now_unix_seconds(&self) -> u64;
}

/// The host's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct HostClock;

impl Clock for HostClock {
    fn now_unix_seconds(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }
}

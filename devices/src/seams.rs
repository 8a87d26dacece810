//! What a device needs from the machine around it, as constructor arguments.

/// One interrupt line of the guest's interrupt controller.
pub trait IrqLine: Send + Sync {
    /// Drives a level-triggered line.
    fn set_level(&self, high: bool);

    /// Signals one edge on an edge-triggered line.
    fn pulse(&self);
}

/// Takes back guest RAM that holds nothing of value any more.
pub trait RamAdvisor: Send + Sync {
    /// Bytes of the pages that the host takes memory back in: a power of two.
    fn page_bytes(&self) -> u64;

    /// The guest gave up the contents of `bytes` bytes at guest physical
    /// `address`: whole host pages, all in RAM. They may read as anything from
    /// now on, until the guest writes to them again. Whoever counts pages that
    /// changed counts these.
    fn discard(&self, address: u64, bytes: u64);
}

/// Memory that a guest may have at run time beside what it started with.
///
/// Ranges are made of whole blocks of the device's region. Neither call
/// changes the contents of blocks outside its range.
pub trait HotMemory: Send + Sync {
    /// Lets the guest use a range; false if there is not enough memory for it
    /// now. Contents that were put there for a guest being restored stay.
    fn plug(&self, address: u64, bytes: u64) -> bool;

    /// The guest is done with a range, and its contents are gone.
    fn unplug(&self, address: u64, bytes: u64);
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

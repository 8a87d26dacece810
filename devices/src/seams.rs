//! What a device needs from the machine around it, as constructor arguments.

use vm_memory::GuestMemory;

/// Guest memory as devices reach it: any of `vm-memory`'s that threads may
/// share. Which pages devices wrote is for its bitmap to note, if it has one.
pub trait DeviceMemory: GuestMemory + Send + Sync + 'static {}

impl<M: GuestMemory + Send + Sync + 'static> DeviceMemory for M {}

/// One interrupt line of the guest's interrupt controller.
pub trait IrqLine: Send + Sync {
    /// Drives a level-triggered line.
    fn set_level(&self, high: bool);

    /// Signals one edge on an edge-triggered line.
    fn pulse(&self);
}

/// Shows an edge-triggered interrupt of `vm-superio`'s kind as a line.
#[cfg(feature = "vm-superio")]
#[derive(Debug, Clone, Copy, Default)]
pub struct TriggerLine<T>(
    /// What is triggered.
    pub T,
);

#[cfg(feature = "vm-superio")]
impl<T: vm_superio::Trigger + Send + Sync> IrqLine for TriggerLine<T> {
    /// A rising level is an edge. A falling one is not, and one that stays
    /// may be told again.
    fn set_level(&self, high: bool) {
        if high {
            self.pulse();
        }
    }

    fn pulse(&self) {
        // The owner of the trigger knows of its failures; the device has no way to
        // tell its driver of one.
        let _ = self.0.trigger();
    }
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

#[cfg(all(test, feature = "vm-superio"))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl vm_superio::Trigger for Counting {
        type E = ();

        fn trigger(&self) -> Result<(), ()> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Err(())
        }
    }

    #[test]
    fn pulses_and_rising_levels_trigger() {
        let line = TriggerLine(Counting::default());
        line.pulse();
        line.set_level(true);
        line.set_level(false);
        assert_eq!(line.0.0.load(Ordering::SeqCst), 2);
    }
}

//! The MMIO side of a device and the map that routes guest accesses to it.

use std::sync::Arc;

/// A device behind a window of guest physical addresses.
///
/// Accesses never fail toward the guest: hardware reads something, even of a
/// register that is not there. Implementations lock inside, because several
/// vCPU threads may access one device at once.
pub trait MmioDevice: Send + Sync {
    /// Reads `data.len()` bytes at `offset` from the window's base.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Writes `data` at `offset` from the window's base.
    fn write(&self, offset: u64, data: &[u8]);
}

/// Why a window could not be added to a [`Bus`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BusError {
    /// The window is empty or its end is past the address space.
    #[error("device window at {base:#x} with {len:#x} bytes is empty or wraps")]
    BadRange {
        /// First guest physical address.
        base: u64,
        /// Length in bytes.
        len: u64,
    },
    /// The window overlaps one that is already there.
    #[error("device window at {base:#x} overlaps the one at {other:#x}")]
    Overlap {
        /// First guest physical address of the rejected window.
        base: u64,
        /// Base of the window already there.
        other: u64,
    },
}

struct Window {
    base: u64,
    len: u64,
    device: Arc<dyn MmioDevice>,
}

/// Routes guest physical addresses to devices. Built once, then read only.
#[derive(Default)]
pub struct Bus {
    /// Sorted by base, without overlaps.
    windows: Vec<Window>,
}

impl Bus {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a window of `len` bytes at `base`.
    pub fn insert(
        &mut self,
        base: u64,
        len: u64,
        device: Arc<dyn MmioDevice>,
    ) -> Result<(), BusError> {
        let end = base.checked_add(len);
        let (Some(end), true) = (end, len > 0) else {
            return Err(BusError::BadRange { base, len });
        };
        if let Some(other) = self
            .windows
            .iter()
            .find(|w| base < w.base + w.len && w.base < end)
        {
            return Err(BusError::Overlap {
                base,
                other: other.base,
            });
        }
        let at = self.windows.partition_point(|w| w.base < base);
        self.windows.insert(at, Window { base, len, device });
        Ok(())
    }

    /// Reads through the device at `addr`; false if there is none.
    pub fn read(&self, addr: u64, data: &mut [u8]) -> bool {
        match self.find(addr, data.len()) {
            Some((device, offset)) => {
                device.read(offset, data);
                true
            }
            None => false,
        }
    }

    /// Writes through the device at `addr`; false if there is none.
    pub fn write(&self, addr: u64, data: &[u8]) -> bool {
        match self.find(addr, data.len()) {
            Some((device, offset)) => {
                device.write(offset, data);
                true
            }
            None => false,
        }
    }

    fn find(&self, addr: u64, len: usize) -> Option<(&dyn MmioDevice, u64)> {
        let at = self.windows.partition_point(|w| w.base <= addr);
        let window = self.windows.get(at.checked_sub(1)?)?;
        let offset = addr - window.base;
        let last = offset.checked_add(u64::try_from(len).ok()?)?;
        (last <= window.len).then_some((&*window.device, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<u64>>);

    impl MmioDevice for Recorder {
        fn read(&self, offset: u64, data: &mut [u8]) {
            self.0.lock().unwrap().push(offset);
            data.fill(0xa5);
        }
        fn write(&self, offset: u64, _data: &[u8]) {
            self.0.lock().unwrap().push(offset);
        }
    }

    #[test]
    fn accesses_reach_the_window_that_holds_them_whole() {
        let device = Arc::new(Recorder::default());
        let mut bus = Bus::new();
        bus.insert(0x1000, 0x100, device.clone()).unwrap();
        let mut data = [0; 4];
        assert!(bus.read(0x10fc, &mut data));
        assert_eq!(data, [0xa5; 4]);
        assert!(bus.write(0x1000, &data));
        assert!(!bus.read(0x10fd, &mut data));
        assert!(!bus.read(0xfff, &mut data));
        assert!(!bus.write(u64::MAX, &data));
        assert_eq!(*device.0.lock().unwrap(), [0xfc, 0]);
    }

    #[test]
    fn overlapping_empty_and_wrapping_windows_are_rejected() {
        let device = Arc::new(Recorder::default());
        let mut bus = Bus::new();
        bus.insert(0x1000, 0x1000, device.clone()).unwrap();
        assert_eq!(
            bus.insert(0x1fff, 1, device.clone()),
            Err(BusError::Overlap {
                base: 0x1fff,
                other: 0x1000
            })
        );
        assert!(bus.insert(0x2000, 0, device.clone()).is_err());
        assert!(bus.insert(u64::MAX, 2, device.clone()).is_err());
        assert!(bus.insert(0x2000, 1, device).is_ok());
    }
}

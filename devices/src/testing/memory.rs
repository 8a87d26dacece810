//! Guest memory that notes what is looked at, and that can have holes.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{Error, Result};
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryRegion, GuestMemoryRegionBytes, GuestRegionMmap,
    GuestUsize, MemoryRegionAddress, VolatileSlice,
};

use crate::{GuestRam, WrittenPages};

/// Guest memory made of the same pages as some [`Ram`](crate::Ram), and perhaps
/// a window beside them.
pub struct ProbedMemory {
    regions: Vec<ProbedRegion>,
}

/// One range of a [`ProbedMemory`].
pub struct ProbedRegion {
    memory: GuestRam,
    /// Offsets behind which there is something.
    shown: Mutex<Range<u64>>,
    touched: Mutex<Vec<(u64, usize)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ProbedMemory {
    /// Shows all of each `memory`, which has one range.
    pub fn new(memory: impl IntoIterator<Item = GuestRam>) -> Self {
        let region = |memory: GuestRam| {
            let region = ProbedRegion {
                memory,
                shown: Mutex::new(0..0),
                touched: Mutex::default(),
            };
            region.show(0..region.len());
            region
        };
        Self {
            regions: memory.into_iter().map(region).collect(),
        }
    }

    /// The ranges, in order.
    pub fn regions(&self) -> &[ProbedRegion] {
        &self.regions
    }

    /// How often exactly these bytes were looked at, to check that they are
    /// there, to read or to write them.
    pub fn touched(&self, address: u64, len: usize) -> usize {
        let count = |region: &ProbedRegion| {
            let touched = lock(&region.touched);
            touched.iter().filter(|at| **at == (address, len)).count()
        };
        self.regions.iter().map(count).sum()
    }

    /// Forgets what was looked at.
    pub fn forget(&self) {
        for region in &self.regions {
            lock(&region.touched).clear();
        }
    }
}

impl ProbedRegion {
    /// Shows memory behind these offsets, and nothing behind others.
    pub fn show(&self, offsets: Range<u64>) {
        *lock(&self.shown) = offsets;
    }

    fn inner(&self) -> &GuestRegionMmap<WrittenPages> {
        let region = self.memory.iter().next();
        region.expect("memory has one range")
    }
}

impl GuestMemory for ProbedMemory {
    type R = ProbedRegion;

    fn iter(&self) -> impl Iterator<Item = &Self::R> {
        self.regions.iter()
    }
}

impl GuestMemoryRegion for ProbedRegion {
    type B = WrittenPages;

    fn len(&self) -> GuestUsize {
        self.inner().len()
    }

    fn start_addr(&self) -> GuestAddress {
        self.inner().start_addr()
    }

    fn bitmap(&self) -> BS<'_, WrittenPages> {
        self.inner().bitmap()
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_, BS<'_, WrittenPages>>> {
        let shown = lock(&self.shown).clone();
        let end = offset.0.saturating_add(count as u64);
        if offset.0 < shown.start || end > shown.end {
            return Err(Error::HostAddressNotAvailable);
        }
        lock(&self.touched).push((self.start_addr().0 + offset.0, count));
        self.inner().get_slice(offset, count)
    }
}

impl GuestMemoryRegionBytes for ProbedRegion {}

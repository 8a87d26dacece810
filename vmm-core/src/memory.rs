//! Guest RAM, and the leases that keep it alive while a guest can reach it.

pub(crate) mod fork;
pub use fork::close_inherited_descriptors;
mod lease;
mod lost;
mod page_set;
mod window;

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{GuestAddress, GuestRegionMmap};

use devices::{GuestRam, Ram, WrittenPages};
use snapshot::RamMapping;

use lease::LeaseKind;
pub use lease::MemoryLease;
pub use lost::MAX_WINDOWS;
pub use page_set::{PAGE_SET_BYTES, PageSet};
pub(crate) use window::WindowSpace;

/// Unit of all guest memory, in bytes: the largest in which an engine maps it,
/// which is Apple silicon's, so that a machine has the same layout everywhere.
pub const MAPPING_UNIT_BYTES: usize = 16 << 10;

/// Why there is no memory for the guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The host does not give this much.
    #[error("the host cannot give the guest {bytes} bytes of memory")]
    HostRefused {
        /// How much was asked for.
        bytes: u64,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The host does not have this much at all.
    #[error("the guest is to have {bytes} bytes of memory, the host has {host_bytes}")]
    MoreThanHost {
        /// How much was asked for.
        bytes: u64,
        /// Physical memory of the host.
        host_bytes: u64,
    },
    /// The guest's address space has no room for this much.
    #[error("the guest is to have {bytes} bytes of memory, its address space has {max_bytes}")]
    TooLarge {
        /// How much was asked for.
        bytes: u64,
        /// The most there can be.
        max_bytes: u64,
    },
    /// Less than a kernel can start in.
    #[error("the guest is to have {bytes} bytes of memory, it needs {min_bytes}")]
    TooSmall {
        /// How much was asked for.
        bytes: u64,
        /// The least there can be.
        min_bytes: u64,
    },
    /// A window for mapped files is not whole pieces of 2 MiB, or there are not so many
    /// addresses left for it.
    #[error(
        "a window of {bytes} bytes for mapped files must be whole pieces of 2 MiB, at most {left_bytes} bytes"
    )]
    BadWindow {
        /// How much was asked for.
        bytes: u64,
        /// How much there is.
        left_bytes: u64,
    },
    /// The host's memory cannot be used as guest memory.
    #[error("the host's memory cannot be used for a guest")]
    Unusable(#[source] MmapRegionError),
}

/// The guest's RAM: one range, taken from the host only as it is touched, and
/// perhaps a second one that can be added while it runs.
#[derive(Clone, Debug)]
pub struct GuestMemory {
    /// Dropped before the mappings, so that their end finds the regions unused.
    ram: GuestRam,
    mapping: Arc<Mapping>,
    hot: Option<Arc<Mapping>>,
}

/// Owns the host memory. The mapping under it is on a 16 KiB boundary, which
/// hosts with smaller pages do not promise and `vm-memory` cannot be told to
/// ask for.
#[derive(Debug)]
struct Mapping {
    /// The one way to the memory: everything that can reach it holds a clone
    /// of this `Arc`. Taken only when this is dropped.
    region: Option<Arc<GuestRegionMmap<WrittenPages>>>,
    host: Option<RamMapping>,
    address: NonNull<u8>,
    bytes: usize,
    base: u64,
}

// SAFETY: `address` is only a number here; the memory behind it may be reached
// from any thread, by volatile accesses through `region`.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing here changes through a shared reference.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(base: u64, host: RamMapping) -> Result<Self, MemoryError> {
        let (address, bytes) = (host.address(), host.bytes());
        // SAFETY: the range is mapped as long as `host` lives, which outlives
        // the region: dropping this leaves it in place while that is in use.
        let region = unsafe {
            MmapRegionBuilder::new_with_bitmap(bytes, WrittenPages::new(bytes))
                .with_raw_mmap_pointer(address.as_ptr())
                .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
                .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_NORESERVE)
                .build()
        }
        .map_err(MemoryError::Unusable)?;
        let Some(region) = GuestRegionMmap::new(region, GuestAddress(base)) else {
            return Err(MemoryError::TooLarge {
                bytes: bytes as u64,
                max_bytes: u64::MAX - base,
            });
        };
        Ok(Self {
            region: Some(Arc::new(region)),
            host: Some(host),
            address,
            bytes,
            base,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let unused = match self.region.take() {
            None => true,
            Some(region) => Arc::into_inner(region).is_some(),
        };
        match self.host.take() {
            // Somebody kept the RAM longer than the machine. They must find
            // memory there, but its content can go.
            Some(host) if !unused => host.abandon(),
            host => drop(host),
        }
    }
}

impl GuestMemory {
    /// Allocates `bytes` (a multiple of 16 KiB) to be seen at `base`.
    pub fn allocate(base: u64, bytes: u64) -> Result<Self, MemoryError> {
        if let Some(host_bytes) = host_memory_bytes()
            && bytes > host_bytes
        {
            return Err(MemoryError::MoreThanHost { bytes, host_bytes });
        }
        let too_large = MemoryError::TooLarge {
            bytes,
            max_bytes: isize::MAX.unsigned_abs() as u64,
        };
        let Some(size) = usize::try_from(bytes)
            .ok()
            .filter(|size| size.is_multiple_of(MAPPING_UNIT_BYTES) && *size > 0)
        else {
            return Err(too_large);
        };
        debug_assert!(size.is_multiple_of(MAPPING_UNIT_BYTES));
        let host = RamMapping::anonymous(bytes)
            .map_err(|source| MemoryError::HostRefused { bytes, source })?;
        Self::over(base, host)
    }

    /// The memory of a snapshot, to be seen at `base`.
    pub fn over(base: u64, host: RamMapping) -> Result<Self, MemoryError> {
        Self::of(Arc::new(Mapping::new(base, host)?), None)
    }

    /// The same memory with `bytes` of zeros at `base` beside it.
    pub fn with_hot(self, base: u64, bytes: u64) -> Result<Self, MemoryError> {
        let host = RamMapping::anonymous(bytes)
            .map_err(|source| MemoryError::HostRefused { bytes, source })?;
        Self::of(self.mapping, Some(Arc::new(Mapping::new(base, host)?)))
    }

    fn of(mapping: Arc<Mapping>, hot: Option<Arc<Mapping>>) -> Result<Self, MemoryError> {
        let too_large = MemoryError::TooLarge {
            bytes: mapping.bytes as u64,
            max_bytes: u64::MAX - mapping.base,
        };
        let regions = [Some(&mapping), hot.as_ref()].into_iter().flatten();
        let regions = regions.filter_map(|mapping| mapping.region.clone());
        let ram = Ram::from_arc_regions(regions.collect()).map_err(|_| too_large)?;
        Ok(Self {
            ram: Arc::new(ram),
            mapping,
            hot,
        })
    }

    /// The RAM as devices see it. Who keeps it longer than the machine finds
    /// it empty.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Adds the pages that were written through [`Self::ram`] since the last
    /// call: what devices wrote, and what the machine wrote that way. Writes
    /// by vCPUs are the engine's to tell.
    pub fn take_device_written(&self, into: &mut PageSet) {
        if let Some(region) = &self.mapping.region {
            let bitmap = region.bitmap();
            bitmap.take(|offset, words| into.insert_words(self.base() + offset, words));
        }
    }

    /// Guest physical address of the first byte.
    pub fn base(&self) -> u64 {
        self.mapping.base
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.mapping.bytes as u64
    }

    /// The host memory under it.
    pub fn host(&self) -> &RamMapping {
        self.mapping.host.as_ref().expect("taken only by drop")
    }

    /// A lease of each range.
    pub fn leases(&self) -> impl Iterator<Item = MemoryLease> + use<> {
        let mappings = [Some(self.mapping.clone()), self.hot.clone()];
        let mappings = mappings.into_iter().flatten();
        mappings.map(|mapping| MemoryLease {
            ipa: mapping.base,
            host: mapping.address,
            bytes: mapping.bytes,
            kind: LeaseKind::Memory,
            _lender: mapping,
        })
    }

    /// Length in bytes of the range that can be added.
    pub fn hot_bytes(&self) -> u64 {
        self.hot.as_ref().map_or(0, |hot| hot.bytes as u64)
    }

    /// Gives the host back what `bytes` at guest address `address` hold, whole
    /// pages in one range. They read as anything afterwards, but not as what
    /// another guest had.
    pub fn discard(&self, address: u64, bytes: u64) {
        for mapping in [Some(&self.mapping), self.hot.as_ref()]
            .into_iter()
            .flatten()
        {
            let inside = address
                .checked_sub(mapping.base)
                .filter(|offset| *offset < mapping.bytes as u64);
            if let (Some(offset), Some(host)) = (inside, &mapping.host) {
                // What the host does not take stays as it is.
                let _ = host.discard(offset, bytes);
            }
        }
    }

    /// Empties the range that can be added.
    pub fn discard_hot(&self) {
        if let Some(hot) = &self.hot {
            self.discard(hot.base, hot.bytes as u64);
        }
    }
}

/// Bytes of a page of the host, or of the largest there are if it does not say.
pub(crate) fn host_page_bytes() -> u64 {
    // SAFETY: sysconf takes a number and returns a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(page)
        .ok()
        .filter(|bytes| bytes.is_power_of_two())
        .unwrap_or(MAPPING_UNIT_BYTES as u64)
}

/// Physical memory of the host, if it says.
fn host_memory_bytes() -> Option<u64> {
    // SAFETY: sysconf takes a number and returns a number.
    let (pages, page) = unsafe {
        (
            libc::sysconf(libc::_SC_PHYS_PAGES),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    u64::try_from(pages)
        .ok()?
        .checked_mul(u64::try_from(page).ok()?)
        .filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestMemory as _};

    #[test]
    fn memory_starts_on_a_page_the_engines_can_map() {
        let mut leases = Vec::new();
        for mib in [1, 3, 64, 1, 2, 5] {
            let memory = GuestMemory::allocate(0x8000_0000, mib << 20).unwrap();
            let lease = memory.leases().next().unwrap();
            leases.push(memory.leases().next().unwrap());
            assert!(lease.host().addr().get().is_multiple_of(MAPPING_UNIT_BYTES));
            assert_eq!(lease.bytes() as u64, mib << 20);
        }
    }

    #[test]
    fn a_lease_outlives_the_memory_it_came_from() {
        let memory = GuestMemory::allocate(0x8000_0000, 1 << 20).unwrap();
        memory
            .ram()
            .write_obj(0x5a_u8, GuestAddress(0x8000_0000))
            .unwrap();
        let lease = memory.leases().next().unwrap();
        drop(memory);
        // SAFETY: the lease keeps the mapping; nothing else uses it now.
        assert_eq!(unsafe { lease.host().as_ptr().read() }, 0x5a);
    }

    #[test]
    fn ram_kept_too_long_is_empty_but_there() {
        let memory = GuestMemory::allocate(0x8000_0000, 1 << 20).unwrap();
        let ram = memory.ram().clone();
        ram.write_obj(0x5a_u8, GuestAddress(0x8000_0000)).unwrap();
        drop(memory);
        let kept: u8 = ram.read_obj(GuestAddress(0x8000_0000)).unwrap();
        assert!(kept == 0 || cfg!(not(target_os = "linux")));
        ram.write_obj(1_u8, GuestAddress(0x8000_0000)).unwrap();
    }

    #[test]
    fn memory_beyond_the_host_is_refused_in_words() {
        let error = GuestMemory::allocate(0x8000_0000, 1 << 60).unwrap_err();
        assert!(matches!(error, MemoryError::MoreThanHost { .. }), "{error}");
    }

    #[test]
    fn what_devices_write_is_told_once() {
        let base = 0x8000_0000;
        let memory = GuestMemory::allocate(base, 1 << 20).unwrap();
        let ram = memory.ram();
        ram.write_slice(&[1; 3], GuestAddress(base + 0x1fff))
            .unwrap();
        ram.write_obj(7_u32, GuestAddress(base + 0xf_f000)).unwrap();
        let _: u64 = ram.read_obj(GuestAddress(base + 0x5000)).unwrap();
        let mut written = PageSet::new(base, 1 << 20);
        memory.take_device_written(&mut written);
        let expected = [
            base + 0x1000..base + 0x3000,
            base + 0xf_f000..base + 0x10_0000,
        ];
        assert!(written.runs().eq(expected));
        written.clear();
        memory.take_device_written(&mut written);
        assert!(written.is_empty());
    }

    #[test]
    fn accesses_outside_fail() {
        let memory = GuestMemory::allocate(0x8000_0000, 1 << 20).unwrap();
        assert!(!memory.ram().address_in_range(GuestAddress(0x7fff_ffff)));
        assert!(!memory.ram().address_in_range(GuestAddress(0x8010_0000)));
    }
}

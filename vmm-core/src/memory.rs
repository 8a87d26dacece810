//! Guest RAM, and the leases that keep it alive while a guest can reach it.

use std::ptr::NonNull;
use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use hvf::sys::PAGE_BYTES;

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
        source: vm_memory::mmap::MmapRegionError,
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
    /// The host kept giving memory at addresses that cannot be mapped.
    #[error("the host gave no memory on a 16 KiB boundary")]
    Misaligned,
}

/// The guest's RAM: one range, anonymous, not reserved until it is touched.
#[derive(Clone, Debug)]
pub struct GuestMemory {
    ram: Arc<GuestMemoryMmap<()>>,
    region: Arc<GuestRegionMmap<()>>,
    base: u64,
    bytes: u64,
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
        let Ok(size) = usize::try_from(bytes) else {
            return Err(too_large);
        };
        let mapping = aligned_mapping(size)?;
        let Some(region) = GuestRegionMmap::new(mapping, GuestAddress(base)) else {
            return Err(too_large);
        };
        let region = Arc::new(region);
        let ram = GuestMemoryMmap::from_arc_regions(vec![region.clone()])
            .expect("one region overlaps no other");
        Ok(Self {
            ram: Arc::new(ram),
            region,
            base,
            bytes,
        })
    }

    /// The RAM as devices see it.
    pub fn ram(&self) -> &Arc<GuestMemoryMmap<()>> {
        &self.ram
    }

    /// Guest physical address of the first byte.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A lease of all of it.
    pub fn lease(&self) -> MemoryLease {
        MemoryLease {
            region: self.region.clone(),
            base: self.base,
        }
    }
}

/// Memory that stays in place as long as this exists, so that an engine may
/// show it to a guest.
#[derive(Debug)]
pub struct MemoryLease {
    region: Arc<GuestRegionMmap<()>>,
    base: u64,
}

impl MemoryLease {
    /// Guest physical address of the first byte.
    pub fn ipa(&self) -> u64 {
        self.base
    }

    /// First byte on the host.
    pub fn host(&self) -> NonNull<u8> {
        NonNull::new(self.region.as_ptr()).expect("mappings are never at address zero")
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.region.size()
    }
}

/// Maps anonymous memory on a 16 KiB boundary, which hosts with smaller pages
/// do not promise.
fn aligned_mapping(size: usize) -> Result<MmapRegion<()>, MemoryError> {
    /// Other threads may map memory between two attempts.
    const ATTEMPTS: usize = 64;
    let map = |size| {
        MmapRegion::new(size).map_err(|source| MemoryError::HostRefused {
            bytes: size as u64,
            source,
        })
    };
    // Hosts place mappings right below the last one, so a filler of as many
    // bytes as we are off moves the next attempt onto the boundary.
    let mut fillers = Vec::new();
    for _ in 0..ATTEMPTS {
        let mapping = map(size)?;
        match mapping.as_ptr().addr() % PAGE_BYTES {
            0 => return Ok(mapping),
            off => {
                drop(mapping);
                fillers.push(map(off)?);
            }
        }
    }
    Err(MemoryError::Misaligned)
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
        for mib in [1, 3, 64] {
            let memory = GuestMemory::allocate(0x8000_0000, mib << 20).unwrap();
            let lease = memory.lease();
            assert!(lease.host().addr().get().is_multiple_of(PAGE_BYTES));
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
        let lease = memory.lease();
        drop(memory);
        // SAFETY: the lease keeps the mapping; nothing else uses it now.
        assert_eq!(unsafe { lease.host().as_ptr().read() }, 0x5a);
    }

    #[test]
    fn memory_beyond_the_host_is_refused_in_words() {
        let error = GuestMemory::allocate(0x8000_0000, 1 << 60).unwrap_err();
        assert!(matches!(error, MemoryError::MoreThanHost { .. }), "{error}");
    }

    #[test]
    fn accesses_outside_fail() {
        let memory = GuestMemory::allocate(0x8000_0000, 1 << 20).unwrap();
        assert!(!memory.ram().address_in_range(GuestAddress(0x7fff_ffff)));
        assert!(!memory.ram().address_in_range(GuestAddress(0x8010_0000)));
    }
}

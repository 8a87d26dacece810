//! The intermediate physical address map: what `hv_vm_map` and its siblings edit.
//!
//! The map is an immutable sorted list behind an [`Arc`], replaced as a whole on
//! each change. A vCPU keeps a [`PhysView`] and compares one generation counter
//! to learn that it is stale; lookups while running take no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Granule of every mapping in bytes: the stage-2 page of Apple silicon,
/// enforced on every host so that programs stay portable between engines.
pub const MAP_GRANULE_BYTES: u64 = 16 * 1024;

/// `HV_MEMORY_READ`, `HV_MEMORY_WRITE` and `HV_MEMORY_EXEC` of one mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryFlags(pub u64);

impl MemoryFlags {
    /// The guest may load.
    pub const READ: Self = Self(1);
    /// The guest may store.
    pub const WRITE: Self = Self(2);
    /// The guest may fetch instructions.
    pub const EXEC: Self = Self(4);
    /// Load, store and fetch.
    pub const ALL: Self = Self(7);

    /// Whether every bit of `other` is set.
    #[inline]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Why an edit of the map was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PhysError {
    /// An address or the size is not a multiple of [`MAP_GRANULE_BYTES`], the
    /// size is zero, the range leaves the address space, or a flag is unknown.
    #[error("bad address, size or flags")]
    BadArgument,
    /// The range overlaps an existing mapping.
    #[error("range overlaps an existing mapping")]
    Overlap,
    /// Part of the range is not mapped.
    #[error("range has a hole")]
    Hole,
}

/// One mapped range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// First intermediate physical address.
    pub ipa: u64,
    /// Length in bytes.
    pub size: u64,
    /// Host address of the first byte.
    pub host: usize,
    /// What the guest may do.
    pub flags: MemoryFlags,
}

impl Region {
    fn end(&self) -> u64 {
        self.ipa + self.size
    }

    /// The part of this region in `[start, end)`, which must intersect it.
    fn cut(&self, start: u64, end: u64) -> Self {
        let ipa = self.ipa.max(start);
        Self {
            ipa,
            size: self.end().min(end) - ipa,
            host: self.host + (ipa - self.ipa) as usize,
            flags: self.flags,
        }
    }
}

/// What backs one intermediate physical address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backing {
    /// Host address of the byte. Other vCPUs and device threads use the same
    /// memory at the same time: access it by atomics or volatile only.
    pub host: *mut u8,
    /// Bytes from there to the end of the region, at least 1.
    pub left: u64,
    /// What the guest may do.
    pub flags: MemoryFlags,
}

/// One immutable version of the map: sorted, disjoint regions.
#[derive(Debug, Default)]
pub struct Regions(Vec<Region>);

impl Regions {
    /// What backs `pa`, or `None` in a hole.
    #[inline]
    pub fn lookup(&self, pa: u64) -> Option<Backing> {
        let after = self.0.partition_point(|r| r.ipa <= pa);
        let region = self.0.get(after.checked_sub(1)?)?;
        let offset = pa - region.ipa;
        (offset < region.size).then(|| Backing {
            host: (region.host + offset as usize) as *mut u8,
            left: region.size - offset,
            flags: region.flags,
        })
    }

    /// The regions in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &Region> {
        self.0.iter()
    }

    fn overlapping(&self, start: u64, end: u64) -> &[Region] {
        let first = self.0.partition_point(|r| r.end() <= start);
        let last = self.0.partition_point(|r| r.ipa < end);
        self.0.get(first..last).unwrap_or_default()
    }

    fn covers(&self, start: u64, end: u64) -> bool {
        let mut at = start;
        for region in self.overlapping(start, end) {
            if region.ipa > at {
                return false;
            }
            at = region.end();
        }
        at >= end
    }

    /// This map with `[start, end)` taken out and `parts` put in its place.
    fn replaced(&self, start: u64, end: u64, parts: &[Region]) -> Self {
        let mut list = Vec::with_capacity(self.0.len() + parts.len() + 2);
        for region in &self.0 {
            if region.end() <= start || region.ipa >= end {
                list.push(*region);
                continue;
            }
            if region.ipa < start {
                list.push(region.cut(region.ipa, start));
            }
            if region.end() > end {
                list.push(region.cut(end, region.end()));
            }
        }
        list.extend_from_slice(parts);
        list.sort_unstable_by_key(|r| r.ipa);
        list.dedup_by(|next, kept| {
            let joins = kept.end() == next.ipa
                && kept.host + kept.size as usize == next.host
                && kept.flags == next.flags;
            if joins {
                kept.size += next.size;
            }
            joins
        });
        Self(list)
    }
}

/// The map of one VM.
#[derive(Debug)]
pub struct PhysMap {
    regions: RwLock<Arc<Regions>>,
    generation: AtomicU64,
    ipa_bits: u32,
}

impl PhysMap {
    /// An empty map of a guest with `ipa_bits` (at most 48) address bits.
    pub fn new(ipa_bits: u32) -> Self {
        Self {
            regions: RwLock::new(Arc::default()),
            generation: AtomicU64::new(0),
            ipa_bits: ipa_bits.min(48),
        }
    }

    /// Number of changes so far. Equal values mean an unchanged map.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The current map, for a caller who then looks up without any lock.
    pub fn view(&self) -> PhysView {
        let guard = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        PhysView {
            generation: self.generation(),
            regions: Arc::clone(&guard),
        }
    }

    /// What backs `pa` now. For rare use; a vCPU keeps a [`PhysView`].
    pub fn lookup(&self, pa: u64) -> Option<Backing> {
        let guard = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        guard.lookup(pa)
    }

    /// Whether the whole range is mapped, whatever the guest may do there.
    pub fn is_mapped(&self, ipa: u64, size: u64) -> bool {
        let guard = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        ipa.checked_add(size)
            .is_some_and(|end| guard.covers(ipa, end))
    }

    /// Maps `size` bytes of host memory at `host` to `ipa`.
    ///
    /// # Errors
    /// [`PhysError::BadArgument`] or [`PhysError::Overlap`].
    pub fn map(
        &self,
        host: usize,
        ipa: u64,
        size: u64,
        flags: MemoryFlags,
    ) -> Result<(), PhysError> {
        let end = self.checked_end(ipa, size)?;
        let host_ok = host != 0
            && (host as u64).is_multiple_of(MAP_GRANULE_BYTES)
            && (host as u64).checked_add(size).is_some();
        if !host_ok || flags.0 & !MemoryFlags::ALL.0 != 0 {
            return Err(PhysError::BadArgument);
        }
        self.edit(|regions| {
            if !regions.overlapping(ipa, end).is_empty() {
                return Err(PhysError::Overlap);
            }
            let part = Region {
                ipa,
                size,
                host,
                flags,
            };
            Ok(regions.replaced(ipa, end, &[part]))
        })
    }

    /// Unmaps `size` bytes at `ipa`, which may be part of a mapping or span several.
    ///
    /// # Errors
    /// [`PhysError::BadArgument`], or [`PhysError::Hole`] if any of it is unmapped.
    pub fn unmap(&self, ipa: u64, size: u64) -> Result<(), PhysError> {
        let end = self.checked_end(ipa, size)?;
        self.edit(|regions| {
            if !regions.covers(ipa, end) {
                return Err(PhysError::Hole);
            }
            Ok(regions.replaced(ipa, end, &[]))
        })
    }

    /// Sets the permissions of `size` bytes at `ipa`; none at all is allowed.
    ///
    /// # Errors
    /// [`PhysError::BadArgument`], or [`PhysError::Hole`] if any of it is unmapped.
    pub fn protect(&self, ipa: u64, size: u64, flags: MemoryFlags) -> Result<(), PhysError> {
        let end = self.checked_end(ipa, size)?;
        if flags.0 & !MemoryFlags::ALL.0 != 0 {
            return Err(PhysError::BadArgument);
        }
        self.edit(|regions| {
            if !regions.covers(ipa, end) {
                return Err(PhysError::Hole);
            }
            let parts: Vec<Region> = regions
                .overlapping(ipa, end)
                .iter()
                .map(|r| Region {
                    flags,
                    ..r.cut(ipa, end)
                })
                .collect();
            Ok(regions.replaced(ipa, end, &parts))
        })
    }

    fn checked_end(&self, ipa: u64, size: u64) -> Result<u64, PhysError> {
        let aligned =
            ipa.is_multiple_of(MAP_GRANULE_BYTES) && size.is_multiple_of(MAP_GRANULE_BYTES);
        let end = ipa.checked_add(size).ok_or(PhysError::BadArgument)?;
        if !aligned || size == 0 || end > 1 << self.ipa_bits {
            return Err(PhysError::BadArgument);
        }
        Ok(end)
    }

    fn edit(
        &self,
        change: impl FnOnce(&Regions) -> Result<Regions, PhysError>,
    ) -> Result<(), PhysError> {
        let mut guard = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        *guard = Arc::new(change(&guard)?);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

/// A version of the map that one vCPU holds on to.
#[derive(Clone, Debug)]
pub struct PhysView {
    generation: u64,
    regions: Arc<Regions>,
}

impl PhysView {
    /// What backs `pa` in this version, or `None` in a hole.
    #[inline]
    pub fn lookup(&self, pa: u64) -> Option<Backing> {
        self.regions.lookup(pa)
    }

    /// The generation that this version has.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Moves on to the current version; `true` if there was a newer one.
    pub fn refresh(&mut self, map: &PhysMap) -> bool {
        if map.generation() == self.generation {
            return false;
        }
        *self = map.view();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: u64 = MAP_GRANULE_BYTES;
    const HOST: usize = 0x7000_0000_0000;

    fn mapped() -> PhysMap {
        let map = PhysMap::new(36);
        map.map(HOST, 4 * G, 4 * G, MemoryFlags::ALL).unwrap();
        map
    }

    #[test]
    fn lookup_gives_host_address_and_bytes_left() {
        let map = mapped();
        let hit = map.lookup(5 * G + 3).unwrap();
        assert_eq!(hit.host as usize, HOST + (G as usize) + 3);
        assert_eq!(hit.left, 3 * G - 3);
        assert_eq!(map.lookup(8 * G - 1).unwrap().left, 1);
        assert_eq!(map.lookup(8 * G), None);
        assert_eq!(map.lookup(4 * G - 1), None);
        assert_eq!(map.lookup(u64::MAX), None);
    }

    #[test]
    fn unaligned_empty_and_overflowing_ranges_are_bad_arguments() {
        let map = mapped();
        let all = MemoryFlags::ALL;
        for (host, ipa, size) in [
            (HOST + 4096, 0, G),
            (HOST, 4096, G),
            (HOST, 0, 4096),
            (HOST, 0, 0),
            (0, 0, G),
            (HOST, 1 << 36, G),
            (HOST, u64::MAX - G + 1, G),
            (usize::MAX - 0x3fff, 0, 2 * G),
        ] {
            assert_eq!(map.map(host, ipa, size, all), Err(PhysError::BadArgument));
        }
        assert_eq!(
            map.map(HOST, 0, G, MemoryFlags(8)),
            Err(PhysError::BadArgument)
        );
        assert_eq!(map.unmap(4 * G + 1, G), Err(PhysError::BadArgument));
        assert_eq!(
            map.protect(4 * G, G, MemoryFlags(16)),
            Err(PhysError::BadArgument)
        );
    }

    #[test]
    fn overlap_is_refused_and_neighbours_are_not() {
        let map = mapped();
        let all = MemoryFlags::ALL;
        for ipa in [3, 4, 7] {
            assert_eq!(map.map(HOST, ipa * G, 2 * G, all), Err(PhysError::Overlap));
        }
        map.map(HOST + 4 * G as usize, 8 * G, G, all).unwrap();
        map.map(HOST + (1 << 30), 3 * G, G, all).unwrap();
    }

    #[test]
    fn partial_unmap_leaves_both_ends_and_holes_are_refused() {
        let map = mapped();
        map.unmap(5 * G, G).unwrap();
        assert!(map.lookup(4 * G).is_some());
        assert_eq!(map.lookup(5 * G), None);
        assert_eq!(
            map.lookup(6 * G).unwrap().host as usize,
            HOST + 2 * G as usize
        );
        let before = map.generation();
        assert_eq!(map.unmap(4 * G, 4 * G), Err(PhysError::Hole));
        assert_eq!(map.unmap(0, G), Err(PhysError::Hole));
        assert_eq!(map.generation(), before);
    }

    #[test]
    fn protect_of_a_middle_page_splits_and_restoring_it_joins() {
        let map = mapped();
        map.protect(5 * G, G, MemoryFlags::READ).unwrap();
        assert_eq!(map.lookup(5 * G).unwrap().flags, MemoryFlags::READ);
        assert_eq!(map.lookup(5 * G).unwrap().left, G);
        assert_eq!(map.lookup(4 * G).unwrap().flags, MemoryFlags::ALL);
        map.protect(5 * G, G, MemoryFlags::ALL).unwrap();
        assert_eq!(map.view().regions.iter().count(), 1);
        assert_eq!(map.lookup(4 * G).unwrap().left, 4 * G);
        map.protect(4 * G, 4 * G, MemoryFlags::default()).unwrap();
        assert_eq!(map.lookup(6 * G).unwrap().flags, MemoryFlags(0));
        assert_eq!(
            map.protect(7 * G, 2 * G, MemoryFlags::ALL),
            Err(PhysError::Hole)
        );
    }

    #[test]
    fn a_view_is_stable_until_refreshed() {
        let map = mapped();
        let mut view = map.view();
        assert!(!view.refresh(&map));
        map.unmap(4 * G, 4 * G).unwrap();
        assert!(view.lookup(4 * G).is_some());
        assert!(view.refresh(&map));
        assert_eq!(view.lookup(4 * G), None);
    }
}

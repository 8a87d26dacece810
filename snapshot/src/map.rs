//! Guest memory on the host: fresh, or a private copy-on-write mapping of
//! `mem.bin`.

use crate::WorkingSet;
use crate::content::Content;
use crate::host;
use crate::limits::{GRANULE_BYTES, PAGE_BYTES};
use rustix::mm::{MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vm_memory::VolatileSlice;

/// Owns the host memory of a guest: aligned to [`GRANULE_BYTES`], readable and
/// writable, private. It starts as zeros or as the content of a snapshot; what
/// is written never reaches a file.
///
/// It keeps the snapshot's file open. Should someone truncate the file,
/// touching a page beyond its new end kills the process (SIGBUS); published
/// files are only ever unlinked, and workers are processes of their own for
/// that reason too.
#[derive(Debug)]
pub struct RamMapping {
    address: NonNull<u8>,
    bytes: usize,
    stored: Mutex<Option<Stored>>,
    /// What was never touched may be a file's, and not zeros.
    is_of_files: AtomicBool,
}

/// What the memory goes back to.
#[derive(Debug)]
struct Stored {
    content: Content,
    /// All of it for reading, made when first needed.
    view: Option<View>,
}

/// A read-only mapping of stored memory.
#[derive(Debug)]
struct View {
    address: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and this type
// hands out only raw pointers and volatile slices, which do not alias.
unsafe impl Send for RamMapping {}
// SAFETY: as above; no method reads or writes through a reference.
unsafe impl Sync for RamMapping {}

const PROTECTION: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);
const PRIVATE: MapFlags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);

/// Pages of 4 KiB that a process has in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresentPages {
    /// All of them.
    pub pages: u64,
    /// Those of the set that was asked about.
    pub among: u64,
}

impl RamMapping {
    /// `bytes` of zeros, taken from the host only as they are touched.
    ///
    /// # Errors
    /// When `bytes` is not a multiple of [`GRANULE_BYTES`], or the system
    /// refuses.
    pub fn anonymous(bytes: u64) -> io::Result<Self> {
        let (address, bytes) = reserve(bytes, PROTECTION)?;
        Ok(Self {
            address,
            bytes,
            stored: Mutex::new(None),
            is_of_files: AtomicBool::new(false),
        })
    }

    /// Maps the first `bytes` of `content`, which must be there.
    pub(crate) fn new(content: Content, bytes: u64) -> io::Result<Self> {
        let (address, bytes) = reserve(bytes, ProtFlags::empty())?;
        // From here on, dropping unmaps.
        let mapping = Self {
            address,
            bytes,
            stored: Mutex::new(None),
            is_of_files: AtomicBool::new(false),
        };
        mapping.rebase(content)?;
        Ok(mapping)
    }

    fn stored(&self) -> MutexGuard<'_, Option<Stored>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the whole range by a private mapping of `content`.
    fn map(&self, content: &Content) -> io::Result<()> {
        // SAFETY: the range is this mapping's own, and is replaced by one of
        // the same length, so that pointers into it stay valid.
        unsafe { map_over(self.address, self.bytes, content, PROTECTION, PRIVATE) }
    }

    /// Address of the first byte of guest memory.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.address
    }

    /// Bytes mapped.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The memory, to read and write while others may do so too.
    #[must_use]
    pub fn slice(&self) -> VolatileSlice<'_> {
        // SAFETY: the range is mapped for as long as `self` lives, which the
        // slice borrows, and all safe access to it is volatile.
        unsafe { VolatileSlice::new(self.address.as_ptr(), self.bytes) }
    }

    /// Copies the stored content of a range back into the mapping: for resets
    /// that know which pages were written. Nobody should use the range
    /// meanwhile: it has old and new content.
    ///
    /// # Errors
    /// When the range is outside of memory, there is no snapshot under it, or
    /// the system refuses.
    pub fn copy_back(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let (start, bytes) = self.range(offset, bytes)?;
        let mut stored = self.stored();
        let stored = stored.as_mut().ok_or(io::ErrorKind::Unsupported)?;
        let view = match &mut stored.view {
            Some(view) => view,
            none => none.insert(View::new(&stored.content, self.bytes)?),
        };
        // SAFETY: the view is mapped as long as `stored` is locked, and nothing
        // writes to it.
        let stored = unsafe { VolatileSlice::new(view.address.as_ptr(), view.bytes) };
        let stored = stored.subslice(start, bytes).map_err(io::Error::other)?;
        let target = self.slice();
        let target = target.subslice(start, bytes).map_err(io::Error::other)?;
        stored.copy_to_volatile_slice(target);
        Ok(())
    }

    /// Replaces the whole mapping by a fresh one at the same address: for
    /// resets after which memory goes back to the host. Nobody should use the
    /// memory meanwhile. After an error the machine must be given up.
    ///
    /// # Errors
    /// When there is no snapshot under it, or the system refuses.
    pub fn map_afresh(&self) -> io::Result<()> {
        let stored = self.stored();
        let stored = stored.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        self.map(&stored.content)
    }

    /// Makes `content` that of the memory, at the same address, and what it
    /// goes back to from now on.
    pub(crate) fn rebase(&self, content: Content) -> io::Result<()> {
        let mut stored = self.stored();
        self.is_of_files.store(true, Ordering::Relaxed);
        self.map(&content)?;
        *stored = Some(Stored {
            content,
            view: None,
        });
        Ok(())
    }

    /// Gives the host pages back whose content nobody needs. They read as
    /// zeros or as the snapshot has them afterwards, on some systems as before.
    ///
    /// # Errors
    /// When the range is outside of memory or the system refuses.
    pub fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let (start, bytes) = self.range(offset, bytes)?;
        let page = rustix::param::page_size();
        let first = start.next_multiple_of(page);
        let end = (start + bytes) / page * page;
        if first >= end {
            return Ok(());
        }
        let address = self.address.as_ptr().wrapping_byte_add(first).cast();
        // SAFETY: the range is this mapping's own; it stays mapped.
        unsafe { madvise(address, end - first, host::DISCARD)? };
        Ok(())
    }

    /// Which pages of [`PAGE_BYTES`] are in memory for this process, touched by
    /// somebody or brought in with their neighbours; empty where the system
    /// does not tell.
    ///
    /// # Errors
    /// When the system tells, but not now.
    pub fn present_pages(&self) -> io::Result<Vec<u64>> {
        let mut pages = Vec::new();
        host::each_present_page(self.address.addr().get(), self.bytes, |page| {
            pages.push(page);
        })?;
        Ok(pages)
    }

    /// How many pages [`RamMapping::present_pages`] would tell of, and how many of
    /// these are in `set`; `None` where the system does not tell. Takes no memory for
    /// them.
    ///
    /// # Errors
    /// As [`RamMapping::present_pages`].
    pub fn count_present(&self, set: &WorkingSet) -> io::Result<Option<PresentPages>> {
        let mut count = PresentPages::default();
        let mut runs = set.runs().iter().peekable();
        let is_told = host::each_present_page(self.address.addr().get(), self.bytes, |page| {
            count.pages += 1;
            while runs.next_if(|run| run.end <= page).is_some() {}
            count.among += u64::from(runs.peek().is_some_and(|run| run.contains(&page)));
        })?;
        Ok(is_told.then_some(count))
    }

    /// Runs of pages, as numbers, outside of which all is zeros as far as is
    /// known without reading: what was never touched of memory without a
    /// snapshot under it, and of other memory what is in holes of the snapshot's files, too.
    /// They begin and end at multiples of [`GRANULE_BYTES`].
    ///
    /// # Errors
    /// As [`RamMapping::present_pages`].
    pub fn populated(&self) -> io::Result<Vec<Range<u64>>> {
        let bytes = self.bytes as u64;
        let all = 0..bytes / PAGE_BYTES;
        let mut runs = Vec::new();
        if self.is_of_files.load(Ordering::Relaxed) {
            let stored = self.stored();
            let Some(Stored { content, .. }) = &*stored else {
                return Ok(vec![all]);
            };
            runs = content.data(bytes)?;
        }
        let add = |page| runs.push(page * PAGE_BYTES..(page + 1) * PAGE_BYTES);
        if !host::each_present_page(self.address.addr().get(), self.bytes, add)? {
            return Ok(vec![all]);
        }
        runs.sort_unstable_by_key(|run| run.start);
        let unit = GRANULE_BYTES / PAGE_BYTES;
        let mut populated: Vec<Range<u64>> = Vec::new();
        for run in runs {
            let start = run.start / GRANULE_BYTES * unit;
            let end = run.end.div_ceil(GRANULE_BYTES) * unit;
            match populated.last_mut() {
                Some(last) if start <= last.end => last.end = last.end.max(end),
                _ => populated.push(start..end),
            }
        }
        Ok(populated)
    }

    /// Forgets what the memory goes back to, without closing the file: for a
    /// process just forked, which closes all files by their numbers. What is mapped of
    /// them stays.
    pub fn forget_base(&self) {
        std::mem::forget(self.stored().take());
    }

    /// Gives the content back to the host and never unmaps the range: for
    /// memory that somebody may still hold pointers to.
    pub fn abandon(self) {
        let _ = self.discard(0, self.bytes as u64);
        std::mem::forget(self);
    }

    fn range(&self, offset: u64, bytes: u64) -> io::Result<(usize, usize)> {
        let outside = || io::Error::from(io::ErrorKind::InvalidInput);
        let start = usize::try_from(offset).map_err(|_| outside())?;
        let bytes = usize::try_from(bytes).map_err(|_| outside())?;
        let end = start.checked_add(bytes).ok_or_else(outside)?;
        if end > self.bytes {
            return Err(outside());
        }
        Ok((start, bytes))
    }
}

impl Drop for RamMapping {
    fn drop(&mut self) {
        // SAFETY: the range was reserved by this type, and slices of it borrow
        // `self`.
        let _ = unsafe { munmap(self.address.as_ptr().cast(), self.bytes) };
    }
}

impl View {
    fn new(content: &Content, bytes: usize) -> io::Result<Self> {
        let (address, bytes) = reserve(bytes as u64, ProtFlags::empty())?;
        // From here on, dropping unmaps.
        let view = Self { address, bytes };
        // SAFETY: the range was reserved just now.
        unsafe { map_over(address, bytes, content, ProtFlags::READ, MapFlags::SHARED)? };
        Ok(view)
    }
}

/// Maps `content` over a range: `mem.bin`, and over that what the base has.
///
/// # Safety
/// The range is mapped, `bytes` long, and the caller's own.
unsafe fn map_over(
    address: NonNull<u8>,
    bytes: usize,
    content: &Content,
    protection: ProtFlags,
    kind: MapFlags,
) -> io::Result<()> {
    let outside = || io::Error::from(io::ErrorKind::InvalidInput);
    let flags = kind | MapFlags::FIXED;
    let address = address.as_ptr();
    // SAFETY: by the contract.
    unsafe { mmap(address.cast(), bytes, protection, flags, content.file(), 0)? };
    for (file, run) in content.shared() {
        let start = usize::try_from(run.start).map_err(|_| outside())?;
        let len = usize::try_from(run.end - run.start).map_err(|_| outside())?;
        if start.checked_add(len).is_none_or(|end| end > bytes) {
            return Err(outside());
        }
        let place = address.wrapping_byte_add(start).cast();
        // SAFETY: by the contract, and inside of the range.
        unsafe { mmap(place, len, protection, flags, file, run.start)? };
    }
    Ok(())
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: made by `new`; slices of it live only while `base` is locked.
        let _ = unsafe { munmap(self.address.as_ptr().cast(), self.bytes) };
    }
}

/// Maps `bytes` of anonymous memory aligned to [`GRANULE_BYTES`].
fn reserve(bytes: u64, protection: ProtFlags) -> io::Result<(NonNull<u8>, usize)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let granule = usize::try_from(GRANULE_BYTES).map_err(|_| invalid())?;
    let bytes = usize::try_from(bytes).map_err(|_| invalid())?;
    if bytes == 0 || !bytes.is_multiple_of(granule) {
        return Err(invalid());
    }
    let whole = bytes.checked_add(granule).ok_or_else(invalid)?;
    // SAFETY: a new anonymous mapping at a place of the system's choice
    // touches no memory in use.
    let start = unsafe { mmap_anonymous(std::ptr::null_mut(), whole, protection, PRIVATE)? };
    let skip = start.align_offset(granule);
    let tail = granule - skip;
    let address = start.wrapping_byte_add(skip);
    // SAFETY: the parts cut off are the edges of the mapping above, which
    // nobody else knows.
    unsafe {
        if skip > 0 {
            munmap(start, skip)?;
        }
        if tail > 0 {
            munmap(address.wrapping_byte_add(bytes), tail)?;
        }
    }
    let address = NonNull::new(address.cast()).ok_or_else(invalid)?;
    Ok((address, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::MemoryTable;
    use crate::tests::Scratch;
    use std::sync::Arc;
    use vm_memory::Bytes;

    const GRANULE: u64 = GRANULE_BYTES;

    #[test]
    fn anonymous_memory_is_aligned_zero_and_bounded() {
        let ram = RamMapping::anonymous(4 * GRANULE).unwrap();
        assert_eq!(ram.address().addr().get() as u64 % GRANULE, 0);
        let mut byte = [1_u8];
        ram.slice().subslice(7, 1).unwrap().copy_to(&mut byte);
        assert_eq!(byte, [0]);
        for bytes in [0, 1, GRANULE + 1, u64::MAX / GRANULE * GRANULE] {
            assert!(RamMapping::anonymous(bytes).is_err(), "{bytes}");
        }
        assert!(ram.discard(0, 5 * GRANULE).is_err());
        assert!(ram.discard(u64::MAX, 2).is_err());
        let error = ram.map_afresh().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(ram.copy_back(0, 1).is_err());
    }

    #[test]
    fn what_was_touched_is_populated_and_the_rest_mostly_not() {
        let ram = RamMapping::anonymous(64 * GRANULE).unwrap();
        let page = usize::try_from(PAGE_BYTES).unwrap();
        for at in [3, 70] {
            let target = ram.slice().subslice(at * page, 1).unwrap();
            target.copy_from(&[1_u8]);
        }
        let runs = ram.populated().unwrap();
        for at in [3, 70] {
            assert!(runs.iter().any(|run| run.contains(&at)), "{at} in {runs:?}");
        }
        assert!(runs.iter().all(|run| run.end <= 256), "{runs:?}");
    }

    #[test]
    fn memory_of_a_file_is_populated_though_nothing_of_it_was_touched() {
        let scratch = Scratch::new();
        let path = scratch.path().join("memory");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        let file = std::fs::File::open(path).unwrap();
        let table = MemoryTable {
            stored_bytes: 0,
            chunks: Vec::new(),
            base_runs: Vec::new(),
        };
        let content = Content::new(Arc::new(file), None, &table);
        let ram = RamMapping::new(content, 64 * GRANULE).unwrap();
        let runs = ram.populated().unwrap();
        assert_eq!((runs.len(), &runs[0]), (1, &(0..256)));
        // In a process that was forked it is the file's as before.
        ram.forget_base();
        ram.slice().write_obj(1_u8, 0).unwrap();
        assert_eq!(ram.populated().unwrap(), runs);
    }

    #[test]
    fn pages_that_are_there_are_counted_in_all_and_in_a_set() {
        let ram = RamMapping::anonymous(1 << 20).unwrap();
        let touch = |page: usize| {
            let slice = ram.slice();
            slice.write_obj(1_u8, page * 4096).unwrap();
        };
        [3, 100, 101, 200].into_iter().for_each(touch);
        let present = ram.present_pages().unwrap();
        let sets = [vec![], vec![3, 4, 101], (0..256).collect(), vec![250]];
        for pages in sets {
            let set = WorkingSet::from_pages(pages.clone());
            let expected = PresentPages {
                pages: present.len() as u64,
                among: present.iter().filter(|page| pages.contains(page)).count() as u64,
            };
            if let Some(counted) = ram.count_present(&set).unwrap() {
                assert_eq!(counted, expected, "{pages:?}");
                assert!(counted.pages >= 4);
            }
        }
    }

    #[test]
    fn discarded_anonymous_memory_reads_as_zeros_where_the_system_says_so() {
        let ram = RamMapping::anonymous(4 * GRANULE).unwrap();
        let slice = ram.slice();
        slice.subslice(0, 2).unwrap().copy_from(&[7_u8, 7]);
        ram.discard(0, GRANULE).unwrap();
        let mut byte = [1_u8];
        slice.subslice(0, 1).unwrap().copy_to(&mut byte);
        assert!(byte == [0] || cfg!(not(target_os = "linux")));
    }
}

//! Following the writes of vCPUs: by the engine's log, or else by taking write
//! access away and giving it back page by page.

use std::collections::BTreeMap;

use hvf::sys::{MemoryFlags, PAGE_BYTES};

use super::{Shared, flags};
use crate::hypervisor::{Access, EngineError};
use crate::memory::{MemoryLease, PageSet};

const PAGE: u64 = PAGE_BYTES as u64;

/// Memory mapped at one guest address.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) lease: MemoryLease,
    /// Pages the machine does not let the guest write: few or none, so that
    /// mapping much memory takes no longer than mapping little.
    read_only: PageSet,
    /// Whether the engine's log follows this range.
    logged: bool,
    /// Without such a log, pages written since tracking started.
    written: Option<PageSet>,
}

impl Mapped {
    pub(super) fn new(lease: MemoryLease, access: Access) -> Self {
        let (ipa, bytes) = (lease.ipa(), lease.bytes() as u64);
        let mut read_only = PageSet::new(ipa, bytes);
        if access == Access::ReadExecute {
            read_only.insert(ipa, bytes);
        }
        Self {
            lease,
            read_only,
            logged: false,
            written: None,
        }
    }

    fn end(&self) -> u64 {
        self.lease.ipa() + self.lease.bytes() as u64
    }
}

/// All mapped memory, by its guest address.
pub(super) type Mappings = BTreeMap<u64, Mapped>;

/// What a page is that the guest may read but did not get to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    /// The machine wants it so.
    ByMachine,
    /// Only to see the write.
    ToNotice,
    /// No longer: another vCPU wrote it first.
    NoLonger,
}

impl Shared {
    /// Changes what the guest may do with a range, and remembers that it is
    /// the machine who wants it so.
    pub(super) fn protect(
        &self,
        ipa: u64,
        bytes: usize,
        access: Access,
    ) -> Result<(), EngineError> {
        let mut mappings = self.mappings();
        self.vm.protect(ipa, bytes, flags(access))?;
        let end = ipa.saturating_add(bytes as u64);
        for mapped in mappings.values_mut() {
            let start = ipa.max(mapped.lease.ipa());
            let Some(length) = end.min(mapped.end()).checked_sub(start) else {
                continue;
            };
            match access {
                Access::ReadWriteExecute => mapped.read_only.remove(start, length),
                Access::ReadExecute => mapped.read_only.insert(start, length),
            }
            // Now that the guest can write without our noticing, pages count
            // as written rather than be missed.
            if let (Access::ReadWriteExecute, Some(written)) = (access, &mut mapped.written) {
                written.insert(start, length);
            }
        }
        Ok(())
    }

    pub(super) fn track_writes(&self) -> Result<(), EngineError> {
        for mapped in self.mappings().values_mut() {
            if !mapped.lease.is_memory() {
                continue;
            }
            let (ipa, bytes) = (mapped.lease.ipa(), mapped.lease.bytes());
            mapped.logged = self.vm.start_dirty_log(ipa, bytes)?;
            if !mapped.logged {
                self.set_flags(ipa, mapped.end(), flags(Access::ReadExecute))?;
                mapped.written = Some(PageSet::new(ipa, bytes as u64));
            }
        }
        Ok(())
    }

    pub(super) fn take_written(&self, into: &mut PageSet) -> Result<(), EngineError> {
        let mut words = Vec::new();
        for mapped in self.mappings().values_mut() {
            let (ipa, bytes) = (mapped.lease.ipa(), mapped.lease.bytes());
            if mapped.logged {
                self.vm.take_dirty_log(ipa, bytes, &mut words)?;
                into.insert_words(ipa, &words);
            } else if let Some(written) = &mut mapped.written {
                into.union(written);
                self.take_write_access(written)?;
                written.clear();
            }
        }
        Ok(())
    }

    fn take_write_access(&self, pages: &PageSet) -> Result<(), EngineError> {
        for run in pages.runs() {
            self.set_flags(run.start, run.end, flags(Access::ReadExecute))?;
        }
        Ok(())
    }

    fn set_flags(&self, start: u64, end: u64, flags: MemoryFlags) -> Result<(), EngineError> {
        // A run lies within one mapping, which is shorter than `usize`.
        let bytes = usize::try_from(end - start).unwrap_or(usize::MAX);
        Ok(self.vm.protect(start, bytes, flags)?)
    }

    /// After a permission fault at `ipa`: whether the guest shall try again.
    pub(super) fn may_write_now(&self, ipa: u64) -> Result<bool, EngineError> {
        let mut mappings = self.mappings();
        let Some((_, mapped)) = mappings.range_mut(..=ipa).next_back() else {
            return Ok(false);
        };
        if ipa >= mapped.end() {
            return Ok(false);
        }
        let Some(written) = &mut mapped.written else {
            return Ok(false);
        };
        let page = ipa & !(PAGE - 1);
        let denied = if mapped.read_only.contains(page) {
            Denied::ByMachine
        } else if written.contains(page) {
            Denied::NoLonger
        } else {
            Denied::ToNotice
        };
        if denied == Denied::ToNotice {
            written.insert(page, PAGE);
            self.set_flags(page, page + PAGE, flags(Access::ReadWriteExecute))?;
        }
        Ok(denied != Denied::ByMachine)
    }

    pub(super) fn content_replaced(&self, pages: &PageSet) -> Result<(), EngineError> {
        let mappings = self.mappings();
        for run in pages.runs() {
            for mapped in mappings.values() {
                let ipa = mapped.lease.ipa();
                let start = run.start.max(ipa);
                let Some(bytes) = run.end.min(mapped.end()).checked_sub(start) else {
                    continue;
                };
                let (Ok(offset), Ok(bytes)) =
                    (usize::try_from(start - ipa), usize::try_from(bytes))
                else {
                    continue;
                };
                if bytes == 0 {
                    continue;
                }
                // SAFETY: the offset lies within the lease, whose memory is
                // mapped at its guest address and stays while we hold the lock.
                unsafe {
                    let host = mapped.lease.host().add(offset);
                    self.vm.content_replaced(host, start, bytes)?;
                }
            }
        }
        Ok(())
    }
}

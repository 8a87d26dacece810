//! From page numbers and reports to ranges of whole host pages.

use std::sync::Arc;

use vm_memory::GuestAddress;

use super::MAX_PAGE_NUMBERS;
use crate::virtio::chain::{Chain, QueueError, Segments};
use crate::virtio::served::MAX_WORK;
use crate::{DeviceMemory, RamAdvisor};

/// Bytes of a page, as the device counts them (virtio 1.2 §5.5.6).
pub const PAGE_BYTES: u32 = 4096;

/// Bytes that the host discards in the time of one unit of work.
const DISCARDED_PER_WORK: u64 = 256 << 10;
/// Page numbers that are checked in that time.
const CHECKED_PER_WORK: usize = 64;

/// Hands ranges on to the advisor.
pub(super) struct Discarder {
    advisor: Arc<dyn RamAdvisor>,
    /// The host's page size less one.
    mask: u64,
    /// Page numbers of the request at hand.
    numbers: Vec<u32>,
}

impl Discarder {
    pub(super) fn new(advisor: Arc<dyn RamAdvisor>) -> Self {
        let page_bytes = advisor.page_bytes().max(u64::from(PAGE_BYTES));
        debug_assert!(page_bytes.is_power_of_two());
        Self {
            advisor,
            mask: page_bytes - 1,
            numbers: Vec::new(),
        }
    }

    /// Discards the pages that an inflate request names; how much work it was.
    pub(super) fn inflate<M: DeviceMemory>(
        &mut self,
        chain: &Chain,
        ram: &M,
    ) -> Result<usize, QueueError> {
        self.read(&chain.readable, ram)?;
        // Neighbours may come in any order, and twice.
        self.numbers.sort_unstable();
        self.numbers.dedup();
        let mut work = 1;
        for run in self.numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            let (Some(&first), Some(&last)) = (run.first(), run.last()) else {
                continue;
            };
            work += self.discard(address(first), address(last) + u64::from(PAGE_BYTES));
        }
        Ok(work)
    }

    /// Checks a deflate request. There is nothing to do for it.
    pub(super) fn check<M: DeviceMemory>(
        &mut self,
        chain: &Chain,
        ram: &M,
    ) -> Result<usize, QueueError> {
        self.read(&chain.readable, ram)?;
        Ok(1 + self.numbers.len() / CHECKED_PER_WORK)
    }

    /// Discards the free pages that a report is made of; the chain's segments
    /// are known to be in RAM.
    pub(super) fn report(&self, chain: &Chain) -> usize {
        let parts = chain.writable.range(0, chain.writable.len());
        let work = parts.map(|part| {
            let start = part.addr.0;
            self.discard(start, start + part.len as u64)
        });
        1 + work.sum::<usize>()
    }

    /// Takes over a request's page numbers, all of them in RAM.
    fn read<M: DeviceMemory>(&mut self, request: &Segments, ram: &M) -> Result<(), QueueError> {
        self.numbers.clear();
        let count = request.len() / 4;
        if count > MAX_PAGE_NUMBERS || !request.len().is_multiple_of(4) {
            return Err(QueueError::BadRequest);
        }
        let mut bytes = vec![0; request.len()];
        request.read(ram, 0, &mut bytes)?;
        for number in bytes.as_chunks::<4>().0 {
            let number = u32::from_le_bytes(*number);
            let addr = address(number);
            if !ram.check_range(GuestAddress(addr), PAGE_BYTES as usize) {
                return Err(QueueError::NotInRam {
                    addr,
                    len: PAGE_BYTES,
                });
            }
            self.numbers.push(number);
        }
        Ok(())
    }

    /// Discards the whole host pages between two addresses; how much work it
    /// was: a call, and looking at each page.
    fn discard(&self, start: u64, end: u64) -> usize {
        // RAM ends far below the top of the address space.
        let start = start.saturating_add(self.mask) & !self.mask;
        let end = end & !self.mask;
        if start >= end {
            return 0;
        }
        self.advisor.discard(start, end - start);
        let looked_at = (end - start) / DISCARDED_PER_WORK;
        1 + usize::try_from(looked_at).unwrap_or(MAX_WORK)
    }
}

/// Guest physical address of a page; 32 bits of pages are 16 TiB.
fn address(number: u32) -> u64 {
    u64::from(number) * u64::from(PAGE_BYTES)
}

//! Descriptor chains as checked lists of guest memory segments.
//!
//! `virtio-queue` walks chains but ends a malformed one silently. A device
//! must tell "complete" from "broken off", so chains are collected here with
//! every segment checked against guest memory, in the order virtio 1.2
//! §2.7.4.2 demands: first what the device reads, then what it writes.
//!
//! Guest memory is whatever the device was given: RAM, and perhaps a window
//! beside it that shows files. A segment in such a window is one like any
//! other while there is something behind it, and else a mistake of the driver.

use std::sync::atomic::Ordering;

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::DeviceMemory;

/// A mistake of the guest driver in its use of a queue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The rings are unusable.
    #[error("virtqueue is broken")]
    Ring(#[source] virtio_queue::Error),
    /// A chain is empty, loops, or leaves its descriptor table.
    #[error("descriptor chain is empty or broken")]
    BrokenChain,
    /// A chain has more descriptors than the device accepts.
    #[error("descriptor chain has more than {0} descriptors")]
    ChainTooLong(usize),
    /// A readable descriptor follows a writable one.
    #[error("readable descriptor follows a writable one")]
    Disorder,
    /// A descriptor points outside guest RAM.
    #[error("descriptor of {len} bytes at {addr:#x} is not in guest memory")]
    NotInRam {
        /// Guest physical address.
        addr: u64,
        /// Length in bytes.
        len: u32,
    },
    /// A request has a size that no request of its kind can have.
    #[error("request has an impossible size")]
    BadRequest,
    /// Guest RAM could not be accessed.
    #[error("guest memory access failed")]
    Memory(#[source] vm_memory::GuestMemoryError),
}

/// A piece of guest RAM, already checked to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address of the first byte.
    pub addr: GuestAddress,
    /// Length in bytes, at least 1.
    pub len: usize,
}

/// A byte sequence scattered over guest RAM.
#[derive(Debug, Clone, Default)]
pub struct Segments {
    parts: Vec<Segment>,
    len: usize,
}

impl Segments {
    fn push(&mut self, segment: Segment) {
        // The sum cannot overflow: virtio-queue ends chains at 4 GiB.
        self.len += segment.len;
        self.parts.push(segment);
    }

    /// Total length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is not one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces that make up the `len` bytes starting at `offset`, as far
    /// as they exist.
    pub fn range(&self, offset: usize, len: usize) -> impl Iterator<Item = Segment> + '_ {
        let mut skip = offset;
        let mut left = len;
        self.parts.iter().filter_map(move |part| {
            if skip >= part.len {
                skip -= part.len;
                return None;
            }
            let len = (part.len - skip).min(left);
            let addr = GuestAddress(part.addr.0 + skip as u64);
            skip = 0;
            left -= len;
            (len > 0).then_some(Segment { addr, len })
        })
    }

    /// Fills `buf` from the bytes at `offset`; false if they are not all
    /// there.
    pub fn read<M: DeviceMemory>(
        &self,
        ram: &M,
        offset: usize,
        buf: &mut [u8],
    ) -> Result<bool, QueueError> {
        if !self.holds(offset, buf.len()) {
            return Ok(false);
        }
        let mut done = 0;
        for part in self.range(offset, buf.len()) {
            ram.read_slice(&mut buf[done..done + part.len], part.addr)
                .map_err(QueueError::Memory)?;
            done += part.len;
        }
        Ok(true)
    }

    /// Writes `buf` to the bytes at `offset`; false if they are not all
    /// there.
    pub fn write<M: DeviceMemory>(
        &self,
        ram: &M,
        offset: usize,
        buf: &[u8],
    ) -> Result<bool, QueueError> {
        if !self.holds(offset, buf.len()) {
            return Ok(false);
        }
        let mut done = 0;
        for part in self.range(offset, buf.len()) {
            ram.write_slice(&buf[done..done + part.len], part.addr)
                .map_err(QueueError::Memory)?;
            done += part.len;
        }
        Ok(true)
    }

    fn holds(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }
}

/// A descriptor chain the driver made available.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Index to give back through the used ring.
    pub head: u16,
    /// What the driver wrote for the device.
    pub readable: Segments,
    /// What the device may write.
    pub writable: Segments,
}

impl Chain {
    /// Takes the next chain off `queue`, with at most `max_segments`
    /// descriptors; `None` if the driver made no more available.
    pub fn pop<M: DeviceMemory>(
        queue: &mut Queue,
        ram: &M,
        max_segments: usize,
    ) -> Result<Option<Self>, QueueError> {
        Self::pop_beside(queue, ram, max_segments, |_, _| false)
    }

    /// As [`Chain::pop`], with segments where `beside` says so as well. Whoever takes
    /// those knows what is there: [`Segments::read`] and [`Segments::write`] do not.
    pub(crate) fn pop_beside<M: DeviceMemory>(
        queue: &mut Queue,
        ram: &M,
        max_segments: usize,
        beside: impl Fn(GuestAddress, usize) -> bool,
    ) -> Result<Option<Self>, QueueError> {
        match queue.iter(ram).map_err(QueueError::Ring)?.next() {
            Some(descriptors) => Self::collect(descriptors, ram, max_segments, beside).map(Some),
            None => Ok(None),
        }
    }

    fn collect<M: DeviceMemory>(
        mut descriptors: DescriptorChain<&M>,
        ram: &M,
        max_segments: usize,
        beside: impl Fn(GuestAddress, usize) -> bool,
    ) -> Result<Self, QueueError> {
        let mut chain = Self {
            head: descriptors.head_index(),
            readable: Segments::default(),
            writable: Segments::default(),
        };
        let mut more = true;
        let mut count = 0;
        for descriptor in &mut descriptors {
            count += 1;
            if count > max_segments {
                return Err(QueueError::ChainTooLong(max_segments));
            }
            more = descriptor.has_next();
            let addr = descriptor.addr();
            let outside = QueueError::NotInRam {
                addr: addr.0,
                len: descriptor.len(),
            };
            let Ok(len) = usize::try_from(descriptor.len()) else {
                return Err(outside);
            };
            let ends = addr.0.checked_add(len as u64).is_some();
            if !ends || !(ram.check_range(addr, len) || beside(addr, len)) {
                return Err(outside);
            }
            if !descriptor.is_write_only() && !chain.writable.parts.is_empty() {
                return Err(QueueError::Disorder);
            }
            if len == 0 {
                continue;
            }
            let list = if descriptor.is_write_only() {
                &mut chain.writable
            } else {
                &mut chain.readable
            };
            list.push(Segment { addr, len });
        }
        // The iterator stops early at whatever it cannot follow, so a last
        // descriptor that points onwards means that the chain is broken.
        if more {
            return Err(QueueError::BrokenChain);
        }
        Ok(chain)
    }
}

/// The next chain; if there is none, the driver notifies of the next one it
/// makes available.
pub fn pop_or_listen<M: DeviceMemory>(
    queue: &mut Queue,
    ram: &M,
    max_segments: usize,
) -> Result<Option<Chain>, QueueError> {
    if let Some(chain) = Chain::pop(queue, ram, max_segments)? {
        return Ok(Some(chain));
    }
    if queue.enable_notification(ram).map_err(QueueError::Ring)? {
        return Chain::pop(queue, ram, max_segments);
    }
    Ok(None)
}

/// Gives a chain back with `len` bytes written.
pub fn add_used<M: DeviceMemory>(
    queue: &mut Queue,
    ram: &M,
    head: u16,
    len: usize,
) -> Result<(), QueueError> {
    // Chains end at 4 GiB, so the length of one fits.
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    queue.add_used(ram, head, len).map_err(QueueError::Ring)
}

/// Whether the driver wants an interrupt for what was added to the used ring.
pub fn wants_interrupt<M: DeviceMemory>(queue: &mut Queue, ram: &M) -> Result<bool, QueueError> {
    let wanted = queue.needs_notification(ram).map_err(QueueError::Ring)?;
    if queue.event_idx_enabled() {
        return Ok(wanted);
    }
    // VIRTQ_AVAIL_F_NO_INTERRUPT, virtio 1.2 §2.7.7.
    let flags: u16 = ram
        .load(GuestAddress(queue.avail_ring()), Ordering::Acquire)
        .map_err(QueueError::Memory)?;
    Ok(u16::from_le(flags) & 1 == 0)
}

/// Whether the three rings of a ready queue lie wholly inside guest RAM.
pub(crate) fn rings_in_ram<M: DeviceMemory>(queue: &Queue, ram: &M) -> bool {
    let size = usize::from(queue.size());
    // Sizes from virtio 1.2 §2.7: 16 bytes a descriptor; 6 bytes around
    // 2-byte avail entries; 6 bytes around 8-byte used entries.
    [
        (queue.desc_table(), 16 * size),
        (queue.avail_ring(), 6 + 2 * size),
        (queue.used_ring(), 6 + 8 * size),
    ]
    .into_iter()
    .all(|(addr, len)| {
        addr.checked_add(len as u64).is_some() && ram.check_range(GuestAddress(addr), len)
    })
}

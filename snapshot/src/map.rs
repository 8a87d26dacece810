//! Guest memory as a private copy-on-write mapping of `mem.bin`.

use crate::limits::GRANULE_BYTES;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::Arc;
use vm_memory::VolatileSlice;

/// Owns a mapping of guest memory: aligned to [`GRANULE_BYTES`], readable and
/// writable, private. What is written never reaches the file.
///
/// It keeps the file open. Should someone truncate the file, touching a page
/// beyond its new end kills the process (SIGBUS); published files are only
/// ever unlinked, and workers are processes of their own for that reason too.
#[derive(Debug)]
pub struct RamMapping {
    address: NonNull<u8>,
    bytes: usize,
    file: Arc<File>,
}

// SAFETY: the mapping belongs to the process, not to a thread, and this type
// hands out only raw pointers and volatile slices, which do not alias.
unsafe impl Send for RamMapping {}
// SAFETY: as above; no method reads or writes through a reference.
unsafe impl Sync for RamMapping {}

const PROTECTION: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);
const PRIVATE: MapFlags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);

impl RamMapping {
    /// Maps the first `bytes` of `file`, which must be there.
    pub(crate) fn new(file: Arc<File>, bytes: u64) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let granule = usize::try_from(GRANULE_BYTES).map_err(|_| invalid())?;
        let bytes = usize::try_from(bytes).map_err(|_| invalid())?;
        if bytes == 0 || !bytes.is_multiple_of(granule) {
            return Err(invalid());
        }
        let whole = bytes.checked_add(granule).ok_or_else(invalid)?;
        // SAFETY: a new anonymous mapping at a place of the system's choice
        // touches no memory in use.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), whole, ProtFlags::empty(), PRIVATE)? };
        let skip = start.align_offset(granule);
        let tail = granule - skip;
        let address = start.wrapping_byte_add(skip);
        // SAFETY: `address` and `bytes` lie inside the reservation above, which
        // nobody else knows; the parts cut off are on its edges.
        let mapped = unsafe {
            if skip > 0 {
                munmap(start, skip)?;
            }
            munmap(address.wrapping_byte_add(bytes), tail)?;
            mmap(
                address,
                bytes,
                PROTECTION,
                PRIVATE | MapFlags::FIXED,
                &file,
                0,
            )
        };
        let mapped = mapped.inspect_err(|_| {
            // SAFETY: the reservation is still ours and nobody knows it.
            let _ = unsafe { munmap(address, bytes) };
        })?;
        let address = NonNull::new(mapped.cast()).ok_or_else(invalid)?;
        Ok(Self {
            address,
            bytes,
            file,
        })
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
    /// When the range is outside of memory or the file cannot be read.
    pub fn copy_back(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let outside = || io::Error::from(io::ErrorKind::InvalidInput);
        let start = usize::try_from(offset).map_err(|_| outside())?;
        let bytes = usize::try_from(bytes).map_err(|_| outside())?;
        let end = start.checked_add(bytes).ok_or_else(outside)?;
        if end > self.bytes {
            return Err(outside());
        }
        let mut buffer = [0; 16 << 10];
        let mut at = start;
        while at < end {
            let piece = &mut buffer[..(end - at).min(16 << 10)];
            self.file.read_exact_at(piece, at as u64)?;
            let target = self.slice();
            let target = target.subslice(at, piece.len()).map_err(io::Error::other)?;
            target.copy_from(&*piece);
            at += piece.len();
        }
        Ok(())
    }

    /// Replaces the whole mapping by a fresh one at the same address: for
    /// resets after which memory goes back to the host. Nobody should use the
    /// memory meanwhile. After an error the machine must be given up.
    ///
    /// # Errors
    /// The reason of the system.
    pub fn map_afresh(&self) -> io::Result<()> {
        let address = self.address.as_ptr().cast();
        let flags = PRIVATE | MapFlags::FIXED;
        // SAFETY: the range is this mapping's own, and is replaced by one of the
        // same length and protection, so that pointers into it stay valid.
        unsafe { mmap(address, self.bytes, PROTECTION, flags, &self.file, 0)? };
        Ok(())
    }
}

impl Drop for RamMapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and slices of it borrow `self`.
        let _ = unsafe { munmap(self.address.as_ptr().cast(), self.bytes) };
    }
}

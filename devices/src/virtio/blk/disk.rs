//! The files behind the device: positioned I/O on checked ranges.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::overlay::Overlay;
use super::{ID_BYTES, SECTOR_BYTES, ZEROES, host};
use crate::virtio::Traffic;

/// What holds the disk's content.
pub(super) enum Content {
    /// A file of its own.
    File(File),
    /// One that it has in common with others, and one for what it has changed.
    Overlay(Arc<Overlay>),
}

/// Content seen as sectors.
pub(super) struct Disk {
    content: Content,
    /// Length of the content when it was looked at last.
    len_bytes: AtomicU64,
    pub(super) read_only: bool,
    pub(super) id: [u8; ID_BYTES],
    /// The host or the file system cannot read from the cache alone.
    pub(super) never_cached: AtomicBool,
    pub(super) moved: Moved,
}

/// What was moved, counted by every thread that carries out requests.
#[derive(Default)]
pub(super) struct Moved {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
}

impl Moved {
    pub(super) fn count_read(&self, bytes: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_write(&self, bytes: usize) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.written_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic {
            reads: self.reads.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            written_bytes: self.written_bytes.load(Ordering::Relaxed),
        }
    }
}

impl Disk {
    pub(super) fn new(
        content: Content,
        len_bytes: u64,
        read_only: bool,
        id: [u8; ID_BYTES],
    ) -> Self {
        Self {
            content,
            len_bytes: AtomicU64::new(len_bytes),
            read_only,
            id,
            never_cached: AtomicBool::new(false),
            moved: Moved::default(),
        }
    }

    /// Sectors shown to the guest. A tail shorter than one is padded with zeroes if the
    /// disk is read-only, and out of reach if not.
    pub(super) fn sectors(&self) -> u64 {
        let len_bytes = self.len_bytes.load(Ordering::Relaxed);
        match self.read_only {
            true => len_bytes.div_ceil(SECTOR_BYTES),
            false => len_bytes / SECTOR_BYTES,
        }
    }

    /// Looks how long the file is now; whether the guest has more sectors of it. One that
    /// was cut short is an error to those who read what is gone, and no smaller disk.
    pub(super) fn look_again(&self) -> io::Result<bool> {
        let now = match &self.content {
            // Nothing else uses the file's position.
            Content::File(file) => (&*file).seek(SeekFrom::End(0))?,
            Content::Overlay(overlay) => overlay.bytes(),
        };
        let sectors = self.sectors();
        self.len_bytes.fetch_max(now, Ordering::Relaxed);
        Ok(self.sectors() > sectors)
    }

    /// Byte offset of `sector` if `len` bytes from there are whole sectors of
    /// the disk.
    pub(super) fn offset_of(&self, sector: u64, len: u64) -> Option<u64> {
        if !len.is_multiple_of(SECTOR_BYTES) {
            return None;
        }
        let end = sector.checked_add(len / SECTOR_BYTES)?;
        if end > self.sectors() {
            return None;
        }
        sector.checked_mul(SECTOR_BYTES)
    }

    /// Fills `buf` from `offset`; past the end of a file whose last sector is
    /// not whole there are zeroes.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let len_bytes = self.len_bytes.load(Ordering::Relaxed);
        let in_file = len_bytes.saturating_sub(offset);
        let in_file = usize::try_from(in_file).map_or(buf.len(), |len| len.min(buf.len()));
        let (data, tail) = buf.split_at_mut(in_file);
        match &self.content {
            Content::File(file) => file.read_exact_at(data, offset)?,
            Content::Overlay(overlay) => overlay.read(data, offset)?,
        }
        tail.fill(0);
        Ok(())
    }

    /// Fills `buf` if all of it is in the host's page cache.
    pub(super) fn read_cached(&self, buf: &mut [u8], offset: u64) -> bool {
        if self.never_cached.load(Ordering::Relaxed) {
            return false;
        }
        let read = match &self.content {
            Content::File(file) => host::read_cached(file, buf, offset),
            Content::Overlay(overlay) => overlay.read_cached(buf, offset),
        };
        match read {
            Ok(len) => len == buf.len(),
            Err(error) => {
                if error.kind() == io::ErrorKind::Unsupported {
                    self.never_cached.store(true, Ordering::Relaxed);
                }
                false
            }
        }
    }

    pub(super) fn write(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        match &self.content {
            Content::File(file) => file.write_all_at(buf, offset),
            Content::Overlay(overlay) => overlay.write(buf, offset),
        }
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        match &self.content {
            Content::File(file) => file.sync_data(),
            // It ends with whoever has it.
            Content::Overlay(_) => Ok(()),
        }
    }

    /// Tells the file system that the content is not needed; a hint.
    pub(super) fn discard(&self, offset: u64, len: u64) {
        // A file system that cannot do it keeps the content, which is fine.
        let _ = match &self.content {
            Content::File(file) => host::punch(file, offset, len),
            Content::Overlay(overlay) => overlay.discard(offset, len),
        };
    }

    /// Makes a range read as zeroes, giving the space back if `may_unmap`.
    pub(super) fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        let outcome = match &self.content {
            Content::File(file) if may_unmap => host::punch(file, offset, len),
            Content::File(file) => host::zero(file, offset, len),
            Content::Overlay(overlay) => overlay.zero(offset, len, may_unmap),
        };
        if outcome.is_ok() {
            return Ok(());
        }
        let end = offset.saturating_add(len);
        let mut at = offset;
        while at < end {
            let count = usize::try_from(end - at).map_or(ZEROES.len(), |n| n.min(ZEROES.len()));
            self.write(&ZEROES[..count], at)?;
            at += count as u64;
        }
        Ok(())
    }
}

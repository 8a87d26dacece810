//! One block request: parsed from a chain, checked, carried out.

use std::cell::Cell;
use std::io;

#[cfg(any(all(test, feature = "default"), feature = "fuzzing"))]
use super::disk::Content;
use super::disk::Disk;
#[cfg(any(all(test, feature = "default"), feature = "fuzzing"))]
use super::overlay::Overlay;
use super::{MAX_ZERO_SECTORS, MAX_ZERO_SEGMENTS, SECTOR_BYTES};
use crate::DeviceMemory;
use crate::virtio::chain::{Chain, QueueError};

/// Bytes of the request header (virtio 1.2 §5.2.6).
const HEADER_BYTES: usize = 16;
/// Bytes of a DISCARD or WRITE_ZEROES range.
const RANGE_BYTES: usize = 16;
/// WRITE_ZEROES flag: the space may be given back.
const FLAG_UNMAP: u32 = 1;
/// Bytes moved between file and guest at once; each worker has one buffer. A block of
/// squashfs is 128 KiB and begins anywhere, so the guest reads one page more for it.
pub(super) const BUFFER_BYTES: usize = (128 + 4) << 10;

/// Request types (virtio 1.2 §5.2.6).
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// What goes into the status byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// `VIRTIO_BLK_S_IOERR`
    Io = 1,
    /// `VIRTIO_BLK_S_UNSUPP`
    Unsupported = 2,
}

/// What a request is: read from guest memory once, since the guest may change
/// it at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    kind: u32,
    sector: u64,
}

/// Bytes written for the guest, or why not.
type Outcome = Result<usize, Failure>;

/// How requests of one activation are carried out.
pub(super) struct Executor<'a, M> {
    disk: &'a Disk,
    ram: &'a M,
    /// The driver did not take FLUSH, so writes are durable on completion.
    write_through: bool,
    /// What the host said when it did not do what was asked.
    pub(super) failed: Cell<Option<io::Error>>,
}

impl<'a, M: DeviceMemory> Executor<'a, M> {
    pub(super) fn new(disk: &'a Disk, ram: &'a M, write_through: bool) -> Self {
        Self {
            disk,
            ram,
            write_through,
            failed: Cell::new(None),
        }
    }

    /// What the host did, or that it did not, which is kept for the owner.
    fn host<T>(&self, outcome: io::Result<T>) -> Result<T, Failure> {
        outcome.map_err(|error| {
            self.failed.set(Some(error));
            Failure::Io
        })
    }

    /// Reads what the request in `chain` is. An error means that the chain is
    /// no request at all.
    pub(super) fn header(&self, chain: &Chain) -> Result<Header, QueueError> {
        let mut header = [0; HEADER_BYTES];
        if chain.writable.is_empty() || !chain.readable.read(self.ram, 0, &mut header)? {
            return Err(QueueError::BrokenChain);
        }
        Ok(Header {
            kind: le32(&header, 0),
            sector: le64(&header, 8),
        })
    }

    /// Carries out the request in `chain` and writes its status byte; returns
    /// the bytes written.
    pub(super) fn run(
        &self,
        chain: &Chain,
        header: Header,
        buffer: &mut [u8],
    ) -> Result<usize, QueueError> {
        let Header { kind, sector } = header;
        let Some(room) = chain.writable.len().checked_sub(1) else {
            return Err(QueueError::BrokenChain);
        };
        let outcome = match kind {
            kind::IN => self.read(chain, sector, room, buffer)?,
            kind::FLUSH => self.host(self.disk.flush()).map(|()| 0),
            kind::GET_ID => {
                let len = room.min(self.disk.id.len());
                chain.writable.write(self.ram, 0, &self.disk.id[..len])?;
                Ok(len)
            }
            kind::OUT | kind::DISCARD | kind::WRITE_ZEROES if self.disk.read_only => {
                Err(Failure::Io)
            }
            kind::OUT => self.write(chain, sector, buffer)?,
            kind::DISCARD | kind::WRITE_ZEROES => self.zero(chain, kind)?,
            _ => Err(Failure::Unsupported),
        };
        let (status, len) = match outcome {
            Ok(len) => (0, len),
            Err(failure) => (failure as u8, 0),
        };
        chain.writable.write(self.ram, room, &[status])?;
        // The used length covers the data only if all of it is there, as
        // drivers take it for a prefix; the status byte comes last.
        Ok(if len == room { room + 1 } else { len })
    }

    /// Carries out a request if that takes no waiting: a read of data that
    /// the host has at hand. `None` if it is anything else.
    pub(super) fn run_cached(
        &self,
        chain: &Chain,
        header: Header,
        buffer: &mut [u8],
    ) -> Option<usize> {
        let room = chain.writable.len().checked_sub(1)?;
        let buffer = buffer.get_mut(..room)?;
        if header.kind != kind::IN {
            return None;
        }
        let offset = self.disk.offset_of(header.sector, room as u64)?;
        if !self.disk.read_cached(buffer, offset) {
            return None;
        }
        chain.writable.write(self.ram, 0, buffer).ok()?;
        chain.writable.write(self.ram, room, &[0]).ok()?;
        self.disk.moved.count_read(room);
        Some(room + 1)
    }

    fn read(
        &self,
        chain: &Chain,
        sector: u64,
        len: usize,
        buffer: &mut [u8],
    ) -> Result<Outcome, QueueError> {
        let Some(offset) = self.disk.offset_of(sector, len as u64) else {
            return Ok(Err(Failure::Io));
        };
        let mut done = 0;
        while done < len {
            let part = &mut buffer[..(len - done).min(BUFFER_BYTES)];
            if let Err(failure) = self.host(self.disk.read(part, offset + done as u64)) {
                return Ok(Err(failure));
            }
            chain.writable.write(self.ram, done, part)?;
            done += part.len();
        }
        self.disk.moved.count_read(len);
        Ok(Ok(len))
    }

    fn write(&self, chain: &Chain, sector: u64, buffer: &mut [u8]) -> Result<Outcome, QueueError> {
        let len = chain.readable.len() - HEADER_BYTES;
        let Some(offset) = self.disk.offset_of(sector, len as u64) else {
            return Ok(Err(Failure::Io));
        };
        let mut done = 0;
        while done < len {
            let part = &mut buffer[..(len - done).min(BUFFER_BYTES)];
            chain.readable.read(self.ram, HEADER_BYTES + done, part)?;
            if let Err(failure) = self.host(self.disk.write(part, offset + done as u64)) {
                return Ok(Err(failure));
            }
            done += part.len();
        }
        self.disk.moved.count_write(len);
        if self.write_through {
            return Ok(self.host(self.disk.flush()).map(|()| 0));
        }
        Ok(Ok(0))
    }

    /// DISCARD and WRITE_ZEROES: all ranges are checked before the first is
    /// touched.
    fn zero(&self, chain: &Chain, kind: u32) -> Result<Outcome, QueueError> {
        let len = chain.readable.len() - HEADER_BYTES;
        let count = len / RANGE_BYTES;
        let max = MAX_ZERO_SEGMENTS as usize;
        if len == 0 || !len.is_multiple_of(RANGE_BYTES) || count > max {
            return Ok(Err(Failure::Io));
        }
        let mut ranges = [0; RANGE_BYTES * MAX_ZERO_SEGMENTS as usize];
        let ranges = &mut ranges[..len];
        chain.readable.read(self.ram, HEADER_BYTES, ranges)?;
        let mut checked = Vec::with_capacity(count);
        for range in ranges.chunks_exact(RANGE_BYTES) {
            let (sector, sectors, flags) = (le64(range, 0), le32(range, 8), le32(range, 12));
            let known = if kind == kind::WRITE_ZEROES {
                FLAG_UNMAP
            } else {
                0
            };
            if flags & !known != 0 {
                return Ok(Err(Failure::Unsupported));
            }
            let bytes = u64::from(sectors) * SECTOR_BYTES;
            match self.disk.offset_of(sector, bytes) {
                Some(offset) if sectors <= MAX_ZERO_SECTORS => {
                    checked.push((offset, bytes, flags));
                }
                _ => return Ok(Err(Failure::Io)),
            }
        }
        for (offset, bytes, flags) in checked {
            if bytes == 0 {
                continue;
            }
            if kind == kind::DISCARD {
                self.disk.discard(offset, bytes);
                continue;
            }
            let may_unmap = flags & FLAG_UNMAP != 0;
            if let Err(failure) = self.host(self.disk.zero(offset, bytes, may_unmap)) {
                return Ok(Err(failure));
            }
        }
        Ok(Ok(0))
    }
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

/// Runs requests without threads, for fuzzing.
#[cfg(any(all(test, feature = "default"), feature = "fuzzing"))]
pub(crate) struct RequestRunner {
    disk: Disk,
    write_through: bool,
    buffer: Vec<u8>,
}

#[cfg(any(all(test, feature = "default"), feature = "fuzzing"))]
impl RequestRunner {
    pub(crate) fn new(file: &std::fs::File, read_only: bool, write_through: bool) -> Self {
        let len_bytes = file.metadata().map_or(0, |metadata| metadata.len());
        let file = file.try_clone().expect("a descriptor is free");
        Self::of(Content::File(file), len_bytes, read_only, write_through)
    }

    /// Over a base, with what is written in `own`.
    pub(crate) fn over(base: &std::fs::File, own: std::fs::File, write_through: bool) -> Self {
        let base = base.try_clone().expect("a descriptor is free");
        let overlay = Overlay::new(base, own).expect("a file can be as long as another");
        let len_bytes = overlay.bytes();
        Self::of(
            Content::Overlay(overlay.into()),
            len_bytes,
            false,
            write_through,
        )
    }

    fn of(content: Content, len_bytes: u64, read_only: bool, write_through: bool) -> Self {
        let id = *b"fuzz\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        Self {
            disk: Disk::new(content, len_bytes, read_only, id),
            write_through,
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// Bytes written for the guest; `None` if the chain is no request.
    pub(crate) fn run<M: DeviceMemory>(&mut self, ram: &M, chain: &Chain) -> Option<usize> {
        let executor = Executor::new(&self.disk, ram, self.write_through);
        let header = executor.header(chain).ok()?;
        executor.run(chain, header, &mut self.buffer).ok()
    }
}

//! fallocate(2) and preadv2(2).

use std::fs::File;
use std::io::{self, IoSliceMut};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{ReadWriteFlags, preadv2};

/// Gives the space of a range back; it reads as zeroes then.
pub(in super::super) fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, flags, offset, len)?)
}

/// Makes a range read as zeroes but keeps its space reserved.
pub(in super::super) fn zero(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, flags, offset, len)?)
}

/// Reads what is in the page cache; fails rather than wait for the disk.
pub(in super::super) fn read_cached(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut bufs = [IoSliceMut::new(buf)];
    Ok(preadv2(file, &mut bufs, offset, ReadWriteFlags::NOWAIT)?)
}

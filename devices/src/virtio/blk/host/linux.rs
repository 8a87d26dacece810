//! fallocate(2).

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, fallocate};

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

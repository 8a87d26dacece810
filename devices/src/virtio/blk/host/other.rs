//! A host without safe bindings for holes in files, and without reads that
//! never wait: the caller writes zeroes, and leaves reads to its threads.

use std::fs::File;
use std::io;

/// Not available here.
pub(in super::super) fn punch(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Not available here.
pub(in super::super) fn zero(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Not available here.
pub(in super::super) fn read_cached(
    _file: &File,
    _buf: &mut [u8],
    _offset: u64,
) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

//! Holes of files.

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// Where the next data of a file are from `at` on, in its first `length` bytes; where the
/// file system cannot tell, all are. The file's position changes.
///
/// # Errors
/// What the system says of a file that cannot be looked at.
pub fn next_data(file: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start.min(length),
        // There is a hole up to the end.
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, length))),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(start)).map_or(length, |end| end.min(length));
    Ok((start < end).then_some((start, end)))
}

//! File data, and the output everything goes through.

use std::io::{self, Read as _, Seek, SeekFrom, Write};

use sha2::Digest as _;

use super::inode::Blocks;
use super::{BLOCK_UNCOMPRESSED, Compression, SUPERBLOCK_BYTES, SquashfsError};
use crate::tree::FileData;

/// Size of a data block in bytes.
pub(super) const BLOCK_BYTES: usize = 128 * 1024;

/// Size of a page of the guest's memory in bytes.
const PAGE_BYTES: u64 = 4096;

/// Writes the blocks of one file. `buffer` is [`BLOCK_BYTES`] long.
pub(super) fn write_file<W: Write + Seek>(
    data: &FileData,
    sink: &mut Sink<'_, W>,
    compression: Compression,
    buffer: &mut [u8],
) -> Result<Blocks, SquashfsError> {
    if compression == Compression::None {
        sink.start_page_unless_fits(data.size)?;
    }
    let mut blocks = Blocks {
        start: sink.position,
        size: data.size,
        ..Blocks::default()
    };
    let mut offset = 0u64;
    let mut extent = 0;
    while offset < data.size {
        let left = usize::try_from(data.size - offset).unwrap_or(usize::MAX);
        let block = &mut buffer[..left.min(BLOCK_BYTES)];
        let end = offset + block.len() as u64;
        let has_data = fill(data, offset, block, &mut extent)?;
        if has_data && block.iter().any(|byte| *byte != 0) {
            blocks.sizes.push(store(block, sink, compression)?);
        } else {
            blocks.sizes.push(0);
            blocks.sparse += block.len() as u64;
        }
        offset = end;
    }
    Ok(blocks)
}

/// Fills `block` with the file's bytes from `offset`; false when no extent
/// touches it. `extent` is the first extent that may still matter.
fn fill(data: &FileData, offset: u64, block: &mut [u8], extent: &mut usize) -> io::Result<bool> {
    let end = offset + block.len() as u64;
    while let Some(e) = data.extents.get(*extent) {
        if e.logical + e.len > offset {
            break;
        }
        *extent += 1;
    }
    let mut touched = false;
    for e in &data.extents[*extent..] {
        if e.logical >= end {
            break;
        }
        if !touched {
            block.fill(0);
            touched = true;
        }
        let from = e.logical.max(offset);
        let to = (e.logical + e.len).min(end);
        let range = usize::try_from(from - offset).map_err(io::Error::other)?
            ..usize::try_from(to - offset).map_err(io::Error::other)?;
        data.source
            .read_exact_at(&mut block[range], e.source + (from - e.logical))?;
    }
    Ok(touched)
}

fn store<W: Write + Seek>(
    block: &[u8],
    sink: &mut Sink<'_, W>,
    compression: Compression,
) -> Result<u32, SquashfsError> {
    if compression == Compression::Lz4 {
        let packed = lz4_flex::block::compress(block);
        if packed.len() < block.len() {
            sink.write_all(&packed)?;
            return u32::try_from(packed.len()).map_err(|_| SquashfsError::TooLarge {
                what: "block bytes",
                limit: BLOCK_BYTES as u64,
            });
        }
    }
    sink.write_all(block)?;
    let len = u32::try_from(block.len()).map_err(|_| SquashfsError::TooLarge {
        what: "block bytes",
        limit: BLOCK_BYTES as u64,
    })?;
    Ok(len | BLOCK_UNCOMPRESSED)
}

/// Sequential output that checksums what passes and patches the superblock in
/// at the end.
pub(super) struct Sink<'a, W: Write + Seek> {
    out: &'a mut W,
    pub(super) position: u64,
    crc: crc32fast::Hasher,
    /// Runs once the data is complete: metadata gets the stronger hash.
    metadata: Option<sha2::Sha256>,
}

impl<'a, W: Write + Seek> Sink<'a, W> {
    pub(super) fn new(out: &'a mut W) -> io::Result<Self> {
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&[0; 96])?;
        Ok(Self {
            out,
            position: SUPERBLOCK_BYTES,
            crc: crc32fast::Hasher::new(),
            metadata: None,
        })
    }

    /// Goes to the next page, unless `bytes` fit into what is left of this one: a block
    /// that begins with a page is read without being copied (patch 0005 of the kernel),
    /// and small files that share a page are read together.
    fn start_page_unless_fits(&mut self, bytes: u64) -> io::Result<()> {
        let left = self.position.next_multiple_of(PAGE_BYTES) - self.position;
        if bytes <= left {
            return Ok(());
        }
        io::copy(&mut io::repeat(0).take(left), self).map(drop)
    }

    pub(super) fn start_metadata(&mut self) {
        self.metadata = Some(sha2::Sha256::new());
    }

    pub(super) fn finish(mut self, superblock: &[u8]) -> io::Result<([u8; 32], u32)> {
        let mut sha = self.metadata.take().unwrap_or_default();
        sha.update(superblock);
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(superblock)?;
        self.out.seek(SeekFrom::Start(self.position))?;
        Ok((sha.finalize().into(), self.crc.finalize()))
    }
}

impl<W: Write + Seek> Write for Sink<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.out.write_all(buf)?;
        self.position += buf.len() as u64;
        match &mut self.metadata {
            Some(metadata) => metadata.update(buf),
            None => self.crc.update(buf),
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn files_begin_with_a_page_or_lie_in_one() {
        let mut out = Cursor::new(Vec::new());
        let mut sink = Sink::new(&mut out).unwrap();
        let mut starts = Vec::new();
        for size in [4000, 1, 5000, 3000, 200, 4096, 131_072, 4096, 4097, 0] {
            sink.start_page_unless_fits(size).unwrap();
            starts.push(sink.position);
            io::copy(&mut io::repeat(1).take(size), &mut sink).unwrap();
        }
        let pages = [0, 1, 2, 3, 4, 5, 6, 38, 39, 40];
        let within = [96, 0, 0, 904, 0, 0, 0, 0, 0, 1];
        let expected = std::iter::zip(pages, within).map(|(page, at)| page * PAGE_BYTES + at);
        assert_eq!(starts, expected.collect::<Vec<_>>());
    }
}

//! Metadata tables: runs of 8 KiB blocks, and the lookup tables over them.

use std::io::{self, Write};

use super::{METADATA_BYTES, METADATA_DISK_BYTES, METADATA_UNCOMPRESSED, SquashfsError};

/// A metadata table under construction.
#[derive(Default)]
pub(super) struct Table {
    bytes: Vec<u8>,
}

/// Where a record starts: the disk offset of its metadata block from the
/// start of the table, and the offset inside the uncompressed block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) block: u32,
    pub(super) offset: u16,
}

impl Address {
    /// The 64-bit "inode reference" form.
    pub(super) fn reference(self) -> u64 {
        (u64::from(self.block) << 16) | u64::from(self.offset)
    }
}

impl Table {
    pub(super) fn position(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The address of the next byte to be pushed.
    pub(super) fn address(&self) -> Result<Address, SquashfsError> {
        address_of(self.position())
    }

    /// Writes all blocks; returns how many bytes that took.
    pub(super) fn write_to(&self, out: &mut dyn Write) -> io::Result<u64> {
        write_blocks(&self.bytes, out, |_| {})
    }
}

/// The address of byte `position` of a table.
pub(super) fn address_of(position: u64) -> Result<Address, SquashfsError> {
    let too_large = || SquashfsError::TooLarge {
        what: "metadata bytes",
        limit: u64::from(u32::MAX),
    };
    let block = (position / METADATA_BYTES) * METADATA_DISK_BYTES;
    Ok(Address {
        block: u32::try_from(block).map_err(|_| too_large())?,
        offset: u16::try_from(position % METADATA_BYTES).map_err(|_| too_large())?,
    })
}

/// Writes `records` as metadata blocks at disk offset `at`, followed by the
/// table of their 64-bit disk addresses. Returns the offset of that lookup
/// table and the offset after it.
pub(super) fn write_indexed(
    records: &[u8],
    at: u64,
    out: &mut dyn Write,
) -> io::Result<(u64, u64)> {
    let mut starts = Vec::new();
    let len = write_blocks(records, out, |offset| starts.push(at + offset))?;
    for start in &starts {
        out.write_all(&start.to_le_bytes())?;
    }
    let lookup = at + len;
    Ok((lookup, lookup + 8 * starts.len() as u64))
}

/// As [`write_indexed`], but only writes the blocks and returns their disk
/// addresses and the offset after them.
pub(super) fn write_plain(
    records: &[u8],
    at: u64,
    out: &mut dyn Write,
) -> io::Result<(Vec<u64>, u64)> {
    let mut starts = Vec::new();
    let len = write_blocks(records, out, |offset| starts.push(at + offset))?;
    Ok((starts, at + len))
}

fn write_blocks(
    bytes: &[u8],
    out: &mut dyn Write,
    mut on_block: impl FnMut(u64),
) -> io::Result<u64> {
    let mut written = 0u64;
    // 8192 fits the 15-bit length of the block header.
    for chunk in bytes.chunks(8192) {
        on_block(written);
        let len = u16::try_from(chunk.len()).map_err(io::Error::other)?;
        out.write_all(&(len | METADATA_UNCOMPRESSED).to_le_bytes())?;
        out.write_all(chunk)?;
        written += 2 + u64::from(len);
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_skip_block_headers() {
        assert_eq!(
            address_of(0).unwrap(),
            Address {
                block: 0,
                offset: 0
            }
        );
        assert_eq!(
            address_of(8191).unwrap(),
            Address {
                block: 0,
                offset: 8191
            }
        );
        assert_eq!(
            address_of(8192 * 2 + 5).unwrap(),
            Address {
                block: 16388,
                offset: 5
            }
        );
    }

    #[test]
    fn addresses_past_32_bits_are_refused() {
        assert!(address_of(1 << 33).is_err());
    }

    #[test]
    fn lookup_table_lists_each_block() {
        let mut out = Vec::new();
        let (lookup, end) = write_indexed(&vec![7; 8193], 1000, &mut out).unwrap();
        assert_eq!(lookup, 1000 + 8194 + 3);
        assert_eq!(end, lookup + 16);
        assert_eq!(out.len() as u64, end - 1000);
        let tail = &out[out.len() - 16..];
        assert_eq!(tail[..8], 1000u64.to_le_bytes());
        assert_eq!(tail[8..], (1000u64 + 8194).to_le_bytes());
    }
}

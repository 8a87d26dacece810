//! Directory listings.

use super::table::{Address, Table, address_of};
use super::{METADATA_BYTES, SquashfsError};

/// Most entries under one listing header.
const HEADER_ENTRIES: usize = 256;

/// One name in a directory.
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    /// Where the inode is in the inode table.
    pub(super) inode: Address,
    pub(super) number: u32,
    /// Basic inode type (1..=7), also for extended inodes.
    pub(super) kind: u16,
}

/// A written listing, as the directory inode describes it.
pub(super) struct Listing {
    pub(super) address: Address,
    /// Bytes in the directory table.
    pub(super) len: u32,
    /// Encoded index records, and how many.
    pub(super) index: Vec<u8>,
    pub(super) index_count: u16,
}

impl Listing {
    /// A directory without entries.
    pub(super) const EMPTY: Self = Self {
        address: Address {
            block: 0,
            offset: 0,
        },
        len: 0,
        index: Vec::new(),
        index_count: 0,
    };
}

/// Appends a listing of `entries`, which must be sorted by name: the kernel
/// stops looking at the first greater name.
pub(super) fn append(table: &mut Table, entries: &[Entry<'_>]) -> Result<Listing, SquashfsError> {
    if entries.is_empty() {
        return Ok(Listing::EMPTY);
    }
    let start = table.position();
    let address = table.address()?;
    let mut index = Vec::new();
    let mut index_count = 0u16;
    let mut indexed_block = start / METADATA_BYTES;
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let position = table.position();
        // An index record for the first header in each further metadata
        // block lets the kernel skip what lies before it.
        if position / METADATA_BYTES > indexed_block && index_count < u16::MAX {
            indexed_block = position / METADATA_BYTES;
            push_index(&mut index, position - start, position, first.name)?;
            index_count += 1;
        }
        let run = run_length(rest, position);
        push_run(table, &rest[..run])?;
        rest = &rest[run..];
    }
    let len = u32::try_from(table.position() - start)
        .ok()
        .filter(|len| *len <= u32::MAX - 3)
        .ok_or(SquashfsError::TooLarge {
            what: "directory bytes",
            limit: u64::from(u32::MAX - 3),
        })?;
    Ok(Listing {
        address,
        len,
        index,
        index_count,
    })
}

/// How many entries can share the header written at `position`.
fn run_length(entries: &[Entry<'_>], position: u64) -> usize {
    let block = position / METADATA_BYTES;
    let mut end = position + 12;
    let first = &entries[0];
    let mut count = 0;
    for entry in entries.iter().take(HEADER_ENTRIES) {
        let delta = i64::from(entry.number) - i64::from(first.number);
        let same_block = entry.inode.block == first.inode.block;
        let crossed = count > 0 && end / METADATA_BYTES > block;
        if !same_block || i16::try_from(delta).is_err() || crossed {
            break;
        }
        end += 8 + entry.name.len() as u64;
        count += 1;
    }
    count
}

fn push_run(table: &mut Table, run: &[Entry<'_>]) -> Result<(), SquashfsError> {
    let name_limit = || SquashfsError::TooLarge {
        what: "name bytes",
        limit: super::NAME_MAX as u64,
    };
    let first = &run[0];
    let count = u32::try_from(run.len() - 1).map_err(|_| name_limit())?;
    table.push(&count.to_le_bytes());
    table.push(&first.inode.block.to_le_bytes());
    table.push(&first.number.to_le_bytes());
    for entry in run {
        let delta = i64::from(entry.number) - i64::from(first.number);
        let delta = i16::try_from(delta).map_err(|_| name_limit())?;
        let name_len =
            u16::try_from(entry.name.len().saturating_sub(1)).map_err(|_| name_limit())?;
        table.push(&entry.inode.offset.to_le_bytes());
        table.push(&delta.to_le_bytes());
        table.push(&entry.kind.to_le_bytes());
        table.push(&name_len.to_le_bytes());
        table.push(entry.name);
    }
    Ok(())
}

fn push_index(
    index: &mut Vec<u8>,
    listing_offset: u64,
    position: u64,
    name: &[u8],
) -> Result<(), SquashfsError> {
    let limit = || SquashfsError::TooLarge {
        what: "directory bytes",
        limit: u64::from(u32::MAX),
    };
    let offset = u32::try_from(listing_offset).map_err(|_| limit())?;
    let name_len = u32::try_from(name.len().saturating_sub(1)).map_err(|_| limit())?;
    index.extend_from_slice(&offset.to_le_bytes());
    index.extend_from_slice(&address_of(position)?.block.to_le_bytes());
    index.extend_from_slice(&name_len.to_le_bytes());
    index.extend_from_slice(name);
    Ok(())
}

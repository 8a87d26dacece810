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

/// Fewest entries between two index records, and fewest in a directory that
/// has any: below, reading the records costs what they save.
const MIN_STRIDE: usize = 16;

/// How many entries lie between two index records. To find a name, the kernel
/// reads the records from the first on, and then the entries from there on,
/// one as slowly as the other (`get_dir_index_using_name`, `squashfs_lookup`):
/// the sum is least with as many of one as of the other.
fn stride(entries: usize) -> usize {
    entries.isqrt().clamp(MIN_STRIDE, HEADER_ENTRIES)
}

/// Appends a listing of `entries`, which must be sorted by name: the kernel
/// stops looking at the first greater name.
pub(super) fn append(table: &mut Table, entries: &[Entry<'_>]) -> Result<Listing, SquashfsError> {
    if entries.is_empty() {
        return Ok(Listing::EMPTY);
    }
    let start = table.position();
    let address = table.address()?;
    let stride = stride(entries.len());
    let mut index = Vec::new();
    let mut index_count = 0u16;
    let mut since_record = 0;
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let position = table.position();
        // Headers need not be a stride apart (inodes in other blocks end a
        // run), records must.
        if since_record >= stride && index_count < u16::MAX {
            since_record = 0;
            push_index(&mut index, position - start, position, first.name)?;
            index_count += 1;
        }
        let run = run_length(rest, position, stride - since_record.min(stride - 1));
        push_run(table, &rest[..run])?;
        since_record += run;
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

/// How many entries, at most `limit`, share the header written at `position`.
fn run_length(entries: &[Entry<'_>], position: u64, limit: usize) -> usize {
    let block = position / METADATA_BYTES;
    let mut end = position + 12;
    let first = &entries[0];
    let mut count = 0;
    for entry in entries.iter().take(limit) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps the kernel takes to each of `count` names, on average, when
    /// `block` inodes share a metadata block.
    fn average_steps(count: usize, block: usize) -> usize {
        let names: Vec<String> = (0..count).map(|n| format!("name-{n:06}")).collect();
        let entries: Vec<Entry<'_>> = names
            .iter()
            .enumerate()
            .map(|(n, name)| Entry {
                name: name.as_bytes(),
                inode: Address {
                    block: u32::try_from(n / block).unwrap(),
                    offset: 0,
                },
                number: u32::try_from(n).unwrap(),
                kind: 2,
            })
            .collect();
        let mut table = Table::default();
        let listing = append(&mut table, &entries).unwrap();
        let records: Vec<usize> = records(&listing.index)
            .iter()
            .map(|name| names.iter().position(|n| n.as_bytes() == *name).unwrap())
            .collect();
        assert_eq!(records.len(), usize::from(listing.index_count));
        let steps = |at: usize| {
            let before = records.iter().filter(|record| **record <= at);
            let from = before.clone().max().copied().unwrap_or(0);
            before.count() + 1 + at - from
        };
        (0..count).map(steps).sum::<usize>() / count.max(1)
    }

    /// The names of index records.
    fn records(mut index: &[u8]) -> Vec<&[u8]> {
        let mut names = Vec::new();
        while let Some((head, rest)) = index.split_at_checked(12) {
            let len = u32::from_le_bytes(head[8..].try_into().unwrap()) + 1;
            let (name, rest) = rest.split_at(usize::try_from(len).unwrap());
            names.push(name);
            index = rest;
        }
        names
    }

    #[test]
    fn names_are_found_in_about_as_many_steps_as_the_root_of_their_number() {
        // Whether all inodes lie together or each in a block of its own.
        for block in [1, 250, 60_000] {
            for (count, most) in [(1, 1), (16, 8), (100, 16), (1000, 40), (60_000, 260)] {
                let steps = average_steps(count, block);
                assert!(steps <= most, "{steps} steps for one of {count}, {block}");
            }
        }
    }
}

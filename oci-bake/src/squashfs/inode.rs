//! Inode records.

use super::INVALID;
use super::directory::Listing;

/// Fields every inode starts with.
pub(super) struct Header {
    pub(super) mode: u16,
    /// Index in the id table.
    pub(super) uid: u16,
    /// Index in the id table.
    pub(super) gid: u16,
    pub(super) mtime: u32,
    pub(super) number: u32,
    pub(super) nlink: u32,
    /// Index in the xattr id table or [`INVALID`].
    pub(super) xattr: u32,
}

/// Data blocks of a file.
#[derive(Default)]
pub(super) struct Blocks {
    /// Disk offset of the first block.
    pub(super) start: u64,
    pub(super) size: u64,
    /// Bytes that are holes.
    pub(super) sparse: u64,
    /// On-disk size of each block with [`super::BLOCK_UNCOMPRESSED`]; 0 is a hole.
    pub(super) sizes: Vec<u32>,
}

/// Basic inode types, which directory entries carry; extended ones are these
/// plus seven.
pub(super) mod kind {
    pub(in crate::squashfs) const DIR: u16 = 1;
    pub(in crate::squashfs) const FILE: u16 = 2;
    pub(in crate::squashfs) const SYMLINK: u16 = 3;
    pub(in crate::squashfs) const BLOCK: u16 = 4;
    pub(in crate::squashfs) const CHAR: u16 = 5;
    pub(in crate::squashfs) const FIFO: u16 = 6;
    pub(in crate::squashfs) const EXTENDED: u16 = 7;
}

/// Builds one record.
struct Record(Vec<u8>);

impl Record {
    fn new(header: &Header, kind: u16) -> Self {
        let mut record = Self(Vec::with_capacity(40));
        record.u16(kind);
        record.u16(header.mode);
        record.u16(header.uid);
        record.u16(header.gid);
        record.u32(header.mtime);
        record.u32(header.number);
        record
    }

    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
}

/// A directory: basic when everything fits its 16-bit size.
pub(super) fn directory(header: &Header, listing: &Listing, parent: u32) -> Vec<u8> {
    // The stored size counts three bytes for "." and "..".
    let size = listing.len.saturating_add(3);
    let short = u16::try_from(size).ok();
    if let Some(short) = short.filter(|_| header.xattr == INVALID && listing.index_count == 0) {
        let mut record = Record::new(header, kind::DIR);
        record.u32(listing.address.block);
        record.u32(header.nlink);
        record.u16(short);
        record.u16(listing.address.offset);
        record.u32(parent);
        return record.0;
    }
    let mut record = Record::new(header, kind::DIR + kind::EXTENDED);
    record.u32(header.nlink);
    record.u32(size);
    record.u32(listing.address.block);
    record.u32(parent);
    record.u16(listing.index_count);
    record.u16(listing.address.offset);
    record.u32(header.xattr);
    record.0.extend_from_slice(&listing.index);
    record.0
}

/// A regular file.
pub(super) fn file(header: &Header, blocks: &Blocks) -> Vec<u8> {
    let basic = u32::try_from(blocks.start)
        .ok()
        .zip(u32::try_from(blocks.size).ok())
        .filter(|_| header.nlink == 1 && header.xattr == INVALID && blocks.sparse == 0);
    let mut record = if let Some((start, size)) = basic {
        let mut record = Record::new(header, kind::FILE);
        record.u32(start);
        record.u32(INVALID);
        record.u32(0);
        record.u32(size);
        record
    } else {
        let mut record = Record::new(header, kind::FILE + kind::EXTENDED);
        record.u64(blocks.start);
        record.u64(blocks.size);
        record.u64(blocks.sparse);
        record.u32(header.nlink);
        record.u32(INVALID);
        record.u32(0);
        record.u32(header.xattr);
        record
    };
    for size in &blocks.sizes {
        record.u32(*size);
    }
    record.0
}

/// A symbolic link; `target` is bounded by the tree.
pub(super) fn symlink(header: &Header, target: &[u8]) -> Vec<u8> {
    let extended = header.xattr != INVALID;
    let kind = kind::SYMLINK + if extended { kind::EXTENDED } else { 0 };
    let mut record = Record::new(header, kind);
    record.u32(header.nlink);
    record.u32(u32::try_from(target.len()).unwrap_or(u32::MAX));
    record.0.extend_from_slice(target);
    if extended {
        record.u32(header.xattr);
    }
    record.0
}

/// A device (`rdev` given) or FIFO.
pub(super) fn special(header: &Header, basic: u16, rdev: Option<u32>) -> Vec<u8> {
    let extended = header.xattr != INVALID;
    let kind = basic + if extended { kind::EXTENDED } else { 0 };
    let mut record = Record::new(header, kind);
    record.u32(header.nlink);
    if let Some(rdev) = rdev {
        record.u32(rdev);
    }
    if extended {
        record.u32(header.xattr);
    }
    record.0
}

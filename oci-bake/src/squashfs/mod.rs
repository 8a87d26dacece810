//! A deterministic squashfs 4.0 writer.
//!
//! Field names and numbers follow the on-disk format of Linux
//! `fs/squashfs/squashfs_fs.h`. Four choices are ours:
//!
//! - **Metadata is never compressed.** The guest CPU may be an interpreter,
//!   where inflating an inode block costs more than reading it; and as every
//!   full metadata block then has the same size on disk, the disk address of
//!   any inode is arithmetic on its position in the table.
//! - **No fragments.** Packing file tails together saves nothing without
//!   compression (the last block of a file may be short) and makes the guest
//!   read a whole block to get at a small file.
//! - **Files begin with a page** of the guest's memory, unless they fit into the page of
//!   the file before. The guest's kernel reads such blocks to where they stay.
//! - **Attributes are always possible**, if no file has any: without a table Linux answers
//!   `listxattr` with `EOPNOTSUPP`, which no other file system of containers does.

mod data;
mod directory;
mod inode;
pub(crate) mod read;
mod table;
mod writer;
mod xattr;

pub(crate) use writer::{Image, write};
pub(crate) use xattr::split_name;

/// `SQUASHFS_MAGIC`, the first four bytes, little-endian.
pub(crate) const MAGIC: u32 = 0x7371_7368;
/// Size of the superblock in bytes.
pub(crate) const SUPERBLOCK_BYTES: u64 = 96;
/// Uncompressed size of a metadata block in bytes.
pub(crate) const METADATA_BYTES: u64 = 8192;
/// A full metadata block on disk: two header bytes and the content.
pub(crate) const METADATA_DISK_BYTES: u64 = METADATA_BYTES + 2;
/// Bit 15 of a metadata block header: stored uncompressed.
pub(crate) const METADATA_UNCOMPRESSED: u16 = 0x8000;
/// Bit 24 of a data block size: stored uncompressed.
pub(crate) const BLOCK_UNCOMPRESSED: u32 = 1 << 24;
/// "No such table" / "no fragment" / "no xattrs".
pub(crate) const INVALID: u32 = u32::MAX;
/// Longest name the writer accepts: Linux `NAME_MAX` in bytes.
pub(crate) const NAME_MAX: usize = 255;

/// How file data is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Compression {
    /// As it is: the cheapest for the guest to read.
    #[default]
    None,
    /// LZ4 blocks: smaller on disk, some work for the guest.
    Lz4,
}

impl Compression {
    /// What the name of a layer in the cache ends with.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Lz4 => ".lz4",
        }
    }
}

/// Why a tree could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SquashfsError {
    /// The output could not be written, or the spooled data not read.
    #[error("cannot write the squashfs image")]
    Io(#[from] std::io::Error),
    /// A table outgrew the field that addresses it.
    #[error("the layer needs more {what} than squashfs can address (limit {limit})")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The largest count the format can hold.
        limit: u64,
    },
}

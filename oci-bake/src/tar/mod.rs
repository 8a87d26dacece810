//! Reading and writing tar archives.
//!
//! The reader takes every header once and has one reading of each: where
//! archivers disagree (the size of an entry given twice, link entries with
//! data), it does what Go's `archive/tar`, and so every container runtime,
//! does, or refuses.

mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub(crate) use reader::Reader;
pub(crate) use writer::Writer;

use crate::tree::Extent;

/// One member of an archive, all extensions applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    /// Target of a symlink or hard link.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: EntryKind,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Whole seconds since 1970.
    pub(crate) mtime: i64,
    /// Length of the file, holes included.
    pub(crate) size: u64,
    /// Where the data is in the archive.
    pub(crate) extents: Vec<Extent>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The type of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    HardLink,
    Symlink,
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Dir,
    Fifo,
}

/// Why bytes are not an archive we accept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The archive could not be read.
    #[error("cannot read the tar archive")]
    Io(#[from] std::io::Error),
    /// A header whose checksum is wrong; also what a non-archive looks like.
    #[error("no valid tar header at byte {offset}")]
    BadHeader {
        /// Where in the archive.
        offset: u64,
    },
    /// The archive ends inside an entry.
    #[error("the tar archive ends inside the entry at byte {offset}")]
    Truncated {
        /// Where the entry starts.
        offset: u64,
    },
    /// A field that does not hold what it must.
    #[error("tar entry at byte {offset}: invalid {field}")]
    BadField {
        /// Where the entry starts.
        offset: u64,
        /// Which field.
        field: &'static str,
    },
    /// An entry type that has no meaning in an image.
    #[error("tar entry at byte {offset} has the unsupported type 0x{typeflag:02x}")]
    UnsupportedType {
        /// Where the entry starts.
        offset: u64,
        /// The type byte.
        typeflag: u8,
    },
    /// Extension data larger than anything legitimate.
    #[error("tar entry at byte {offset}: {what} larger than {limit}")]
    TooLarge {
        /// Where the entry starts.
        offset: u64,
        /// What is too large.
        what: &'static str,
        /// The cap.
        limit: u64,
    },
}

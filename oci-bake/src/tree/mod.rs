//! The file tree of one layer, in memory.
//!
//! Names from an image only ever become keys in these maps. They are never
//! joined to a host path, which is why no symlink, hard link or `..` in a
//! layer can reach the host: there is nothing to escape from.

mod apply;
mod budget;
mod finish;
mod merge;
mod path;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) use apply::{Lower, Tree};
pub(crate) use budget::Budget;
pub(crate) use finish::OVERLAY_OPAQUE;
pub(crate) use path::normalise;

use crate::section::ReadAt;

/// Index of a node in its tree.
pub(crate) type NodeId = usize;

/// Ownership, permissions and time of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Permission bits with setuid, setgid and sticky (0o7777).
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970, clamped to what squashfs stores.
    pub(crate) mtime: u32,
}

impl Meta {
    /// What a directory gets that no entry describes.
    pub(crate) const IMPLICIT_DIR: Self = Self {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
    };
}

/// A run of file data in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Offset in the file.
    pub(crate) logical: u64,
    /// Offset in the source.
    pub(crate) source: u64,
    pub(crate) len: u64,
}

/// Where the content of a regular file is. Bytes outside the extents, which
/// are sorted and disjoint, are zero.
#[derive(Clone)]
pub(crate) struct FileData {
    pub(crate) source: Arc<dyn ReadAt + Send + Sync>,
    pub(crate) size: u64,
    pub(crate) extents: Vec<Extent>,
}

impl FileData {
    /// What nobody will read.
    pub(crate) fn none() -> Self {
        Self {
            source: Arc::new(Vec::new()),
            size: 0,
            extents: Vec::new(),
        }
    }
}

/// A directory.
#[derive(Clone, Default)]
pub(crate) struct Dir {
    pub(crate) children: BTreeMap<Vec<u8>, NodeId>,
    /// Names that `.wh.NAME` entries remove from the layers below.
    pub(crate) whiteouts: BTreeSet<Vec<u8>>,
    /// Hides everything the layers below have in this directory.
    pub(crate) opaque: bool,
}

impl Dir {
    /// Whether this layer hides what the layers below have under `name`.
    pub(crate) fn hides(&self, name: &[u8]) -> bool {
        self.opaque || self.whiteouts.contains(name)
    }
}

/// What a node is.
#[derive(Clone)]
pub(crate) enum Kind {
    Dir(Dir),
    File(FileData),
    Symlink(Vec<u8>),
    /// Character device, with Linux's encoded device number.
    Char(u32),
    /// Block device, with Linux's encoded device number.
    Block(u32),
    Fifo,
}

/// One inode.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) meta: Meta,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) kind: Kind,
    /// False for directories that exist only because something is in them.
    pub(crate) explicit: bool,
}

impl Node {
    pub(crate) fn as_dir(&self) -> Option<&Dir> {
        match &self.kind {
            Kind::Dir(dir) => Some(dir),
            _ => None,
        }
    }
}

/// Linux's `new_encode_dev`: 12 bits of major between two parts of minor.
pub(crate) fn encode_dev(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20)
        .then_some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

#[cfg(test)]
mod tests {
    use super::encode_dev;

    #[test]
    fn device_numbers_use_linuxs_split_minor() {
        assert_eq!(encode_dev(1, 3), Some(0x103));
        assert_eq!(encode_dev(259, 300_000), Some(0x4931_03e0));
        assert_eq!(encode_dev(0xfff, 0xf_ffff), Some(u32::MAX));
        assert_eq!(encode_dev(1 << 12, 0), None);
        assert_eq!(encode_dev(0, 1 << 20), None);
    }
}

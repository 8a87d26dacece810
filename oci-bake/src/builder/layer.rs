//! The entries of a layer to be.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{BuildError, at};
use crate::tar::{Entry, EntryKind, Writer};

/// Who owns what is taken from a host directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owner {
    /// The owners on the host.
    Preserve,
    /// One user and group for everything.
    Fixed {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

enum Content {
    Bytes(Vec<u8>),
    Host(PathBuf),
}

/// A layer made entry by entry, in the order of the calls.
#[derive(Default)]
#[must_use]
pub struct LayerBuilder {
    entries: Vec<(Entry, Content)>,
}

impl LayerBuilder {
    /// A layer without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory owned by root.
    pub fn dir(self, path: &str, mode: u16) -> Self {
        self.simple(path, EntryKind::Dir, mode, "", Vec::new())
    }

    /// Adds a regular file owned by root.
    pub fn file(self, path: &str, mode: u16, content: impl Into<Vec<u8>>) -> Self {
        self.simple(path, EntryKind::File, mode, "", content.into())
    }

    /// Adds a symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.simple(path, EntryKind::Symlink, 0o777, target, Vec::new())
    }

    /// Adds another name for a file.
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.simple(path, EntryKind::HardLink, 0o644, target, Vec::new())
    }

    /// Adds a FIFO owned by root.
    pub fn fifo(self, path: &str, mode: u16) -> Self {
        self.simple(path, EntryKind::Fifo, mode, "", Vec::new())
    }

    /// Adds a character device owned by root.
    pub fn char_device(self, path: &str, mode: u16, major: u32, minor: u32) -> Self {
        self.simple(path, EntryKind::Char { major, minor }, mode, "", Vec::new())
    }

    /// Adds a block device owned by root.
    pub fn block_device(self, path: &str, mode: u16, major: u32, minor: u32) -> Self {
        self.simple(
            path,
            EntryKind::Block { major, minor },
            mode,
            "",
            Vec::new(),
        )
    }

    /// Removes `path` from the layers below.
    pub fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let marker = match parent {
            "" => format!(".wh.{name}"),
            parent => format!("{parent}/.wh.{name}"),
        };
        self.file(&marker, 0o644, Vec::new())
    }

    /// Hides everything the layers below have in the directory `path`.
    pub fn opaque(self, path: &str) -> Self {
        self.file(&format!("{path}/.wh..wh..opq"), 0o644, Vec::new())
    }

    /// Changes the owner of the entry added last.
    pub fn owned_by(mut self, uid: u32, gid: u32) -> Self {
        if let Some((entry, _)) = self.entries.last_mut() {
            entry.uid = uid;
            entry.gid = gid;
        }
        self
    }

    /// Sets the modification time of the entry added last, in seconds since
    /// 1970.
    pub fn modified(mut self, mtime: i64) -> Self {
        if let Some((entry, _)) = self.entries.last_mut() {
            entry.mtime = mtime;
        }
        self
    }

    /// Gives the entry added last an extended attribute.
    pub fn xattr(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        if let Some((entry, _)) = self.entries.last_mut() {
            entry.xattrs.push((name.as_bytes().to_vec(), value.into()));
        }
        self
    }

    /// Adds everything inside a host directory, with modes, links, devices
    /// and FIFOs, sorted by name and with times set to zero so that the
    /// result depends on the content alone. Extended attributes are not read
    /// and sockets are left out. Symlinks are stored, never followed.
    ///
    /// # Errors
    /// [`BuildError::Io`] naming what could not be read.
    pub fn host_dir(mut self, dir: impl AsRef<Path>, owner: Owner) -> Result<Self, BuildError> {
        let dir = dir.as_ref();
        let mut seen = BTreeMap::new();
        let mut stack = vec![(dir.to_owned(), Vec::new())];
        while let Some((host, name)) = stack.pop() {
            let metadata = fs::symlink_metadata(&host).map_err(at(&host))?;
            let is_top = name.is_empty();
            if metadata.is_dir() || is_top {
                let mut children = Vec::new();
                for child in fs::read_dir(&host).map_err(at(&host))? {
                    let child = child.map_err(at(&host))?;
                    let mut name = name.clone();
                    if !is_top {
                        name.push(b'/');
                    }
                    name.extend_from_slice(child.file_name().as_bytes());
                    children.push((child.path(), name));
                }
                // The stack hands them out in reverse.
                children.sort_by(|a, b| b.1.cmp(&a.1));
                stack.append(&mut children);
            }
            if !is_top {
                self.host_entry(&host, name, &metadata, owner, &mut seen)?;
            }
        }
        Ok(self)
    }

    /// Adds a regular file of the host, of so many bytes, owned by root and with its
    /// time set to zero.
    pub(crate) fn host_file(mut self, path: Vec<u8>, host: &Path, mode: u16, bytes: u64) -> Self {
        let entry = Entry {
            path,
            link: Vec::new(),
            kind: EntryKind::File,
            mode,
            uid: 0,
            gid: 0,
            mtime: 0,
            size: bytes,
            extents: Vec::new(),
            xattrs: Vec::new(),
        };
        self.entries.push((entry, Content::Host(host.to_owned())));
        self
    }

    fn host_entry(
        &mut self,
        host: &Path,
        name: Vec<u8>,
        metadata: &fs::Metadata,
        owner: Owner,
        seen: &mut BTreeMap<(u64, u64), Vec<u8>>,
    ) -> Result<(), BuildError> {
        let file_type = metadata.file_type();
        let mut link = Vec::new();
        let mut content = Content::Bytes(Vec::new());
        let mut kind = if file_type.is_dir() {
            EntryKind::Dir
        } else if file_type.is_symlink() {
            link = fs::read_link(host)
                .map_err(at(host))?
                .as_os_str()
                .as_bytes()
                .to_vec();
            EntryKind::Symlink
        } else if file_type.is_fifo() {
            EntryKind::Fifo
        } else if file_type.is_char_device() || file_type.is_block_device() {
            let (major, minor) = split_device(metadata.rdev());
            match file_type.is_char_device() {
                true => EntryKind::Char { major, minor },
                false => EntryKind::Block { major, minor },
            }
        } else if file_type.is_file() {
            content = Content::Host(host.to_owned());
            EntryKind::File
        } else {
            return Ok(());
        };
        if kind != EntryKind::Dir && metadata.nlink() > 1 {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = seen.get(&key) {
                kind = EntryKind::HardLink;
                link.clone_from(first);
                content = Content::Bytes(Vec::new());
            } else {
                seen.insert(key, name.clone());
            }
        }
        let (uid, gid) = match owner {
            Owner::Preserve => (metadata.uid(), metadata.gid()),
            Owner::Fixed { uid, gid } => (uid, gid),
        };
        self.entries.push((
            Entry {
                path: name,
                link,
                kind,
                mode: u16::try_from(metadata.mode() & 0o7777).unwrap_or(0o755),
                uid,
                gid,
                mtime: 0,
                size: match kind {
                    EntryKind::File => metadata.len(),
                    _ => 0,
                },
                extents: Vec::new(),
                xattrs: Vec::new(),
            },
            content,
        ));
        Ok(())
    }

    fn simple(
        mut self,
        path: &str,
        kind: EntryKind,
        mode: u16,
        link: &str,
        content: Vec<u8>,
    ) -> Self {
        self.entries.push((
            Entry {
                path: path.as_bytes().to_vec(),
                link: link.as_bytes().to_vec(),
                kind,
                mode: mode & 0o7777,
                uid: 0,
                gid: 0,
                mtime: 0,
                size: content.len() as u64,
                extents: Vec::new(),
                xattrs: Vec::new(),
            },
            Content::Bytes(content),
        ));
        self
    }

    /// Writes the entries, without the end of the archive.
    pub(super) fn write_to<W: Write>(&self, out: &mut Writer<W>) -> Result<(), BuildError> {
        for (entry, content) in &self.entries {
            match content {
                Content::Bytes(bytes) => out
                    .append(entry, &mut bytes.as_slice())
                    .map_err(BuildError::Layer)?,
                Content::Host(path) => {
                    let mut file = File::open(path).map_err(at(path))?;
                    out.append(entry, &mut file).map_err(at(path))?;
                }
            }
        }
        Ok(())
    }

    /// The layer as an uncompressed archive.
    ///
    /// # Errors
    /// [`BuildError`] when a host file cannot be read.
    pub fn to_tar(&self) -> Result<Vec<u8>, BuildError> {
        self.write_whole(Vec::new())
    }

    /// Writes the layer as an uncompressed archive.
    pub(crate) fn write_whole<W: Write>(&self, out: W) -> Result<W, BuildError> {
        let mut writer = Writer::new(out);
        self.write_to(&mut writer)?;
        writer.finish().map_err(BuildError::Layer)
    }
}

/// Linux's `gnu_dev_major` and `gnu_dev_minor`.
fn split_device(rdev: u64) -> (u32, u32) {
    let part = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    (
        part((rdev >> 8) & 0xfff),
        part((rdev & 0xff) | ((rdev >> 12) & 0xf_ff00)),
    )
}

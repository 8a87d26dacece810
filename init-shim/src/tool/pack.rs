//! A tree as a stream.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufRead, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use exec_proto::tree::{Node, NodeKind, OVERLAY_OPAQUE, name_below};

use super::{Failure, Out, WRITE_BYTES, at, confine, parted};
use crate::sys;

/// Before the names of what users say of files.
const USER_XATTRS: &[u8] = b"user.";

/// What is at `path`, under another name. Links are not followed.
pub(super) fn node(path: &Path, name: &[u8], metadata: &Metadata) -> Result<Node, Failure> {
    let kind = metadata.file_type();
    let (major, minor) = sys::device_numbers(metadata.rdev());
    let kind = if kind.is_dir() {
        NodeKind::Directory
    } else if kind.is_symlink() {
        let target = at(path, fs::read_link(path))?;
        NodeKind::Symlink(target.as_os_str().as_bytes().to_vec())
    } else if kind.is_char_device() {
        NodeKind::CharDevice { major, minor }
    } else if kind.is_block_device() {
        NodeKind::BlockDevice { major, minor }
    } else if kind.is_fifo() {
        NodeKind::Fifo
    } else if kind.is_socket() {
        NodeKind::Socket
    } else {
        NodeKind::File
    };
    Ok(Node {
        path: name.to_vec(),
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: metadata.size(),
        links: metadata.nlink(),
        mtime_s: metadata.mtime(),
        mtime_ns: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
        xattrs: Vec::new(),
    })
}

/// Writes what is at `path`, followed if it is a link, to standard output.
pub(super) fn pack(path: &Path) -> Result<(), Failure> {
    let path = at(path, fs::canonicalize(path))?;
    let start = if at(&path, fs::symlink_metadata(&path))?.is_dir() {
        confine(&path)?
    } else {
        let (parent, name) = parted(&path);
        confine(&parent)?.join(name.unwrap_or_default())
    };
    let mut packing = Packing::default();
    walk(&start, |path, name| packing.pack_one(path, name))?;
    packing.out.end(&start)
}

/// Writes a directory, and of what is below it the names that standard input has, each
/// with a NUL behind it. A directory comes without what is in it, and what is not there
/// is left out.
pub(super) fn pack_named(path: &Path) -> Result<(), Failure> {
    let start = confine(&at(path, fs::canonicalize(path))?)?;
    let mut packing = Packing::default();
    packing.pack_one(&start, b"")?;
    for name in io::stdin().lock().split(0) {
        let name = at(path, name)?;
        packing.pack_one(&start.join(OsStr::from_bytes(&name)), &name)?;
    }
    packing.out.end(&start)
}

/// Lists a directory and all that is below it, without content, and of attributes those
/// in which overlayfs says what it is.
pub(super) fn tree(path: &Path) -> Result<(), Failure> {
    let start = confine(&at(path, fs::canonicalize(path))?)?;
    let mut out = Out::default();
    walk(&start, |path, name| {
        let Some(metadata) = look(path, name)? else {
            return Ok(false);
        };
        let mut node = node(path, name, &metadata)?;
        // By these changes of an overlay are told from what is below.
        let of_interest = |name: &[u8]| match node.kind {
            NodeKind::Directory => name == OVERLAY_OPAQUE,
            NodeKind::File => name.starts_with(USER_XATTRS),
            _ => false,
        };
        if matches!(node.kind, NodeKind::Directory | NodeKind::File) {
            let mut xattrs = sys::xattrs(path).unwrap_or_default();
            xattrs.retain(|(name, _)| of_interest(name));
            node.xattrs = xattrs;
        }
        out.node(path, &node)?;
        Ok(node.kind == NodeKind::Directory)
    })?;
    out.end(&start)
}

/// Visits a tree, and a directory's content after the directory if the visit says that
/// it is one. Without recursion: trees are as deep as a guest makes them.
fn walk(
    start: &Path,
    mut visit: impl FnMut(&Path, &[u8]) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut left = vec![(start.to_owned(), Vec::new())];
    while let Some((path, name)) = left.pop() {
        if !visit(&path, &name)? {
            continue;
        }
        let mut children = at(&path, entries(&path))?;
        children.sort_by(|a, b| b.cmp(a));
        left.extend(children.into_iter().map(|child| {
            let own = child.file_name().unwrap_or_default().as_bytes();
            let name = name_below(&name, own);
            (child, name)
        }));
    }
    Ok(())
}

/// What is there; `None` if it has gone since it was listed.
fn look(path: &Path, name: &[u8]) -> Result<Option<Metadata>, Failure> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && !name.is_empty() => Ok(None),
        metadata => at(path, metadata).map(Some),
    }
}

#[derive(Default)]
struct Packing {
    out: Out,
    /// Files with several names, by device and inode, and their first path.
    seen: HashMap<(u64, u64), Vec<u8>>,
}

impl Packing {
    /// Packs one file or directory; true for a directory.
    fn pack_one(&mut self, path: &Path, name: &[u8]) -> Result<bool, Failure> {
        let Some(metadata) = look(path, name)? else {
            return Ok(false);
        };
        let mut node = node(path, name, &metadata)?;
        if node.kind == NodeKind::Socket {
            return Ok(false);
        }
        // A file system may refuse them to who may read the content.
        node.xattrs = sys::xattrs(path).unwrap_or_default();
        if node.links > 1 && node.kind != NodeKind::Directory {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = self.seen.get(&key) {
                node.kind = NodeKind::HardLink(first.clone());
            } else {
                self.seen.insert(key, name.to_vec());
            }
        }
        // Opened first: what cannot be read has no node without content.
        let file = match node.kind {
            NodeKind::File => Some(at(path, open(path))?),
            _ => None,
        };
        self.out.node(path, &node)?;
        if let Some(mut file) = file {
            let mut buffer = vec![0; WRITE_BYTES];
            loop {
                match at(path, file.read(&mut buffer))? {
                    0 => break,
                    count => self
                        .out
                        .data(path, buffer.get(..count).unwrap_or_default())?,
                }
            }
            self.out.file_end();
        }
        Ok(node.kind == NodeKind::Directory)
    }
}

/// Never waits for a FIFO that was put in the file's place.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn entries(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

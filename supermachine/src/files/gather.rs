//! A file or directory of the host as a stream.

use super::{Copied, CopyOptions};
use crate::Error;
use exec_proto::tree::{self, Node, NodeKind};
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The stream is handed over in pieces of about this size.
const PIECE_BYTES: usize = 64 * 1024;
/// Attributes that are copied: those that mean nothing to a kernel.
const XATTR_PREFIX: &[u8] = b"user.";

/// Takes a piece of the stream; false if nobody wants more.
type Write<'a> = &'a mut dyn FnMut(&[u8]) -> Result<bool, Error>;

/// Writes what is at `start`, followed if it is a link, to its end, or until nobody
/// wants more.
pub(super) fn gather(
    start: &Path,
    options: &CopyOptions,
    write: Write<'_>,
) -> Result<Copied, Error> {
    let failed = Error::host("cannot copy", start);
    let start = fs::canonicalize(start).map_err(failed)?;
    let mut gathering = Gathering {
        options,
        write,
        pending: Vec::new(),
        is_wanted: true,
        seen: HashMap::new(),
        copied: Copied::default(),
    };
    // Without recursion: trees may be deeper than a stack.
    let mut left = vec![(start, Vec::new())];
    while let Some((path, name)) = left.pop() {
        let failed = Error::host("cannot copy", &path);
        let is_directory = gathering.one(&path, &name)?;
        if !gathering.is_wanted {
            break;
        }
        if !is_directory {
            continue;
        }
        let mut children = entries(&path).map_err(failed)?;
        children.sort_by(|a, b| b.cmp(a));
        left.extend(children.into_iter().map(|child| {
            let own = child.file_name().unwrap_or_default().as_bytes();
            let name = tree::name_below(&name, own);
            (child, name)
        }));
    }
    tree::encode_end(&mut gathering.pending);
    gathering.flush(0)?;
    Ok(gathering.copied)
}

fn entries(path: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

struct Gathering<'a> {
    options: &'a CopyOptions,
    write: Write<'a>,
    pending: Vec<u8>,
    is_wanted: bool,
    /// Files with several names, by device and inode, and their first path.
    seen: HashMap<(u64, u64), Vec<u8>>,
    copied: Copied,
}

impl Gathering<'_> {
    /// One file or directory; true for a directory.
    fn one(&mut self, path: &Path, name: &[u8]) -> Result<bool, Error> {
        let failed = || Error::host("cannot copy", path);
        let metadata = match fs::symlink_metadata(path) {
            // It has gone since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound && !name.is_empty() => {
                return Ok(false);
            }
            metadata => metadata.map_err(failed())?,
        };
        let Some(kind) = kind(path, &metadata).map_err(failed())? else {
            self.copied.skipped += 1;
            return Ok(false);
        };
        let mut node = self.node(path, name, kind, &metadata);
        if node.links > 1 && node.kind != NodeKind::Directory {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = self.seen.get(&key) {
                node.kind = NodeKind::HardLink(first.clone());
            } else {
                self.seen.insert(key, name.to_vec());
            }
        }
        let file = match node.kind {
            NodeKind::File => Some(open(path, &metadata).map_err(failed())?),
            _ => None,
        };
        self.copied.entry(self.options)?;
        node.encode(&mut self.pending)?;
        self.flush(PIECE_BYTES)?;
        if let Some(file) = file {
            self.content(path, file)?;
        }
        Ok(node.kind == NodeKind::Directory)
    }

    fn node(&self, path: &Path, name: &[u8], kind: NodeKind, metadata: &Metadata) -> Node {
        let (uid, gid) = match self.options.keep_owners {
            true => (metadata.uid(), metadata.gid()),
            false => (0, 0),
        };
        Node {
            path: name.to_vec(),
            kind,
            mode: metadata.mode() & 0o7777,
            uid,
            gid,
            size: metadata.size(),
            links: metadata.nlink(),
            mtime_s: metadata.mtime(),
            mtime_ns: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
            xattrs: xattrs(path),
        }
    }

    fn content(&mut self, path: &Path, mut file: File) -> Result<(), Error> {
        let mut buffer = vec![0; PIECE_BYTES];
        while self.is_wanted {
            let count = file
                .read(&mut buffer)
                .map_err(Error::host("cannot copy", path))?;
            if count == 0 {
                break;
            }
            self.copied.content(count, self.options)?;
            tree::encode_data(&mut self.pending, &buffer[..count]);
            self.flush(PIECE_BYTES)?;
        }
        tree::encode_end(&mut self.pending);
        Ok(())
    }

    /// Hands over what there is, if it is as much as that.
    fn flush(&mut self, bytes: usize) -> Result<(), Error> {
        if self.pending.len() >= bytes && self.is_wanted {
            self.is_wanted = (self.write)(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }
}

/// `None` for what is not copied: sockets and devices.
fn kind(path: &Path, metadata: &Metadata) -> io::Result<Option<NodeKind>> {
    let kind = metadata.file_type();
    Ok(if kind.is_dir() {
        Some(NodeKind::Directory)
    } else if kind.is_symlink() {
        let target = fs::read_link(path)?;
        Some(NodeKind::Symlink(target.as_os_str().as_bytes().to_vec()))
    } else if kind.is_file() {
        Some(NodeKind::File)
    } else if kind.is_fifo() {
        Some(NodeKind::Fifo)
    } else {
        None
    })
}

/// Opens the file that was looked at, and nothing that took its place.
fn open(path: &Path, seen: &Metadata) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let found = file.metadata()?;
    match (found.dev(), found.ino()) == (seen.dev(), seen.ino()) {
        true => Ok(file),
        false => Err(io::Error::other("it was replaced meanwhile")),
    }
}

/// A file system may have none, and a file may change: what can be read is copied.
fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = vec![0_u8; tree::MAX_XATTR_BYTES];
    let count = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    let mut value = vec![0_u8; tree::MAX_XATTR_BYTES];
    let names = list[..count].split(|byte| *byte == 0);
    names
        .filter(|name| name.starts_with(XATTR_PREFIX))
        .filter_map(|name| {
            let count = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
            Some((name.to_vec(), value[..count].to_vec()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::runtime_dir::RuntimeDir;
    use exec_proto::tree::{TreeEvent, TreeReader};
    use std::os::unix::fs::symlink;

    fn gathered(start: &Path, options: &CopyOptions) -> Result<Vec<TreeEvent>, Error> {
        let mut reader = TreeReader::new();
        let mut events = Vec::new();
        gather(start, options, &mut |bytes| {
            reader.feed(bytes);
            while let Some(event) = reader.next_event()? {
                events.push(event);
            }
            Ok(true)
        })?;
        assert!(reader.is_over());
        Ok(events)
    }

    #[test]
    fn trees_are_told_in_order_with_links_as_links() {
        let dir = RuntimeDir::create().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("b")).unwrap();
        fs::write(root.join("a"), vec![7; PIECE_BYTES + 1]).unwrap();
        fs::hard_link(root.join("a"), root.join("b/again")).unwrap();
        symlink("/etc/passwd", root.join("c")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("d")).unwrap();
        let events = gathered(&root, &CopyOptions::default()).unwrap();
        let nodes: Vec<(&[u8], &NodeKind)> = events
            .iter()
            .filter_map(|event| match event {
                TreeEvent::Node(node) => Some((&node.path[..], &node.kind)),
                _ => None,
            })
            .collect();
        let expected: [(&[u8], &NodeKind); 5] = [
            (b"", &NodeKind::Directory),
            (b"a", &NodeKind::File),
            (b"b", &NodeKind::Directory),
            (b"b/again", &NodeKind::HardLink(b"a".to_vec())),
            (b"c", &NodeKind::Symlink(b"/etc/passwd".to_vec())),
        ];
        assert_eq!(nodes, expected);
        let bytes: usize = events
            .iter()
            .map(|event| match event {
                TreeEvent::Data(data) => data.len(),
                _ => 0,
            })
            .sum();
        assert_eq!(bytes, PIECE_BYTES + 1);
        let single = gathered(&root.join("a"), &CopyOptions::default()).unwrap();
        assert!(matches!(&single[0], TreeEvent::Node(node) if node.path.is_empty()));
    }

    #[test]
    fn limits_hold_on_the_way_in_too() {
        let dir = RuntimeDir::create().unwrap();
        fs::write(dir.path().join("a"), "12345").unwrap();
        let options = CopyOptions {
            max_bytes: 4,
            ..CopyOptions::default()
        };
        let error = gathered(dir.path(), &options).unwrap_err();
        assert!(matches!(error, Error::CopyTooLarge { limit: 4, .. }));
        let missing = gathered(&dir.path().join("none"), &options).unwrap_err();
        assert!(matches!(missing, Error::Host { .. }));
    }
}

//! A stream as a tree.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use exec_proto::tree::{Node, NodeKind, TreeEvent, TreeReader};

use super::{Failure, WRITE_BYTES, at, confine, parted};
use crate::sys;

/// Makes what standard input says at `path`, which must be absolute; directories
/// above it that are missing are made. What is in the way is replaced, but
/// directories stay with what else is in them.
pub(super) fn unpack(path: &Path) -> Result<(), Failure> {
    let (parent, name) = parted(path);
    at(&parent, fs::create_dir_all(&parent))?;
    let start = confine(&parent)?.join(name.unwrap_or_default());
    let mut unpacking = Unpacking {
        start,
        file: None,
        directories: Vec::new(),
    };
    let mut reader = TreeReader::new();
    let mut buffer = vec![0; WRITE_BYTES];
    let mut stdin = io::stdin().lock();
    while !reader.is_over() {
        match at(path, stdin.read(&mut buffer))? {
            0 => return at(path, Err(ErrorKind::UnexpectedEof.into())),
            count => reader.feed(buffer.get(..count).unwrap_or_default()),
        }
        while let Some(event) = at(path, reader.next_event().map_err(io::Error::other))? {
            unpacking.take(event)?;
        }
    }
    unpacking.finish()
}

struct Unpacking {
    start: PathBuf,
    file: Option<(PathBuf, Node, File)>,
    /// Given their modes and times last, when nothing more is put into them.
    directories: Vec<(PathBuf, Node)>,
}

impl Unpacking {
    fn place(&self, path: &[u8]) -> PathBuf {
        match path {
            b"" => self.start.clone(),
            path => self.start.join(std::ffi::OsStr::from_bytes(path)),
        }
    }

    fn take(&mut self, event: TreeEvent) -> Result<(), Failure> {
        match event {
            TreeEvent::Node(node) => {
                let path = self.place(&node.path);
                let made = self.make(&path, node);
                at(&path, made)
            }
            TreeEvent::Data(data) => match &mut self.file {
                Some((path, _, file)) => at(path, file.write_all(&data)),
                None => Ok(()),
            },
            TreeEvent::FileEnd => match self.file.take() {
                Some((path, node, file)) => {
                    drop(file);
                    at(&path, dress(&path, &node))
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn make(&mut self, path: &Path, node: Node) -> io::Result<()> {
        if node.kind == NodeKind::Directory {
            if !fs::symlink_metadata(path).is_ok_and(|there| there.is_dir()) {
                clear(path)?;
                DirBuilder::new().mode(0o700).create(path)?;
            }
            self.directories.push((path.to_owned(), node));
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        clear(path)?;
        match &node.kind {
            NodeKind::File => {
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(0o600);
                let file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
                self.file = Some((path.to_owned(), node, file));
                return Ok(());
            }
            NodeKind::Symlink(target) => symlink(std::ffi::OsStr::from_bytes(target), path)?,
            NodeKind::HardLink(first) => return fs::hard_link(self.place(first), path),
            NodeKind::CharDevice { major, minor } => {
                sys::make_node(path, libc::S_IFCHR, 0o600, *major, *minor)?;
            }
            NodeKind::BlockDevice { major, minor } => {
                sys::make_node(path, libc::S_IFBLK, 0o600, *major, *minor)?;
            }
            NodeKind::Fifo => sys::make_node(path, libc::S_IFIFO, 0o600, 0, 0)?,
            // It would have nobody behind it.
            _ => return Ok(()),
        }
        dress(path, &node)
    }

    fn finish(mut self) -> Result<(), Failure> {
        // What is in a directory before the directory.
        self.directories.reverse();
        for (path, node) in &self.directories {
            at(path, dress(path, node))?;
        }
        Ok(())
    }
}

/// Removes what is in the way of something that is no directory, or of a directory.
fn clear(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Owner, mode, attributes and times, in this order: a new owner takes setuid away,
/// and attributes change times.
fn dress(path: &Path, node: &Node) -> io::Result<()> {
    match lchown(path, Some(node.uid), Some(node.gid)) {
        // What users make is theirs.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
        owned => owned?,
    }
    if !matches!(node.kind, NodeKind::Symlink(_)) {
        fs::set_permissions(path, Permissions::from_mode(node.mode))?;
    }
    for (name, value) in &node.xattrs {
        match sys::set_xattr(path, name, value) {
            // The file system has none, or this user may not set it.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EOPNOTSUPP | libc::EPERM | libc::EACCES)
                ) => {}
            set => set?,
        }
    }
    sys::set_times(path, node.mtime_s, node.mtime_ns)
}

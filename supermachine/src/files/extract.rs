//! What a guest sends, below a directory of the host.

use super::{Copied, CopyOptions};
use crate::Error;
use exec_proto::tree::{Node, NodeKind, TreeEvent};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Permission bits that are taken over from a guest: not setuid and its kin.
const MODE_BITS: u32 = 0o777;
/// Most bytes of the names of directories, which are kept until the end.
const MAX_NAMES_BYTES: u64 = 256 << 20;
/// Attributes that mean nothing to a kernel.
const XATTR_PREFIX: &[u8] = b"user.";

/// Writes a tree. Every name is looked up in the directory above it, which was
/// opened without following a link, so that no link leads out, whoever puts it there.
pub(crate) struct Extract {
    /// Where it goes, for errors.
    target: PathBuf,
    /// The directory above, and the name there; a root has none.
    above: OwnedFd,
    name: OsString,
    options: CopyOptions,
    /// The root, once it is known to be a directory.
    root: Option<OwnedFd>,
    /// The directory that the last entry was in.
    last: Option<(Vec<u8>, OwnedFd)>,
    file: Option<(File, Node)>,
    /// Given their modes and times last. Their attributes are not kept.
    directories: Vec<Node>,
    /// Bytes of their names, and the most there may be.
    names: (u64, u64),
    copied: Copied,
}

impl Extract {
    pub(super) fn new(target: &Path, options: CopyOptions) -> Result<Self, Error> {
        let (above, name) = match (target.parent(), target.file_name()) {
            (Some(above), Some(name)) if above.as_os_str().is_empty() => (Path::new("."), name),
            (Some(above), Some(name)) => (above, name),
            // `/`, `.` and `..` are directories that are there.
            _ => (target, OsStr::new(".")),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(above, flags, Mode::empty());
        let failed = Error::host("cannot open the directory", above);
        let above = opened.map_err(|error| failed(error.into()))?;
        Ok(Self::over(above, name, target, options))
    }

    /// Writes into a directory that is open, and that the tree is to begin with; `target`
    /// is its path for errors.
    pub(crate) fn within(directory: OwnedFd, target: &Path, options: &CopyOptions) -> Self {
        Self::over(directory, OsStr::new("."), target, options.clone())
    }

    fn over(above: OwnedFd, name: &OsStr, target: &Path, options: CopyOptions) -> Self {
        Self {
            target: target.to_owned(),
            above,
            name: name.to_owned(),
            options,
            root: None,
            last: None,
            file: None,
            directories: Vec::new(),
            names: (0, MAX_NAMES_BYTES),
            copied: Copied::default(),
        }
    }

    pub(crate) fn take(&mut self, event: TreeEvent) -> Result<(), Error> {
        match event {
            TreeEvent::Node(node) => {
                self.copied.entry(&self.options)?;
                if node.kind == NodeKind::Directory {
                    self.names.0 = self.names.0.saturating_add(node.path.len() as u64);
                }
                if self.names.0 > self.names.1 {
                    return Err(Error::CopyTooLarge {
                        what: "bytes of names",
                        limit: self.names.1,
                    });
                }
                let path = node.path.clone();
                self.make(node).map_err(|error| self.failed(&path, error))
            }
            TreeEvent::Data(data) => {
                self.copied.content(data.len(), &self.options)?;
                let Some((file, node)) = &mut self.file else {
                    return Ok(());
                };
                let path = node.path.clone();
                let written = file.write_all(&data);
                written.map_err(|error| {
                    Error::host("cannot write", self.target.join(OsStr::from_bytes(&path)))(error)
                })
            }
            TreeEvent::FileEnd => match self.file.take() {
                Some((file, node)) => {
                    let dressed = self.dress(file.as_fd(), &node);
                    dressed.map_err(|error| self.failed(&node.path, error))
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Gives directories what they could not have while they were written to.
    pub(super) fn finish(mut self) -> Result<Copied, Error> {
        while let Some(node) = self.directories.pop() {
            let dressed = self.directory(&node.path);
            dressed
                .and_then(|directory| self.dress(directory.as_fd(), &node))
                .map_err(|error| self.failed(&node.path, error))?;
        }
        Ok(self.copied)
    }

    fn failed(&self, path: &[u8], error: Errno) -> Error {
        let path = match path {
            b"" => self.target.clone(),
            path => self.target.join(OsStr::from_bytes(path)),
        };
        Error::host("cannot write", path)(error.into())
    }

    fn make(&mut self, mut node: Node) -> Result<(), Errno> {
        let is_root = node.path.is_empty();
        if is_root == self.root.is_some() {
            // A tree has one root, and it comes first.
            return Err(Errno::INVAL);
        }
        let (above, name) = match is_root {
            true => (
                self.above.try_clone().map_err(|_| Errno::MFILE)?,
                self.name.clone(),
            ),
            false => {
                let (above, name) = parted(&node.path);
                (self.directory(above)?, name.to_owned())
            }
        };
        match &node.kind {
            NodeKind::Directory => {
                let made = make_directory(above.as_fd(), &name, is_root)?;
                set_xattrs(made.as_fd(), &std::mem::take(&mut node.xattrs))?;
                if is_root {
                    self.root = Some(made);
                }
                self.directories.push(node);
            }
            NodeKind::File => {
                clear(above.as_fd(), &name)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let mode = Mode::RUSR | Mode::WUSR;
                let file = rustix::fs::openat(&above, &name, flags | OFlags::CLOEXEC, mode)?;
                self.file = Some((file.into(), node));
            }
            NodeKind::Symlink(target) => {
                clear(above.as_fd(), &name)?;
                rustix::fs::symlinkat(OsStr::from_bytes(target), &above, &name)?;
                let times = times(&node);
                rustix::fs::utimensat(&above, &name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            NodeKind::HardLink(first) => {
                clear(above.as_fd(), &name)?;
                let (first_above, first_name) = parted(first);
                let first_above = self.directory(first_above)?;
                // Without a flag, a link is linked and not what it leads to.
                rustix::fs::linkat(&first_above, first_name, &above, &name, AtFlags::empty())?;
            }
            _ => self.copied.skipped += 1,
        }
        Ok(())
    }

    /// The directory of a path in the tree, from its root on.
    fn directory(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let dup = |of: &OwnedFd| of.try_clone().map_err(|_| Errno::MFILE);
        if let Some((last, directory)) = &self.last
            && last == path
        {
            return dup(directory);
        }
        let mut directory = dup(self.root.as_ref().ok_or(Errno::NOTDIR)?)?;
        for name in path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
        {
            directory = open_directory(directory.as_fd(), OsStr::from_bytes(name))?;
        }
        self.last = Some((path.to_vec(), dup(&directory)?));
        Ok(directory)
    }

    /// Owner, mode, attributes, times.
    fn dress(&self, file: BorrowedFd<'_>, node: &Node) -> Result<(), Errno> {
        if self.options.keep_owners {
            let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        let mode = Mode::from_raw_mode((node.mode & MODE_BITS) as rustix::fs::RawMode);
        rustix::fs::fchmod(file, mode)?;
        set_xattrs(file, &node.xattrs)?;
        rustix::fs::futimens(file, &times(node))
    }
}

fn set_xattrs(file: BorrowedFd<'_>, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Errno> {
    let ours = xattrs
        .iter()
        .filter(|(name, _)| name.starts_with(XATTR_PREFIX));
    for (name, value) in ours {
        match rustix::fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
            // Not every file system has room for them.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSPC | Errno::DQUOT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn times(node: &Node) -> Timestamps {
    let time = Timespec {
        tv_sec: node.mtime_s,
        tv_nsec: node.mtime_ns.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// The path of the directory above and the name in it.
fn parted(path: &[u8]) -> (&[u8], &OsStr) {
    let at = path.iter().rposition(|byte| *byte == b'/');
    let (above, name) = match at {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    };
    (above, OsStr::from_bytes(name))
}

fn open_directory(above: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(above, name, flags, Mode::empty())
}

/// Makes a directory, if there is none. Whoever named the root may have meant a
/// link to one.
fn make_directory(above: BorrowedFd<'_>, name: &OsStr, is_root: bool) -> Result<OwnedFd, Errno> {
    if is_root {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(there) = rustix::fs::openat(above, name, flags, Mode::empty()) {
            return Ok(there);
        }
    } else if let Ok(there) = open_directory(above, name) {
        return Ok(there);
    }
    clear(above, name)?;
    rustix::fs::mkdirat(above, name, Mode::RWXU)?;
    open_directory(above, name)
}

/// Removes a file or link that is in the way. A directory that is stays: what is in
/// it was not asked for.
fn clear(above: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(above, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // What Linux and macOS say of directories.
        Err(Errno::ISDIR | Errno::PERM) => Err(Errno::ISDIR),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::runtime_dir::RuntimeDir;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn node(path: &str, kind: NodeKind) -> TreeEvent {
        TreeEvent::Node(Node {
            path: path.into(),
            kind,
            mode: 0o6751,
            uid: 12,
            gid: 34,
            size: 0,
            links: 1,
            mtime_s: 1_000_000,
            mtime_ns: 5,
            xattrs: vec![(b"security.capability".to_vec(), b"x".to_vec())],
        })
    }

    fn extract(target: &Path, events: Vec<TreeEvent>) -> Result<Copied, Error> {
        let mut extract = Extract::new(target, CopyOptions::default())?;
        for event in events {
            extract.take(event)?;
        }
        extract.finish()
    }

    fn link(target: &str) -> NodeKind {
        NodeKind::Symlink(target.into())
    }

    #[test]
    fn trees_arrive_with_modes_times_and_links_and_without_setuid() {
        let dir = RuntimeDir::create().unwrap();
        let target = dir.path().join("tree");
        let copied = extract(
            &target,
            vec![
                node("", NodeKind::Directory),
                node("d", NodeKind::Directory),
                node("d/f", NodeKind::File),
                TreeEvent::Data(b"content".to_vec()),
                TreeEvent::FileEnd,
                node("d/l", link("/etc/passwd")),
                node("h", NodeKind::HardLink("d/f".into())),
                node("null", NodeKind::CharDevice { major: 1, minor: 3 }),
                node("p", NodeKind::Fifo),
            ],
        );
        let copied = copied.unwrap();
        assert_eq!((copied.entries, copied.bytes, copied.skipped), (7, 7, 2));
        assert_eq!(fs::read(target.join("h")).unwrap(), b"content");
        assert_eq!(
            fs::read_link(target.join("d/l")).unwrap(),
            Path::new("/etc/passwd")
        );
        for name in ["", "d", "d/f"] {
            let found = fs::metadata(target.join(name)).unwrap();
            assert_eq!(found.permissions().mode() & 0o7777, 0o751, "{name}");
            assert_eq!(
                (found.mtime(), found.mtime_nsec()),
                (1_000_000, 5),
                "{name}"
            );
        }
        assert!(!target.join("null").exists() && !target.join("p").exists());
    }

    #[test]
    fn no_link_leads_out_whether_it_came_along_or_was_there() {
        let dir = RuntimeDir::create().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let out = outside.to_str().unwrap();
        let file = |path: &str| [node(path, NodeKind::File), TreeEvent::FileEnd];
        let attempts: [Vec<TreeEvent>; 4] = [
            [vec![node("l", link(out))], file("l/x").into()].concat(),
            // One that was there is replaced by the directory.
            [
                vec![node("there", NodeKind::Directory)],
                file("there/x").into(),
            ]
            .concat(),
            vec![node("l", link(out)), node("l/d", NodeKind::Directory)],
            vec![
                node("l", link(out)),
                node("h", NodeKind::HardLink("l/secret".into())),
            ],
        ];
        fs::write(outside.join("secret"), "secret").unwrap();
        for (number, attempt) in attempts.into_iter().enumerate() {
            let target = dir.path().join(format!("tree{number}"));
            fs::create_dir(&target).unwrap();
            symlink(&outside, target.join("there")).unwrap();
            let events = [vec![node("", NodeKind::Directory)], attempt].concat();
            let result = extract(&target, events);
            assert_eq!(result.is_ok(), number == 1, "{number}: {result:?}");
            let names: Vec<_> = fs::read_dir(&outside).unwrap().collect();
            assert_eq!(names.len(), 1, "{number}: {names:?}");
        }
        assert_eq!(fs::metadata(outside.join("secret")).unwrap().nlink(), 1);
    }

    #[test]
    fn files_replace_files_and_links_but_no_directory() {
        let dir = RuntimeDir::create().unwrap();
        let (victim, target) = (dir.path().join("victim"), dir.path().join("target"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &target).unwrap();
        let file = || {
            vec![
                node("", NodeKind::File),
                TreeEvent::Data(b"new".to_vec()),
                TreeEvent::FileEnd,
            ]
        };
        extract(&target, file()).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(fs::read(&target).unwrap(), b"new");
        let directory = dir.path().join("directory");
        fs::create_dir(&directory).unwrap();
        assert!(extract(&directory, file()).is_err());
        let missing = dir.path().join("none/target");
        assert!(matches!(extract(&missing, file()), Err(Error::Host { .. })));
    }

    #[test]
    fn a_guest_fills_no_more_than_it_may() {
        let dir = RuntimeDir::create().unwrap();
        let options = CopyOptions {
            max_bytes: 10,
            max_entries: 3,
            ..CopyOptions::default()
        };
        let fresh = |name: &str| {
            let mut extract = Extract::new(&dir.path().join(name), options.clone()).unwrap();
            extract.take(node("", NodeKind::Directory)).unwrap();
            extract
        };
        let mut bytes = fresh("bytes");
        bytes.take(node("f", NodeKind::File)).unwrap();
        bytes.take(TreeEvent::Data(vec![0; 10])).unwrap();
        let error = bytes.take(TreeEvent::Data(vec![0])).unwrap_err();
        assert!(matches!(error, Error::CopyTooLarge { limit: 10, .. }));
        let mut entries = fresh("entries");
        entries.take(node("a", NodeKind::Directory)).unwrap();
        entries.take(node("b", NodeKind::Directory)).unwrap();
        let error = entries.take(node("c", NodeKind::Directory)).unwrap_err();
        assert!(matches!(error, Error::CopyTooLarge { limit: 3, .. }));
        let mut names = fresh("names");
        names.names.1 = 3;
        names.take(node("abc", NodeKind::Directory)).unwrap();
        let error = names.take(node("d", NodeKind::Directory)).unwrap_err();
        assert!(matches!(error, Error::CopyTooLarge { limit: 3, .. }));
        // Nothing is kept of their attributes until the end.
        assert!(names.directories.iter().all(|node| node.xattrs.is_empty()));
    }

    #[test]
    fn a_tree_has_one_root_which_comes_first() {
        let dir = RuntimeDir::create().unwrap();
        let target = dir.path().join("tree");
        assert!(extract(&target, vec![node("a", NodeKind::Directory)]).is_err());
        let twice = vec![node("", NodeKind::Directory), node("", NodeKind::Directory)];
        assert!(extract(&target, twice).is_err());
    }
}

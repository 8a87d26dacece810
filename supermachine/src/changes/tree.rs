//! A directory of the host, in which every name is looked up without following a link.

use crate::Error;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// In which mounts record owners, which no guest sees.
const OWNER_ATTRIBUTE: &[u8] = b"user.containers.override_stat";
/// Longest value, and list of names, that Linux has (xattr(7)).
const MAX_ATTRIBUTE_BYTES: usize = 64 << 10;

/// A name and a value.
pub(super) type Attribute = (Vec<u8>, Vec<u8>);

pub(super) struct HostTree {
    pub path: PathBuf,
    pub root: OwnedFd,
    /// The directory that was found last: files come by directories.
    last: Option<(PathBuf, OwnedFd)>,
}

impl HostTree {
    /// Opens a directory; whoever named it may have meant a link.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let root = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let failed = Error::host("cannot open the directory", path);
        let root = root.map_err(|error| failed(error.into()))?;
        Ok(Self::over(path, root))
    }

    /// The same of one that is open; the path is for errors.
    pub fn over(path: &Path, root: OwnedFd) -> Self {
        Self {
            path: path.to_owned(),
            root,
            last: None,
        }
    }

    /// The directory of this path; `None` if there is none.
    pub fn directory(&mut self, path: &Path) -> Result<Option<OwnedFd>, Errno> {
        if let Some((last, directory)) = &self.last
            && last == path
        {
            return dup(directory).map(Some);
        }
        let mut at = dup(&self.root)?;
        for component in path.components() {
            let Component::Normal(name) = component else {
                return Ok(None);
            };
            at = match open_directory(&at, name) {
                Err(error) if is_none(error) => return Ok(None),
                opened => opened?,
            };
        }
        self.last = Some((path.to_owned(), dup(&at)?));
        Ok(Some(at))
    }

    /// Has the next search begin at the root.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// What is at a path, and not where a link there leads; `None` if there is nothing.
    pub fn look(&mut self, path: &Path) -> Result<Option<Stat>, Errno> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return rustix::fs::fstat(&self.root).map(Some);
        };
        match self.directory(above)? {
            Some(above) => look(&above, name),
            None => Ok(None),
        }
    }

    /// The names in a directory; none if there is no directory.
    pub fn names(&mut self, path: &Path) -> Result<Vec<PathBuf>, Errno> {
        let Some(directory) = self.directory(path)? else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(OsStr::from_bytes(name).into());
            }
        }
        Ok(names)
    }
}

/// The attributes of a file that a user gave it, by name: those that leave a guest.
/// `None` if it cannot be read, or has more than is worth a look.
pub(super) fn attributes(above: &OwnedFd, name: &OsStr) -> Option<Vec<Attribute>> {
    // A pipe in its place is not waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(above, name, flags, Mode::empty()).ok()?;
    // Most have none.
    match rustix::fs::flistxattr(&file, &mut [0_u8; 0][..]) {
        Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Some(Vec::new()),
        length => length.ok()?,
    };
    let mut list = vec![0; MAX_ATTRIBUTE_BYTES];
    let length = rustix::fs::flistxattr(&file, &mut list[..]).ok()?;
    let names = list[..length].split(|byte| *byte == 0);
    let mut found = Vec::new();
    for name in names.filter(|name| is_users(name)) {
        let mut value = vec![0; MAX_ATTRIBUTE_BYTES];
        let length = rustix::fs::fgetxattr(&file, OsStr::from_bytes(name), &mut value[..]);
        value.truncate(length.ok()?);
        found.push((name.to_owned(), value));
    }
    found.sort();
    Some(found)
}

/// Whether guests see an attribute of this name as the host has it.
pub(super) fn is_users(name: &[u8]) -> bool {
    name.starts_with(b"user.") && name != OWNER_ATTRIBUTE
}

/// Whether an error says that there is no such directory: nothing, a file or a link.
pub(super) fn is_none(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

pub(super) fn open_directory(above: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(above, name, DIRECTORY, Mode::empty())
}

pub(super) fn look(above: &OwnedFd, name: &OsStr) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(error) if is_none(error) => Ok(None),
        found => found.map(Some),
    }
}

fn dup(of: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(of, 0)
}

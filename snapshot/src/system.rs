//! The files of the system, at a path or confined to a directory.

use crate::error::Context;
use crate::files::{Files, LockKind};
use crate::{Result, SnapshotError};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::retry_on_intr;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

/// Opens a directory to look things up in it; a link is not one.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const OWNER_ONLY: Mode = Mode::RWXU;
const OWNER_READS_AND_WRITES: Mode = Mode::RUSR.union(Mode::WUSR);

/// The files of the system. The last component of a path is never followed,
/// the others are.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemFiles;

/// The files of the system at and below one directory. Neither that directory
/// nor anything below it is used through a symbolic link: whoever can put a
/// link there would decide what is read, written or removed elsewhere.
#[derive(Clone, Debug)]
pub struct FilesBelow {
    root: PathBuf,
}

impl FilesBelow {
    /// Confines to the directory `root`.
    ///
    /// # Errors
    /// [`SnapshotError::NotDirectory`] when it is a symbolic link or no
    /// directory; when it cannot be opened.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        match open_directory(CWD, &root) {
            Ok(_) => Ok(Self { root }),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(SnapshotError::NotDirectory { path: root })
            }
            Err(error) => Err(error).context("open", &root),
        }
    }
}

fn open_directory(at: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    match retry_on_intr(|| rustix::fs::openat(at, name, DIRECTORY, Mode::empty())) {
        // Some systems say this of a link, others that it is no directory.
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::MLINK) => {
            Err(io::ErrorKind::NotADirectory.into())
        }
        opened => Ok(opened?),
    }
}

/// A name and the directory it is looked up in.
pub(crate) struct Place {
    /// Nothing for the working directory.
    directory: Option<OwnedFd>,
    name: PathBuf,
}

impl Place {
    fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_ref().map_or(CWD, AsFd::as_fd)
    }

    fn open(&self, flags: OFlags, mode: Mode) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(self.directory(), &self.name, flags, mode);
        Ok(retry_on_intr(open)?.into())
    }
}

/// How a path is looked up.
pub(crate) trait Resolve: fmt::Debug + Send + Sync {
    /// Where to find what `path` names.
    fn place(&self, path: &Path) -> io::Result<Place>;
}

impl Resolve for SystemFiles {
    fn place(&self, path: &Path) -> io::Result<Place> {
        Ok(Place {
            directory: None,
            name: path.to_owned(),
        })
    }
}

impl Resolve for FilesBelow {
    fn place(&self, path: &Path) -> io::Result<Place> {
        let Ok(below) = path.strip_prefix(&self.root) else {
            // What is linked into a generation comes from elsewhere.
            return SystemFiles.place(path);
        };
        let mut directory = open_directory(CWD, &self.root)?;
        let mut name = OsStr::new(".");
        for component in below.components() {
            let Component::Normal(next) = component else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            if name != "." {
                directory = open_directory(directory.as_fd(), Path::new(name))?;
            }
            name = next;
        }
        Ok(Place {
            directory: Some(directory),
            name: name.into(),
        })
    }
}

impl<R: Resolve> Files for R {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let place = self.place(path)?;
        Ok(rustix::fs::mkdirat(
            place.directory(),
            &place.name,
            OWNER_ONLY,
        )?)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        self.place(path)?.open(flags, OWNER_READS_AND_WRITES)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        self.place(path)?.open(flags, Mode::empty())
    }

    fn open_lock(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE;
        self.place(path)?.open(flags, OWNER_READS_AND_WRITES)
    }

    fn attributes(&self, file: &File) -> io::Result<Metadata> {
        file.metadata()
    }

    fn attributes_of(&self, path: &Path) -> io::Result<Metadata> {
        // Fails where something above it is a link.
        self.place(path)?;
        fs::symlink_metadata(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(bytes, offset)
    }

    fn set_len(&self, file: &File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let place = self.place(path)?;
        File::from(open_directory(place.directory(), &place.name)?).sync_all()
    }

    fn hard_link(&self, file: &Path, name: &Path) -> io::Result<()> {
        let (file, name) = (self.place(file)?, self.place(name)?);
        Ok(rustix::fs::linkat(
            file.directory(),
            &file.name,
            name.directory(),
            &name.name,
            AtFlags::empty(),
        )?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        Ok(rustix::fs::renameat(
            from.directory(),
            &from.name,
            to.directory(),
            &to.name,
        )?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let place = self.place(path)?;
        Ok(rustix::fs::unlinkat(
            place.directory(),
            &place.name,
            AtFlags::empty(),
        )?)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let place = self.place(path)?;
        Ok(rustix::fs::unlinkat(
            place.directory(),
            &place.name,
            AtFlags::REMOVEDIR,
        )?)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let place = self.place(path)?;
        let directory = open_directory(place.directory(), &place.name)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    fn try_lock(&self, file: &File, kind: LockKind) -> io::Result<bool> {
        let result = match kind {
            LockKind::Shared => file.try_lock_shared(),
            LockKind::Exclusive => file.try_lock(),
        };
        match result {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

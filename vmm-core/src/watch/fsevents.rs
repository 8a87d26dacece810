//! macOS: directories of which FSEvents says what changes.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::virtio::fs::{DirectoryWatch, HostEvent};
use hvf::fs_events::{self, Said, path_of};

use super::changes::{Directories, flag};

/// The way of this host for an open directory, if it has one here.
pub fn of(directory: &File) -> Option<Arc<dyn DirectoryWatch>> {
    Some(Arc::new(FsEvents::of(directory).ok()?))
}

/// Directories below one, of which some are watched.
#[derive(Debug)]
struct FsEvents {
    stream: fs_events::FsEvents,
    directories: Mutex<Directories>,
}

impl FsEvents {
    /// Of an open directory, at the path that it has now.
    fn of(directory: &File) -> io::Result<Self> {
        Ok(Self {
            stream: fs_events::FsEvents::of(directory)?,
            directories: Mutex::default(),
        })
    }

    fn directories(&self) -> MutexGuard<'_, Directories> {
        self.directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl DirectoryWatch for FsEvents {
    fn add(&self, parent: BorrowedFd<'_>, name: &CStr, number: u64) -> io::Result<()> {
        let mut path = path_of(parent)?.into_bytes();
        if name.to_bytes() != b"." {
            path.push(b'/');
            path.extend(name.to_bytes());
        }
        match self.directories().add(path, number) {
            true => Ok(()),
            false => Err(io::ErrorKind::QuotaExceeded.into()),
        }
    }

    fn holds(&self, number: u64) -> bool {
        self.directories().holds(number)
    }

    fn remove(&self, number: u64) {
        self.directories().remove(number);
    }

    fn clear(&self) {
        self.directories().clear();
    }

    fn wait(&self) {
        self.stream.wait();
    }

    fn wake(&self) {
        self.stream.wake();
    }

    fn take(&self, events: &mut Vec<HostEvent>) -> bool {
        let Said { paths, lost } = self.stream.take();
        let mut complete = !lost;
        let mut directories = self.directories();
        for (path, flags) in paths {
            let found = |path: &[u8]| {
                let found = std::fs::symlink_metadata(OsStr::from_bytes(path));
                found.ok().map(|found| found.ino())
            };
            // What is not below any more is lost with all else.
            let flags = if lost { flags | flag::LOST } else { flags };
            complete &= directories.translate(&path, flags, found, events);
        }
        complete
    }
}

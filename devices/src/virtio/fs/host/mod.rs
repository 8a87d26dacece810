//! What the server asks of the host's file system.
//!
//! Files are reached by the directory they are in and one name there, and
//! directories from the shared one, with no link followed on the way. The same
//! functions exist for each host.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::owners::{Owner, Record};

#[cfg(target_os = "linux")]
mod inotify;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use inotify::watch;
#[cfg(target_os = "linux")]
pub use linux::*;

#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(not(target_os = "linux"))]
mod unwatched;
#[cfg(not(target_os = "linux"))]
pub use other::*;
#[cfg(not(target_os = "linux"))]
pub use unwatched::watch;

/// A moment, in the host's time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Moment {
    /// Seconds since the Unix epoch.
    pub seconds: i64,
    /// And so many nanoseconds.
    pub nanos: u32,
}

/// What makes a file the same one, whatever its name: hosts use the number of
/// a file that is gone for another, but that has another time of birth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Which file system it is on.
    pub dev: u64,
    /// Its number there.
    pub ino: u64,
    /// When it was made, where the host knows.
    pub birth: Moment,
}

/// What the host says of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    pub identity: Identity,
    /// Type and permissions, with Linux's numbers, which all Unix systems have.
    pub mode: u32,
    pub nlink: u32,
    pub owner: Owner,
    /// What an extended attribute says of it, if that is asked for.
    pub record: Option<Record>,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub block_bytes: u32,
    /// As Linux encodes it for user space.
    pub rdev: u32,
    pub atime: Moment,
    pub mtime: Moment,
    pub ctime: Moment,
}

/// Bits of a mode that say what a file is.
pub const TYPE: u32 = 0o170_000;
/// Set-user-id and set-group-id.
pub const PRIVILEGES: u32 = 0o6000;

impl Stat {
    pub fn is_file(&self) -> bool {
        self.mode & TYPE == 0o100_000
    }

    pub fn is_dir(&self) -> bool {
        self.mode & TYPE == 0o040_000
    }

    pub fn is_link(&self) -> bool {
        self.mode & TYPE == 0o120_000
    }
}

/// An entry of a directory.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its number, as far as the directory says.
    pub ino: u64,
    /// Where the entries after it begin.
    pub next: u64,
    /// `DT_*`.
    pub kind: u32,
    pub name: &'a CStr,
}

/// Opens a directory by a path below `root`, component for component.
pub fn walk(root: impl AsFd, path: &CStr) -> Result<OwnedFd, Errno> {
    let mut dir: Option<OwnedFd> = None;
    for name in path.to_bytes().split(|byte| *byte == b'/') {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let next = match &dir {
            Some(dir) => rustix::fs::openat(dir, &*name, flags, Mode::empty()),
            None => rustix::fs::openat(&root, &*name, flags, Mode::empty()),
        };
        dir = Some(next?);
    }
    dir.ok_or(Errno::INVAL)
}

/// Opens a file that is in `dir` under this name: never one that a link leads
/// to, and without waiting for anybody should it have become a pipe.
pub fn open_entry(dir: impl AsFd, name: &CStr, flags: OFlags, mode: u32) -> Result<OwnedFd, Errno> {
    let safe = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags | safe, mode_of(mode))
}

/// Removes what a request has just made, and which its guest is told that it has not.
pub fn unmake(dir: impl AsFd, name: &CStr, is_directory: bool) {
    let flags = match is_directory {
        true => AtFlags::REMOVEDIR,
        false => AtFlags::empty(),
    };
    // There is nobody to tell who could do more.
    let _ = rustix::fs::unlinkat(dir, name, flags);
}

/// Permissions as the host's calls take them.
pub fn mode_of(mode: u32) -> Mode {
    // The type is narrower on some hosts; twelve bits fit everywhere.
    Mode::from_raw_mode((mode & 0o7777) as rustix::fs::RawMode)
}

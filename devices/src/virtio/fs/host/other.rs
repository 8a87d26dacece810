//! macOS and other hosts that have neither openat2(2) nor statx(2).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{Entry, Identity, Moment, Owner, Stat, walk};

/// How directories on the way are opened.
pub const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Opens a directory by a path below `root`, no component of which is a link.
pub fn open_beneath(root: impl AsFd, path: &CStr) -> Result<OwnedFd, Errno> {
    walk(root, path)
}

/// Opens what a link in `dir` leads to, to be looked at and gone through. Only
/// directories and files are opened.
pub fn follow(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let found = rustix::fs::statat(&dir, name, AtFlags::empty())?;
    let found = read_stat(&found);
    if !found.is_dir() && !found.is_file() {
        return Err(Errno::ACCESS);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Whether a path leaves the directory: links on its way are not looked at here.
pub fn leaves(_dir: impl AsFd, _path: &CStr) -> Option<bool> {
    None
}

/// What the host says of an open file.
pub fn stat(file: impl AsFd) -> Result<Stat, Errno> {
    rustix::fs::fstat(file).map(|found| read_stat(&found))
}

/// What it says of an entry of a directory; of a link itself.
pub fn stat_entry(dir: impl AsFd, name: &CStr) -> Result<Stat, Errno> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|found| read_stat(&found))
}

#[expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    clippy::unnecessary_cast,
    reason = "the types of these fields differ from host to host"
)]
fn read_stat(found: &rustix::fs::Stat) -> Stat {
    let moment = |seconds, nanos: i64| Moment {
        seconds,
        nanos: nanos as u32,
    };
    Stat {
        identity: Identity {
            dev: found.st_dev as u64,
            ino: found.st_ino as u64,
            birth: moment(found.st_birthtime, found.st_birthtime_nsec as i64),
        },
        mode: u32::from(found.st_mode),
        nlink: u32::from(found.st_nlink),
        owner: Owner {
            uid: found.st_uid,
            gid: found.st_gid,
        },
        record: None,
        size: found.st_size as u64,
        blocks: found.st_blocks as u64,
        block_bytes: found.st_blksize as u32,
        rdev: 0,
        atime: moment(found.st_atime, found.st_atime_nsec as i64),
        mtime: moment(found.st_mtime, found.st_mtime_nsec as i64),
        ctime: moment(found.st_ctime, found.st_ctime_nsec as i64),
    }
}

/// A directory that is being listed. Its places are the numbers of entries from
/// its beginning.
#[derive(Debug)]
pub struct Listing {
    fd: OwnedFd,
    stream: Dir,
    position: u64,
    /// One that was read and had no room.
    pending: Option<(u64, u32, CString)>,
}

impl Listing {
    /// Of a directory that was opened for reading.
    pub fn new(fd: OwnedFd) -> Result<Self, Errno> {
        let stream = Dir::read_from(&fd)?;
        Ok(Self {
            fd,
            stream,
            position: 0,
            pending: None,
        })
    }

    pub fn dir(&self) -> &OwnedFd {
        &self.fd
    }

    fn next(&mut self) -> Result<Option<(u64, u32, CString)>, Errno> {
        if let Some(entry) = self.pending.take() {
            return Ok(Some(entry));
        }
        let Some(entry) = self.stream.read() else {
            return Ok(None);
        };
        let entry = entry?;
        let kind = u32::from(entry.file_type().as_raw_mode()) >> 12 & 0xf;
        Ok(Some((entry.ino(), kind, entry.file_name().to_owned())))
    }

    /// Shows the entries from `offset` on until `show` refuses one.
    pub fn each(
        &mut self,
        offset: u64,
        _room: usize,
        mut show: impl FnMut(Entry<'_>) -> bool,
    ) -> Result<(), Errno> {
        if offset < self.position || offset == 0 {
            self.stream = Dir::read_from(&self.fd)?;
            self.position = 0;
            self.pending = None;
        }
        while let Some((ino, kind, name)) = self.next()? {
            if self.position < offset {
                self.position += 1;
                continue;
            }
            let more = show(Entry {
                ino,
                next: self.position + 1,
                kind,
                name: &name,
            });
            if !more {
                self.pending = Some((ino, kind, name));
                break;
            }
            self.position += 1;
        }
        Ok(())
    }
}

pub fn rename(from: (impl AsFd, &CStr), to: (impl AsFd, &CStr), flags: u32) -> Result<(), Errno> {
    // Linux's numbers, which differ here.
    let flags = match flags {
        0 => return rustix::fs::renameat(from.0, from.1, to.0, to.1),
        1 => RenameFlags::NOREPLACE,
        2 => RenameFlags::EXCHANGE,
        _ => return Err(Errno::INVAL),
    };
    rustix::fs::renameat_with(from.0, from.1, to.0, to.1, flags)
}

/// Not here: the guest writes zeroes, or says so.
pub fn allocate(_file: impl AsFd, _mode: u32, _offset: u64, _bytes: u64) -> Result<(), Errno> {
    Err(Errno::OPNOTSUPP)
}

/// Not here: the guest takes all of a file for data.
pub fn seek_content(_file: impl AsFd, _whence: u32, _offset: u64) -> Result<u64, Errno> {
    Err(Errno::NOSYS)
}

/// Not here: the guest copies.
pub fn copy_range(
    _from: (impl AsFd, u64),
    _to: (impl AsFd, u64),
    _bytes: usize,
) -> Result<usize, Errno> {
    Err(Errno::OPNOTSUPP)
}

/// Writes the content out, and what it takes to find it.
pub fn sync_data(file: impl AsFd) -> Result<(), Errno> {
    rustix::fs::fsync(file)
}

/// Not here: the guest syncs its files.
pub fn sync_all(_root: impl AsFd) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// The number that a Linux guest knows an error by.
pub fn linux_errno(error: Errno) -> i32 {
    match error {
        Errno::AGAIN => 11,
        Errno::DEADLK => 35,
        Errno::NAMETOOLONG => 36,
        Errno::NOSYS => 38,
        Errno::NOTEMPTY => 39,
        Errno::LOOP => 40,
        Errno::OVERFLOW => 75,
        Errno::OPNOTSUPP | Errno::NOTSUP => 95,
        Errno::STALE => 116,
        Errno::DQUOT => 122,
        Errno::NOATTR => 61,
        // Those up to here are the same everywhere.
        other if other.raw_os_error() <= 34 => other.raw_os_error(),
        _ => 5,
    }
}

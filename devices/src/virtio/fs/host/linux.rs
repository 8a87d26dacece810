//! Linux: openat2(2), statx(2), getdents64(2).

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FallocateFlags, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, SeekFrom, Statx,
    StatxFlags, StatxTimestamp,
};
use rustix::io::Errno;

use super::{Entry, Identity, Moment, Owner, Stat, walk};

/// How directories on the way are opened.
pub const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Longest piece of a directory that is read at once.
const LIST_BYTES: usize = 32 << 10;

/// Opens a directory by a path below `root`, no component of which is a link.
pub fn open_beneath(root: impl AsFd, path: &CStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = rustix::fs::openat2(&root, path, DIRECTORY, Mode::empty(), resolve);
    match opened {
        // Not known here, forbidden by a filter, disturbed by a rename
        // elsewhere, or too long a path.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN | Errno::NAMETOOLONG) => walk(root, path),
        opened => opened,
    }
}

/// Opens what a link in `dir` leads to, to be looked at and gone through.
pub fn follow(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(
        &dir,
        name,
        flags,
        Mode::empty(),
        ResolveFlags::NO_MAGICLINKS,
    );
    match opened {
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {
            rustix::fs::openat(dir, name, flags, Mode::empty())
        }
        opened => opened,
    }
}

/// Whether `path`, from the directory `dir` on, leaves `dir` and what is below it,
/// by itself or by links on its way. `None` if it leads nowhere.
pub fn leaves(dir: impl AsFd, path: &CStr) -> Option<bool> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve) {
        Ok(_) => Some(false),
        Err(Errno::XDEV) => Some(true),
        Err(_) => None,
    }
}

/// What the host says of an open file.
pub fn stat(file: impl AsFd) -> Result<Stat, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(file, c"", flags, FIELDS).map(read_statx)
}

/// What it says of an entry of a directory; of a link itself.
pub fn stat_entry(dir: impl AsFd, name: &CStr) -> Result<Stat, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, name, flags, FIELDS).map(read_statx)
}

const FIELDS: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

fn read_statx(found: Statx) -> Stat {
    let moment = |time: &StatxTimestamp| Moment {
        seconds: time.tv_sec,
        nanos: time.tv_nsec,
    };
    let number = |major: u32, minor: u32| u64::from(major) << 32 | u64::from(minor);
    // `new_encode_dev` of Linux.
    let (major, minor) = (found.stx_rdev_major, found.stx_rdev_minor);
    let rdev = minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12;
    Stat {
        identity: Identity {
            dev: number(found.stx_dev_major, found.stx_dev_minor),
            ino: found.stx_ino,
            birth: moment(&found.stx_btime),
        },
        mode: found.stx_mode.into(),
        nlink: found.stx_nlink,
        owner: Owner {
            uid: found.stx_uid,
            gid: found.stx_gid,
        },
        record: None,
        size: found.stx_size,
        blocks: found.stx_blocks,
        block_bytes: found.stx_blksize,
        rdev,
        atime: moment(&found.stx_atime),
        mtime: moment(&found.stx_mtime),
        ctime: moment(&found.stx_ctime),
    }
}

/// A directory that is being listed.
#[derive(Debug)]
pub struct Listing(OwnedFd);

impl Listing {
    /// Of a directory that was opened for reading.
    pub fn new(dir: OwnedFd) -> Result<Self, Errno> {
        Ok(Self(dir))
    }

    pub fn dir(&self) -> &OwnedFd {
        &self.0
    }

    /// Shows the entries from `offset` on until `show` refuses one; `offset` is
    /// where the guest says it is, whether or not there is such a place. There are
    /// about `room` bytes for them.
    pub fn each(
        &mut self,
        offset: u64,
        room: usize,
        mut show: impl FnMut(Entry<'_>) -> bool,
    ) -> Result<(), Errno> {
        if i64::try_from(offset).is_err() {
            return Err(Errno::INVAL);
        }
        rustix::fs::seek(&self.0, SeekFrom::Start(offset))?;
        let mut buffer = vec![MaybeUninit::uninit(); room.clamp(1 << 10, LIST_BYTES)];
        let mut entries = RawDir::new(&self.0, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let more = show(Entry {
                ino: entry.ino(),
                next: entry.next_entry_cookie(),
                kind: kind(entry.file_type()),
                name: entry.file_name(),
            });
            if !more {
                break;
            }
        }
        Ok(())
    }
}

fn kind(kind: rustix::fs::FileType) -> u32 {
    // A directory entry has the type without the bits below it.
    kind.as_raw_mode() >> 12 & 0xf
}

pub fn rename(from: (impl AsFd, &CStr), to: (impl AsFd, &CStr), flags: u32) -> Result<(), Errno> {
    let allowed = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
    if !allowed.contains(flags) {
        return Err(Errno::INVAL);
    }
    if flags.is_empty() {
        return rustix::fs::renameat(from.0, from.1, to.0, to.1);
    }
    rustix::fs::renameat_with(from.0, from.1, to.0, to.1, flags)
}

/// fallocate(2), with those of its modes that keep to one file.
pub fn allocate(file: impl AsFd, mode: u32, offset: u64, bytes: u64) -> Result<(), Errno> {
    let allowed = FallocateFlags::KEEP_SIZE
        | FallocateFlags::PUNCH_HOLE
        | FallocateFlags::ZERO_RANGE
        | FallocateFlags::COLLAPSE_RANGE
        | FallocateFlags::INSERT_RANGE;
    let flags = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
    if !allowed.contains(flags) {
        return Err(Errno::OPNOTSUPP);
    }
    rustix::fs::fallocate(file, flags, offset, bytes)
}

/// Where data or a hole begins: `SEEK_DATA` is 3, `SEEK_HOLE` 4.
pub fn seek_content(file: impl AsFd, whence: u32, offset: u64) -> Result<u64, Errno> {
    match whence {
        3 => rustix::fs::seek(file, SeekFrom::Data(offset)),
        4 => rustix::fs::seek(file, SeekFrom::Hole(offset)),
        _ => Err(Errno::INVAL),
    }
}

pub fn copy_range(
    from: (impl AsFd, u64),
    to: (impl AsFd, u64),
    bytes: usize,
) -> Result<usize, Errno> {
    let (mut at, mut into) = (from.1, to.1);
    rustix::fs::copy_file_range(from.0, Some(&mut at), to.0, Some(&mut into), bytes)
}

/// Writes the content out, and what it takes to find it.
pub fn sync_data(file: impl AsFd) -> Result<(), Errno> {
    rustix::fs::fdatasync(file)
}

pub fn sync_all(root: impl AsFd) -> Result<(), Errno> {
    // Not with `O_PATH`.
    let root = rustix::fs::openat(
        root,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::fs::syncfs(root)
}

/// The number that a Linux guest knows an error by.
pub fn linux_errno(error: Errno) -> i32 {
    error.raw_os_error()
}

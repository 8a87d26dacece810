//! What is known of a file beside its content and its names.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use super::super::Owner;
use super::super::handles::Handle;
use super::super::host;
use super::super::wire::{Body, Fields, GETATTR_FH, MAX_NAME_BYTES, open, set};
use super::Server;
use super::find::Target;

/// Longest value of an extended attribute, and longest list of their names, that
/// Linux takes (`XATTR_SIZE_MAX`).
const MAX_EXTENDED_BYTES: usize = 64 << 10;
/// The extended attributes that the guest has of the host's: those of programs.
/// The others say what a file may do on the host, and are the host's.
const SHARED_PREFIX: &[u8] = b"user.";

/// What a guest wants of a file's times and size.
struct Changes {
    valid: u32,
    size: u64,
    atime: Timespec,
    mtime: Timespec,
    mode: u32,
    owner: Owner,
}

impl Changes {
    fn has(&self, what: u32) -> bool {
        self.valid & what != 0
    }

    fn times(&self) -> Option<Timestamps> {
        let time = |value: u32, now: u32, given: Timespec| {
            let special = |nanos| Timespec {
                tv_sec: 0,
                tv_nsec: nanos,
            };
            match (self.has(value), self.has(now)) {
                (_, true) => special(UTIME_NOW),
                (true, false) => given,
                (false, false) => special(UTIME_OMIT),
            }
        };
        let wanted = set::ATIME | set::MTIME | set::ATIME_NOW | set::MTIME_NOW;
        self.has(wanted).then(|| Timestamps {
            last_access: time(set::ATIME, set::ATIME_NOW, self.atime),
            last_modification: time(set::MTIME, set::MTIME_NOW, self.mtime),
        })
    }
}

fn read_changes(arguments: &mut Fields<'_>) -> Result<(Changes, Option<u64>), Errno> {
    let valid = arguments.u32()?;
    arguments.skip(4)?;
    let handle = arguments.u64()?;
    let size = arguments.u64()?;
    arguments.skip(8)?; // lock owner
    let seconds = |arguments: &mut Fields<'_>| arguments.u64().map(u64::cast_signed);
    let (atime, mtime) = (seconds(arguments)?, seconds(arguments)?);
    arguments.skip(8)?; // ctime, which the host keeps
    let nanos = |arguments: &mut Fields<'_>| match arguments.u32()? {
        nanos @ 0..1_000_000_000 => Ok(nanos.into()),
        _ => Err(Errno::INVAL),
    };
    let (atime_nanos, mtime_nanos) = (nanos(arguments)?, nanos(arguments)?);
    arguments.skip(4)?;
    let mode = arguments.u32()?;
    arguments.skip(4)?;
    let owner = Owner {
        uid: arguments.u32()?,
        gid: arguments.u32()?,
    };
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let changes = Changes {
        valid,
        size,
        atime: time(atime, atime_nanos),
        mtime: time(mtime, mtime_nanos),
        mode,
        owner,
    };
    let handle = changes.has(set::FH).then_some(handle);
    Ok((changes, handle))
}

impl Server {
    pub(super) fn get_attributes(
        &self,
        node: u64,
        mut arguments: Fields<'_>,
    ) -> Result<Body, Errno> {
        let flags = arguments.u32()?;
        arguments.skip(4)?;
        let handle = arguments.u64()?;
        let handle = (flags & GETATTR_FH != 0).then_some(handle);
        self.describe_target(&self.target(node, handle)?)
    }

    fn describe_target(&self, target: &Target<'_>) -> Result<Body, Errno> {
        let mut body = Body::default();
        body.attr_out(self.validity(), &self.shown(&self.stat_of(target)?));
        Ok(body)
    }

    fn touched_target(&self, target: &Target<'_>) {
        if let Some(watch) = self.watch()
            && let Ok(stat) = target.stat()
        {
            watch.touched(&stat);
        }
    }

    /// Changes mode, owner, size and times.
    pub(super) fn set_attributes(
        &self,
        node: u64,
        mut arguments: Fields<'_>,
    ) -> Result<Body, Errno> {
        let (changes, handle) = read_changes(&mut arguments)?;
        let target = self.target(node, handle)?;
        if changes.has(set::SIZE) {
            self.set_size(&target, changes.size)?;
        }
        if changes.has(set::MODE) {
            self.record_mode(&target, changes.mode)?;
            let mode = self.host_mode(changes.mode, target.stat()?.is_dir());
            target.with_open(|file| rustix::fs::fchmod(file, host::mode_of(mode)))?;
        }
        let Owner { uid, gid } = changes.owner;
        let uid = changes.has(set::UID).then_some(uid);
        let gid = changes.has(set::GID).then_some(gid);
        if uid.or(gid).is_some() {
            self.change_owner(&target, (uid, gid))?;
        }
        if let Some(times) = changes.times() {
            match &target {
                Target::Found(found) if !found.followed => rustix::fs::utimensat(
                    &found.dir,
                    &*found.name,
                    &times,
                    AtFlags::SYMLINK_NOFOLLOW,
                )?,
                target => target.with_open(|file| rustix::fs::futimens(file, &times))?,
            }
        }
        let target = match target {
            Target::Open(_) => target,
            Target::Found(_) => self.target(node, None)?,
        };
        self.touched_target(&target);
        self.describe_target(&target)
    }

    fn set_size(&self, target: &Target<'_>, size: u64) -> Result<(), Errno> {
        if i64::try_from(size).is_err() {
            return Err(Errno::FBIG);
        }
        let truncate = |file: std::os::fd::BorrowedFd<'_>| {
            self.clear_privileges(file, &host::stat(file)?)?;
            rustix::fs::ftruncate(file, size)
        };
        match target {
            Target::Open(Handle::File(file)) if file.flags & open::ACCESS != 0 => {
                truncate(file.file.as_fd())
            }
            Target::Open(_) => Err(Errno::BADF),
            Target::Found(found) if found.stat.is_file() => {
                truncate(found.open(OFlags::WRONLY)?.0.as_fd())
            }
            Target::Found(_) => Err(Errno::INVAL),
        }
    }

    pub(super) fn file_system(&self) -> Result<Body, Errno> {
        let found = rustix::fs::fstatvfs(&self.root)?;
        let block = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut body = Body::default();
        body.u64(found.f_blocks)
            .u64(found.f_bfree)
            .u64(found.f_bavail)
            .u64(found.f_files)
            .u64(found.f_ffree)
            .u32(block(found.f_bsize))
            .u32(block(MAX_NAME_BYTES as u64))
            .u32(block(found.f_frsize))
            .bytes(&[0; 28]);
        Ok(body)
    }

    pub(super) fn get_extended(&self, node: u64, mut arguments: Fields<'_>) -> Result<Body, Errno> {
        let size = extended_room(&mut arguments)?;
        let name = shared(self, arguments.string()?)?;
        let mut value = vec![0; MAX_EXTENDED_BYTES];
        let target = self.target(node, None)?;
        let length = target.with_open(|file| rustix::fs::fgetxattr(file, name, &mut *value))?;
        value.truncate(length);
        extended(size, value)
    }

    pub(super) fn list_extended(
        &self,
        node: u64,
        mut arguments: Fields<'_>,
    ) -> Result<Body, Errno> {
        let size = extended_room(&mut arguments)?;
        let mut names = vec![0; MAX_EXTENDED_BYTES];
        let target = self.target(node, None)?;
        let listed = target.with_open(|file| rustix::fs::flistxattr(file, &mut *names));
        let length = match listed {
            // Pipes and the like have none that the guest could have.
            Err(Errno::OPNOTSUPP) => 0,
            listed => listed?,
        };
        let names = names[..length].split_inclusive(|byte| *byte == 0);
        let shown = names.filter(|name| {
            let bare = name.strip_suffix(&[0]).unwrap_or(name);
            name.starts_with(SHARED_PREFIX) && self.is_shown(bare)
        });
        extended(size, shown.flatten().copied().collect())
    }

    pub(super) fn set_extended(&self, node: u64, mut arguments: Fields<'_>) -> Result<Body, Errno> {
        let size = usize::try_from(arguments.u32()?).map_err(|_| Errno::INVAL)?;
        let flags = arguments.u32()?;
        let name = shared(self, arguments.string()?)?;
        let value = arguments.0.get(..size).ok_or(Errno::INVAL)?;
        let flags = match flags {
            0 => XattrFlags::empty(),
            1 => XattrFlags::CREATE,
            2 => XattrFlags::REPLACE,
            _ => return Err(Errno::INVAL),
        };
        let target = self.target(node, None)?;
        target.with_open(|file| {
            rustix::fs::fsetxattr(file, name, value, flags)?;
            self.touched(file);
            Ok(())
        })?;
        Ok(Body::default())
    }

    pub(super) fn remove_extended(
        &self,
        node: u64,
        mut arguments: Fields<'_>,
    ) -> Result<Body, Errno> {
        let name = shared(self, arguments.string()?)?;
        let target = self.target(node, None)?;
        target.with_open(|file| {
            rustix::fs::fremovexattr(file, name)?;
            self.touched(file);
            Ok(())
        })?;
        Ok(Body::default())
    }
}

/// Refuses the names of attributes that are not the guest's.
fn shared<'a>(server: &Server, name: &'a CStr) -> Result<&'a CStr, Errno> {
    if server.is_shown(name.to_bytes())
        && name.to_bytes().starts_with(SHARED_PREFIX)
        && name.to_bytes().len() <= MAX_NAME_BYTES
    {
        Ok(name)
    } else {
        Err(Errno::OPNOTSUPP)
    }
}

fn extended_room(arguments: &mut Fields<'_>) -> Result<usize, Errno> {
    let size = usize::try_from(arguments.u32()?).map_err(|_| Errno::INVAL)?;
    arguments.skip(4)?;
    Ok(size)
}

/// The value, or how long it is if the guest asked for that.
fn extended(size: usize, value: Vec<u8>) -> Result<Body, Errno> {
    if size == 0 {
        let mut body = Body::default();
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        body.u32(length).u32(0);
        return Ok(body);
    }
    if value.len() > size {
        return Err(Errno::RANGE);
    }
    Ok(Body(value))
}

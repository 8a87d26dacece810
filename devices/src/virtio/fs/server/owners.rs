//! Owners of files: what the guest is told, and what becomes of what it says.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, Gid, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::super::host::{self, PRIVILEGES, Stat};
use super::super::owners::{Made, Owner, Owners, Record, Special};
use super::super::wire::kind;
use super::Server;
use super::find::{Dir, Target};

/// Where owner and mode are recorded, as podman and libkrun do it.
pub(super) const KEY: &CStr = c"user.containers.override_stat";
/// Bits of a mode that are recorded. Set-user-id and set-group-id are recorded for the
/// guest and given to no file of the host.
const RECORDED: u32 = 0o7777;
/// Set-group-id of a directory: what is made in it is its group's.
const GROUP_OF_DIRECTORY: u32 = 0o2000;

/// What a file is to the guest alone: only what is a file to the host can be that.
fn special(stat: &Stat) -> Option<Special> {
    let record = stat.record.filter(|_| stat.is_file());
    record.and_then(|record| record.special)
}

impl Server {
    /// Whether it is kept in files what they are to the guest.
    pub(super) fn records(&self) -> bool {
        matches!(self.rules.owners, Owners::Recorded(_))
    }

    /// Owner and mode that the guest sees.
    pub(super) fn seen(&self, stat: &Stat) -> (Owner, u32) {
        match (&self.rules.owners, stat.record) {
            (Owners::Squash(owner), _) => (*owner, stat.mode),
            (Owners::Map(map), _) => (map.to_guest(stat.owner), stat.mode),
            (Owners::Recorded(owner), None) => (*owner, stat.mode),
            (Owners::Recorded(_), Some(record)) => {
                let kind = special(stat).map_or(stat.mode & host::TYPE, |special| special.kind);
                (record.owner, kind | record.mode & RECORDED)
            }
        }
    }

    /// The number of the device that a file is to the guest.
    pub(super) fn seen_device(&self, stat: &Stat) -> u32 {
        special(stat).map_or(stat.rdev, |special| special.device)
    }

    /// The kind of an entry in a list, unless only its record says it.
    pub(super) fn listed_kind(&self, listed: u32) -> u32 {
        match listed == kind::FILE && self.records() {
            true => kind::UNKNOWN,
            false => listed,
        }
    }

    /// Adds to what the host says of an entry what is recorded of it.
    pub(super) fn with_record(
        &self,
        dir: impl AsFd,
        name: &CStr,
        stat: Stat,
    ) -> Result<Stat, Errno> {
        // Links have no such attributes, and nothing else is opened.
        if !self.records() || !(stat.is_file() || stat.is_dir()) {
            return Ok(stat);
        }
        let found =
            host::open_entry(dir, name, OFlags::RDONLY, 0).and_then(|file| {
                match host::stat(&file)?.identity == stat.identity {
                    true => read(file.as_fd(), stat),
                    false => Ok(stat),
                }
            });
        or_plain(found, stat)
    }

    /// As [`Self::with_record`], for what a request is about.
    pub(super) fn stat_of(&self, target: &Target<'_>) -> Result<Stat, Errno> {
        let stat = target.stat()?;
        if !self.records() {
            return Ok(stat);
        }
        or_plain(target.with_open(|file| read(file, stat)), stat)
    }

    /// Refuses to make something for one who has no number on the host.
    pub(super) fn may_make(&self, by: Owner) -> Result<(), Errno> {
        match &self.rules.owners {
            Owners::Map(map) => {
                let known = map.host_user(by.uid).and(map.host_group(by.gid));
                known.map(drop).ok_or(Errno::OVERFLOW)
            }
            Owners::Squash(_) | Owners::Recorded(_) => Ok(()),
        }
    }

    /// Gives a file or directory that was just made in `dir` to whom it is made by;
    /// what there is to say of it then, the time of this change included.
    pub(super) fn give(
        &self,
        dir: &Dir<'_>,
        file: impl AsFd,
        made: Made,
        stat: Stat,
    ) -> Result<Stat, Errno> {
        match &self.rules.owners {
            Owners::Squash(_) => Ok(stat),
            Owners::Map(_) => {
                let owner = self.on_host(dir, made.by, stat.owner)?;
                if owner == stat.owner {
                    return Ok(stat);
                }
                let (uid, gid) = ids(owner);
                rustix::fs::fchown(&file, uid, gid)?;
                host::stat(file)
            }
            Owners::Recorded(_) => {
                let record = self.first_record(dir, made, stat.is_dir())?;
                write(file.as_fd(), record)?;
                let record = Some(record);
                let stat = host::stat(file)?;
                Ok(Stat { record, ..stat })
            }
        }
    }

    /// What is recorded of something that was just made in `dir`.
    fn first_record(&self, dir: &Dir<'_>, made: Made, is_dir: bool) -> Result<Record, Errno> {
        let mut record = Record {
            owner: made.by,
            mode: made.mode & RECORDED,
            special: Special::of(made.mode, made.device),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let within = host::stat(dir)?;
        let found = host::open_entry(dir, c".", flags, 0);
        let found = found.and_then(|open| read(open.as_fd(), within));
        let (within, mode) = self.seen(&or_plain(found, within)?);
        if mode & GROUP_OF_DIRECTORY != 0 {
            record.owner.gid = within.gid;
            if is_dir {
                record.mode |= GROUP_OF_DIRECTORY;
            }
        }
        Ok(record)
    }

    /// Gives a link that was just made to whom it is made by.
    pub(super) fn give_link(
        &self,
        dir: &Dir<'_>,
        name: &CStr,
        by: Owner,
        stat: Stat,
    ) -> Result<Stat, Errno> {
        if !matches!(self.rules.owners, Owners::Map(_)) {
            return Ok(stat);
        }
        let owner = self.on_host(dir, by, stat.owner)?;
        if owner == stat.owner {
            return Ok(stat);
        }
        let (uid, gid) = ids(owner);
        rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        host::stat_entry(dir, name)
    }

    /// Whose it is on the host what somebody makes in a directory.
    fn on_host(&self, dir: &Dir<'_>, by: Owner, made: Owner) -> Result<Owner, Errno> {
        let Owners::Map(map) = &self.rules.owners else {
            return Ok(made);
        };
        let uid = map.host_user(by.uid).ok_or(Errno::OVERFLOW)?;
        let gid = match host::stat(dir)?.mode & GROUP_OF_DIRECTORY {
            0 => map.host_group(by.gid).ok_or(Errno::OVERFLOW)?,
            _ => made.gid,
        };
        Ok(Owner { uid, gid })
    }

    /// Gives a file to others, as far as the mount knows owners.
    pub(super) fn change_owner(
        &self,
        target: &Target<'_>,
        (uid, gid): (Option<u32>, Option<u32>),
    ) -> Result<(), Errno> {
        match &self.rules.owners {
            Owners::Squash(_) => Ok(()),
            Owners::Map(map) => {
                let known = |id: Option<u32>| id.ok_or(Errno::OVERFLOW);
                let uid = uid.map(|id| known(map.host_user(id))).transpose()?;
                let gid = gid.map(|id| known(map.host_group(id))).transpose()?;
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                match target {
                    Target::Found(found) if !found.followed => {
                        let flags = AtFlags::SYMLINK_NOFOLLOW;
                        rustix::fs::chownat(&found.dir, &*found.name, uid, gid, flags)
                    }
                    target => target.with_open(|file| rustix::fs::fchown(file, uid, gid)),
                }
            }
            Owners::Recorded(_) => self.change_record(target, |record, is_directory| {
                record.owner.uid = uid.unwrap_or(record.owner.uid);
                record.owner.gid = gid.unwrap_or(record.owner.gid);
                if !is_directory {
                    record.mode &= !PRIVILEGES;
                }
            }),
        }
    }

    /// Gives a file other permissions, where these are recorded.
    pub(super) fn record_mode(&self, target: &Target<'_>, mode: u32) -> Result<(), Errno> {
        match self.records() {
            true => {
                self.change_record(target, |record, _| record.mode = mode & RECORDED)?;
                self.note_privileges(mode);
                Ok(())
            }
            false => Ok(()),
        }
    }

    /// Has each open file looked at before the next write if this mode gives privileges.
    fn note_privileges(&self, mode: u32) {
        if mode & PRIVILEGES != 0 {
            // Wraps after more requests than there can be.
            self.given.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes from a file what a change of its content must not leave it: set-user-id and
    /// set-group-id, on the host and in its record. (The host takes its capabilities.)
    pub(super) fn clear_privileges(&self, file: impl AsFd, stat: &Stat) -> Result<(), Errno> {
        if !stat.is_file() {
            return Ok(());
        }
        if stat.mode & PRIVILEGES != 0 {
            rustix::fs::fchmod(&file, host::mode_of(stat.mode & !PRIVILEGES))?;
        }
        let recorded = match self.records() {
            true => read(file.as_fd(), *stat)?.record,
            false => None,
        };
        match recorded {
            Some(record) if record.mode & PRIVILEGES != 0 => {
                let mode = record.mode & !PRIVILEGES;
                write(file.as_fd(), Record { mode, ..record })
            }
            _ => Ok(()),
        }
    }

    fn change_record(
        &self,
        target: &Target<'_>,
        change: impl FnOnce(&mut Record, bool),
    ) -> Result<(), Errno> {
        let stat = self.stat_of(target)?;
        // What has no attributes is as it is; tar and cp would give up over a link.
        if !stat.is_file() && !stat.is_dir() {
            return Ok(());
        }
        let (owner, mode) = self.seen(&stat);
        let mut record = Record {
            owner,
            mode: mode & RECORDED,
            special: special(&stat),
        };
        change(&mut record, stat.is_dir());
        target.with_open(|file| write(file, record))
    }

    /// Permissions that a file has on the host if the guest gives it these.
    pub(super) fn host_mode(&self, mode: u32, directory: bool) -> u32 {
        let kept = super::entries::kept_mode(mode, directory);
        match (self.records(), directory) {
            (false, _) => kept,
            // Who may do what is for the guest to say, and this process does it.
            (true, true) => kept | 0o700,
            (true, false) => kept | 0o600,
        }
    }

    /// Whether an extended attribute is the guest's.
    pub(super) fn is_shown(&self, name: &[u8]) -> bool {
        !self.records() || name != KEY.to_bytes()
    }
}

fn ids(owner: Owner) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(owner.uid)),
        Some(Gid::from_raw(owner.gid)),
    )
}

fn read(file: BorrowedFd<'_>, stat: Stat) -> Result<Stat, Errno> {
    let mut text = [0; Record::MAX_BYTES];
    let record = match rustix::fs::fgetxattr(file, KEY, &mut text[..]) {
        Ok(length) => Record::parse(&text[..length]),
        Err(error) if is_want(error) => return Err(error),
        Err(_) => None,
    };
    Ok(Stat { record, ..stat })
}

/// Whether the host could not look, rather than that there is nothing to see.
fn is_want(error: Errno) -> bool {
    matches!(
        error,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO
    )
}

/// What was found of a record. What cannot be opened has none; to take for that what the
/// host only could not look at would show it as another's, and record it so.
fn or_plain(found: Result<Stat, Errno>, stat: Stat) -> Result<Stat, Errno> {
    match found {
        Err(error) if !is_want(error) => Ok(stat),
        found => found,
    }
}

fn write(file: BorrowedFd<'_>, record: Record) -> Result<(), Errno> {
    rustix::fs::fsetxattr(file, KEY, record.text().as_bytes(), XattrFlags::empty())
}

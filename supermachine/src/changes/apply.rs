//! The changes of a copy-on-write mount, made to the directory of the host.

use super::tree::{HostTree, is_none, look, open_directory};
use super::{ChangeKind, MountChange};
use crate::files::{Extract, FileKind};
use crate::random::random_name;
use crate::{CopyOptions, Error};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

const WHAT: &str = "cannot apply a change to";

/// What has these paths, and the directories above each, which come first.
pub(super) fn with_parents<'a>(changes: impl Iterator<Item = &'a MountChange>) -> Vec<Vec<u8>> {
    let mut names = BTreeSet::new();
    for change in changes {
        for path in change.path.ancestors() {
            let name = path.as_os_str().as_bytes();
            // Those above it are there, too.
            if name.is_empty() || !names.insert(name.to_vec()) {
                break;
            }
        }
    }
    names.into_iter().collect()
}

/// Makes the changes, sorted by path, to the directory `host`. `fetch` gets files of the
/// guest by their names, within the bounds of `options`.
pub(super) fn apply(
    host: &Path,
    changes: Vec<MountChange>,
    options: &CopyOptions,
    fetch: impl FnOnce(&[Vec<u8>], Extract) -> Result<(), Error>,
) -> Result<Vec<MountChange>, Error> {
    let mut applying = Applying::open(host)?;
    let is_fetched =
        |change: &&MountChange| matches!(change.file, Some(FileKind::File | FileKind::Symlink));
    let names = with_parents(changes.iter().filter(is_fetched));
    if !names.is_empty() {
        let place = applying.staged.path.clone();
        let root = rustix::io::fcntl_dupfd_cloexec(&applying.staged.root, 0);
        fetch(
            &names,
            Extract::within(root.map_err(failed(&place))?, &place, options),
        )?;
    }
    let mut applied = Vec::new();
    for change in changes {
        let place = applying.host.path.join(&change.path);
        if applying.one(&change).map_err(failed(&place))? {
            applied.push(change);
        }
    }
    applying.dress(&applied)?;
    Ok(applied)
}

struct Applying {
    host: HostTree,
    /// A directory in the host's, for files that are to go into it, and for what goes.
    staged: HostTree,
    /// What goes gets names that begin like this, which the guest has not seen.
    away: String,
    count: u64,
}

impl Applying {
    fn open(path: &Path) -> Result<Self, Error> {
        let host = HostTree::open(path)?;
        let name = format!(".supermachine-{}", random_name()?);
        rustix::fs::mkdirat(&host.root, &*name, Mode::RWXU).map_err(failed(path))?;
        let root = open_directory(&host.root, OsStr::new(&name));
        let staged = path.join(&name);
        Ok(Self {
            staged: HostTree::over(&staged, root.map_err(failed(&staged))?),
            host,
            away: random_name()?,
            count: 0,
        })
    }

    /// Whether it could be made.
    fn one(&mut self, change: &MountChange) -> Result<bool, Errno> {
        let (Some(above), Some(name)) = (change.path.parent(), change.path.file_name()) else {
            return Ok(false);
        };
        match (change.kind, change.file) {
            (ChangeKind::Deleted, _) => {
                if let Some(above) = self.host.directory(above)? {
                    self.put_away(&above, name)?;
                }
                Ok(true)
            }
            (_, Some(FileKind::Directory)) => Ok(self.directory(&change.path)?.is_some()),
            (_, Some(FileKind::File | FileKind::Symlink)) => {
                let Some(from) = self.staged.directory(above)? else {
                    return Ok(false);
                };
                let kind = look(&from, name)?.map(|found| FileType::from_raw_mode(found.st_mode));
                if !matches!(kind, Some(FileType::RegularFile | FileType::Symlink)) {
                    // It went, or became something else, while it was fetched.
                    return Ok(false);
                }
                let Some(to) = self.directory(above)? else {
                    return Ok(false);
                };
                self.place(&from, &to, name)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Puts a file in the place of what has its name.
    fn place(&mut self, from: &OwnedFd, to: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        match rustix::fs::renameat(from, name, to, name) {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                self.put_away(to, name)?;
                self.place_free(from, to, name)
            }
            Err(Errno::XDEV) => {
                if open_directory(to, name).is_ok() {
                    self.put_away(to, name)?;
                }
                self.place_free(from, to, name)
            }
            placed => placed,
        }
    }

    fn place_free(&self, from: &OwnedFd, to: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        match rustix::fs::renameat(from, name, to, name) {
            Err(Errno::XDEV) => {
                let made = format!(".supermachine-{}", self.away);
                copy_across(from, to, name, &made)
            }
            placed => placed,
        }
    }

    /// Takes what has a name out of the tree, in one step.
    fn put_away(&mut self, above: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        self.host.forget();
        self.count += 1;
        let away = format!("{}-{}", self.away, self.count);
        match rustix::fs::renameat(above, name, &self.staged.root, &*away) {
            Err(Errno::NOENT) => Ok(()),
            // A file that is on another file system.
            Err(Errno::XDEV) => rustix::fs::unlinkat(above, name, AtFlags::empty()),
            put => put,
        }
    }

    /// The directory of a path in the tree. Where it is missing, or is something else, it
    /// is made.
    fn directory(&mut self, path: &Path) -> Result<Option<OwnedFd>, Errno> {
        if let Some(there) = self.host.directory(path)? {
            return Ok(Some(there));
        }
        let mut at = rustix::io::fcntl_dupfd_cloexec(&self.host.root, 0)?;
        for component in path.components() {
            let Component::Normal(name) = component else {
                return Ok(None);
            };
            at = match open_directory(&at, name) {
                Err(error) if is_none(error) => {
                    self.put_away(&at, name)?;
                    rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755))?;
                    open_directory(&at, name)?
                }
                opened => opened?,
            };
        }
        Ok(Some(at))
    }

    /// Gives directories the modes that they could not have while they were written to.
    fn dress(&mut self, applied: &[MountChange]) -> Result<(), Error> {
        let is_directory = |change: &&MountChange| change.file == Some(FileKind::Directory);
        for change in applied.iter().rev().filter(is_directory) {
            let place = self.host.path.join(&change.path);
            if let Some(found) = self.host.directory(&change.path).map_err(failed(&place))? {
                let mode = Mode::from_raw_mode(change.mode as RawMode);
                rustix::fs::fchmod(found, mode).map_err(failed(&place))?;
            }
        }
        Ok(())
    }
}

impl Drop for Applying {
    fn drop(&mut self) {
        // What is left then has a name that says whose it is.
        let _ = fs::remove_dir_all(&self.staged.path);
    }
}

/// Copies a file or a link to a directory of another file system, and puts it in the
/// place of what has its name there.
fn copy_across(from: &OwnedFd, to: &OwnedFd, name: &OsStr, made: &str) -> Result<(), Errno> {
    let io = |error: std::io::Error| {
        let number = error.raw_os_error();
        number.map_or(Errno::IO, Errno::from_raw_os_error)
    };
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(from, name, flags, Mode::empty()) {
        Err(Errno::LOOP) => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, made)?;
        }
        source => {
            let source = File::from(source?);
            let mode = rustix::fs::fstat(&source)?.st_mode;
            let flags = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let target = rustix::fs::openat(to, made, flags, Mode::RUSR | Mode::WUSR)?;
            let mut target = File::from(target);
            let written = std::io::copy(&mut &source, &mut target).map_err(io);
            // The time too: by it the change is known to be made.
            let modified = source.metadata().and_then(|source| source.modified());
            let dressed = written
                .and_then(|_| rustix::fs::fchmod(&target, Mode::from_raw_mode(mode & 0o777)))
                .and_then(|()| target.set_modified(modified.map_err(io)?).map_err(io));
            if let Err(error) = dressed {
                let _ = rustix::fs::unlinkat(to, made, AtFlags::empty());
                return Err(error);
            }
        }
    }
    let placed = rustix::fs::renameat(to, made, to, name);
    if placed.is_err() {
        let _ = rustix::fs::unlinkat(to, made, AtFlags::empty());
    }
    placed
}

fn failed(path: &Path) -> impl FnOnce(Errno) -> Error + use<> {
    let path: PathBuf = path.to_owned();
    move |error| Error::host(WHAT, path)(error.into())
}

#[cfg(test)]
mod tests;

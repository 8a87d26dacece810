//! What a guest has changed of a copy-on-write mount.

use crate::files::{FileInfo, FileKind};
use crate::{Error, MountSpec, Vm};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where the guest's init keeps changes; it names the same directory.
const CHANGES: &str = "/run/supermachine-mounts";
/// Deepest directory that is looked into: a path of the guest has 4,096 bytes.
const MAX_DEPTH: usize = 2048;
/// Most changes that are told.
const MAX_CHANGES: usize = 1 << 20;

/// How a file of a mount is different in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// The host has no file of that name.
    Added,
    /// It is another one than the host's: its content, its kind or what is said of it.
    Changed,
    /// The host has it, and the guest has removed it.
    Deleted,
}

/// A file of a copy-on-write mount that is different in the guest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct MountChange {
    /// Its path in the mount.
    pub path: PathBuf,
    /// How it is different.
    pub kind: ChangeKind,
}

impl Vm {
    /// What the guest has changed of the copy-on-write mount with this tag, sorted by
    /// path. Of a directory that was deleted, and only of that, what was in it is not
    /// told. It is compared with what the host's directory has now.
    ///
    /// # Errors
    /// [`Error::Mount`] if there is no such mount; [`Error::Exec`] if the guest cannot
    /// say.
    pub fn mount_changes(&self, tag: &str) -> Result<Vec<MountChange>, Error> {
        let mut mounts = self.config().mounts.iter();
        let found = mounts.find(|mount| mount.tag() == tag);
        let (host, at) = found
            .and_then(MountSpec::covered)
            .ok_or_else(|| Error::Mount {
                tag: tag.to_owned(),
                problem: "the machine has no copy-on-write mount of that tag: name one that it has",
            })?;
        let upper = [CHANGES, tag, "upper"].join("/").into_bytes();
        let mut walk = Walk {
            vm: self,
            changes: Vec::new(),
        };
        walk.directory(&Places {
            upper,
            merged: at.as_bytes().to_vec(),
            host: Some(host.to_owned()),
            path: PathBuf::new(),
        })?;
        walk.changes.sort();
        Ok(walk.changes)
    }
}

/// One directory, by its four names.
struct Places {
    /// Where the guest has what is different of it.
    upper: Vec<u8>,
    /// Where the guest has it.
    merged: Vec<u8>,
    /// Where the host has it, if it does.
    host: Option<PathBuf>,
    /// In the mount.
    path: PathBuf,
}

impl Places {
    fn entry(&self, name: &OsStr, host: Option<PathBuf>) -> Self {
        let below = |path: &[u8]| [path, b"/", name.as_bytes()].concat();
        Self {
            upper: below(&self.upper),
            merged: below(&self.merged),
            host,
            path: self.path.join(name),
        }
    }
}

struct Walk<'a> {
    vm: &'a Vm,
    changes: Vec<MountChange>,
}

impl Walk<'_> {
    fn tell(&mut self, path: PathBuf, kind: ChangeKind) -> Result<(), Error> {
        if self.changes.len() >= MAX_CHANGES {
            return Err(Error::CopyTooLarge {
                what: "changes",
                limit: MAX_CHANGES as u64,
            });
        }
        self.changes.push(MountChange { path, kind });
        Ok(())
    }

    /// Looks at one directory that has something different, and at those below it.
    fn directory(&mut self, places: &Places) -> Result<(), Error> {
        // The guest says what its directories hold, and could go on for ever.
        if places.path.components().count() > MAX_DEPTH {
            return Ok(());
        }
        let upper = self.vm.read_dir(&places.upper)?;
        let hosts = host_names(places.host.as_deref())?;
        for entry in upper.iter().filter(|entry| is_name(&entry.name)) {
            // A character device is the mark of what is gone, which is told below.
            if entry.kind == FileKind::CharDevice {
                continue;
            }
            self.entry(places, entry, hosts.contains(&entry.name))?;
        }
        let merged = self.vm.read_dir(&places.merged)?;
        let merged: BTreeSet<&OsStr> = merged.iter().map(|entry| &*entry.name).collect();
        for name in hosts.iter().filter(|name| !merged.contains(&***name)) {
            self.tell(places.path.join(name), ChangeKind::Deleted)?;
        }
        Ok(())
    }

    fn entry(&mut self, places: &Places, entry: &FileInfo, is_hosts: bool) -> Result<(), Error> {
        let host = places.host.as_ref().filter(|_| is_hosts);
        let host = host.map(|dir| dir.join(&entry.name));
        let is_dir = |path: &PathBuf| path.symlink_metadata().is_ok_and(|found| found.is_dir());
        let both_are_dirs = host.as_ref().is_some_and(is_dir);
        let is_directory = entry.kind == FileKind::Directory;
        if !is_hosts {
            self.tell(places.path.join(&entry.name), ChangeKind::Added)?;
        } else if !(is_directory && both_are_dirs) {
            self.tell(places.path.join(&entry.name), ChangeKind::Changed)?;
        }
        if is_directory {
            let host = host.filter(|_| both_are_dirs);
            self.directory(&places.entry(&entry.name, host))?;
        }
        Ok(())
    }
}

/// Whether a guest's word is the name of one entry.
fn is_name(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !matches!(bytes, b"" | b"." | b"..") && !bytes.contains(&b'/') && !bytes.contains(&0)
}

fn host_names(dir: Option<&Path>) -> Result<BTreeSet<OsString>, Error> {
    let Some(dir) = dir else {
        return Ok(BTreeSet::new());
    };
    let failed = || Error::host("cannot read", dir);
    let entries = std::fs::read_dir(dir).map_err(failed())?;
    entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()
        .map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_guest_are_single_entries() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/etc", b"a\0"] {
            assert!(!is_name(OsStr::from_bytes(bad)), "{bad:?}");
        }
        assert!(is_name(OsStr::from_bytes(b"\xff...")));
    }
}

//! What a guest has changed of a copy-on-write mount, and what becomes of it.

mod apply;
mod compare;
mod tree;

use crate::exec::Opens;
use crate::files::{self, FileKind};
use crate::running::RunningVm;
use crate::whole::write_whole;
use crate::{Copied, CopyOptions, Error, MountSpec, Vm, WhileWanted};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tree::HostTree;

/// Where the guest's init keeps changes; it names the same directory.
const CHANGES: &str = "/run/supermachine-mounts";

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
    /// What the guest has there; `None` if it was deleted.
    pub file: Option<FileKind>,
    /// How many bytes the guest says that it has.
    pub bytes: u64,
    /// Permission bits.
    mode: u32,
}

/// A copy-on-write mount of a machine that runs.
struct Covered<'a> {
    on: &'a dyn Opens,
    host: &'a Path,
    tag: &'a str,
}

impl Covered<'_> {
    /// Where the guest has what it has changed.
    fn upper(&self) -> Vec<u8> {
        [CHANGES, self.tag, "upper"].join("/").into_bytes()
    }

    fn changes(&self) -> Result<Vec<MountChange>, Error> {
        let nodes = files::tree_nodes(self.on, &self.upper())?;
        compare::compare(nodes, &mut HostTree::open(self.host)?)
    }

    fn wanted(&self, filter: impl Fn(&MountChange) -> bool) -> Result<Vec<MountChange>, Error> {
        let mut changes = self.changes()?;
        changes.retain(filter);
        Ok(changes)
    }

    fn apply(
        &self,
        options: &CopyOptions,
        filter: impl Fn(&MountChange) -> bool,
    ) -> Result<Vec<MountChange>, Error> {
        let changes = self.wanted(filter)?;
        apply::apply(self.host, changes, options, |names, extract| {
            files::copy_named(self.on, &self.upper(), names, options, extract)
        })
    }

    fn export(
        &self,
        archive: impl Write,
        options: &CopyOptions,
        filter: impl Fn(&MountChange) -> bool,
    ) -> Result<Copied, Error> {
        let changes = self.wanted(filter)?;
        let (deleted, kept): (Vec<&MountChange>, Vec<&MountChange>) = changes
            .iter()
            .partition(|change| change.kind == ChangeKind::Deleted);
        let gone = deleted.iter().map(|change| &*change.path);
        let kept = kept.into_iter().filter(|change| change.is_portable());
        let names = apply::with_parents(kept);
        files::named_tar(self.on, &self.upper(), &names, gone, archive, options)
    }
}

impl MountChange {
    /// Whether it is something that leaves a guest: a file, a directory or a link.
    fn is_portable(&self) -> bool {
        matches!(
            self.file,
            Some(FileKind::File | FileKind::Directory | FileKind::Symlink)
        )
    }
}

fn no_such_mount(tag: &str) -> Error {
    Error::Mount {
        tag: tag.to_owned(),
        problem: "the machine has no copy-on-write mount of that tag: name one that it has",
    }
}

impl Vm {
    fn covered(&self, tag: &str) -> Result<Covered<'_>, Error> {
        let mut mounts = self.config().mounts.iter();
        let found = mounts.find(|mount| mount.tag() == tag);
        let (host, _) = found
            .and_then(MountSpec::covered)
            .ok_or_else(|| no_such_mount(tag))?;
        let tag = found.map_or("", MountSpec::tag);
        Ok(Covered {
            on: self,
            host,
            tag,
        })
    }
}

impl WhileWanted<'_> {
    fn covered(&self, tag: &str) -> Result<Covered<'_>, Error> {
        let covered = self.vm().covered(tag)?;
        Ok(Covered {
            on: self,
            ..covered
        })
    }
}

impl RunningVm {
    fn covered(&self, tag: &str) -> Result<Covered<'_>, Error> {
        let mut mounts = self.description.mounts.iter();
        let found = mounts.find(|mount| mount.tag == tag && mount.copy_on_write);
        let found = found.ok_or_else(|| no_such_mount(tag))?;
        Ok(Covered {
            on: self,
            host: &found.directory,
            tag: &found.tag,
        })
    }
}

/// The same for each type that leads to a guest's agent.
macro_rules! changes {
    ($machine:ty) => {
        impl $machine {
            /// What the guest has changed of the copy-on-write mount with this tag, sorted
            /// by path. Of a directory that was deleted, and only of that, what was in it
            /// is not told. It is compared with what the host's directory has now: a file
            /// of the same length, time of change, mode and attributes is no change, so
            /// what was [applied](Self::apply_changes) is not told again.
            ///
            /// # Errors
            /// [`Error::Mount`] if there is no such mount; [`Error::Exec`] if the guest
            /// cannot say; [`Error::OutputTooLarge`] for more than some hundred thousand.
            pub fn mount_changes(&self, tag: &str) -> Result<Vec<MountChange>, Error> {
                self.covered(tag)?.changes()
            }

            /// Makes the changes of the copy-on-write mount with this tag to the directory
            /// of the host, those that `filter` takes, and returns those that were made.
            /// Directories that are missing above one are made. At each moment a file of
            /// the host is the old one or the new one, whole; nothing outside of the
            /// directory is touched, whatever links are put into it meanwhile; and nothing
            /// becomes set-user-id. Devices, sockets and pipes are left out. What the host
            /// has changed in the same file since is lost. For the guest nothing changes:
            /// it keeps what it has changed for its own, and what it changes then is told
            /// by [`Self::mount_changes`] once more.
            ///
            /// # Errors
            /// As [`Self::mount_changes`]; [`Error::CopyTooLarge`] for more than
            /// [`CopyOptions`](crate::CopyOptions) has by default, of which nothing is made;
            /// [`Error::Host`] for what cannot be written. What was made before stays.
            pub fn apply_changes(
                &self,
                tag: &str,
                filter: impl Fn(&MountChange) -> bool,
            ) -> Result<Vec<MountChange>, Error> {
                self.apply_changes_with(tag, &CopyOptions::default(), filter)
            }

            /// As [`Self::apply_changes`], within the bounds of `options`: bytes of content,
            /// files and directories, and the time that the guest may take to send them. If
            /// it is more than that, nothing is made.
            ///
            /// # Errors
            /// As [`Self::apply_changes`]; [`Error::Timeout`] if the time was not enough.
            pub fn apply_changes_with(
                &self,
                tag: &str,
                options: &CopyOptions,
                filter: impl Fn(&MountChange) -> bool,
            ) -> Result<Vec<MountChange>, Error> {
                self.covered(tag)?.apply(options, filter)
            }

            /// Writes the changes of the copy-on-write mount with this tag, those that
            /// `filter` takes, as a tar archive in the form of an image's layer: what was
            /// deleted is an empty file `.wh.NAME`. Devices, sockets and pipes are left
            /// out, and names that would look like deletions.
            ///
            /// # Errors
            /// As [`Self::mount_changes`]; [`Error::CopyTooLarge`] as for
            /// [`Self::apply_changes`]; [`Error::System`] if the archive cannot be written.
            pub fn export_changes(
                &self,
                tag: &str,
                archive: impl Write,
                filter: impl Fn(&MountChange) -> bool,
            ) -> Result<Copied, Error> {
                self.export_changes_with(tag, archive, &CopyOptions::default(), filter)
            }

            /// As [`Self::export_changes`], into a file of the host, in the place of what has
            /// its name. It is there with all of the archive or not at all.
            ///
            /// # Errors
            /// As [`Self::export_changes`]; [`Error::Host`] if the file cannot be written.
            pub fn export_changes_to(
                &self,
                tag: &str,
                file: impl AsRef<Path>,
                filter: impl Fn(&MountChange) -> bool,
            ) -> Result<Copied, Error> {
                let file = file.as_ref();
                write_whole(file, |to| {
                    let mut archive = BufWriter::new(to);
                    let copied = self.export_changes(tag, &mut archive, filter)?;
                    archive.flush().map_err(Error::host("cannot write", file))?;
                    Ok(copied)
                })
            }

            /// As [`Self::export_changes`], within the bounds of `options`. What was written
            /// by then is not a whole archive.
            ///
            /// # Errors
            /// As [`Self::export_changes`]; [`Error::Timeout`] if the time was not enough.
            pub fn export_changes_with(
                &self,
                tag: &str,
                archive: impl Write,
                options: &CopyOptions,
                filter: impl Fn(&MountChange) -> bool,
            ) -> Result<Copied, Error> {
                self.covered(tag)?.export(archive, options, filter)
            }
        }
    };
}

changes!(Vm);
changes!(RunningVm);
changes!(WhileWanted<'_>);

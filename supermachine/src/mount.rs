//! Directories of the host, and single files, in a guest.

use crate::link::protocol::Mount;
use crate::running::Mounted;
use crate::{Error, guest_path};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};
use vmm_core::spec::{Dax, Owner, Owners};
pub use vmm_core::spec::{DaxPolicy, IdMap, IdRange, SymlinkPolicy};

/// Longest tag in bytes (virtio 1.2 §5.11.4).
const MAX_TAG_BYTES: usize = 36;
/// Window of a mount that does not say how large it is to be: of the 256 MiB of memory
/// that a guest has without asking, its kernel takes 4 MiB for it.
const DEFAULT_WINDOW_MIB: u32 = 256;
/// Most of all windows of a machine: what its addresses have room for.
const MAX_WINDOWS_MIB: u32 = 8 << 10;
/// Unit of windows, in MiB.
const WINDOW_UNIT_MIB: u32 = 2;
/// Most of them: each has its part in what happens at a bus error.
const MAX_WINDOWS: usize = vmm_core::memory::MAX_WINDOWS;

/// A directory of the host that a guest has while it runs, by virtio-fs: what
/// either side writes, the other sees, within a second where the guest has looked
/// before, and at once where the directory is [watched](MountSpec::with_watch).
///
/// ```
/// use supermachine::{MountSpec, SymlinkPolicy};
///
/// let mount = MountSpec::new("/home/me/app", "workspace")
///     .with_symlinks(SymlinkPolicy::Opaque)
///     .read_only(true)
///     .at("/work");
/// ```
///
/// On the host everything belongs to the user who runs this; the guest sees one
/// owner of it all, root unless [`MountSpec::with_owner`] says otherwise. The guest
/// cannot give a file away there, unless [`MountSpec::with_owner_map`] lets it, nor have it
/// run with its owner's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSpec {
    host_path: PathBuf,
    is_file: bool,
    tag: String,
    symlinks: SymlinkPolicy,
    access: Access,
    at: Option<String>,
    owners: Owners,
    dax: Option<DaxPolicy>,
    window_mib: u32,
    is_watched: bool,
}

/// What a guest may do to a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Access {
    ReadWrite,
    ReadOnly,
    CopyOnWrite,
}

/// What a snapshot says of a mount that its machine has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MountPoint {
    /// What the guest knows it by.
    pub tag: String,
    /// Where it is mounted, if the guest's init did that.
    pub at: Option<String>,
    /// What the guest takes it for.
    pub access: Access,
    /// It is one file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub file: bool,
    /// How the guest maps files. Its window stays where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dax: Option<Dax>,
}

impl MountSpec {
    /// The directory `host_path`, which the guest mounts by `tag`
    /// (`mount -t virtiofs TAG DIR`): 1 to 36 letters, digits, dots, hyphens and
    /// underscores. The guest may write to it.
    pub fn new(host_path: impl Into<PathBuf>, tag: impl Into<String>) -> Self {
        Self {
            host_path: host_path.into(),
            is_file: false,
            tag: tag.into(),
            symlinks: SymlinkPolicy::default(),
            access: Access::ReadWrite,
            at: None,
            owners: Owners::default(),
            dax: None,
            window_mib: DEFAULT_WINDOW_MIB,
            is_watched: true,
        }
    }

    /// The one file `host_path`, which the guest can write to. Its [place](MountSpec::at) is
    /// the file's; a guest that mounts it by its tag finds it as `file` in the directory
    /// that it mounts. Nothing beside it can be reached from the guest, which cannot
    /// remove it, rename it, or put another in its place.
    ///
    /// It is the file that was there when the machine started, as with docker: what is
    /// written into it the other side sees, and an editor of the host that writes a new
    /// file and renames it over the old one leaves the guest with the old one. Mount its
    /// directory where such edits are to be seen.
    ///
    /// ```
    /// use supermachine::MountSpec;
    ///
    /// let mount = MountSpec::file("/home/me/app.conf", "conf")
    ///     .read_only(true)
    ///     .at("/etc/app.conf");
    /// ```
    pub fn file(host_path: impl Into<PathBuf>, tag: impl Into<String>) -> Self {
        Self {
            is_file: true,
            ..Self::new(host_path, tag)
        }
    }

    /// What becomes of symbolic links; they are opaque if not set.
    pub fn with_symlinks(mut self, symlinks: SymlinkPolicy) -> Self {
        self.symlinks = symlinks;
        self
    }

    /// Whether the host refuses every change, whatever the guest tries.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.access = if read_only {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        self
    }

    /// Lets the guest change what it sees, and keeps the changes in the guest's memory:
    /// the host refuses every change of the directory. They end with the machine;
    /// [`crate::Vm::mount_changes`] says what they are, and [`crate::Vm::apply_changes`]
    /// makes them the directory's. It needs a [place](MountSpec::at).
    pub fn copy_on_write(mut self) -> Self {
        self.access = Access::CopyOnWrite;
        self
    }

    /// Mounts it at this path of the guest, before anything else runs. The directory is
    /// made if it is not there.
    pub fn at(mut self, guest_path: impl Into<String>) -> Self {
        self.at = Some(guest_path.into());
        self
    }

    /// The user and the group that all files belong to, for the guest; root if not set.
    /// That the guest gives a file to another changes nothing.
    pub fn with_owner(mut self, uid: u32, gid: u32) -> Self {
        self.owners = Owners::Squash(Owner { uid, gid });
        self
    }

    /// Has numbers of users and groups of the guest stand for others of the host, which
    /// are the files' there, as in a user namespace. What belongs to somebody else on the
    /// host is nobody's (65534) in the guest, and who has no number on the host makes
    /// nothing (`EOVERFLOW`). To give files to others than the user who runs this, that
    /// must be root.
    ///
    /// ```
    /// use supermachine::{IdMap, IdRange, MountSpec};
    ///
    /// let alone = vec![IdRange { guest: 0, host: 1000, count: 1 }];
    /// let map = IdMap { users: alone.clone(), groups: alone };
    /// let mount = MountSpec::new("/home/me/app", "app").with_owner_map(map).at("/app");
    /// ```
    pub fn with_owner_map(mut self, map: IdMap) -> Self {
        self.owners = Owners::Map(map);
        self
    }

    /// Has owner and mode be what the guest says, as for packages that are unpacked
    /// there, while on the host all is still that of the user who runs this. They are
    /// kept in an extended attribute of each file and directory
    /// (`user.containers.override_stat`, as podman and libkrun have it). What has none yet
    /// is root's in the guest, and links always are. No file becomes set-user-id. Pipes,
    /// sockets and devices are kept there as well, and are empty files on the host.
    pub fn with_recorded_owners(mut self) -> Self {
        self.owners = Owners::Recorded(Owner::default());
        self
    }

    /// Has the guest map files instead of reading them (DAX): what it reads is the
    /// host's own copy in memory, and what it writes by `mmap`, too.
    ///
    /// Files are mapped, each 2 MiB of them that are used, into a window of the guest's
    /// addresses, for which its kernel takes a 64th of the window's size from its
    /// memory, used or not. Where more is in use than the window holds, reading here and
    /// there gets slower than without. Of a file that the host makes shorter while it is
    /// mapped, a guest reads zeros where it ended, for some milliseconds: then its end is
    /// there, and a bus error (`SIGBUS`) for programs that have mapped more. Without
    /// [watching](Self::with_watch) that is when somebody there looks at the file. What a
    /// guest writes where the host has no room, or no file any more, is an error (`EIO`) of
    /// its next sync of that file.
    ///
    /// Whether there is a window, and how large it is, is part of a snapshot; which files
    /// are mapped, each copy can say anew.
    pub fn with_dax(mut self, policy: DaxPolicy) -> Self {
        self.dax = Some(policy);
        self
    }

    /// The size of the window for [mapped files](MountSpec::with_dax): a multiple of
    /// 2 MiB, 256 MiB if not set. All windows of a machine have 8 GiB.
    pub fn with_dax_window_mib(mut self, mib: u32) -> Self {
        self.window_mib = mib;
        self
    }

    /// Whether the guest is told what the host changes, as it is if this is not said:
    /// programs that watch files there (inotify) hear of the host's edits some
    /// milliseconds later, and what the guest has read before it reads anew.
    ///
    /// On a Linux host the directories are watched that the guest has looked at, at most
    /// 8,192 of a mount, and none in `node_modules` or `.git/objects`; where the host has
    /// no more to give (`fs.inotify.max_user_watches`, `max_user_instances`), and on other
    /// hosts, the guest believes for a second what it has looked at, as without. Watched
    /// is neither one [file](MountSpec::file) nor what is
    /// [copied on write](MountSpec::copy_on_write). Each copy of a snapshot can say it anew.
    pub fn with_watch(mut self, watched: bool) -> Self {
        self.is_watched = watched;
        self
    }

    /// What the guest mounts it by.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The directory of the host, and where it is in the guest, of one whose changes
    /// are kept in memory.
    pub(crate) fn covered(&self) -> Option<(&Path, &str)> {
        let at = self.at.as_deref()?;
        (self.access == Access::CopyOnWrite).then_some((&self.host_path, at))
    }

    /// What other processes are told of it.
    pub(crate) fn described(&self) -> Mounted {
        Mounted {
            // Descriptions are text; so is what the worker is told.
            directory: self.host_path.to_string_lossy().into_owned().into(),
            tag: self.tag.clone(),
            place: self.at.clone(),
            read_only: self.access == Access::ReadOnly,
            copy_on_write: self.access == Access::CopyOnWrite,
        }
    }

    /// Refuses to record owners where nothing can be recorded.
    fn check_attributes(&self, file: &File) -> Result<(), Error> {
        if !matches!(self.owners, Owners::Recorded(_)) {
            return Ok(());
        }
        match rustix::fs::fgetxattr(file, c"user.containers.override_stat", &mut [0_u8; 64][..]) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Err(self.refused(
                "its file system keeps no attributes of users, in which owners are recorded: \
                 use another file system, or with_owner",
            )),
            _ => Ok(()),
        }
    }

    /// Opens the one file that it is.
    fn open_file(&self) -> Result<File, Error> {
        let failed = || Error::host("cannot mount the file", &self.host_path);
        let access = match self.access {
            Access::ReadWrite => OFlags::RDWR,
            Access::ReadOnly | Access::CopyOnWrite => OFlags::RDONLY,
        };
        // A pipe in its place is not waited for.
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.host_path, flags, Mode::empty());
        let file = File::from(file.map_err(|error| failed()(error.into()))?);
        match file.metadata().map_err(failed())?.is_file() {
            true => Ok(file),
            false => Err(self.refused("what is at its path is no file: name a regular file")),
        }
    }

    fn window(&self) -> Option<Dax> {
        self.dax.map(|policy| Dax {
            policy,
            window_bytes: u64::from(self.window_mib) << 20,
        })
    }

    fn refused(&self, problem: &'static str) -> Error {
        refused(&self.tag, problem)
    }

    /// The same with the window that the guest of a snapshot has.
    fn with_window_of(&self, point: &MountPoint) -> Result<Self, Error> {
        let mut mount = self.clone();
        match point.dax {
            None if self.dax.is_some() => {
                return Err(self.refused(
                    "the guest of the snapshot has no window for files: leave out DAX, or bake \
                     the image with it",
                ));
            }
            None => {}
            Some(dax) => {
                mount.dax = self.dax.or(Some(dax.policy));
                let mib = u32::try_from(dax.window_bytes >> 20);
                mount.window_mib = mib.unwrap_or(u32::MAX);
            }
        }
        Ok(mount)
    }

    fn validate(&self) -> Result<(), Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let fits = (1..=MAX_TAG_BYTES).contains(&self.tag.len());
        if !fits || !self.tag.chars().all(plain) {
            return Err(self.refused(
                "choose a tag of 1 to 36 letters, digits, dots, hyphens and underscores",
            ));
        }
        let whole = self.window_mib.is_multiple_of(WINDOW_UNIT_MIB);
        if self.dax.is_some() && (!whole || self.window_mib == 0) {
            return Err(self.refused("give its DAX window a multiple of 2 MiB"));
        }
        // It names a directory of the guest, too.
        if matches!(&*self.tag, "." | "..") {
            return Err(self.refused("choose a tag that is a name"));
        }
        if let Owners::Map(map) = &self.owners
            && !map.is_sound()
        {
            return Err(self.refused(
                "give it ranges of owners that are apart, at most 32 of users and of groups",
            ));
        }
        if self.is_file && self.dax.is_some() {
            return Err(self.refused("mount the file's directory, as one file is not mapped"));
        }
        if self.is_file && self.access == Access::CopyOnWrite {
            return Err(self.refused("mount the file's directory to have it copied on write"));
        }
        let Some(at) = &self.at else {
            return match self.access {
                Access::CopyOnWrite => {
                    Err(self.refused("name its place in the guest, as copy-on-write needs one"))
                }
                _ => Ok(()),
            };
        };
        guest_path::check(at).map_err(|problem| self.refused(problem))?;
        Ok(())
    }

    /// What the worker is told.
    fn order(&self) -> Mount {
        Mount {
            directory: self.host_path.to_string_lossy().into_owned(),
            tag: self.tag.clone(),
            read_only: self.access != Access::ReadWrite,
            symlinks: self.symlinks,
            owners: self.owners.clone(),
            dax: self.window(),
            // Programs of the guest watch what covers it.
            watched: self.is_watched && self.access != Access::CopyOnWrite,
        }
    }

    /// The word by which init is told to mount it.
    fn kernel_argument(&self) -> Option<String> {
        let at = self.at.as_deref()?;
        let access = match self.access {
            Access::ReadWrite if self.is_file => "rw-file",
            Access::ReadOnly if self.is_file => "ro-file",
            Access::ReadWrite => "rw",
            Access::ReadOnly => "ro",
            Access::CopyOnWrite => "cow",
        };
        Some(format!("sm.mount={}:{access}:{}", self.tag, escaped(at)))
    }
}

fn refused(tag: &str, problem: &'static str) -> Error {
    Error::Mount {
        tag: tag.to_owned(),
        problem,
    }
}

/// A path without what has a meaning on the kernel's command line.
fn escaped(path: &str) -> String {
    let mut word = String::new();
    for byte in path.bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
                word.push(byte.into());
            }
            other => word.push_str(&format!("%{other:02x}")),
        }
    }
    word
}

/// Refuses mounts that no machine could have.
pub(crate) fn validate(mounts: &[MountSpec]) -> Result<(), Error> {
    for (n, mount) in mounts.iter().enumerate() {
        mount.validate()?;
        if mounts[..n].iter().any(|other| other.tag == mount.tag) {
            return Err(mount.refused("give each mount a tag of its own"));
        }
    }
    let windows = mounts.iter().filter(|mount| mount.dax.is_some());
    let mut left = MAX_WINDOWS_MIB;
    for (n, mount) in windows.enumerate() {
        let fits = left.checked_sub(mount.window_mib);
        left = fits.ok_or_else(|| {
            mount.refused("make the DAX windows smaller: all together have 8192 MiB")
        })?;
        if n >= MAX_WINDOWS {
            return Err(mount.refused("map files of at most 32 mounts"));
        }
    }
    Ok(())
}

/// What a snapshot of a machine with these says of them.
pub(crate) fn points(mounts: &[MountSpec]) -> Vec<MountPoint> {
    let points = mounts.iter().map(|mount| MountPoint {
        tag: mount.tag.clone(),
        at: mount.at.clone(),
        access: mount.access,
        file: mount.is_file,
        dax: mount.window(),
    });
    points.collect()
}

/// What is added to the kernel's command line, with a space before each word.
pub(crate) fn kernel_arguments(mounts: &[MountSpec]) -> String {
    let words = mounts.iter().filter_map(MountSpec::kernel_argument);
    words.map(|word| format!(" {word}")).collect()
}

/// What a worker is told of mounts, and their directories, open.
pub(crate) fn open<'a>(
    mounts: impl IntoIterator<Item = &'a MountSpec>,
) -> Result<(Vec<Mount>, Vec<File>), Error> {
    let mut opened = (Vec::new(), Vec::new());
    for mount in mounts {
        opened.0.push(mount.order());
        let file = match mount.is_file {
            true => mount.open_file()?,
            false => open_directory(&mount.host_path)?,
        };
        mount.check_attributes(&file)?;
        opened.1.push(file);
    }
    Ok(opened)
}

/// The mounts that a copy of a snapshot needs, in the snapshot's order.
pub(crate) fn for_copy(
    mounts: &[MountSpec],
    points: &[MountPoint],
) -> Result<Vec<MountSpec>, Error> {
    for mount in mounts {
        if !points.iter().any(|point| point.tag == mount.tag) {
            return Err(mount.refused("the snapshot has none of that tag: bake the image with it"));
        }
    }
    let found = points.iter().map(|point| {
        let mount = mounts.iter().find(|mount| mount.tag == point.tag);
        let mount = mount.ok_or_else(|| {
            refused(
                &point.tag,
                "the snapshot has one of that tag: give it a directory, by VmConfig::with_mount",
            )
        })?;
        if mount.is_file != point.file {
            return Err(mount.refused(match point.file {
                true => "the snapshot has one file of that tag: give it one, by MountSpec::file",
                false => "the snapshot has a directory of that tag: give it one, by MountSpec::new",
            }));
        }
        if mount.at.is_some() && mount.at != point.at {
            return Err(
                mount.refused("the snapshot has it at another place: bake the image with this one")
            );
        }
        match (point.access, mount.access) {
            (baked, given) if baked == given => {}
            // The host refuses what the guest still tries.
            (Access::ReadWrite, Access::ReadOnly) => {}
            _ => {
                return Err(mount.refused(
                    "the guest of the snapshot takes it for another kind (read-only, \
                     copy-on-write): give it as that, or bake the image with this one",
                ));
            }
        }
        mount.with_window_of(point)
    });
    found.collect()
}

fn open_directory(path: &Path) -> Result<File, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map(File::from)
        .map_err(|error| Error::host("cannot mount the directory", path)(error.into()))
}

#[cfg(test)]
mod tests;

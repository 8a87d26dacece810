//! Directories of the host in a guest.

use crate::Error;
use crate::link::protocol::Mount;
use crate::running::Mounted;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};
use vmm_core::spec::Owner;
pub use vmm_core::spec::SymlinkPolicy;

/// Longest tag in bytes (virtio 1.2 §5.11.4).
const MAX_TAG_BYTES: usize = 36;

/// A directory of the host that a guest has while it runs, by virtio-fs: what
/// either side writes, the other sees, within a second where the guest has looked
/// before.
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
/// cannot give a file away there, nor have it run with its owner's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSpec {
    host_path: PathBuf,
    tag: String,
    symlinks: SymlinkPolicy,
    access: Access,
    at: Option<String>,
    owner: (u32, u32),
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
}

impl MountSpec {
    /// The directory `host_path`, which the guest mounts by `tag`
    /// (`mount -t virtiofs TAG DIR`): 1 to 36 letters, digits, dots, hyphens and
    /// underscores. The guest may write to it.
    pub fn new(host_path: impl Into<PathBuf>, tag: impl Into<String>) -> Self {
        Self {
            host_path: host_path.into(),
            tag: tag.into(),
            symlinks: SymlinkPolicy::default(),
            access: Access::ReadWrite,
            at: None,
            owner: (0, 0),
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

    /// The user and the group that files belong to, for the guest; root if not set.
    pub fn with_owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = (uid, gid);
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

    fn refused(&self, problem: &'static str) -> Error {
        refused(&self.tag, problem)
    }

    fn validate(&self) -> Result<(), Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let fits = (1..=MAX_TAG_BYTES).contains(&self.tag.len());
        if !fits || !self.tag.chars().all(plain) {
            return Err(self.refused(
                "choose a tag of 1 to 36 letters, digits, dots, hyphens and underscores",
            ));
        }
        // It names a directory of the guest, too.
        if matches!(&*self.tag, "." | "..") {
            return Err(self.refused("choose a tag that is a name"));
        }
        let Some(at) = &self.at else {
            return match self.access {
                Access::CopyOnWrite => {
                    Err(self.refused("name its place in the guest, as copy-on-write needs one"))
                }
                _ => Ok(()),
            };
        };
        let names = at.split('/').skip(1).filter(|name| !name.is_empty());
        if !at.starts_with('/') || at.contains('\0') || names.clone().any(|name| name == "..") {
            return Err(
                self.refused("name its place in the guest by an absolute path without `..`")
            );
        }
        if names.clone().all(|name| name == ".") {
            return Err(self.refused("name another place in the guest than its root"));
        }
        Ok(())
    }

    /// What the worker is told.
    fn order(&self) -> Mount {
        let (uid, gid) = self.owner;
        Mount {
            directory: self.host_path.to_string_lossy().into_owned(),
            tag: self.tag.clone(),
            read_only: self.access != Access::ReadWrite,
            symlinks: self.symlinks,
            owner: Owner { uid, gid },
        }
    }

    /// The word by which init is told to mount it.
    fn kernel_argument(&self) -> Option<String> {
        let at = self.at.as_deref()?;
        let access = match self.access {
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
    Ok(())
}

/// What a snapshot of a machine with these says of them.
pub(crate) fn points(mounts: &[MountSpec]) -> Vec<MountPoint> {
    let points = mounts.iter().map(|mount| MountPoint {
        tag: mount.tag.clone(),
        at: mount.at.clone(),
        access: mount.access,
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
        opened.1.push(open_directory(&mount.host_path)?);
    }
    Ok(opened)
}

/// The mounts that a copy of a snapshot needs, in the snapshot's order.
pub(crate) fn for_copy<'a>(
    mounts: &'a [MountSpec],
    points: &[MountPoint],
) -> Result<Vec<&'a MountSpec>, Error> {
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
        Ok(mount)
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
mod tests {
    use super::*;

    fn problem(result: Result<impl Sized, Error>) -> String {
        match result {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn tags_and_places_that_no_guest_could_use_are_refused() {
        let long = "t".repeat(37);
        for tag in ["", "a b", "a:b", "a=b", "ü", ".", "..", long.as_str()] {
            let error = problem(validate(&[MountSpec::new("/", tag)]));
            assert!(error.contains("choose a tag"), "{tag:?}: {error}");
        }
        for at in ["", "work", "/", "//", "/.", "/a/../b", "/a\0"] {
            let error = problem(validate(&[MountSpec::new("/", "a").at(at)]));
            assert!(error.contains("in the guest"), "{at:?}: {error}");
        }
        let twice = [MountSpec::new("/a", "tag"), MountSpec::new("/b", "tag")];
        assert!(problem(validate(&twice)).contains("of its own"));
        assert_eq!(problem(validate(&twice[..1])), "");
    }

    #[test]
    fn place_becomes_one_word_of_the_command_line() {
        let mounts = [
            MountSpec::new("/a", "a").at("/work dir/\"x\"=%"),
            MountSpec::new("/b", "b"),
            MountSpec::new("/c", "c").at("/c").read_only(true),
        ];
        assert_eq!(
            kernel_arguments(&mounts),
            " sm.mount=a:rw:/work%20dir/%22x%22%3d%25 sm.mount=c:ro:/c"
        );
    }

    #[test]
    fn copy_gets_the_mounts_of_its_snapshot_in_their_order() {
        let mounts = [
            MountSpec::new("/a", "a").at("/a"),
            MountSpec::new("/b", "b"),
        ];
        let baked = points(&mounts);
        let other = [mounts[1].clone(), mounts[0].clone()];
        let found = for_copy(&other, &baked).unwrap();
        assert_eq!(found, [&mounts[0], &mounts[1]]);
        assert!(problem(for_copy(&mounts[..1], &baked)).contains("give it a directory"));
        assert!(problem(for_copy(&mounts, &baked[..1])).contains("bake the image"));
        let elsewhere = [MountSpec::new("/a", "a").at("/z")];
        assert!(problem(for_copy(&elsewhere, &baked[..1])).contains("another place"));
        let anywhere = [MountSpec::new("/z", "a")];
        assert_eq!(for_copy(&anywhere, &baked[..1]).unwrap(), [&anywhere[0]]);
        let read_only = [anywhere[0].clone().read_only(true)];
        assert!(for_copy(&read_only, &baked[..1]).is_ok());
        let baked = points(&read_only);
        assert!(problem(for_copy(&anywhere, &baked)).contains("read-only"));
        let covered = [MountSpec::new("/a", "a").at("/a").copy_on_write()];
        assert_eq!(covered[0].kernel_argument().unwrap(), "sm.mount=a:cow:/a");
        assert!(covered[0].order().read_only);
        let baked = points(&[anywhere[0].clone().at("/a")]);
        assert!(problem(for_copy(&covered, &baked)).contains("copy-on-write"));
        let nowhere = [MountSpec::new("/a", "a").copy_on_write()];
        assert!(problem(validate(&nowhere)).contains("name its place"));
    }
}

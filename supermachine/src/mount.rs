//! Directories of the host in a guest.

use crate::Error;
use crate::link::protocol::Mount;
use crate::running::Mounted;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};
use vmm_core::spec::{Dax, Owner};
pub use vmm_core::spec::{DaxPolicy, SymlinkPolicy};

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
    dax: Option<DaxPolicy>,
    window_mib: u32,
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
            tag: tag.into(),
            symlinks: SymlinkPolicy::default(),
            access: Access::ReadWrite,
            at: None,
            owner: (0, 0),
            dax: None,
            window_mib: DEFAULT_WINDOW_MIB,
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

    /// Has the guest map files instead of reading them (DAX): what it reads is the
    /// host's own copy in memory, and what it writes by `mmap`, too.
    ///
    /// Files are mapped, each 2 MiB of them that are used, into a window of the guest's
    /// addresses, for which its kernel takes a 64th of the window's size from its
    /// memory, used or not. Where more is in use than the window holds, reading gets
    /// slower than without. Of a file that the host makes shorter while it is mapped, a
    /// guest that looks at once reads zeros where it ended.
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
            dax: self.window(),
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
        opened.1.push(open_directory(&mount.host_path)?);
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
        assert_eq!(found, mounts);
        assert!(problem(for_copy(&mounts[..1], &baked)).contains("give it a directory"));
        assert!(problem(for_copy(&mounts, &baked[..1])).contains("bake the image"));
        let elsewhere = [MountSpec::new("/a", "a").at("/z")];
        assert!(problem(for_copy(&elsewhere, &baked[..1])).contains("another place"));
        let anywhere = [MountSpec::new("/z", "a")];
        assert_eq!(for_copy(&anywhere, &baked[..1]).unwrap(), anywhere);
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

    #[test]
    fn windows_for_files_fit_and_copies_have_those_of_their_snapshot() {
        let plain = MountSpec::new("/a", "a");
        let mapped = plain.clone().with_dax(DaxPolicy::Always);
        assert_eq!(problem(validate(&[mapped.clone()])), "");
        for mib in [0, 3] {
            let odd = mapped.clone().with_dax_window_mib(mib);
            assert!(problem(validate(&[odd])).contains("multiple of 2 MiB"));
        }
        assert_eq!(
            problem(validate(&[plain.clone().with_dax_window_mib(3)])),
            ""
        );
        let half = |tag| MountSpec::new("/", tag).with_dax(DaxPolicy::LargeFiles);
        let half = |tag| half(tag).with_dax_window_mib(4096);
        assert_eq!(problem(validate(&[half("a"), half("b")])), "");
        let more = [
            half("a"),
            half("b"),
            MountSpec::new("/", "c"),
            mapped.clone(),
        ];
        assert!(problem(validate(&more[..3])).is_empty());
        let more = [half("x"), half("y"), mapped.clone()];
        assert!(problem(validate(&more)).contains("8192 MiB"));

        let baked = points(&[mapped.clone().with_dax_window_mib(64)]);
        let copy = for_copy(&[plain.clone()], &baked).unwrap();
        assert_eq!(copy[0].window(), baked[0].dax);
        let other = mapped.clone().with_dax(DaxPolicy::LargeFiles);
        let copy = for_copy(&[other], &baked).unwrap();
        let dax = copy[0].window().unwrap();
        assert_eq!(
            (dax.policy, dax.window_bytes),
            (DaxPolicy::LargeFiles, 64 << 20)
        );
        let without = points(&[plain]);
        assert!(problem(for_copy(&[mapped], &without)).contains("no window"));
    }
}

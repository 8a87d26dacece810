//! Directories of the host, by virtio-fs.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::BootError;
use super::options::{Access, SharedDirectory};
use crate::sys;

/// What the host keeps is files for programs: no devices, and no rights that a file
/// would give.
const SAFE: sys::MountFlags = libc::MS_NOSUID | libc::MS_NODEV;
/// Where what is changed in memory alone is kept, a directory for each tag: `upper` is
/// what changed, as overlayfs has it.
const CHANGES: &str = "/run/supermachine-mounts";

/// Mounts them all. A machine without one that was asked for is of no use: what runs
/// in it would write to its own memory, where the host sees nothing of it.
pub(super) fn mount(directories: &[SharedDirectory]) -> Result<(), BootError> {
    directories.iter().try_for_each(|directory| {
        let mounted = match directory.access {
            Access::ReadWrite => mount_at(&directory.tag, &directory.place, 0),
            Access::ReadOnly => mount_at(&directory.tag, &directory.place, libc::MS_RDONLY),
            Access::CopyOnWrite => cover(directory),
        };
        mounted.map_err(|error| BootError::Mount {
            target: directory.place.clone(),
            source: directory.tag.clone().into(),
            error,
        })
    })
}

fn mount_at(tag: &str, place: &Path, flags: sys::MountFlags) -> io::Result<()> {
    fs::create_dir_all(place)?;
    sys::mount(Path::new(tag), place, c"virtiofs", SAFE | flags, c"")
}

/// Mounts a directory with memory over it, which takes the changes.
fn cover(directory: &SharedDirectory) -> io::Result<()> {
    let changes = PathBuf::from(CHANGES).join(&directory.tag);
    // Programs of the guest go there by the mount, with its rights.
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&changes)?;
    sys::mount(Path::new("tmpfs"), &changes, c"tmpfs", SAFE, c"mode=0700")?;
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| changes.join(name));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    mount_at(&directory.tag, &lower, libc::MS_RDONLY)?;
    fs::create_dir_all(&directory.place)?;
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from);
    let place = text(&directory.place)?;
    sys::mount_overlay(
        &[text(&lower)?],
        &text(&upper)?,
        &text(&work)?,
        true,
        &place,
    )?;
    let flags = libc::MS_BIND | libc::MS_REMOUNT | SAFE;
    sys::mount(Path::new(""), &directory.place, c"", flags, c"")
}

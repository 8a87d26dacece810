//! Directories of the host, and single files, by virtio-fs.

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
/// What a device of one file calls it.
const FILE: &str = "file";

/// Mounts them all. A machine without one that was asked for is of no use: what runs
/// in it would write to its own memory, where the host sees nothing of it.
pub(super) fn mount(directories: &[SharedDirectory]) -> Result<(), BootError> {
    directories.iter().try_for_each(|directory| {
        let mounted = match directory.access {
            Access::ReadWrite if directory.is_file => mount_file(directory, 0),
            Access::ReadOnly if directory.is_file => mount_file(directory, libc::MS_RDONLY),
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

/// Mounts the one file that a device has. What is at the place is covered; if there is
/// nothing, a file is made to be covered.
fn mount_file(directory: &SharedDirectory, flags: sys::MountFlags) -> io::Result<()> {
    let way = PathBuf::from(CHANGES).join(&directory.tag);
    private_directory(&way)?;
    mount_at(&directory.tag, &way, flags)?;
    let made = cover_file(&way.join(FILE), &directory.place);
    // Whoever has the file's mount keeps the file system.
    sys::unmount(&way)?;
    made
}

fn cover_file(file: &Path, place: &Path) -> io::Result<()> {
    if !place.exists() {
        if let Some(above) = place.parent() {
            fs::create_dir_all(above)?;
        }
        fs::File::create(place)?;
    }
    sys::mount(file, place, c"", libc::MS_BIND, c"")
}

/// A directory for root alone: programs of the guest would go there by the mount, with
/// its rights.
fn private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700).recursive(true).create(path)
}

/// Mounts a directory with memory over it, which takes the changes.
fn cover(directory: &SharedDirectory) -> io::Result<()> {
    let changes = PathBuf::from(CHANGES).join(&directory.tag);
    private_directory(&changes)?;
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

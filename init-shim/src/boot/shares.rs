//! Directories of the host, by virtio-fs.

use std::path::Path;

use super::BootError;
use super::options::SharedDirectory;
use crate::sys;

/// Mounts them all. A machine without one that was asked for is of no use: what runs
/// in it would write to its own memory, where the host sees nothing of it.
pub(super) fn mount(directories: &[SharedDirectory]) -> Result<(), BootError> {
    directories.iter().try_for_each(mount_one)
}

fn mount_one(directory: &SharedDirectory) -> Result<(), BootError> {
    // What the host keeps is files for programs: no devices, and no rights that a
    // file would give.
    let mut flags = libc::MS_NOSUID | libc::MS_NODEV;
    if directory.read_only {
        flags |= libc::MS_RDONLY;
    }
    let source = Path::new(&directory.tag);
    std::fs::create_dir_all(&directory.place)
        .and_then(|()| sys::mount(source, &directory.place, c"virtiofs", flags, c""))
        .map_err(|error| BootError::Mount {
            target: directory.place.clone(),
            source: source.to_owned(),
            error,
        })
}

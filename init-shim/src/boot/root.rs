//! The root file system: squashfs layers under a writable one.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::BootError;
use super::options::{Options, Upper, disk_name};
use crate::sys;

/// Working directory for assembling, in the initramfs; relative paths from
/// there keep every option short.
const WORKSHOP: &str = "/.sm";
/// How often and how far apart a disk is looked for. Built-in drivers have
/// probed theirs before PID 1 starts, so the first try is the normal case; in a machine
/// that gets its layers later, the driver has heard of them a moment before.
const DISK_TRIES: u32 = 1000;
const DISK_PAUSE: Duration = Duration::from_millis(1);

/// Whether a disk is there, and not without a capacity.
fn is_there(disk: &Path) -> bool {
    let end = File::open(disk).and_then(|mut disk| disk.seek(SeekFrom::End(0)));
    end.is_ok_and(|bytes| bytes > 0)
}

/// Mounts a disk, giving a slow one a moment to appear.
fn mount_disk(
    source: &Path,
    target: &str,
    fs_type: &CStr,
    flags: sys::MountFlags,
) -> Result<(), BootError> {
    for _ in 0..DISK_TRIES {
        if is_there(source) {
            break;
        }
        std::thread::sleep(DISK_PAUSE);
    }
    sys::mount(source, Path::new(target), fs_type, flags, c"").map_err(|error| BootError::Mount {
        target: Path::new(WORKSHOP).join(target),
        source: source.to_path_buf(),
        error,
    })
}

fn make_dir(path: &str) -> Result<(), BootError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(BootError::Overlay(error))
        }
        _ => Ok(()),
    }
}

fn mount_upper(upper: &Upper) -> Result<(), BootError> {
    make_dir("u")?;
    match upper {
        Upper::Memory { limit_mib } => {
            let limit_kib = limit_mib.map_or_else(
                || sys::total_memory_bytes() / 2 / 1024,
                |mib| mib.saturating_mul(1024),
            );
            let data = CString::new(format!("mode=0755,size={limit_kib}k")).unwrap_or_default();
            sys::mount(Path::new("tmpfs"), Path::new("u"), c"tmpfs", 0, &data).map_err(
                |error| BootError::Mount {
                    target: "u".into(),
                    source: "tmpfs".into(),
                    error,
                },
            )?;
        }
        Upper::Disk(device) => mount_disk(device, "u", c"ext4", libc::MS_NOATIME)?,
    }
    make_dir("u/work")
}

/// Makes the directory of what the machine writes. A new one has the rights and the owner
/// of the image's root, because it is what programs see of `/`. The `layers` are in order,
/// that on top first.
fn make_upper(layers: &[CString]) -> io::Result<()> {
    let upper = Path::new("u/upper");
    match fs::create_dir(upper) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        result => result?,
    }
    for layer in layers {
        let root = fs::metadata(Path::new(OsStr::from_bytes(layer.as_bytes())))?;
        // What bakes write for a root that the layer does not describe.
        let is_implied =
            root.mode() & 0o7777 == 0o755 && (root.uid(), root.gid(), root.mtime()) == (0, 0, 0);
        if !is_implied {
            chown(upper, Some(root.uid()), Some(root.gid()))?;
            return fs::set_permissions(upper, root.permissions());
        }
    }
    Ok(())
}

/// Mounts the layers, puts the writable one on top, and makes the result the
/// root with `/dev`, `/proc` and `/sys` in it.
pub(super) fn enter_layers(options: &Options) -> Result<(), BootError> {
    make_dir(WORKSHOP)?;
    std::env::set_current_dir(WORKSHOP).map_err(BootError::Overlay)?;
    let mut lower = Vec::new();
    for index in 0..options.layers {
        let target = format!("l{index}");
        make_dir(&target)?;
        let device = PathBuf::from("/dev").join(disk_name(index));
        let flags = libc::MS_RDONLY | libc::MS_NODEV;
        mount_disk(&device, &target, c"squashfs", flags)?;
        lower.push(CString::new(target).unwrap_or_default());
    }
    lower.reverse();
    mount_upper(&options.upper)?;
    make_upper(&lower).map_err(BootError::Overlay)?;
    make_dir("root")?;
    let volatile = matches!(options.upper, Upper::Memory { .. });
    sys::mount_overlay(&lower, c"u/upper", c"u/work", volatile, c"root")
        .map_err(BootError::Overlay)?;
    std::env::set_current_dir("root").map_err(BootError::Root)?;
    let bring = |name: &str| {
        real_directory(Path::new(name), 0o755)?;
        let from = Path::new("/").join(name);
        sys::mount(&from, Path::new(name), c"", libc::MS_MOVE, c"")
    };
    for name in ["dev", "proc"] {
        bring(name).map_err(BootError::Root)?;
    }
    // A kernel without sysfs has nothing there.
    let _ = bring("sys");
    sys::move_root(Path::new(".")).map_err(BootError::Root)
}

/// Makes sure that `path` is a directory and not a link to one: an image may
/// hold anything there, and mounts must not land elsewhere. What is in the way
/// is hidden by the writable layer.
pub(super) fn real_directory(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let make = || -> io::Result<()> {
        fs::DirBuilder::new().mode(mode).create(path)?;
        // The mode again, past the mask.
        if mode & 0o022 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    };
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::symlink_metadata(path)?.is_dir() {
                return Ok(());
            }
            fs::remove_file(path)?;
            make()
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_in_place_of_a_directory_is_replaced() {
        let dir = std::env::temp_dir().join(format!("sm-root-{}", std::process::id()));
        fs::create_dir_all(dir.join("elsewhere")).unwrap();
        let link = dir.join("proc");
        std::os::unix::fs::symlink("elsewhere", &link).unwrap();
        real_directory(&link, 0o755).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_dir());
        assert!(dir.join("elsewhere").is_dir());
        real_directory(&link, 0o755).unwrap();
        fs::write(dir.join("tmp"), "file").unwrap();
        real_directory(&dir.join("tmp"), 0o1777).unwrap();
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(dir.join("tmp")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o1777);
        fs::remove_dir_all(&dir).unwrap();
    }
}

//! Mounts in a machine that runs. Mount namespaces share them, so that every command
//! sees what one has mounted.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Failure, at};
use crate::sys;

/// What a file system may be mounted with: what keeps its users from something.
const FLAGS: sys::MountFlags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

/// Mounts a file system in memory, over what is at `path`.
pub fn tmpfs(path: &Path, flags: &OsStr, options: &OsStr) -> Result<(), Failure> {
    let flags = flags.to_str().and_then(|flags| flags.parse().ok());
    let flags: sys::MountFlags = flags.ok_or_else(Failure::usage)?;
    if flags & !FLAGS != 0 {
        return Err(Failure::usage());
    }
    let options = CString::new(options.as_bytes()).map_err(|_| Failure::usage())?;
    at(path, fs::create_dir_all(path))?;
    at(
        path,
        sys::mount(Path::new("tmpfs"), path, c"tmpfs", flags, &options),
    )
}

/// Makes the root read-only in every namespace: the file system, and not one
/// namespace's mount of it.
pub fn make_root_read_only() -> Result<(), Failure> {
    let root = Path::new("/");
    let flags = libc::MS_REMOUNT | libc::MS_RDONLY;
    match sys::mount(Path::new("none"), root, c"none", flags, c"") {
        // It is so already.
        Err(error) if error.raw_os_error() == Some(libc::EROFS) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => at(
            root,
            Err(io::Error::new(
                error.kind(),
                "a program has a file open for writing there",
            )),
        ),
        done => at(root, done),
    }
}

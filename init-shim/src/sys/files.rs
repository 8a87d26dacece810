//! Files as they are, links and attributes included.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{check, check_len};

/// Most bytes of all names of attributes of one file (`XATTR_LIST_MAX` of Linux).
const MAX_LIST_BYTES: usize = 64 * 1024;

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Makes a device, FIFO or socket. `kind` is one of `S_IFCHR` and its kin.
///
/// # Errors
/// As `mknod(2)`.
pub fn make_node(path: &Path, kind: u32, mode: u32, major: u32, minor: u32) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the path is NUL-terminated and alive.
    check(unsafe { libc::mknod(path.as_ptr(), kind | mode, libc::makedev(major, minor)) })?;
    Ok(())
}

/// Sets the time of the last change and access, of a link itself too.
///
/// # Errors
/// As `utimensat(2)`.
pub fn set_times(path: &Path, seconds: i64, nanoseconds: u32) -> io::Result<()> {
    let path = c_path(path)?;
    let time = libc::timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    let times = [time, time];
    // SAFETY: path and times are alive and of the form the call wants.
    check(unsafe {
        libc::utimensat(
            libc::AT_FDCWD,
            path.as_ptr(),
            times.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
        )
    })?;
    Ok(())
}

/// Major and minor number of a device.
#[must_use]
pub fn device_numbers(device: u64) -> (u32, u32) {
    (libc::major(device), libc::minor(device))
}

/// Extended attributes of a file or link itself. One that goes away meanwhile is
/// left out.
///
/// # Errors
/// As `llistxattr(2)`, except for a file system without attributes, which has none.
pub fn xattrs(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = c_path(path)?;
    let mut list = vec![0_u8; MAX_LIST_BYTES];
    // SAFETY: the buffer has as much room as is said.
    let listed =
        check_len(unsafe { libc::llistxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) });
    match listed {
        Ok(count) => list.truncate(count),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let mut found = Vec::new();
    let mut value = vec![0_u8; exec_proto::tree::MAX_XATTR_BYTES];
    for name in list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let c_name = CString::new(name)?;
        // SAFETY: as above.
        let read = check_len(unsafe {
            libc::lgetxattr(
                path.as_ptr(),
                c_name.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        });
        if let Ok(count) = read {
            let value = value.get(..count).unwrap_or_default();
            found.push((name.to_vec(), value.to_vec()));
        }
    }
    Ok(found)
}

/// Sets an extended attribute of a file or link itself.
///
/// # Errors
/// As `lsetxattr(2)`.
pub fn set_xattr(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    let (path, name) = (c_path(path)?, CString::new(name)?);
    // SAFETY: path and name are NUL-terminated, the value has the length that is said.
    check(unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    })?;
    Ok(())
}

//! Mounting, through the new mount API where the old one has limits.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use std::os::unix::ffi::OsStrExt;

use super::check;
use super::descriptors::own;

/// `MS_*` flags of `mount(2)`.
pub type MountFlags = libc::c_ulong;

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

/// Mounts a file system.
///
/// # Errors
/// As `mount(2)`.
pub fn mount(
    source: &Path,
    target: &Path,
    fs_type: &CStr,
    flags: MountFlags,
    data: &CStr,
) -> io::Result<()> {
    let source = c_path(source)?;
    let target = c_path(target)?;
    // SAFETY: all strings are NUL-terminated and outlive the call.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            fs_type.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
    .map(drop)
}

/// Takes a mount out of the tree; what is in use of it stays until it is not.
///
/// # Errors
/// As `umount2(2)`.
pub fn unmount(target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: the path is NUL-terminated and outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

// `linux/mount.h`.
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;

fn syscall_fd(ret: libc::c_long) -> io::Result<OwnedFd> {
    RawFd::try_from(ret)
        .map_err(|_| io::Error::from_raw_os_error(libc::EBADF))
        .and_then(check)
        .map(own)
}

/// A file system being configured (`fsopen(2)`).
struct FsContext(OwnedFd);

impl FsContext {
    fn open(fs_type: &CStr) -> io::Result<Self> {
        // SAFETY: a NUL-terminated name and flags.
        syscall_fd(unsafe { libc::syscall(libc::SYS_fsopen, fs_type.as_ptr(), FSOPEN_CLOEXEC) })
            .map(Self)
    }

    fn config(
        &self,
        command: libc::c_uint,
        key: Option<&CStr>,
        value: Option<&CStr>,
    ) -> io::Result<()> {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: key and value are null or NUL-terminated, as the command wants.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                command,
                pointer(key),
                pointer(value),
                0,
            )
        };
        if ret < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn mount(&self) -> io::Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, None, None)?;
        // SAFETY: a descriptor and two flag words.
        syscall_fd(unsafe {
            libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, 0)
        })
    }

    fn set(&self, key: &CStr, value: &CStr) -> io::Result<()> {
        self.config(FSCONFIG_SET_STRING, Some(key), Some(value))
    }
}

/// Mounts a file system nowhere: only who has the descriptor gets there.
///
/// # Errors
/// As the mount calls.
pub fn mount_detached(fs_type: &CStr, flag: &CStr) -> io::Result<OwnedFd> {
    let context = FsContext::open(fs_type)?;
    context.set(c"source", fs_type)?;
    context.config(FSCONFIG_SET_FLAG, Some(flag), None)?;
    context.mount()
}

/// Mounts an overlay. `lower` is ordered top first. Each layer is its own
/// option, so their number is bounded by the kernel (500) and not by the page
/// that `mount(2)` copies. `volatile` skips syncs that a memory-backed upper
/// directory does not need.
///
/// # Errors
/// As the mount calls.
pub fn mount_overlay(
    lower: &[CString],
    upper: &CStr,
    work: &CStr,
    volatile: bool,
    target: &CStr,
) -> io::Result<()> {
    let context = FsContext::open(c"overlay")?;
    context.set(c"source", c"overlay")?;
    for layer in lower {
        context.set(c"lowerdir+", layer)?;
    }
    context.set(c"upperdir", upper)?;
    context.set(c"workdir", work)?;
    if volatile {
        context.config(FSCONFIG_SET_FLAG, Some(c"volatile"), None)?;
    }
    let mounted = context.mount()?;
    // SAFETY: descriptors, NUL-terminated paths and a flag word.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mounted.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

// `linux/fs.h`: _IOWR('X', 119, int).
const FIFREEZE: u32 = 0xc004_5877;
// `linux/ext4.h`: _IOW('f', 16, __u64).
const EXT4_IOC_RESIZE_FS: u32 = 0x4008_6610;

/// Freezes the file system that `directory` is in: it is written out, and takes no more.
///
/// # Errors
/// As the ioctl.
pub fn freeze(directory: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call, and the argument is not used.
    check(unsafe { libc::ioctl(directory.as_raw_fd(), FIFREEZE as _, 0) }).map(drop)
}

/// Grows the ext4 file system that `directory` is in to so many blocks.
///
/// # Errors
/// As the ioctl.
pub fn resize(directory: &File, blocks: u64) -> io::Result<()> {
    // SAFETY: the descriptor is open and the number alive for the call, which reads it.
    check(unsafe {
        libc::ioctl(
            directory.as_raw_fd(),
            EXT4_IOC_RESIZE_FS as _,
            &raw const blocks,
        )
    })
    .map(drop)
}

/// Makes the mount at `root` the root of this process and what it starts. The
/// initramfs cannot be unmounted, so it is covered instead.
///
/// # Errors
/// As the calls involved.
pub fn move_root(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    mount(Path::new("."), Path::new("/"), c"", libc::MS_MOVE, c"")?;
    std::os::unix::fs::chroot(".")?;
    std::env::set_current_dir("/")
}

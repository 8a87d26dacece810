//! Splitting the process: both halves have all of guest memory, shared until
//! one writes to it.

use std::io;
use std::os::fd::BorrowedFd;

/// Forks; whether this is the child, which has the calling thread and no other.
/// It must end with [`end`], and before it does anything else must [`leave_parent`].
#[cfg(target_os = "linux")]
pub(crate) fn split() -> io::Result<bool> {
    // SAFETY: a handler of the system's own; children that end leave nothing
    // behind that somebody would have to collect.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    // SAFETY: the C library keeps its allocator usable in the child. The
    // child uses no lock of ours that another thread could hold: see
    // `RunningMachine::fork`, the only caller, where all others are at rest.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(child == 0),
    }
}

/// Not where the engine cannot do it either.
#[cfg(not(target_os = "linux"))]
pub(crate) fn split() -> io::Result<bool> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Forgets the windows onto files, which the child of a process does not have.
pub(crate) fn leave_windows() {
    #[cfg(target_os = "linux")]
    super::lost::forget();
}

/// Closes everything the parent had open, but not standard error and what is in
/// `keep`, and puts nothing in the place of standard input and output: the parent's
/// connections end with the parent, not with its children.
#[cfg(target_os = "linux")]
pub(crate) fn leave_parent(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    let fd = null.as_raw_fd();
    for standard in [0, 1] {
        // SAFETY: both are open descriptors, and nobody here uses what the
        // second was before.
        if unsafe { libc::dup2(fd, standard) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    std::mem::forget(null);
    let mut kept: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok())
        .collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.into_iter().filter(|fd| *fd >= 3) {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd.saturating_add(1);
    }
    close_range(first, u32::MAX)
}

/// Closes the descriptors from `first` to `last`.
#[cfg(target_os = "linux")]
fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: what these descriptors belonged to is never used or dropped in
    // this process, which ends without running destructors.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Not where [`split`] is not.
#[cfg(not(target_os = "linux"))]
pub(crate) fn leave_parent(_keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Ends a child without running anything of its parent.
pub(crate) fn end(status: u8) -> ! {
    // SAFETY: it does not return, and has no precondition.
    unsafe { libc::_exit(status.into()) }
}

/// Closes every descriptor but the standard three, for a process that has just
/// begun and that is to have nothing of what its parent had open. To be called
/// first in `main`: if there is a second thread, nothing is closed, since it may
/// have opened something.
#[cfg(target_os = "linux")]
pub fn close_inherited_descriptors() {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
    if matches!(threads, Ok(1)) {
        // SAFETY: the only thread of the process is here and has opened nothing
        // yet, so that no descriptor above the standard ones has an owner.
        unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    }
}

/// The system has no such call: descriptors that the parent left open stay so.
#[cfg(not(target_os = "linux"))]
pub fn close_inherited_descriptors() {}

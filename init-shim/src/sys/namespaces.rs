//! Namespaces in which the commands of one control group run.

use std::ffi::{CStr, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::child::{self, errno};
use super::descriptors::own;

/// A control group namespace whose root is one group, and a mount namespace in
/// which the control groups are seen from there. All other mounts are the
/// machine's, and new ones appear everywhere as long as they are shared.
#[derive(Debug)]
pub struct Namespaces {
    groups: OwnedFd,
    mounts: Option<OwnedFd>,
}

/// What the child reads and writes, in memory it shares with its suspended
/// parent.
struct Shared {
    place: &'static CStr,
    /// Descriptors of the two namespaces, in the table that both share; the
    /// second is negative if there is none.
    result: Result<[RawFd; 2], i32>,
}

impl Namespaces {
    /// Makes both for the group `cgroup`, with the group mounted at `place`.
    /// If nothing can be mounted there, because root in a guest has taken the
    /// directory away, its commands see what is there; they are confined all
    /// the same.
    ///
    /// # Errors
    /// As the calls involved.
    pub fn of_group(cgroup: BorrowedFd<'_>, place: &'static CStr) -> io::Result<Self> {
        let mut shared = Shared {
            place,
            result: Err(libc::EIO),
        };
        let options = child::Options {
            flags: libc::CLONE_FILES,
            cgroup: Some(cgroup),
            pidfd: None,
        };
        // SAFETY: `child_main` takes a `Shared` and keeps to system calls.
        let pid = unsafe { child::start(options, child_main, &mut shared) };
        let pid = pid.map_err(io::Error::from_raw_os_error)?;
        // SAFETY: waiting for our own child; the status is not wanted.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        // SAFETY: the child wrote through a pointer the compiler may not see; a
        // volatile read of a live local takes what is there.
        match unsafe { std::ptr::read_volatile(&raw const shared.result) } {
            Ok([groups, mounts]) => Ok(Self {
                groups: own(groups),
                mounts: (mounts >= 0).then(|| own(mounts)),
            }),
            Err(error) => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Numbers of the descriptors, for a child between clone and exec, with
    /// what `setns(2)` calls their kinds.
    pub(super) fn descriptors(&self) -> [Option<(RawFd, libc::c_int)>; 2] {
        let mounts = self.mounts.as_ref();
        [
            Some((self.groups.as_raw_fd(), libc::CLONE_NEWCGROUP)),
            mounts.map(|mounts| (mounts.as_raw_fd(), libc::CLONE_NEWNS)),
        ]
    }
}

/// # Safety
/// To be entered only by [`Namespaces::of_group`] with a pointer to its `Shared`.
unsafe extern "C" fn child_main(argument: *mut c_void) -> ! {
    // SAFETY: `of_group` passes its live `Shared` and is suspended meanwhile.
    let shared = unsafe { &mut *argument.cast::<Shared>() };
    // SAFETY: we are the child.
    shared.result = unsafe { make(shared.place) };
    // SAFETY: ends this process only; no exit handlers run.
    unsafe { libc::_exit(0) }
}

/// # Safety
/// Only in the child of [`Namespaces::of_group`]; allocates nothing.
unsafe fn make(place: &CStr) -> Result<[RawFd; 2], i32> {
    // SAFETY: plain system calls with valid arguments.
    unsafe {
        if libc::unshare(libc::CLONE_NEWCGROUP) < 0 {
            return Err(errno());
        }
        let groups = own_namespace(PIDFD_GET_CGROUP_NAMESPACE)?;
        // As a failure of the first would be one of confinement, and this is not.
        let mounts = show_group(place).and_then(|()| own_namespace(PIDFD_GET_MNT_NAMESPACE));
        Ok([groups, mounts.unwrap_or(-1)])
    }
}

/// Mounts the control groups, as the calling process sees them, at `place` of a
/// mount namespace of its own.
///
/// # Safety
/// As [`make`].
unsafe fn show_group(place: &CStr) -> Result<(), i32> {
    let none = std::ptr::null();
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: plain system calls; all strings are NUL-terminated or null.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) < 0 {
            return Err(errno());
        }
        // What is mounted on a mount that is private here stays in here.
        let private =
            || libc::mount(none, place.as_ptr(), none, libc::MS_PRIVATE, none.cast()) == 0;
        if !private() {
            // The mount there is gone: another one, which all others see.
            let flags = libc::MS_BIND;
            libc::mount(place.as_ptr(), place.as_ptr(), none, flags, none.cast());
            if !private() {
                return Err(errno());
            }
        }
        let kind = c"cgroup2".as_ptr();
        if libc::mount(kind, place.as_ptr(), kind, flags, none.cast()) < 0 {
            return Err(errno());
        }
    }
    Ok(())
}

/// `linux/pidfd.h`, since Linux 6.11; needs no `/proc`, which root in a guest
/// may have taken away.
const PIDFD_GET_CGROUP_NAMESPACE: libc::c_int = 0xff01;
const PIDFD_GET_MNT_NAMESPACE: libc::c_int = 0xff03;

/// Opens a namespace of the calling process.
///
/// # Safety
/// As [`make`].
unsafe fn own_namespace(kind: libc::c_int) -> Result<RawFd, i32> {
    // SAFETY: plain system calls; the path is NUL-terminated.
    let namespace = unsafe {
        let own = libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0);
        let own = RawFd::try_from(own).unwrap_or(-1);
        let namespace = libc::ioctl(own, kind as _, 0);
        libc::close(own);
        if namespace < 0 {
            let path = if kind == PIDFD_GET_MNT_NAMESPACE {
                c"/proc/self/ns/mnt"
            } else {
                c"/proc/self/ns/cgroup"
            };
            libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC)
        } else {
            namespace
        }
    };
    if namespace < 0 {
        return Err(errno());
    }
    Ok(namespace)
}

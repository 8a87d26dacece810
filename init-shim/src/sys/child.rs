//! Children that run in the memory of their suspended parent until they execute
//! a program or end: much cheaper than a fork.

use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::clone::clone3;

/// `linux/sched.h`; libc has them as c_int, in which the values do not fit.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Bytes of stack for a child: it calls a dozen thin system call wrappers.
const STACK_BYTES: usize = 32 * 1024;

#[repr(align(16))]
struct Stack {
    _bytes: [u8; STACK_BYTES],
}

/// What a child is started with beside its work.
#[derive(Default)]
pub(super) struct Options<'a> {
    /// Further flags of `clone(2)`.
    pub(super) flags: libc::c_int,
    /// Directory of the control group it begins in.
    pub(super) cgroup: Option<BorrowedFd<'a>>,
    /// Becomes a descriptor that is readable when it ends.
    pub(super) pidfd: Option<&'a mut RawFd>,
}

/// Starts a child that runs `main(shared)`, with all signal handlers reset, and
/// returns its process id once it has executed a program or ended; an errno if
/// there is no child.
///
/// # Safety
/// `main` must take its argument for a `T`, allocate nothing, keep to system
/// calls and leave alone what other threads may hold. What it writes to `shared`
/// is to be read by `read_volatile`.
pub(super) unsafe fn start<T>(
    options: Options<'_>,
    main: unsafe extern "C" fn(*mut c_void) -> !,
    shared: &mut T,
) -> Result<i32, i32> {
    // The buffer is not initialised: its pages should fault in only where used.
    let mut stack = Box::<Stack>::new_uninit();
    let mut flags = options.flags | libc::CLONE_VM | libc::CLONE_VFORK;
    if options.pidfd.is_some() {
        flags |= libc::CLONE_PIDFD;
    }
    // SAFETY: clone_args is plain data for which zeroes are valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(flags.unsigned_abs()) | CLONE_CLEAR_SIGHAND;
    if let Some(cgroup) = options.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    args.pidfd = options.pidfd.map_or(0, |pidfd| (&raw mut *pidfd) as u64);
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    args.stack = stack.as_mut_ptr() as u64;
    args.stack_size = STACK_BYTES as u64;
    // SAFETY: `args` is complete, its stack is ours and 16-byte aligned, CLONE_VM
    // comes with CLONE_VFORK, so `shared` and `stack` outlive the child's use of
    // them, and the caller vouches for `main`.
    let pid = unsafe {
        clone3(
            &raw const args,
            size_of::<libc::clone_args>(),
            main,
            (&raw mut *shared).cast(),
        )
    };
    match i32::try_from(pid) {
        Ok(pid) if pid >= 0 => Ok(pid),
        Ok(error) => Err(-error),
        Err(_) => Err(libc::EOVERFLOW),
    }
}

/// The error of the last call, in a child.
pub(super) fn errno() -> i32 {
    // SAFETY: the location is valid; its thread (the suspended parent) does not use it now.
    unsafe { *libc::__errno_location() }
}

//! Starting, signalling and waiting for processes.

use std::ffi::{CString, c_char, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::child::{self, errno};
use super::descriptors::own;
use super::namespaces::Namespaces;

/// Identity of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// Everything a child needs, prepared before it exists, because between clone
/// and exec it must not allocate.
#[derive(Debug)]
pub struct Plan {
    /// Paths to try in order, as for a `PATH` search.
    pub programs: Vec<CString>,
    /// Arguments.
    pub argv: Vec<CString>,
    /// Environment.
    pub env: Vec<CString>,
    /// Directory to enter; `None` stays in the agent's, `/`.
    pub cwd: Option<CString>,
    /// Identity to take on.
    pub credentials: Credentials,
    /// An open program to execute instead of `programs`.
    pub executable: Option<RawFd>,
}

/// Which step of a child's start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Creating the process.
    Clone,
    /// Session, terminal and descriptors.
    Setup,
    /// Changing user or groups.
    Identity,
    /// Entering the working directory.
    Cwd,
    /// Executing the program.
    Exec,
}

/// A child that did not come to run its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpawnError {
    /// Step that failed.
    pub stage: Stage,
    /// Why.
    pub errno: i32,
}

/// Where a command runs: the directory of its control group, and namespaces of
/// that group, if there are some.
#[derive(Debug, Clone, Copy)]
pub struct Confinement<'a> {
    /// For `CLONE_INTO_CGROUP`.
    pub directory: BorrowedFd<'a>,
    /// Entered before the program is executed.
    pub namespaces: Option<&'a Namespaces>,
}

/// What the child reads and, on failure, writes, in memory it shares with its
/// suspended parent.
struct Shared<'a> {
    plan: &'a Plan,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    stdio: [RawFd; 3],
    tty: bool,
    namespaces: [Option<(RawFd, libc::c_int)>; 2],
    failure: Option<SpawnError>,
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// Starts a process in its own session, confined to `place` if one is given. `stdio`
/// are its descriptors 0, 1 and 2; with `tty` the first is its controlling
/// terminal. Returns process id and a descriptor that becomes readable when it
/// ends. The caller's memory is shared, not copied, until the program is
/// executed, which makes this much cheaper than a fork.
///
/// # Errors
/// The step that failed; no process is left behind.
pub fn spawn(
    plan: &Plan,
    stdio: [BorrowedFd<'_>; 3],
    tty: bool,
    place: Option<Confinement<'_>>,
) -> Result<(i32, OwnedFd), SpawnError> {
    let mut shared = Shared {
        plan,
        argv: pointers(&plan.argv),
        env: pointers(&plan.env),
        stdio: stdio.map(|fd| fd.as_raw_fd()),
        tty,
        namespaces: place
            .and_then(|place| place.namespaces)
            .map_or([None; 2], Namespaces::descriptors),
        failure: None,
    };
    let mut pidfd = -1;
    let options = child::Options {
        cgroup: place.map(|place| place.directory),
        pidfd: Some(&mut pidfd),
        ..child::Options::default()
    };
    // SAFETY: `child_main` takes a `Shared` and keeps to system calls.
    let pid = unsafe { child::start(options, child_main, &mut shared) };
    let pid = pid.map_err(|errno| SpawnError {
        stage: Stage::Clone,
        errno,
    })?;
    let pidfd = own(pidfd);
    // SAFETY: the child wrote through a pointer the compiler may not see; a
    // volatile read of a live local takes what is there.
    match unsafe { std::ptr::read_volatile(&raw const shared.failure) } {
        None => Ok((pid, pidfd)),
        Some(failure) => {
            // SAFETY: waiting for our own child; the status is not wanted.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            Err(failure)
        }
    }
}

/// The child's life between clone and exec.
///
/// # Safety
/// To be entered only by [`spawn`] with a pointer to its `Shared`.
unsafe extern "C" fn child_main(argument: *mut c_void) -> ! {
    // SAFETY: `spawn` passes its live `Shared` and is suspended meanwhile.
    let shared = unsafe { &mut *argument.cast::<Shared<'_>>() };
    // SAFETY: we are the child.
    let failure = unsafe { start(shared) };
    shared.failure = Some(failure);
    // SAFETY: ends this process only; no exit handlers run.
    unsafe { libc::_exit(127) }
}

/// Sets the child up and executes the program; returns only on failure.
///
/// # Safety
/// Only in a child of [`spawn`]. Identity changes use raw system calls because
/// the C library's would reach for the parent's other threads.
unsafe fn start(shared: &Shared<'_>) -> SpawnError {
    let fail = |stage| SpawnError {
        stage,
        errno: errno(),
    };
    let plan = shared.plan;
    // SAFETY: plain system calls with valid arguments: all strings and arrays
    // are NUL- or null-terminated and alive in the suspended parent.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        if libc::setsid() < 0 {
            return fail(Stage::Setup);
        }
        let [stdin, stdout, stderr] = shared.stdio;
        if shared.tty && libc::ioctl(stdin, libc::TIOCSCTTY as _, 0) < 0 {
            return fail(Stage::Setup);
        }
        for (from, to) in [(stdin, 0), (stdout, 1), (stderr, 2)] {
            if libc::dup2(from, to) < 0 {
                return fail(Stage::Setup);
            }
        }
        // Before the directory is entered: a mount namespace begins at its root.
        for (namespace, kind) in shared.namespaces.into_iter().flatten() {
            if libc::setns(namespace, kind) < 0 {
                return fail(Stage::Setup);
            }
        }
        // As root, like container runtimes: the directory may be closed to the user.
        if let Some(cwd) = &plan.cwd
            && libc::chdir(cwd.as_ptr()) < 0
        {
            return fail(Stage::Cwd);
        }
        let Credentials { uid, gid, groups } = &plan.credentials;
        if *uid != 0 || *gid != 0 || !groups.is_empty() {
            let groups_set = libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr());
            if groups_set < 0
                || libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid) < 0
                || libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid) < 0
            {
                return fail(Stage::Identity);
            }
        }
    }
    if let Some(executable) = plan.executable {
        // SAFETY: as above; the path is empty, so the descriptor is what counts.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                executable,
                c"".as_ptr(),
                shared.argv.as_ptr(),
                shared.env.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        return fail(Stage::Exec);
    }
    let mut denied = None;
    let mut last = libc::ENOENT;
    for program in &plan.programs {
        // SAFETY: as above.
        unsafe { libc::execve(program.as_ptr(), shared.argv.as_ptr(), shared.env.as_ptr()) };
        last = errno();
        match last {
            libc::EACCES => denied = Some(last),
            libc::ENOENT | libc::ENOTDIR => {}
            _ => break,
        }
    }
    let errno = match last {
        libc::ENOENT | libc::ENOTDIR => denied.unwrap_or(last),
        other => other,
    };
    SpawnError {
        stage: Stage::Exec,
        errno,
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With this exit status.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

/// An ended process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited {
    /// How it ended.
    pub outcome: Outcome,
    /// Largest resident set of it or of a descendant it waited for, in KiB.
    pub peak_rss_kib: u64,
}

/// Collects a child if it has ended.
///
/// # Errors
/// As `wait4(2)`.
pub fn wait_nonblocking(pid: i32) -> io::Result<Option<Waited>> {
    let mut status = 0;
    // SAFETY: rusage is plain data for which zeroes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both results have room.
    match unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) } {
        0 => Ok(None),
        ret if ret < 0 => Err(io::Error::last_os_error()),
        _ => {
            let outcome = if libc::WIFSIGNALED(status) {
                Outcome::Signal(u8::try_from(libc::WTERMSIG(status)).unwrap_or(u8::MAX))
            } else {
                Outcome::Code(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
            };
            Ok(Some(Waited {
                outcome,
                peak_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
            }))
        }
    }
}

/// Collects one ended child of the calling thread, that is, for the main
/// thread of PID 1, one orphan. Children of other threads are left to them.
/// False when there is none.
#[must_use]
pub fn reap_orphan() -> bool {
    let options = libc::WNOHANG | libc::__WNOTHREAD;
    // SAFETY: status and usage are not wanted.
    unsafe { libc::wait4(-1, std::ptr::null_mut(), options, std::ptr::null_mut()) > 0 }
}

/// Signals the process group led by `leader`, a child not yet waited for.
pub fn kill_group(leader: i32, signal: i32) {
    if leader > 1 {
        // SAFETY: no pointers. A group that is gone is the only error.
        unsafe { libc::kill(-leader, signal) };
    }
}

/// Signals one process.
pub fn kill_process(pid: i32, signal: i32) {
    if pid > 1 {
        // SAFETY: no pointers. A process that is gone is the only error.
        unsafe { libc::kill(pid, signal) };
    }
}

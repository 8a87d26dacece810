//! Reading, writing, waiting, pipes and terminals.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{check, check_len};

pub use libc::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP};

/// One descriptor to wait for.
pub type Watch = libc::pollfd;

/// Waits until a descriptor is ready; `None` waits without limit. An
/// interrupted wait counts as nothing ready.
///
/// # Errors
/// As `poll(2)`.
pub fn poll(watches: &mut [Watch], timeout: Option<Duration>) -> io::Result<usize> {
    let limit = timeout.map(|t| libc::timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the slice is valid for its length, `limit` is null or points to a
    // live timespec, and no signal mask is given.
    let ret = unsafe {
        libc::ppoll(
            watches.as_mut_ptr(),
            watches.len() as libc::nfds_t,
            limit,
            std::ptr::null(),
        )
    };
    match check(ret) {
        Ok(ready) => Ok(usize::try_from(ready).unwrap_or(0)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            for watch in watches {
                watch.revents = 0;
            }
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

/// Reads once.
///
/// # Errors
/// As `read(2)`.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for writes of its length.
    check_len(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// Writes once.
///
/// # Errors
/// As `write(2)`.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for reads of its length.
    check_len(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

/// Opens relative to a directory, close-on-exec.
///
/// # Errors
/// As `openat(2)`.
pub fn open_at(dir: BorrowedFd<'_>, path: &CStr, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: the path is NUL-terminated; the result is checked before it is owned.
    let fd = check(unsafe {
        libc::openat(
            dir.as_raw_fd(),
            path.as_ptr(),
            flags | libc::O_CLOEXEC | libc::O_NOCTTY,
            0,
        )
    })?;
    Ok(own(fd))
}

/// Makes a directory relative to another.
///
/// # Errors
/// As `mkdirat(2)`.
pub fn make_dir_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: the name is NUL-terminated.
    check(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), 0o755) }).map(drop)
}

/// Removes a directory relative to another.
///
/// # Errors
/// As `unlinkat(2)`.
pub fn remove_dir_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: the name is NUL-terminated.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) }).map(drop)
}

/// Takes ownership of a descriptor that a system call just returned.
pub(super) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: every caller passes a non-negative descriptor fresh from the
    // kernel that nothing else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A pipe, reading end first, both close-on-exec and blocking.
///
/// # Errors
/// As `pipe2(2)`.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the array has room for the two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let [reader, writer] = fds;
    Ok((own(reader), own(writer)))
}

/// A counter to wake a thread by: eight bytes written add to it, and it is readable
/// until they are read. Close-on-exec, and does not block.
///
/// # Errors
/// As `eventfd(2)`.
pub fn event_counter() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    Ok(own(fd))
}

/// Makes reads and writes of this open file return instead of waiting.
///
/// # Errors
/// As `fcntl(2)`.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_SETFL takes an integer; our pipes and terminals have no other
    // status flag that this could clear.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

/// Bytes that can be read from a pipe or terminal without waiting.
#[must_use]
pub fn pending_bytes(fd: BorrowedFd<'_>) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD stores one int.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD as _, &raw mut count) };
    if ret < 0 {
        return 0;
    }
    usize::try_from(count).unwrap_or(0)
}

/// A pseudo-terminal.
#[derive(Debug)]
pub struct Pty {
    /// The agent's side.
    pub master: OwnedFd,
    /// The command's side.
    pub slave: OwnedFd,
}

/// `TIOCGPTPEER` (`asm-generic/ioctls.h`): opens the other side of a master
/// without a path.
const TIOCGPTPEER: libc::c_int = 0x5441;

impl Pty {
    /// Allocates a terminal of the given size. `ptmx` is a directory and a name
    /// in it, so that a guest which rearranges `/dev` keeps its terminals.
    ///
    /// # Errors
    /// As the underlying calls; without a devpts there are no terminals.
    pub fn open(ptmx: (BorrowedFd<'_>, &CStr), cols: u16, rows: u16) -> io::Result<Self> {
        let master = open_at(ptmx.0, ptmx.1, libc::O_RDWR)?;
        let unlocked: libc::c_int = 0;
        // SAFETY: TIOCSPTLCK reads one int.
        check(unsafe {
            libc::ioctl(
                master.as_raw_fd(),
                libc::TIOCSPTLCK as _,
                &raw const unlocked,
            )
        })?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor.
        let slave = check(unsafe { libc::ioctl(master.as_raw_fd(), TIOCGPTPEER as _, flags) })?;
        let slave = own(slave);
        let pty = Self { master, slave };
        set_winsize(std::os::fd::AsFd::as_fd(&pty.master), cols, rows)?;
        Ok(pty)
    }
}

/// Sets a terminal's size; its foreground processes get `SIGWINCH`.
///
/// # Errors
/// As `ioctl(2)`.
pub fn set_winsize(master: BorrowedFd<'_>, cols: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) })
        .map(drop)
}

/// Opens `/dev/null` on 0, 1 and 2 as far as they are closed, so that no pipe
/// of a command ever gets one of these numbers.
///
/// # Errors
/// As `open(2)`.
pub fn fill_standard_descriptors() -> io::Result<()> {
    loop {
        // SAFETY: a constant, NUL-terminated path.
        let fd = check(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) })?;
        if fd > 2 {
            // SAFETY: just opened and owned by nobody else.
            unsafe { libc::close(fd) };
            return Ok(());
        }
    }
}

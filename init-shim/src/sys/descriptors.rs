//! Reading, writing, waiting, pipes and terminals.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
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

/// Most pieces of one [`read_pieces`].
const MAX_PIECES: usize = 5;

/// Reads at most `most` bytes once, onto the end of `buffer`, in pieces of `piece` bytes
/// with `gap` zeroes in front of each, and gives how many bytes were read.
///
/// # Errors
/// As `readv(2)`.
pub fn read_pieces(
    fd: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    (gap, piece): (usize, usize),
    most: usize,
) -> io::Result<usize> {
    let pieces = most.div_ceil(piece).clamp(1, MAX_PIECES);
    buffer.reserve(pieces * (gap + piece));
    let mut parts = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; MAX_PIECES];
    let mut left = most;
    let room = buffer.spare_capacity_mut().chunks_exact_mut(gap + piece);
    for (part, place) in parts.iter_mut().take(pieces).zip(room) {
        let (front, data) = place.split_at_mut(gap);
        front.fill(MaybeUninit::new(0));
        part.iov_base = data.as_mut_ptr().cast();
        part.iov_len = data.len().min(left);
        left -= part.iov_len;
    }
    let count = libc::c_int::try_from(pieces).unwrap_or_default();
    // SAFETY: each part is valid for writes of its length.
    let got = check_len(unsafe { libc::readv(fd.as_raw_fd(), parts.as_ptr(), count) })?;
    let begun = got.div_ceil(piece).min(pieces);
    let len = buffer.len() + begun * gap + got.min(pieces * piece);
    // SAFETY: the fronts of all pieces were filled, the kernel wrote `got` bytes behind
    // them in turn, and there is room for all pieces.
    unsafe { buffer.set_len(len) };
    Ok(got)
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

/// Gives a pipe room for `bytes`. One that the kernel does not let grow stays as it is.
pub fn grow_pipe(pipe: BorrowedFd<'_>, bytes: libc::c_int) {
    // SAFETY: F_SETPIPE_SZ takes an integer.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) };
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn pieces_have_gaps_in_front_and_the_last_is_as_long_as_what_came() {
        let (from, to) = pipe().unwrap();
        assert_eq!(write(to.as_fd(), b"abcdefgh").unwrap(), 8);
        let mut bytes = b"before".to_vec();
        let got = read_pieces(from.as_fd(), &mut bytes, (2, 3), usize::MAX).unwrap();
        assert_eq!(
            (got, bytes.as_slice()),
            (8, &b"before\0\0abc\0\0def\0\0gh"[..])
        );
    }

    #[test]
    fn no_more_is_read_than_was_asked_for_or_has_room_in_a_call() {
        let (from, to) = pipe().unwrap();
        assert_eq!(write(to.as_fd(), &[b'x'; 100]).unwrap(), 100);
        let mut bytes = Vec::new();
        let got = read_pieces(from.as_fd(), &mut bytes, (1, 4), 6).unwrap();
        assert_eq!((got, bytes.as_slice()), (6, &b"\0xxxx\0xx"[..]));
        let got = read_pieces(from.as_fd(), &mut bytes, (1, 4), usize::MAX).unwrap();
        assert_eq!((got, bytes.len()), (4 * MAX_PIECES, 8 + 5 * MAX_PIECES));
        drop(to);
        let got = read_pieces(from.as_fd(), &mut bytes, (1, 80), usize::MAX).unwrap();
        assert_eq!(got, 100 - 6 - 4 * MAX_PIECES);
        let before = bytes.len();
        let end = read_pieces(from.as_fd(), &mut bytes, (1, 80), usize::MAX).unwrap();
        assert_eq!((end, bytes.len()), (0, before), "the end");
    }
}

//! Executable memory, which this process has no writable address of.
//!
//! A region is an anonymous file: code is written to it through its descriptor
//! and executed where it is mapped, to be read and executed only. Once full it is
//! sealed, and then nobody can write to it any more. Code that is there is never
//! changed, so a forked process may go on executing what its parent had compiled,
//! while the parent appends to the same region.
//!
//! Before and behind it are pages that nobody may touch: what runs over the end of
//! something else does not run into code, nor code into something else.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

/// From Linux 6.3: the file may be executed. Older kernels refuse it, and need
/// not be asked.
const MFD_EXEC: libc::c_uint = 0x10;

/// Bytes before and behind a region that are not accessible; a multiple of the
/// host's pages.
const GUARD_BYTES: usize = 4096;

/// Memory for code of one vCPU.
#[derive(Debug)]
pub struct Region {
    base: usize,
    bytes: usize,
    used: usize,
    /// Gone when nothing more is to be written.
    file: Option<File>,
}

impl Region {
    /// An empty region of `bytes`, a multiple of the host's pages.
    ///
    /// # Errors
    /// The host's, where it lets this process have no such memory.
    pub fn new(bytes: usize) -> io::Result<Self> {
        if !may_have_files_of(bytes) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let file = anonymous_file()?;
        file.set_len(bytes as u64)?;
        let whole = bytes + 2 * GUARD_BYTES;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let whole =
            unsafe { libc::mmap(std::ptr::null_mut(), whole, libc::PROT_NONE, kind, -1, 0) };
        if whole == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // From here on it is given back when dropped.
        let region = Self {
            base: whole.expose_provenance() + GUARD_BYTES,
            bytes,
            used: 0,
            file: Some(file),
        };
        let descriptor = region.file.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        let kind = libc::MAP_PRIVATE | libc::MAP_FIXED;
        // SAFETY: in place of a part of the mapping made just now.
        let base = unsafe {
            let base = whole.byte_add(GUARD_BYTES);
            libc::mmap(base, bytes, protection, kind, descriptor, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(region)
    }

    /// Bytes of code.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Address that the next code will have.
    pub fn next(&self) -> usize {
        self.base + self.used
    }

    /// Whether `bytes` more can be written.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.file.is_some() && self.bytes - self.used >= bytes
    }

    /// Whether `address` is in here.
    pub fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.base) < self.bytes
    }

    /// Puts `code` at [`Region::next`].
    ///
    /// # Errors
    /// The host's, if it has no memory; or there is no room.
    pub fn append(&mut self, code: &[u8]) -> io::Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| self.has_room(code.len())) else {
            return Err(io::ErrorKind::StorageFull.into());
        };
        file.write_all_at(code, self.used as u64)?;
        self.used += code.len();
        Ok(())
    }

    /// Lets nobody write any more.
    pub fn seal(&mut self) {
        if let Some(file) = self.file.take() {
            // What is not sealed is as good, as long as nobody opens it again.
            // SAFETY: seals a file of this process.
            let _any =
                unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE) };
        }
    }

    /// Appends no more, but leaves the file as it is: its other owner, the
    /// process this one was forked from, may go on.
    pub fn leave(&mut self) {
        self.file = None;
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let address = std::ptr::with_exposed_provenance_mut(self.base - GUARD_BYTES);
        // SAFETY: mapped by `new` with this length. Nobody executes it: its owner
        // has forgotten every op that leads there.
        unsafe { libc::munmap(address, self.bytes + 2 * GUARD_BYTES) };
    }
}

/// Whether this process may write files of `bytes`. Who writes more than it may is
/// not refused but gets a signal, which ends the process.
fn may_have_files_of(bytes: usize) -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a place for the result.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) } == 0;
    !known || limit.rlim_cur == libc::RLIM_INFINITY || limit.rlim_cur >= bytes as u64
}

fn anonymous_file() -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let make = |flags| {
        // SAFETY: the name is a C string.
        let descriptor = unsafe { libc::memfd_create(c"softhv-code".as_ptr(), flags) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else's.
        Ok(unsafe { File::from_raw_fd(descriptor) })
    };
    match make(flags | MFD_EXEC) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => make(flags),
        made => made,
    }
}

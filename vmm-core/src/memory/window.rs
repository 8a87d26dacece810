//! Host addresses under a window of the guest's, where pieces of files are mapped.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use devices::virtio::fs::{PIECE_BYTES, PieceAccess};
use vm_memory::VolatileSlice;

use super::lease::{LeaseKind, MemoryLease};
use super::lost::{PIECE, Watch};

/// As many host addresses as a window has, without memory but where a file is.
#[derive(Debug)]
pub(crate) struct WindowSpace {
    /// First, so that the handler of bus errors no longer knows addresses that go.
    watch: Watch,
    range: Reserved,
    ipa: u64,
}

/// Addresses that nothing else in the process gets.
#[derive(Debug)]
struct Reserved {
    address: NonNull<u8>,
    bytes: usize,
    /// Of the whole range, which a boundary of pieces was looked for in.
    outer: (NonNull<u8>, usize),
}

// SAFETY: the addresses are only numbers here; what is behind them is reached by vCPUs
// alone, by atomic and volatile accesses.
unsafe impl Send for Reserved {}
// SAFETY: as above; nothing here changes through a shared reference.
unsafe impl Sync for Reserved {}

const NOWHERE: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;

impl Reserved {
    fn new(bytes: usize) -> io::Result<Self> {
        let length = bytes.checked_add(PIECE).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: new addresses, which the system chooses.
        let outer = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_NONE,
                NOWHERE,
                -1,
                0,
            )
        };
        let outer = match outer {
            libc::MAP_FAILED => return Err(io::Error::last_os_error()),
            outer => NonNull::new(outer.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?,
        };
        let skip = outer.addr().get().next_multiple_of(PIECE) - outer.addr().get();
        // SAFETY: less than a piece, by which the range is longer.
        let address = unsafe { outer.add(skip) };
        let range = Self {
            address,
            bytes,
            outer: (outer, length),
        };
        not_for_children(outer.as_ptr().cast(), length);
        Ok(range)
    }
}

/// Keeps a range out of processes that are forked from this one: they make their
/// windows anew.
fn not_for_children(address: *mut libc::c_void, bytes: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: it changes nothing here. Where it is refused, children have more mapped.
    unsafe {
        libc::madvise(address, bytes, libc::MADV_DONTFORK);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (address, bytes);
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let (outer, length) = self.outer;
        // SAFETY: the range is this one's, and nobody has a lease of it any more.
        unsafe { libc::munmap(outer.as_ptr().cast(), length) };
    }
}

impl WindowSpace {
    /// Addresses for a window of `bytes`, whole pieces, at guest address `ipa`.
    pub(crate) fn reserve(ipa: u64, bytes: u64) -> io::Result<Arc<Self>> {
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        if bytes == 0 || !bytes.is_multiple_of(PIECE) || ipa.checked_add(bytes as u64).is_none() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let range = Reserved::new(bytes)?;
        Ok(Arc::new(Self {
            watch: Watch::new(range.address.addr().get(), bytes)?,
            range,
            ipa,
        }))
    }

    /// Guest physical address of the first byte.
    pub(crate) fn ipa(&self) -> u64 {
        self.ipa
    }

    /// Length in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.range.bytes as u64
    }

    /// A lease of the piece at `offset`.
    pub(crate) fn lease(self: &Arc<Self>, offset: u64) -> io::Result<MemoryLease> {
        let host = self.piece(offset)?;
        Ok(MemoryLease {
            ipa: self.ipa + offset,
            host,
            bytes: PIECE,
            kind: LeaseKind::Files,
            _lender: self.clone(),
        })
    }

    /// Maps a piece of a file in place of what was there, in one step.
    pub(crate) fn put(
        &self,
        offset: u64,
        file: BorrowedFd<'_>,
        file_offset: u64,
        access: PieceAccess,
    ) -> io::Result<()> {
        let file_offset = libc::off_t::try_from(file_offset)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let (protection, flags) = match access {
            PieceAccess::Read => (libc::PROT_READ, libc::MAP_SHARED),
            PieceAccess::Write => (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED),
            PieceAccess::Keep => (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            ),
        };
        self.replace(offset, protection, flags, file.as_raw_fd(), file_offset)
    }

    /// Maps zeros, for whatever access the engine has given the guest.
    pub(crate) fn put_zeros(&self, offset: u64) -> io::Result<()> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        self.replace(offset, protection, NOWHERE, -1, 0)
    }

    /// Leaves nothing there.
    pub(crate) fn clear(&self, offset: u64) -> io::Result<()> {
        self.replace(offset, libc::PROT_NONE, NOWHERE, -1, 0)
    }

    /// Copies from where pieces are mapped, as vCPUs read it.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let slice = self.slice(offset, buffer.len())?;
        slice.copy_to(buffer);
        Ok(())
    }

    /// Copies to where pieces are mapped for writing, as vCPUs write it.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let slice = self.slice(offset, bytes.len())?;
        slice.copy_from(bytes);
        Ok(())
    }

    fn slice(&self, offset: u64, length: usize) -> io::Result<VolatileSlice<'_>> {
        let inside = usize::try_from(offset).ok().filter(|at| {
            let end = at.checked_add(length);
            end.is_some_and(|end| end <= self.range.bytes)
        });
        let at = inside.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the range is this window's as long as it lives, which the slice
        // borrows, and all access to it is volatile or atomic.
        Ok(unsafe { VolatileSlice::new(self.range.address.add(at).as_ptr(), length) })
    }

    /// Offsets of pieces of which the guest has touched what their files no longer
    /// have, since the last time.
    pub(crate) fn take_lost(&self) -> Vec<u64> {
        let pieces = self.watch.take().into_iter();
        pieces.map(|piece| piece as u64 * PIECE_BYTES).collect()
    }

    fn piece(&self, offset: u64) -> io::Result<NonNull<u8>> {
        let inside = usize::try_from(offset)
            .ok()
            .filter(|at| at.is_multiple_of(PIECE) && *at < self.range.bytes);
        let at = inside.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: whole pieces from the start, and less than all of them.
        Ok(unsafe { self.range.address.add(at) })
    }

    fn replace(
        &self,
        offset: u64,
        protection: libc::c_int,
        flags: libc::c_int,
        file: libc::c_int,
        file_offset: libc::off_t,
    ) -> io::Result<()> {
        let address = self.piece(offset)?.as_ptr().cast();
        let flags = flags | libc::MAP_FIXED;
        // SAFETY: the piece is this window's. Nobody but vCPUs uses what is there, by
        // addresses that stay valid, and they may find another content at any time.
        let placed = unsafe { libc::mmap(address, PIECE, protection, flags, file, file_offset) };
        if placed == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        not_for_children(address, PIECE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write as _;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    fn window() -> Arc<WindowSpace> {
        WindowSpace::reserve(32 << 30, 4 * PIECE_BYTES).unwrap()
    }

    fn file(content: &[u8]) -> File {
        let name = format!("vmm-window-{}-{:p}", std::process::id(), content);
        let path = std::env::temp_dir().join(name);
        let options = &mut File::options();
        let options = options.read(true).write(true).create_new(true);
        let mut file = options.open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn look(window: &Arc<WindowSpace>, offset: u64, at: usize) -> u8 {
        let lease = window.lease(offset).unwrap();
        // SAFETY: the tests have put something readable there.
        unsafe { lease.host().add(at).as_ptr().read_volatile() }
    }

    #[test]
    fn piece_is_the_file_s_and_what_is_written_there_is_too() {
        let window = window();
        let file = file(&[7; 5000]);
        window
            .put(PIECE_BYTES, file.as_fd(), 0, PieceAccess::Write)
            .unwrap();
        assert_eq!(look(&window, PIECE_BYTES, 4999), 7);
        file.write_all_at(&[8], 10).unwrap();
        assert_eq!(look(&window, PIECE_BYTES, 10), 8);
        let lease = window.lease(PIECE_BYTES).unwrap();
        assert_eq!(lease.ipa(), (32 << 30) + PIECE_BYTES);
        // SAFETY: it is mapped for writing.
        unsafe { lease.host().add(11).as_ptr().write_volatile(9) };
        let mut byte = [0];
        file.read_exact_at(&mut byte, 11).unwrap();
        assert_eq!(byte, [9]);
        let mut four = [0; 4];
        window.read(PIECE_BYTES + 9, &mut four).unwrap();
        assert_eq!(four, [7, 8, 9, 7]);
        window.write(PIECE_BYTES + 9, &[1]).unwrap();
        file.read_exact_at(&mut byte, 9).unwrap();
        assert_eq!(byte, [1]);
        assert!(window.read(4 * PIECE_BYTES - 3, &mut four).is_err());
        assert!(window.write(u64::MAX, &four).is_err());
        // What is to be kept from the file reaches the window only.
        window.put(0, file.as_fd(), 0, PieceAccess::Keep).unwrap();
        // SAFETY: as above.
        unsafe { window.lease(0).unwrap().host().as_ptr().write_volatile(1) };
        file.read_exact_at(&mut byte, 0).unwrap();
        assert_eq!((byte, look(&window, 0, 0)), ([7], 1));
    }

    #[test]
    fn what_a_file_no_longer_has_is_zeros_until_it_is_put_there_again() {
        let window = window();
        let file = file(&[7; 40_000]);
        for piece in [0, 3 * PIECE_BYTES] {
            window
                .put(piece, file.as_fd(), 0, PieceAccess::Read)
                .unwrap();
        }
        assert_eq!(look(&window, 3 * PIECE_BYTES, 30_000), 7);
        file.set_len(10).unwrap();
        assert_eq!(look(&window, 3 * PIECE_BYTES, 30_000), 0);
        assert_eq!(look(&window, 3 * PIECE_BYTES, PIECE - 1), 0);
        assert_eq!(look(&window, 3 * PIECE_BYTES, 1), 7);
        assert_eq!(window.take_lost(), [3 * PIECE_BYTES]);
        assert!(window.take_lost().is_empty());
        file.set_len(40_000).unwrap();
        file.write_all_at(&[5; 40_000], 0).unwrap();
        assert_eq!(look(&window, 3 * PIECE_BYTES, 30_000), 0);
        window
            .put(3 * PIECE_BYTES, file.as_fd(), 0, PieceAccess::Read)
            .unwrap();
        assert_eq!(look(&window, 3 * PIECE_BYTES, 30_000), 5);
        assert_eq!(look(&window, 0, 30_000), 5);
    }

    #[test]
    fn only_pieces_of_the_window_can_be_named() {
        let window = window();
        let file = file(&[1]);
        for offset in [
            1,
            4096,
            4 * PIECE_BYTES,
            u64::MAX,
            u64::MAX - PIECE_BYTES + 1,
        ] {
            let put = window.put(offset, file.as_fd(), 0, PieceAccess::Read);
            assert_eq!(put.unwrap_err().kind(), io::ErrorKind::InvalidInput);
            assert!(window.lease(offset).is_err());
        }
        let beyond = window.put(0, file.as_fd(), u64::MAX, PieceAccess::Read);
        assert!(beyond.is_err());
        for bytes in [0, 4096, PIECE_BYTES + 1, 16 << 30, u64::MAX] {
            assert!(WindowSpace::reserve(0, bytes).is_err(), "{bytes}");
        }
        assert!(WindowSpace::reserve(u64::MAX - 10, PIECE_BYTES).is_err());
    }
}

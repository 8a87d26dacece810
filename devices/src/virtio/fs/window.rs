//! A window of the guest's addresses onto files of the host (virtio 1.2 §5.11.6.4).

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;

/// Bytes of each piece of a window: what Linux maps at a time (`FUSE_DAX_SZ`).
pub const PIECE_BYTES: u64 = 2 << 20;

/// What the guest may do with a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceAccess {
    /// Read it, and run programs in it.
    Read,
    /// Change the file as well.
    Write,
    /// Write to it, which changes no file.
    Keep,
}

/// A piece of a file that is to be seen in a window.
#[derive(Debug, Clone, Copy)]
pub struct FilePiece<'a> {
    /// A regular file, open for what is to be done with it.
    pub file: BorrowedFd<'a>,
    /// Where the piece begins in the file, a multiple of [`PIECE_BYTES`]. It may be
    /// beyond the end: what is not there has no content.
    pub offset: u64,
    /// What the guest may do with it.
    pub access: PieceAccess,
}

/// A window of the guest's addresses, which shows pieces of files where a device says
/// so. Everything here is called on threads that are not running a vCPU, of several
/// threads one after the other for each piece. The guest may use the window meanwhile.
///
/// Offsets are from the start of the window, multiples of [`PIECE_BYTES`] if nothing else
/// is said, and within it.
pub trait FileWindow: Send + Sync + Debug {
    /// Guest physical address of its first byte.
    fn address(&self) -> u64;

    /// Its length, whole pieces.
    fn bytes(&self) -> u64;

    /// Shows a piece in place of what was there, if anything was. After an error there
    /// is nothing.
    fn show(&self, offset: u64, piece: FilePiece<'_>) -> io::Result<()>;

    /// Shows a piece that is there already once more, perhaps with another access, or
    /// because some of it was lost. At no time in between is there nothing. After an
    /// error it is as it was, or zeros.
    fn renew(&self, offset: u64, piece: FilePiece<'_>) -> io::Result<()>;

    /// Shows zeros, to be read.
    fn show_zeros(&self, offset: u64) -> io::Result<()>;

    /// Whether a range of guest physical addresses, which does not wrap around, is within
    /// a window of the machine: this one, or another.
    fn holds(&self, address: u64, bytes: usize) -> bool;

    /// Copies from what the guest sees at a guest physical address in a window of the
    /// machine. An error if the guest sees nothing there.
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Copies to what the guest sees. An error if it sees nothing there, or may only
    /// read it.
    fn write(&self, address: u64, bytes: &[u8]) -> io::Result<()>;

    /// Shows nothing there any more, whether or not there was something.
    fn hide(&self, offset: u64);

    /// Where the guest used something that was not in its file any more: it has got
    /// zeros from there on to the end of that piece, and gets them until the piece is
    /// shown anew. Each place is told of once.
    fn take_lost(&self) -> Vec<u64>;
}

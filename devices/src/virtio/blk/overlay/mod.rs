//! A disk that begins with what another file holds.

mod map;

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::map::BlockMap;
use super::{ZEROES, host};

/// Unit in which content becomes the disk's own: of a write of less, the rest of the
/// block is copied from the base.
const BLOCK_BYTES: u64 = 4096;
/// A block.
type Block = [u8; 4096];
const _: () = assert!(size_of::<Block>() as u64 == BLOCK_BYTES);
/// Longest base, so that what is known of its blocks takes 2 MiB at most while none is
/// written.
const MAX_BYTES: u64 = 16 << 40;

/// Why there is no overlay over a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OverlayError {
    /// It is longer than a disk can be.
    #[error("base of {0} bytes is longer than 16 TiB")]
    TooLong(u64),
    /// Its length cannot be found out, or the disk's own file cannot have it.
    #[error("could not give a disk the length of its base")]
    Length(#[source] io::Error),
}

/// A disk's content: blocks that were written are in a file of the disk's own, and all
/// others in a base that any number of disks have in common and none writes to.
///
/// Nothing says in the disk's own file which blocks it has, so it is of use to nobody
/// once this is dropped. A flush waits for nothing therefore.
pub struct Overlay {
    base: Arc<File>,
    own: File,
    bytes: u64,
    written: BlockMap,
    /// Held by those who make blocks the disk's own.
    first: Mutex<()>,
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overlay")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Overlay {
    /// A disk with the content of `base`. What `own` holds is lost.
    ///
    /// # Errors
    /// [`OverlayError`].
    pub fn new(base: impl Into<Arc<File>>, own: File) -> Result<Self, OverlayError> {
        let base = base.into();
        // Nobody uses its position.
        let bytes = (&*base)
            .seek(SeekFrom::End(0))
            .map_err(OverlayError::Length)?;
        if bytes > MAX_BYTES {
            return Err(OverlayError::TooLong(bytes));
        }
        let overlay = Self {
            written: BlockMap::new(bytes.div_ceil(BLOCK_BYTES)),
            base,
            own,
            bytes,
            first: Mutex::new(()),
        };
        overlay.empty().map_err(OverlayError::Length)?;
        Ok(overlay)
    }

    /// A further disk with the same content. `own` holds what [`Overlay::own`] holds.
    pub fn further(&self, base: impl Into<Arc<File>>, own: File) -> Self {
        Self {
            base: base.into(),
            own,
            bytes: self.bytes,
            written: self.written.clone(),
            first: Mutex::new(()),
        }
    }

    /// Length of the disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file with what was never written.
    pub fn base(&self) -> &Arc<File> {
        &self.base
    }

    /// The disk's own file, for copies of it while nothing is written.
    pub fn own(&self) -> &File {
        &self.own
    }

    /// All content in pieces, and who has them.
    pub fn pieces(&self) -> impl Iterator<Item = (&File, Range<u64>)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            if at >= self.bytes {
                return None;
            }
            let (is_own, end) = self.run(at, self.bytes);
            let piece = at..end;
            at = end;
            Some((self.holder(is_own), piece))
        })
    }

    /// Whether the disk holds what its base holds, as nothing was written to it.
    pub fn is_unwritten(&self) -> bool {
        self.written.is_empty()
    }

    /// Goes back to the content of the base. Nobody uses the disk meanwhile.
    ///
    /// # Errors
    /// What the host says to its own file's being emptied.
    pub fn rewind(&self) -> io::Result<()> {
        if self.is_unwritten() {
            return Ok(());
        }
        self.written.clear();
        self.empty()
    }

    /// Makes a hole of all the disk's own file.
    fn empty(&self) -> io::Result<()> {
        self.own.set_len(0)?;
        self.own.set_len(self.bytes)
    }

    fn holder(&self, is_own: bool) -> &File {
        if is_own { &self.own } else { &self.base }
    }

    /// Whether the byte at `at` is in the disk's own file, and up to where before `end`
    /// the others are where it is.
    fn run(&self, at: u64, end: u64) -> (bool, u64) {
        let blocks = self
            .written
            .run(at / BLOCK_BYTES, end.div_ceil(BLOCK_BYTES));
        let (is_own, last) = blocks;
        (is_own, last.saturating_mul(BLOCK_BYTES).min(end))
    }

    /// Calls `each` with the pieces of a range of the disk: who has it, where, and its
    /// place in the range.
    fn in_pieces(
        &self,
        offset: u64,
        len: usize,
        mut each: impl FnMut(bool, u64, Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = offset.saturating_add(len as u64);
        let place =
            |at: u64| usize::try_from(at.saturating_sub(offset)).map_or(len, |at| at.min(len));
        let mut at = offset;
        while at < end {
            let (is_own, next) = self.run(at, end);
            each(is_own, at, place(at)..place(next))?;
            at = next;
        }
        Ok(())
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.in_pieces(offset, buf.len(), |is_own, at, place| {
            self.holder(is_own).read_exact_at(&mut buf[place], at)
        })
    }

    /// Reads what is in the host's page cache, as far as the first piece that is not.
    pub(super) fn read_cached(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        let read = self.in_pieces(offset, buf.len(), |is_own, at, place| {
            let wanted = place.len();
            let len = host::read_cached(self.holder(is_own), &mut buf[place], at)?;
            done += len;
            match len == wanted {
                true => Ok(()),
                false => Err(io::ErrorKind::WouldBlock.into()),
            }
        });
        match read {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(error),
            _ => Ok(done),
        }
    }

    pub(super) fn write(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.in_pieces(offset, buf.len(), |is_own, at, place| match is_own {
            true => self.own.write_all_at(&buf[place], at),
            false => self.write_first(&buf[place], at),
        })
    }

    /// Writes to blocks of which some were the base's.
    fn write_first(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        let _first = self.making_own();
        for at in [offset, end] {
            if !at.is_multiple_of(BLOCK_BYTES) {
                self.copy_block(at / BLOCK_BYTES)?;
            }
        }
        self.own.write_all_at(buf, offset)?;
        let blocks = offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
        self.written.add(blocks);
        Ok(())
    }

    /// Has a block's content in the disk's own file, where it is not looked for yet.
    fn copy_block(&self, block: u64) -> io::Result<()> {
        let start = block * BLOCK_BYTES;
        let left = self.bytes.saturating_sub(start).min(BLOCK_BYTES);
        let (is_own, _) = self.run(start, start + left);
        if is_own || left == 0 {
            return Ok(());
        }
        let mut content: Block = [0; 4096];
        let content = &mut content[..usize::try_from(left).unwrap_or(0)];
        self.base.read_exact_at(content, start)?;
        self.own.write_all_at(content, start)
    }

    fn making_own(&self) -> MutexGuard<'_, ()> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the whole blocks of a range zeroes without writing any.
    ///
    /// # Errors
    /// The host cannot do that; nothing has changed for those who read.
    fn clear_blocks(&self, blocks: Range<u64>, may_unmap: bool) -> io::Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let start = blocks.start * BLOCK_BYTES;
        let len = (blocks.end - blocks.start) * BLOCK_BYTES;
        let _first = self.making_own();
        match may_unmap {
            true => host::punch(&self.own, start, len)?,
            false => host::zero(&self.own, start, len)?,
        }
        self.written.add(blocks);
        Ok(())
    }

    /// Gives the space of whole blocks back, whoever had them.
    pub(super) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.clear_blocks(whole_blocks(offset, len), true)
    }

    /// Makes a range read as zeroes. If that fails they can be written.
    pub(super) fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        let end = offset.saturating_add(len);
        let blocks = whole_blocks(offset, len);
        if blocks.is_empty() {
            return self.write_zeroes(offset..end);
        }
        self.write_zeroes(offset..blocks.start * BLOCK_BYTES)?;
        self.write_zeroes(blocks.end * BLOCK_BYTES..end)?;
        self.clear_blocks(blocks, may_unmap)
    }

    /// Writes the zeroes of less than two blocks.
    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        match ZEROES.get(..len) {
            Some(zeroes) => self.write(zeroes, range.start),
            None => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// The blocks of which a range has all.
fn whole_blocks(offset: u64, len: u64) -> Range<u64> {
    let end = offset.saturating_add(len) / BLOCK_BYTES;
    offset.div_ceil(BLOCK_BYTES)..end
}

#[cfg(test)]
mod tests;

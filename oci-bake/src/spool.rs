//! Nameless files that hold the content of layers while an image is baked.
//!
//! Layers share them: an image has up to some hundred layers, and a process
//! often has no more descriptors than that.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;

use crate::decompress::{Format, Windows, decompress};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::LayerError;
use crate::limits::Limits;
use crate::section::Section;
use crate::store::Store;

/// A file with this many bytes or more gets no further layer, so that the disk
/// has the room of large layers back as soon as nothing needs them.
const FULL_BYTES: u64 = 256 << 20;
/// Pieces that are decompressed and not yet written at a time: as much as two threads
/// need to seldom wait for each other, and no more memory than that.
const PIECES: usize = 4;
/// Content up to this size may compress to nothing.
const RATIO_FROM_BYTES: u64 = 16 << 20;
/// Most files at a time, of one who gets layers. Beyond it all further layers share the
/// last one.
const MAX_FILES: usize = 6;

/// The files of one who gets layers.
#[derive(Debug, Default)]
pub(crate) struct Spools {
    current: Option<Spool>,
    /// Those that get no more layers and are still read.
    full: Vec<Weak<File>>,
}

#[derive(Debug)]
struct Spool {
    file: Arc<File>,
    bytes: u64,
}

impl Spools {
    /// Decompresses `input`, of which there are about `expected` bytes, into
    /// one of the files. Returns where it is, and its digest.
    pub(crate) fn add(
        &mut self,
        store: &Store,
        input: impl Read,
        format: (Format, &Windows),
        (expected, limits): (u64, &Limits),
        algorithm: Algorithm,
    ) -> Result<(Section, Digest), LayerError> {
        let spool = self.for_bytes(store, expected)?;
        let start = spool.bytes;
        let added = spool.write(store, input, format, limits, algorithm);
        if added.is_err() {
            // Half a layer is of no use.
            spool.file.set_len(start)?;
            spool.bytes = start;
        }
        added
    }

    fn for_bytes(&mut self, store: &Store, expected: u64) -> io::Result<&mut Spool> {
        self.full.retain(|file| file.strong_count() > 0);
        let has_room =
            |spool: &Spool| spool.bytes == 0 || spool.bytes.saturating_add(expected) < FULL_BYTES;
        let spool = match self.current.take() {
            Some(spool) if has_room(&spool) || self.full.len() + 1 >= MAX_FILES => spool,
            full => {
                self.full
                    .extend(full.map(|spool| Arc::downgrade(&spool.file)));
                Spool {
                    file: Arc::new(store.spool()?),
                    bytes: 0,
                }
            }
        };
        Ok(self.current.insert(spool))
    }
}

impl Spool {
    fn write(
        &mut self,
        store: &Store,
        input: impl Read,
        (format, windows): (Format, &Windows),
        limits: &Limits,
        algorithm: Algorithm,
    ) -> Result<(Section, Digest), LayerError> {
        let read = Cell::new(0);
        let input = Counted {
            inner: input,
            bytes: &read,
        };
        let (start, file) = (self.bytes, &self.file);
        let (pieces, filled) = sync_channel::<Vec<u8>>(PIECES);
        let (used, empty) = channel();
        let (written, decompressed) = thread::scope(|scope| {
            let writer = thread::Builder::new()
                .name("layer-spool".into())
                .spawn_scoped(scope, move || {
                    write_pieces(file, start, &filled, &used, Hasher::new(algorithm))
                })?;
            let mut bytes = 0_u64;
            let decompressed =
                decompress(store.cancel().watch(input), format, windows, &mut |piece| {
                    // A small input can decompress to much.
                    store.cancel().check()?;
                    bytes = bytes.saturating_add(piece.len() as u64);
                    check_bytes(bytes, read.get(), limits)?;
                    let mut filled = empty.try_recv().unwrap_or_default();
                    filled.clear();
                    filled.extend_from_slice(piece);
                    // The thread that writes them has failed, and says why.
                    let gone = |_| io::Error::other("the layer could not be written");
                    Ok(pieces.send(filled).map_err(gone)?)
                });
            drop(pieces);
            let written = writer.join().unwrap_or_else(|panic| resume_unwind(panic));
            Ok::<_, io::Error>((written, decompressed))
        })?;
        let (hasher, end) = written?;
        decompressed?;
        self.bytes = end;
        let section = Section::of(Arc::clone(&self.file), start, self.bytes - start);
        Ok((section, hasher.finish()))
    }
}

/// Refuses more than a layer may have, and more than what was read of it can honestly
/// become.
fn check_bytes(bytes: u64, read: u64, limits: &Limits) -> Result<(), LayerError> {
    let exceeded = |what, limit| Err(LayerError::LimitExceeded { what, limit });
    if bytes > limits.max_layer_bytes {
        return exceeded("uncompressed bytes", limits.max_layer_bytes);
    }
    let honest = read.saturating_mul(limits.max_ratio);
    if bytes > honest.saturating_add(RATIO_FROM_BYTES) {
        return exceeded(
            "uncompressed bytes for each compressed one",
            limits.max_ratio,
        );
    }
    Ok(())
}

/// Counts what is read, for who cannot ask the reader meanwhile.
struct Counted<'a, R> {
    inner: R,
    bytes: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes.set(self.bytes.get().saturating_add(n as u64));
        Ok(n)
    }
}

/// Writes and hashes what comes, and hands the buffers back; where it ends. Hashing
/// and decompressing take about as long as each other, so neither waits.
fn write_pieces(
    file: &File,
    start: u64,
    filled: &Receiver<Vec<u8>>,
    used: &Sender<Vec<u8>>,
    mut hasher: Hasher,
) -> io::Result<(Hasher, u64)> {
    let mut end = start;
    for piece in filled {
        hasher.update(&piece);
        file.write_all_at(&piece, end)?;
        end += piece.len() as u64;
        // Nobody needs it any more.
        let _ = used.send(piece);
    }
    Ok((hasher, end))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The content is as long as many pieces, so that whoever decompresses is told
    /// while there is more.
    #[test]
    fn a_disk_that_takes_no_more_is_not_said_to_be_a_damaged_layer() {
        let dir = std::env::temp_dir().join(format!("oci-bake-spool-{}", std::process::id()));
        let store = Store::open(&dir).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::copy(&mut io::repeat(7).take(8 << 20), &mut gzip).unwrap();
        let gzip = gzip.finish().unwrap();
        let unwritable = dir.join("unwritable");
        fs::write(&unwritable, "").unwrap();
        let mut spool = Spool {
            file: Arc::new(File::open(&unwritable).unwrap()),
            bytes: 0,
        };
        let format = (Format::Gzip, &Windows::default());
        let limits = Limits::default();
        let result = spool.write(&store, &*gzip, format, &limits, Algorithm::Sha256);
        assert!(matches!(result, Err(LayerError::Io(_))), "{result:?}");
        assert_eq!(spool.bytes, 0);
        fs::remove_dir_all(dir).unwrap();
    }

    /// A frame of zstd with blocks of one byte that is repeated: some thousand for each
    /// byte of the frame.
    fn bomb(blocks: usize) -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x48];
        for left in (0..blocks).rev() {
            // RFC 8878 §3.1.1.2: its size, that it is repeated, whether it is the last.
            let header = (128 << 10) << 3 | 1 << 1 | u32::from(left == 0);
            frame.extend_from_slice(&header.to_le_bytes()[..3]);
            frame.push(0);
        }
        frame
    }

    #[test]
    fn a_little_that_becomes_a_lot_is_refused_beyond_what_is_honest() {
        let dir = std::env::temp_dir().join(format!("oci-bake-ratio-{}", std::process::id()));
        let store = Store::open(&dir).unwrap();
        let spooled = |blocks: usize, ratio: u64| {
            let limits = Limits {
                max_ratio: ratio,
                ..Limits::default()
            };
            let format = (Format::Zstd, &Windows::default());
            let sizes = (0, &limits);
            let frame = bomb(blocks);
            Spools::default().add(&store, &*frame, format, sizes, Algorithm::Sha256)
        };
        // Some 32,000 bytes for each.
        assert!(spooled(300, 40_000).is_ok());
        let error = spooled(300, 1_000).unwrap_err();
        assert!(
            matches!(error, LayerError::LimitExceeded { limit: 1_000, .. }),
            "{error}"
        );
        // So little that it does not matter.
        assert!(spooled(100, 1_000).is_ok());
        fs::remove_dir_all(dir).unwrap();
    }
}

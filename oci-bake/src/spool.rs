//! Nameless files that hold the content of layers while an image is baked.
//!
//! Layers share them: an image has up to some hundred layers, and a process
//! often has no more descriptors than that.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;

use crate::decompress::{Format, decompress};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::LayerError;
use crate::section::Section;
use crate::store::Store;

/// A file with this many bytes or more gets no further layer, so that the disk
/// has the room of large layers back as soon as nothing needs them.
const FULL_BYTES: u64 = 256 << 20;
/// Pieces that are decompressed and not yet written at a time: as much as two threads
/// need to seldom wait for each other, and no more memory than that.
const PIECES: usize = 4;
/// Most files at a time. Beyond it all further layers share the last one.
const MAX_FILES: usize = 16;

/// The files of one bake.
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
        format: Format,
        (expected, limit): (u64, u64),
        algorithm: Algorithm,
    ) -> Result<(Section, Digest), LayerError> {
        let spool = self.for_bytes(store, expected)?;
        let start = spool.bytes;
        let added = spool.write(store, input, format, limit, algorithm);
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
        format: Format,
        limit: u64,
        algorithm: Algorithm,
    ) -> Result<(Section, Digest), LayerError> {
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
            let decompressed = decompress(store.cancel().watch(input), format, &mut |piece| {
                // A small input can decompress to much.
                store.cancel().check()?;
                bytes = bytes.saturating_add(piece.len() as u64);
                if bytes > limit {
                    return Err(LayerError::LimitExceeded {
                        what: "uncompressed bytes",
                        limit,
                    });
                }
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
        let result = spool.write(&store, &*gzip, Format::Gzip, u64::MAX, Algorithm::Sha256);
        assert!(matches!(result, Err(LayerError::Io(_))), "{result:?}");
        assert_eq!(spool.bytes, 0);
        fs::remove_dir_all(dir).unwrap();
    }
}

//! Nameless files that hold the content of layers while an image is baked.
//!
//! Layers share them: an image has up to some hundred layers, and a process
//! often has no more descriptors than that.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};

use crate::decompress::{Format, decompress};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::LayerError;
use crate::section::Section;
use crate::store::Store;

/// A file with this many bytes or more gets no further layer, so that the disk
/// has the room of large layers back as soon as nothing needs them.
const FULL_BYTES: u64 = 256 << 20;
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
        let start = self.bytes;
        let mut hasher = Hasher::new(algorithm);
        decompress(store.cancel().watch(input), format, &mut |bytes| {
            // A small input can decompress to much.
            store.cancel().check()?;
            if (self.bytes - start).saturating_add(bytes.len() as u64) > limit {
                return Err(LayerError::LimitExceeded {
                    what: "uncompressed bytes",
                    limit,
                });
            }
            hasher.update(bytes);
            self.file.write_all_at(bytes, self.bytes)?;
            self.bytes += bytes.len() as u64;
            Ok(())
        })?;
        let section = Section::of(Arc::clone(&self.file), start, self.bytes - start);
        Ok((section, hasher.finish()))
    }
}

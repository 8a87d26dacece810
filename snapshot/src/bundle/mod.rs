//! A snapshot as one file, to be taken elsewhere.
//!
//! ```text
//! "SMBUNDL1"
//! 1  name (u8 length, bytes), length (u64)      a file of the generation begins
//! 2  offset (u64), bytes (u32), stored (u32),   some of its content, as it is (0) or as
//!    method (u8), content                       a zstd frame (1)
//! 3  CRC32C of everything before (u32)          the end
//! ```
//!
//! Numbers are little-endian. The manifest is the first file, so that what cannot run
//! here is refused before the rest is read. What no record says is zero. The checksums
//! of the manifest hold for the content; nothing is published before all of it has been
//! compared with them.

use crate::draft::Draft;
use crate::error::{Context, cap};
use crate::files::Files;
use crate::limits::{CHUNK_BYTES, MAX_BUNDLE_BYTES, MAX_MANIFEST_BYTES, PAGE_BYTES};
use crate::manifest::{self, BASE_FILE, FileEntry, MEMORY_FILE, Manifest};
use crate::reader::Inspection;
use crate::{Result, Snapshot, SnapshotError, Stamp, Store};
use ruzstd::decoding::FrameDecoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const MAGIC: &[u8; 8] = b"SMBUNDL1";
const FILE: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// Most bytes of content in one record.
const BLOCK_BYTES: u64 = 1 << 20;
/// A page of zeros.
const ZEROS: [u8; 4096] = [0; 4096];

/// What was written, with its checksum.
struct Out<'a> {
    out: &'a mut dyn Write,
    crc32c: u32,
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        self.out.write_all(bytes).map_err(of_output)
    }

    fn begin(&mut self, name: &str, bytes: u64) -> Result<()> {
        let length = u8::try_from(name.len()).map_err(|_| SnapshotError::Name {
            name: name.to_owned(),
        })?;
        self.put(&[FILE, length])?;
        self.put(name.as_bytes())?;
        self.put(&bytes.to_le_bytes())
    }

    /// Content at an offset of the file begun last; of zeros nothing is written.
    fn data(&mut self, offset: u64, content: &[u8]) -> Result<()> {
        if content.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let packed = compress_to_vec(content, CompressionLevel::Fastest);
        let (method, stored) = match packed.len() < content.len() {
            true => (ZSTD, packed.as_slice()),
            false => (PLAIN, content),
        };
        self.put(&[DATA])?;
        self.put(&offset.to_le_bytes())?;
        for length in [content.len(), stored.len()] {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            self.put(&length.to_le_bytes())?;
        }
        self.put(&[method])?;
        self.put(stored)
    }
}

fn of_output(source: io::Error) -> SnapshotError {
    SnapshotError::Io {
        what: "write",
        path: PathBuf::from("the exported file"),
        source,
    }
}

impl Inspection {
    /// Writes all of the snapshot to `out`, as one file for [`Store::import`].
    ///
    /// # Errors
    /// When something of it cannot be read, or `out` cannot be written.
    pub fn export(&self, out: &mut dyn Write) -> Result<()> {
        let mut out = Out { out, crc32c: 0 };
        out.put(MAGIC)?;
        let manifest = self.manifest();
        let encoded = manifest.encode()?;
        out.begin(manifest::FILE, encoded.len() as u64)?;
        out.data_in_blocks(&encoded)?;
        for (name, entry) in &manifest.files {
            let path = self.path().join(name);
            if name == MEMORY_FILE {
                continue;
            }
            let file = self.files().open(&path).context("open", &path)?;
            out.begin(name, entry.bytes)?;
            self.copy(&mut out, &file, &path, 0..entry.bytes)?;
        }
        if let Some(base) = self.base() {
            out.begin(BASE_FILE, manifest.memory_bytes())?;
            let path = self.path().join(BASE_FILE);
            for run in manifest.memory.shared() {
                self.copy(&mut out, base, &path, run)?;
            }
        }
        out.begin(MEMORY_FILE, manifest.memory_bytes())?;
        let path = self.path().join(MEMORY_FILE);
        let (memory, content) = (self.memory(), self.content());
        for (index, _) in &manifest.memory.chunks {
            let start = u64::from(*index) * CHUNK_BYTES;
            let end = manifest.memory_bytes().min(start + CHUNK_BYTES);
            for (file, piece) in content.pieces(start..end) {
                if std::ptr::eq(file, memory) {
                    self.copy(&mut out, file, &path, piece)?;
                }
            }
        }
        out.put(&[END])?;
        let crc32c = out.crc32c;
        out.put(&crc32c.to_le_bytes())
    }

    fn copy(&self, out: &mut Out<'_>, file: &File, path: &Path, range: Range<u64>) -> Result<()> {
        let mut block = vec![0; usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX)];
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(BLOCK_BYTES.min(range.end - at)).unwrap_or(0);
            let piece = &mut block[..length];
            let read = self.files().read_exact_at(file, piece, at);
            read.context("read", path)?;
            out.data(at, piece)?;
            at += length as u64;
        }
        Ok(())
    }
}

impl Out<'_> {
    fn data_in_blocks(&mut self, content: &[u8]) -> Result<()> {
        let mut at = 0;
        for block in content.chunks(usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX)) {
            self.data(at, block)?;
            at += block.len() as u64;
        }
        Ok(())
    }
}

fn refused(reason: &'static str) -> SnapshotError {
    SnapshotError::Bundle { reason }
}

/// What is read, with its checksum.
struct In<'a> {
    input: &'a mut dyn Read,
    crc32c: u32,
}

enum Record {
    File { name: String, bytes: u64 },
    Data { offset: u64, content: Vec<u8> },
    End,
}

impl In<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.input.read_exact(bytes).map_err(of_input)?;
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        Ok(())
    }

    fn record(&mut self) -> Result<Record> {
        match self.take()? {
            [FILE] => {
                let [length] = self.take()?;
                let mut name = vec![0; length.into()];
                self.fill(&mut name)?;
                let name = String::from_utf8(name);
                Ok(Record::File {
                    name: name.map_err(|_| refused("a file in it has no name"))?,
                    bytes: u64::from_le_bytes(self.take()?),
                })
            }
            [DATA] => {
                let offset = u64::from_le_bytes(self.take()?);
                let bytes = u32::from_le_bytes(self.take()?);
                let stored = u32::from_le_bytes(self.take()?);
                let [method] = self.take()?;
                if u64::from(bytes) > BLOCK_BYTES || stored > bytes {
                    return Err(refused("a piece of it is larger than any that is written"));
                }
                let length = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
                let mut read = vec![0; length(stored)];
                self.fill(&mut read)?;
                let content = match method {
                    PLAIN if stored == bytes => read,
                    ZSTD => {
                        let mut content = vec![0; length(bytes)];
                        match FrameDecoder::new().decode_all(&read, &mut content) {
                            Ok(count) if count == content.len() => content,
                            _ => return Err(refused("a piece of it is damaged")),
                        }
                    }
                    _ => return Err(refused("a piece of it is stored in no known way")),
                };
                Ok(Record::Data { offset, content })
            }
            [END] => {
                let expected = self.crc32c;
                if u32::from_le_bytes(self.take()?) != expected {
                    return Err(refused("its checksum does not match"));
                }
                let mut more = [0; 1];
                match self.input.read(&mut more).map_err(of_input)? {
                    0 => Ok(Record::End),
                    _ => Err(refused("something comes after its end")),
                }
            }
            _ => Err(refused("a part of it is of no known kind")),
        }
    }

    /// The manifest, which comes first.
    fn manifest(&mut self) -> Result<Manifest> {
        if self.take()? != *MAGIC {
            return Err(refused("it does not begin as one"));
        }
        let bytes = match self.record()? {
            Record::File { name, bytes } if name == manifest::FILE => bytes,
            _ => return Err(refused("its manifest is not where it should be")),
        };
        cap(manifest::FILE, bytes, MAX_MANIFEST_BYTES)?;
        let mut encoded = Vec::new();
        while (encoded.len() as u64) < bytes {
            match self.record()? {
                Record::Data { offset, content } if offset == encoded.len() as u64 => {
                    encoded.extend_from_slice(&content);
                }
                _ => return Err(refused("its manifest is not whole")),
            }
        }
        Manifest::decode(&encoded)
    }
}

fn of_input(source: io::Error) -> SnapshotError {
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return refused("it ends too early");
    }
    SnapshotError::Io {
        what: "read",
        path: PathBuf::from("the exported file"),
        source,
    }
}

impl Store {
    /// Makes a snapshot of what [`Inspection::export`] has written: the next generation
    /// of `name`, or of the name it had. Nobody finds it before all of it has been read
    /// and compared with its checksums; if anything is wrong with it, nothing is left.
    ///
    /// `known` may name a file of the host that is what is described, so that it need not
    /// be stored again.
    ///
    /// # Errors
    /// [`SnapshotError::Bundle`] and others that say what is wrong with it; as
    /// [`Inspection::admit`] if it cannot run here, before most of it is read.
    pub fn import(
        &self,
        name: Option<&str>,
        input: &mut dyn Read,
        here: &Stamp,
        patience: Duration,
        known: &mut dyn FnMut(&str, FileEntry) -> Option<PathBuf>,
    ) -> Result<Snapshot> {
        let mut input = In { input, crc32c: 0 };
        let manifest = input.manifest()?;
        manifest.machine.stamp.check(here)?;
        let name = name.unwrap_or(&manifest.name).to_owned();
        let draft = self.lock(&name, patience)?.draft()?;
        draft.receive(manifest, &mut input, known)?;
        self.open(&name, here)
    }
}

/// A file that is being received.
struct Receiving {
    /// `None` if it is here already.
    file: Option<File>,
    path: PathBuf,
    bytes: u64,
    /// Content comes in order.
    at: u64,
}

impl Receiving {
    fn data(&mut self, files: &dyn Files, offset: u64, content: &[u8]) -> Result<()> {
        let end = offset.checked_add(content.len() as u64);
        match end {
            Some(end) if offset >= self.at && end <= self.bytes => self.at = end,
            _ => return Err(refused("a piece of it lies where nothing can be")),
        }
        let Some(file) = &self.file else {
            return Ok(());
        };
        // What is zero stays a hole.
        let mut at = offset;
        for page in content.chunks(ZEROS.len()) {
            if *page != ZEROS[..page.len()] {
                let written = files.write_all_at(file, page, at);
                written.context("write", &self.path)?;
            }
            at += page.len() as u64;
        }
        Ok(())
    }

    fn finish(self, files: &dyn Files) -> Result<()> {
        match &self.file {
            Some(file) => files.sync(file).context("sync", &self.path),
            None => Ok(()),
        }
    }
}

impl Draft {
    /// Receives the files of `manifest`, and publishes them once they are all there and
    /// whole.
    fn receive(
        self,
        mut manifest: Manifest,
        input: &mut In<'_>,
        known: &mut dyn FnMut(&str, FileEntry) -> Option<PathBuf>,
    ) -> Result<u64> {
        let files = Arc::clone(self.lock().files());
        let mut missing: BTreeMap<String, FileEntry> = manifest.files.clone();
        if !manifest.memory.base_runs.is_empty() {
            let entry = FileEntry {
                bytes: manifest.memory_bytes(),
                crc32c: 0,
            };
            missing.insert(BASE_FILE.to_owned(), entry);
        }
        let mut current: Option<Receiving> = None;
        let mut received = 0_u64;
        loop {
            match input.record()? {
                Record::Data { offset, content } => {
                    received = received.saturating_add(content.len() as u64);
                    cap("exported file", received, MAX_BUNDLE_BYTES)?;
                    let current = current.as_mut();
                    let current = current.ok_or_else(|| refused("a piece is of no file"))?;
                    current.data(&*files, offset, &content)?;
                }
                Record::File { name, bytes } => {
                    if let Some(file) = current.take() {
                        file.finish(&*files)?;
                    }
                    let entry = missing.remove(&name);
                    let entry = entry.filter(|entry| entry.bytes == bytes);
                    let entry = entry.ok_or_else(|| refused("it has a file it should not"))?;
                    current = Some(self.begin(&*files, &name, entry, known)?);
                }
                Record::End => break,
            }
        }
        if let Some(file) = current {
            file.finish(&*files)?;
        }
        if !missing.is_empty() {
            return Err(refused("a file of it is missing"));
        }
        manifest.name = self.lock().name().to_owned();
        self.publish_whole(&manifest)
    }

    fn begin(
        &self,
        files: &dyn Files,
        name: &str,
        entry: FileEntry,
        known: &mut dyn FnMut(&str, FileEntry) -> Option<PathBuf>,
    ) -> Result<Receiving> {
        let path = self.path().join(name);
        let is_extra = manifest::check_extra_name(name).is_ok();
        let is_linked = is_extra
            && known(name, entry).is_some_and(|source| files.hard_link(&source, &path).is_ok());
        let mut file = None;
        if !is_linked {
            let created = files.create(&path).context("create", &path)?;
            let sized = files.set_len(&created, entry.bytes);
            sized.context("size", &path)?;
            file = Some(created);
        }
        Ok(Receiving {
            file,
            path,
            bytes: entry.bytes,
            at: 0,
        })
    }
}

const _: () = assert!(ZEROS.len() as u64 == PAGE_BYTES);

#[cfg(test)]
mod tests;

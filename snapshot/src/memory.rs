//! `mem.bin`: guest memory from offset 0 on, with holes where it is zero.

use crate::content::Content;
use crate::error::Context;
use crate::files::Files;
use crate::limits::{CHUNK_BYTES, GRANULE_BYTES, MAX_BASE_RUNS, MIN_BASE_RUN_BYTES, PAGE_BYTES};
use crate::manifest::{FileEntry, MEMORY_FILE, MemoryTable, check_memory_bytes};
use crate::zeros::append_zeros;
use crate::{Result, SnapshotError};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// A page of zeros, and the most that is written or compared at once.
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);
/// What memory is compared by with a base.
const UNIT: usize = 16 << 10;
const _: () = assert!(UNIT as u64 == GRANULE_BYTES);
const BUFFER_BYTES: usize = 256 << 10;
static ZEROS: [u8; BUFFER_BYTES] = [0; BUFFER_BYTES];

/// Where the writer gets guest memory from.
///
/// Runs must ascend and must not overlap; offsets and lengths are multiples of
/// [`PAGE_BYTES`]. What is left out is zero. Pages of zeros may come along: the
/// writer looks at each page anyway.
pub trait PageSource {
    /// Bytes of guest memory.
    fn memory_bytes(&self) -> u64;

    /// Offset and content of the next run, or nothing at the end.
    ///
    /// # Errors
    /// When the memory cannot be read.
    fn next_run(&mut self) -> io::Result<Option<(u64, &[u8])>>;
}

/// Guest memory in a slice of bytes.
#[derive(Debug)]
pub struct BytePages<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BytePages<'a> {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl PageSource for BytePages<'_> {
    fn memory_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn next_run(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        let start = self.at;
        self.at = self.bytes.len();
        Ok((start < self.at).then(|| (start as u64, &self.bytes[start..])))
    }
}

/// Guest memory of a machine that stands still, read through a buffer.
#[derive(Debug)]
pub struct GuestPages<'a, B: BitmapSlice> {
    memory: &'a VolatileSlice<'a, B>,
    /// What is still to be read, as offsets, last first.
    runs: Vec<Range<usize>>,
    buffer: Vec<u8>,
}

impl<'a, B: BitmapSlice> GuestPages<'a, B> {
    /// All of `memory`.
    #[must_use]
    pub fn new(memory: &'a VolatileSlice<'a, B>) -> Self {
        let all = 0..memory.len() as u64 / PAGE_BYTES;
        Self::of(memory, vec![all])
    }

    /// These runs of pages of `memory`, ascending; the others are zeros.
    #[must_use]
    pub fn of(memory: &'a VolatileSlice<'a, B>, runs: Vec<Range<u64>>) -> Self {
        let offset = |page: u64| {
            usize::try_from(page)
                .unwrap_or(usize::MAX)
                .saturating_mul(PAGE)
        };
        let runs = runs.into_iter().rev();
        Self {
            memory,
            runs: runs.map(|run| offset(run.start)..offset(run.end)).collect(),
            buffer: vec![0; BUFFER_BYTES],
        }
    }
}

impl<B: BitmapSlice> PageSource for GuestPages<'_, B> {
    fn memory_bytes(&self) -> u64 {
        self.memory.len() as u64
    }

    fn next_run(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        let Some(run) = self.runs.last_mut() else {
            return Ok(None);
        };
        let at = run.start;
        let len = BUFFER_BYTES.min(run.len());
        run.start += len;
        if run.start >= run.end {
            self.runs.pop();
        }
        let piece = self.memory.subslice(at, len).map_err(io::Error::other)?;
        piece.copy_to(&mut self.buffer[..len]);
        Ok(Some((at as u64, &self.buffer[..len])))
    }
}

/// Pages from an iterator over offsets and contents.
#[derive(Debug)]
pub struct IterPages<'a, I> {
    memory_bytes: u64,
    pages: I,
    marker: std::marker::PhantomData<&'a [u8]>,
}

impl<'a, I: Iterator<Item = (u64, &'a [u8])>> IterPages<'a, I> {
    /// `pages` of a memory of `memory_bytes`.
    pub fn new(memory_bytes: u64, pages: I) -> Self {
        Self {
            memory_bytes,
            pages,
            marker: std::marker::PhantomData,
        }
    }
}

impl<'a, I: Iterator<Item = (u64, &'a [u8])>> PageSource for IterPages<'a, I> {
    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    fn next_run(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        Ok(self.pages.next())
    }
}

/// Makes the table of checksums while memory goes by.
struct Chunks {
    memory_bytes: u64,
    /// Everything before this offset is in `crc` or in the table.
    at: u64,
    crc: u32,
    /// Whether the chunk of `at` has data.
    has_data: bool,
    /// Zeros before the first data of this chunk: not in `crc` yet, because
    /// most chunks without data at their start have none at all.
    leading_zeros: u64,
    table: MemoryTable,
}

impl Chunks {
    fn new(memory_bytes: u64) -> Self {
        Self {
            memory_bytes,
            at: 0,
            crc: 0,
            has_data: false,
            leading_zeros: 0,
            table: MemoryTable {
                stored_bytes: 0,
                chunks: Vec::new(),
                base_runs: Vec::new(),
            },
        }
    }

    /// End of the chunk of `at`.
    fn chunk_end(&self) -> u64 {
        (self.at / CHUNK_BYTES * CHUNK_BYTES + CHUNK_BYTES).min(self.memory_bytes)
    }

    fn advance(&mut self, bytes: u64) {
        let end = self.chunk_end();
        self.at += bytes;
        if self.at == end {
            if self.has_data {
                let index = (end - 1) / CHUNK_BYTES;
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                self.table.chunks.push((index, self.crc));
            }
            self.crc = 0;
            self.has_data = false;
            self.leading_zeros = 0;
        }
    }

    fn zeros_up_to(&mut self, offset: u64) {
        while self.at < offset {
            let step = (self.chunk_end().min(offset)) - self.at;
            if self.has_data {
                self.crc = append_zeros(self.crc, step);
            } else {
                self.leading_zeros += step;
            }
            self.advance(step);
        }
    }

    /// Whether a run of `bytes` at `start` is worth a mapping: it is long, or goes on with
    /// the one before it.
    fn may_share(&self, start: u64, bytes: usize) -> bool {
        let runs = &self.table.base_runs;
        let goes_on = runs.last().is_some_and(|(first, count)| {
            (u64::from(*first) + u64::from(*count)) * GRANULE_BYTES == start
        });
        goes_on || (bytes as u64 >= MIN_BASE_RUN_BYTES && runs.len() < MAX_BASE_RUNS)
    }

    /// The whole units at `start` are in the base.
    fn shared(&mut self, start: u64, bytes: &[u8]) {
        self.zeros_up_to(start);
        self.data(bytes);
        let units = |bytes: u64| u32::try_from(bytes / GRANULE_BYTES).unwrap_or(u32::MAX);
        let (unit, more) = (units(start), units(bytes.len() as u64));
        match self.table.base_runs.last_mut() {
            Some((first, count)) if *first + *count == unit => *count += more,
            _ => self.table.base_runs.push((unit, more)),
        }
    }

    fn data(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let left = usize::try_from(self.chunk_end() - self.at).unwrap_or(usize::MAX);
            let (head, rest) = bytes.split_at(left.min(bytes.len()));
            let zeros = std::mem::take(&mut self.leading_zeros);
            self.crc = append_zeros(self.crc, zeros);
            self.crc = crc32c::crc32c_append(self.crc, head);
            self.has_data = true;
            self.advance(head.len() as u64);
            bytes = rest;
        }
    }

    fn finish(mut self) -> MemoryTable {
        self.zeros_up_to(self.memory_bytes);
        self.table
    }
}

/// How much of `run`, which begins at `start`, is in its first unit.
fn unit_len(start: u64, run: &[u8]) -> usize {
    let unit = GRANULE_BYTES - start % GRANULE_BYTES;
    usize::try_from(unit).unwrap_or(usize::MAX).min(run.len())
}

/// How many bytes at the beginning of `run`, which begins at `start`, are whole units that
/// the base has too and that are not zero.
fn same_units(start: u64, run: &[u8], in_base: &[u8]) -> usize {
    if !start.is_multiple_of(GRANULE_BYTES) {
        return 0;
    }
    let units = run.chunks_exact(UNIT).zip(in_base.chunks_exact(UNIT));
    UNIT * units
        .take_while(|(unit, other)| unit == other && !is_zero(unit))
        .count()
}

fn is_zero(page: &[u8]) -> bool {
    page == &ZEROS[..page.len()]
}

/// `mem.bin` while it is written.
struct Writer<'a> {
    files: &'a dyn Files,
    path: &'a Path,
    file: File,
    chunks: Chunks,
    /// The base, and room for a run of it.
    base: Option<(&'a File, Vec<u8>)>,
}

impl Writer<'_> {
    /// Takes a run.
    fn run(&mut self, mut start: u64, run: &[u8]) -> Result<()> {
        for piece in run.chunks(BUFFER_BYTES) {
            match self.base.take() {
                None => self.store(start, piece)?,
                Some((base, mut room)) => {
                    self.compare(start, piece, base, &mut room)?;
                    self.base = Some((base, room));
                }
            }
            start += piece.len() as u64;
        }
        Ok(())
    }

    /// Leaves runs of whole units that the base has too to it.
    fn compare(
        &mut self,
        mut start: u64,
        mut run: &[u8],
        base: &File,
        room: &mut Vec<u8>,
    ) -> Result<()> {
        room.resize(run.len(), 0);
        let read = self.files.read_exact_at(base, room, start);
        read.context("read the base of", self.path)?;
        let mut in_base = &room[..];
        while !run.is_empty() {
            let same = same_units(start, run, in_base);
            let is_shared = same > 0 && self.chunks.may_share(start, same);
            let len = if same > 0 { same } else { unit_len(start, run) };
            let ((head, rest), others) = (run.split_at(len), &in_base[len..]);
            if is_shared {
                self.chunks.shared(start, head);
            } else {
                self.store(start, head)?;
            }
            start += head.len() as u64;
            (run, in_base) = (rest, others);
        }
        Ok(())
    }

    /// Writes what is not zero.
    fn store(&mut self, offset: u64, run: &[u8]) -> Result<()> {
        let mut at = 0;
        while at < run.len() {
            let pages = |from: usize| run[from..].chunks(PAGE);
            at += PAGE * pages(at).take_while(|page| is_zero(page)).count();
            let data = PAGE * pages(at).take_while(|page| !is_zero(page)).count();
            if data > 0 {
                let (start, bytes) = (offset + at as u64, &run[at..at + data]);
                let written = self.files.write_all_at(&self.file, bytes, start);
                written.context("write", self.path)?;
                self.chunks.zeros_up_to(start);
                self.chunks.data(bytes);
                self.chunks.table.stored_bytes += bytes.len() as u64;
                at += data;
            }
        }
        Ok(())
    }
}

/// Writes guest memory to a new file, but for what `base` has at the same
/// place. It is not on the medium yet.
pub(crate) fn write(
    files: &dyn Files,
    path: &Path,
    source: &mut dyn PageSource,
    base: Option<&File>,
) -> Result<(FileEntry, MemoryTable)> {
    let memory_bytes = source.memory_bytes();
    check_memory_bytes(memory_bytes)?;
    let file = files.create(path).context("create", path)?;
    files.set_len(&file, memory_bytes).context("resize", path)?;
    let mut writer = Writer {
        files,
        path,
        file,
        chunks: Chunks::new(memory_bytes),
        base: base.map(|base| (base, Vec::new())),
    };
    while let Some((offset, run)) = source.next_run().map_err(SnapshotError::Source)? {
        let end = offset.checked_add(run.len() as u64);
        let inside = end.is_some_and(|end| end <= memory_bytes);
        let aligned = offset.is_multiple_of(PAGE_BYTES) && run.len().is_multiple_of(PAGE);
        if !inside || !aligned || offset < writer.chunks.at {
            return Err(SnapshotError::Malformed {
                what: "run of a page source",
            });
        }
        writer.run(offset, run)?;
    }
    let table = writer.chunks.finish();
    let entry = FileEntry {
        bytes: memory_bytes,
        crc32c: table.crc32c(),
    };
    Ok((entry, table))
}

/// Fills `bytes` with the memory at `at`.
fn read(files: &dyn Files, content: &Content, bytes: &mut [u8], at: u64) -> io::Result<()> {
    let mut rest = bytes;
    for (file, run) in content.pieces(at..at + rest.len() as u64) {
        let len = usize::try_from(run.end - run.start).unwrap_or(usize::MAX);
        let (head, tail) = rest.split_at_mut(len.min(rest.len()));
        files.read_exact_at(file, head, run.start)?;
        rest = tail;
    }
    Ok(())
}

/// Reads all of the memory and compares it with the table.
pub(crate) fn verify(
    files: &dyn Files,
    content: &Content,
    path: &Path,
    bytes: u64,
    table: &MemoryTable,
) -> Result<()> {
    let mut found = Chunks::new(bytes);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = 0;
    while at < bytes {
        let left = usize::try_from(bytes - at).unwrap_or(usize::MAX);
        let len = left.min(buffer.len());
        let piece = &mut buffer[..len];
        read(files, content, piece, at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => SnapshotError::Truncated { what: MEMORY_FILE },
            _ => SnapshotError::Io {
                what: "read",
                path: path.to_owned(),
                source: error,
            },
        })?;
        if is_zero(piece) {
            found.zeros_up_to(at + len as u64);
        } else {
            found.data(piece);
        }
        at += len as u64;
    }
    let found = found.finish().chunks;
    if found == table.chunks {
        return Ok(());
    }
    let differs = found.iter().zip(&table.chunks).find(|(a, b)| a != b);
    let index = differs.map_or_else(
        || {
            let shorter = found.len().min(table.chunks.len());
            let longer = if found.len() > shorter {
                &found
            } else {
                &table.chunks
            };
            longer.get(shorter).map_or(0, |chunk| chunk.0)
        },
        |(a, b)| a.0.min(b.0),
    );
    Err(SnapshotError::Checksum {
        section: format!("chunk {index} of mem.bin"),
    })
}

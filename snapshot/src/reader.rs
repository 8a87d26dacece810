//! Opening a generation: everything is checked before anything is mapped.

use crate::content::Content;
use crate::error::{Context, cap};
use crate::files::{Files, LockKind};
use crate::layout::generation_number;
use crate::limits::{MAX_MANIFEST_BYTES, PAGE_BYTES};
use crate::manifest::{
    self, BASE_FILE, FileEntry, MEMORY_FILE, Manifest, STATE_FILE, WORKING_SET_FILE,
};
use crate::map::RamMapping;
use crate::{Result, SnapshotError, Stamp, StateFile, WorkingSet, host, memory};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A whole generation, open to be looked at. It keeps the generation from
/// being removed.
#[derive(Debug)]
pub struct Inspection {
    files: Arc<dyn Files>,
    path: PathBuf,
    /// Holds the shared lock.
    directory: File,
    manifest: Manifest,
    state: StateFile,
    working_set: WorkingSet,
    memory: Arc<File>,
    base: Option<Arc<File>>,
}

/// A generation that can run here.
#[derive(Debug)]
pub struct Snapshot(Inspection);

impl Deref for Snapshot {
    type Target = Inspection;

    fn deref(&self) -> &Inspection {
        &self.0
    }
}

/// Opens a file and checks its type and its length.
fn open_checked(
    files: &dyn Files,
    path: &Path,
    name: &'static str,
    expected: Option<u64>,
) -> Result<(File, u64)> {
    let file = files.open(path).context("open", path)?;
    let attributes = files.attributes(&file).context("examine", path)?;
    if !attributes.is_file() {
        return Err(SnapshotError::Malformed { what: name });
    }
    let bytes = attributes.len();
    match expected {
        Some(expected) if bytes < expected => Err(SnapshotError::Truncated { what: name }),
        Some(expected) if bytes > expected => Err(SnapshotError::TrailingBytes { what: name }),
        _ => Ok((file, bytes)),
    }
}

/// Reads a small file whole.
fn read_checked(
    files: &dyn Files,
    path: &Path,
    name: &'static str,
    entry: Option<FileEntry>,
    limit: u64,
) -> Result<Vec<u8>> {
    let (file, bytes) = open_checked(files, path, name, entry.map(|entry| entry.bytes))?;
    cap(name, bytes, limit)?;
    let mut content = vec![0; usize::try_from(bytes).unwrap_or(0)];
    files
        .read_exact_at(&file, &mut content, 0)
        .map_err(|error| truncated(error, name, path))?;
    if entry.is_some_and(|entry| entry.crc32c != crc32c::crc32c(&content)) {
        return Err(SnapshotError::Checksum {
            section: name.to_owned(),
        });
    }
    Ok(content)
}

fn truncated(source: io::Error, what: &'static str, path: &Path) -> SnapshotError {
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return SnapshotError::Truncated { what };
    }
    SnapshotError::Io {
        what: "read",
        path: path.to_owned(),
        source,
    }
}

/// CRC32C of the first `bytes` of a file.
fn checksum(files: &dyn Files, file: &File, path: &Path, bytes: u64) -> Result<u32> {
    let mut buffer = vec![0; 256 << 10];
    let (mut at, mut crc) = (0, 0);
    while at < bytes {
        let left = usize::try_from(bytes - at).unwrap_or(usize::MAX);
        let len = left.min(buffer.len());
        let piece = &mut buffer[..len];
        files
            .read_exact_at(file, piece, at)
            .map_err(|error| truncated(error, "extra file", path))?;
        crc = crc32c::crc32c_append(crc, piece);
        at += piece.len() as u64;
    }
    Ok(crc)
}

impl FileEntry {
    /// Reads all of a file, for [`crate::Draft::link`]. Takes about 0.1 ms for
    /// each MiB that is in the page cache.
    ///
    /// # Errors
    /// When it is no file, or cannot be read.
    pub fn of(files: &dyn Files, path: &Path) -> Result<Self> {
        let (file, bytes) = open_checked(files, path, "file that was to be linked", None)?;
        let crc32c = checksum(files, &file, path, bytes)?;
        Ok(Self { bytes, crc32c })
    }
}

impl Inspection {
    /// Opens the generation in directory `path`; nothing if someone removes it.
    pub(crate) fn open(files: Arc<dyn Files>, path: &Path) -> Result<Option<Self>> {
        let directory = files.open(path).context("open", path)?;
        if !files
            .try_lock(&directory, LockKind::Shared)
            .context("lock", path)?
        {
            return Ok(None);
        }
        let access = &*files;
        let at = |name| path.join(name);
        let bytes = read_checked(
            access,
            &at(manifest::FILE),
            manifest::FILE,
            None,
            MAX_MANIFEST_BYTES,
        )?;
        let manifest = Manifest::decode(&bytes)?;
        let entry = |name| manifest.files[name];
        let small = |name| {
            let entry: FileEntry = entry(name);
            read_checked(access, &at(name), name, Some(entry), entry.bytes)
        };
        let state = StateFile::parse(small(STATE_FILE)?)?;
        let working_set = small(WORKING_SET_FILE)?;
        let working_set = WorkingSet::decode(&working_set, manifest.memory_bytes())?;
        let length = Some(manifest.memory_bytes());
        let (memory, _) = open_checked(access, &at(MEMORY_FILE), MEMORY_FILE, length)?;
        let base = if manifest.memory.base_runs.is_empty() {
            None
        } else {
            let (base, _) = open_checked(access, &at(BASE_FILE), BASE_FILE, length)?;
            Some(Arc::new(base))
        };
        for (name, entry) in manifest.extra_files() {
            open_checked(access, &at(name), "extra file", Some(entry.bytes))?;
        }
        Ok(Some(Self {
            files,
            path: path.to_owned(),
            directory,
            manifest,
            state,
            working_set,
            memory: Arc::new(memory),
            base,
        }))
    }

    /// What it is read with.
    pub(crate) fn files(&self) -> &dyn Files {
        &*self.files
    }

    /// The directory, which holds the lock.
    pub(crate) fn directory(&self) -> &File {
        &self.directory
    }

    /// The file of memory that was checked.
    pub(crate) fn memory(&self) -> &File {
        &self.memory
    }

    /// The same of what it has in common with others.
    pub(crate) fn base(&self) -> Option<&File> {
        self.base.as_deref()
    }

    /// The files of memory.
    pub(crate) fn content(&self) -> Content {
        let base = self.base.clone();
        Content::new(Arc::clone(&self.memory), base, &self.manifest.memory)
    }

    /// What others can take for their base.
    pub(crate) fn base_path(&self) -> PathBuf {
        let has_base = self.base.is_some();
        self.path
            .join(if has_base { BASE_FILE } else { MEMORY_FILE })
    }

    /// Directory of the generation.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of the generation, if its directory has the name of one.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        generation_number(self.path.file_name()?)
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// State of everything but memory.
    #[must_use]
    pub fn state(&self) -> &StateFile {
        &self.state
    }

    /// Pages the guest touches first.
    #[must_use]
    pub fn working_set(&self) -> &WorkingSet {
        &self.working_set
    }

    /// Reads one of [`Manifest::extra_files`] whole and compares it with its
    /// checksum, so that nothing of a damaged file is ever used.
    ///
    /// # Errors
    /// When there is none of that name, it is longer than `limit`, or its length
    /// or its content changed.
    pub fn read_extra_file(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let entry = self.extra_entry(name)?;
        cap("extra file", entry.bytes, limit)?;
        let path = self.path.join(name);
        match read_checked(&*self.files, &path, "extra file", Some(entry), limit) {
            Err(SnapshotError::Checksum { .. }) => Err(SnapshotError::Checksum {
                section: name.to_owned(),
            }),
            read => read,
        }
    }

    fn extra_entry(&self, name: &str) -> Result<FileEntry> {
        manifest::check_extra_name(name)?;
        let entry = self.manifest.files.get(name);
        entry.copied().ok_or_else(|| SnapshotError::Name {
            name: name.to_owned(),
        })
    }

    /// Compares all of memory and the extra files with their checksums, which
    /// opening does not do. Takes about 0.1 ms for each MiB.
    ///
    /// # Errors
    /// The first difference.
    pub fn verify(&self) -> Result<()> {
        let path = self.path.join(MEMORY_FILE);
        let bytes = self.manifest.memory_bytes();
        let files = &*self.files;
        memory::verify(files, &self.content(), &path, bytes, &self.manifest.memory)?;
        for (name, entry) in self.manifest.extra_files() {
            let path = self.path.join(name);
            let (file, _) = open_checked(files, &path, "extra file", Some(entry.bytes))?;
            if checksum(files, &file, &path, entry.bytes)? != entry.crc32c {
                return Err(SnapshotError::Checksum {
                    section: name.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Confirms that the machine can run on this host.
    ///
    /// # Errors
    /// What is different here.
    pub fn admit(self, here: &Stamp) -> Result<Snapshot> {
        self.manifest.machine.stamp.check(here)?;
        Ok(Snapshot(self))
    }
}

impl Snapshot {
    /// Maps guest memory: private, copy-on-write, from the file that was
    /// checked. Takes the same time for any size.
    ///
    /// # Errors
    /// When the file is no longer as long as it was, or the system refuses.
    pub fn map_memory(&self) -> Result<RamMapping> {
        let path = self.path.join(MEMORY_FILE);
        let bytes = self.manifest.memory_bytes();
        let files = [
            (MEMORY_FILE, Some(&self.memory)),
            (BASE_FILE, self.base.as_ref()),
        ];
        for (what, file) in files {
            let Some(file) = file else { continue };
            let attributes = self.files.attributes(file);
            if attributes.context("examine", &self.path.join(what))?.len() < bytes {
                return Err(SnapshotError::Truncated { what });
            }
        }
        RamMapping::new(self.content(), bytes).context("map", &path)
    }

    /// Starts to read the working set into the page cache. May block on some
    /// systems: for a thread of its own, beside the restore.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn read_ahead(&self) -> Result<()> {
        let content = self.content();
        for run in self.working_set.runs() {
            for (file, piece) in content.pieces(run.start * PAGE_BYTES..run.end * PAGE_BYTES) {
                host::read_ahead(file, piece.start, piece.end - piece.start)
                    .context("read ahead", &self.path)?;
            }
        }
        Ok(())
    }
}

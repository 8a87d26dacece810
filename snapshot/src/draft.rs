//! A generation that is being written.

use crate::content::Content;
use crate::error::{Context, cap};
use crate::layout::{POINTER, generation_name, pointer_to, temporary_name};
use crate::limits::{MAX_EXTRA_BYTES, MAX_EXTRA_FILES, MAX_STATE_BYTES};
use crate::lock::SnapshotLock;
use crate::manifest::{
    self, BASE_FILE, Description, FileEntry, MANIFEST_FORMAT, MEMORY_FILE, Manifest, MemoryTable,
    STATE_FILE, WORKING_SET_FILE, check_extra_name,
};
use crate::memory::{self, PageSource};
use crate::{Files, Inspection, RamMapping, Result, SnapshotError, StateFile, WorkingSet};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A generation that is being written, under a name nobody looks for. Dropped
/// before [`Draft::publish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    lock: SnapshotLock,
    number: u64,
    path: PathBuf,
    files: BTreeMap<String, FileEntry>,
    memory: Option<MemoryTable>,
    /// Files that may not be on the medium yet. They are synced one after the other
    /// before anybody sees them: on most file systems the first takes the others along.
    unsynced: Vec<String>,
    stage: Stage,
}

/// What another process wrote into the directory of a draft, for
/// [`Draft::adopt`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    memory_file: FileEntry,
    memory: MemoryTable,
    state_file: FileEntry,
}

impl Written {
    /// Writes memory, without its pages of zeros, and the state of everything
    /// else into `directory`. Both are on the medium once a draft has
    /// [adopted](Draft::adopt) them.
    ///
    /// # Errors
    /// When the source or the disk fails, or a reader would refuse the state.
    pub fn write(
        files: &dyn Files,
        directory: &Path,
        memory: &mut dyn PageSource,
        state: &[u8],
    ) -> Result<Self> {
        cap(STATE_FILE, state.len() as u64, MAX_STATE_BYTES)?;
        StateFile::parse(state.to_vec())?;
        let base = open_base(files, directory, memory.memory_bytes())?;
        let path = directory.join(MEMORY_FILE);
        let (memory_file, memory) = memory::write(files, &path, memory, base.as_ref())?;
        write_file(files, &directory.join(STATE_FILE), state)?;
        Ok(Self {
            memory_file,
            memory,
            state_file: entry_of(state),
        })
    }

    /// Makes the memory that was written to `directory` that of `ram`: at the
    /// same address, going back to it from now on. For the machine it was
    /// written from, which stands still; what it has in common with the file
    /// is shared from then on.
    ///
    /// # Errors
    /// When the file is not the one that was written, or the system refuses.
    pub fn map_over(&self, files: &dyn Files, directory: &Path, ram: &RamMapping) -> Result<()> {
        let path = directory.join(MEMORY_FILE);
        let file = files.open(&path).context("open", &path)?;
        let bytes = files.attributes(&file).context("examine", &path)?.len();
        if ram.bytes() as u64 != bytes {
            return Err(SnapshotError::Truncated { what: MEMORY_FILE });
        }
        let base = open_base(files, directory, bytes)?.map(Arc::new);
        let content = Content::new(Arc::new(file), base, &self.memory);
        ram.rebase(content).context("map", &path)
    }

    /// Bytes of memory that are stored.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.memory.stored_bytes
    }
}

/// Opens the base in a draft's directory, if there is one for that much memory.
fn open_base(files: &dyn Files, directory: &Path, bytes: u64) -> Result<Option<File>> {
    let path = directory.join(BASE_FILE);
    let base = match files.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.context("open", &path)?,
    };
    let length = files.attributes(&base).context("examine", &path)?.len();
    Ok((length == bytes).then_some(base))
}

fn entry_of(bytes: &[u8]) -> FileEntry {
    FileEntry {
        bytes: bytes.len() as u64,
        crc32c: crc32c::crc32c(bytes),
    }
}

/// What is to be removed when a draft is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The temporary directory.
    Writing,
    /// The generation under its own name.
    Renamed,
    /// Nothing: others may see it.
    Published,
}

impl SnapshotLock {
    /// Starts a new generation.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn draft(self) -> Result<Draft> {
        let files = self.files();
        match files.create_dir(self.directory()) {
            Ok(()) => files.sync_dir(self.root()).context("sync", self.root())?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.sweep()?;
            }
            Err(error) => return Err(error).context("create", self.directory()),
        }
        let newest = self.generations()?.last().copied().unwrap_or(0);
        Draft::new(self, newest + 1)
    }
}

impl Draft {
    pub(crate) fn new(lock: SnapshotLock, number: u64) -> Result<Self> {
        let name = temporary_name(&generation_name(number));
        let path = lock.directory().join(name);
        let created = lock.files().create_dir(&path);
        created.context("create", &path)?;
        Ok(Self {
            lock,
            number,
            path,
            files: BTreeMap::new(),
            memory: None,
            unsynced: Vec::new(),
            stage: Stage::Writing,
        })
    }

    /// Directory of the draft.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the memory leave out what another generation of the same size has
    /// at the same place, or, if that one has a base itself, what its base has.
    /// Before memory is written. Gives whether the file system could give the
    /// file a further name; without that there is no base.
    ///
    /// # Errors
    /// When there is one already.
    pub fn share(&mut self, other: &Inspection) -> Result<bool> {
        let files = self.lock.files();
        let path = self.path.join(BASE_FILE);
        match files.hard_link(&other.base_path(), &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(error).context("link", &path)
            }
            linked => Ok(linked.is_ok()),
        }
    }

    /// Stores guest memory, without its pages of zeros.
    ///
    /// # Errors
    /// When the source or the disk fails, or the memory's size is not one the
    /// format allows.
    pub fn memory(&mut self, source: &mut dyn PageSource) -> Result<()> {
        let path = self.path.join(MEMORY_FILE);
        let files = self.lock.files();
        let base = open_base(&**files, &self.path, source.memory_bytes())?;
        let (entry, table) = memory::write(&**files, &path, source, base.as_ref())?;
        self.files.insert(MEMORY_FILE.to_owned(), entry);
        self.unsynced.push(MEMORY_FILE.to_owned());
        self.memory = Some(table);
        Ok(())
    }

    /// Stores the state of everything else, made by [`crate::StateWriter`].
    ///
    /// # Errors
    /// When a reader would refuse it, or the disk fails.
    pub fn state(&mut self, state: &[u8]) -> Result<()> {
        cap(STATE_FILE, state.len() as u64, MAX_STATE_BYTES)?;
        StateFile::parse(state.to_vec())?;
        self.small(STATE_FILE, state)
    }

    /// Takes over files that another process wrote into [`Draft::path`], and waits until
    /// they are on the medium.
    ///
    /// # Errors
    /// When they are not there, not of that length, or the disk fails.
    pub fn adopt(&mut self, written: Written) -> Result<()> {
        let files = self.lock.files();
        for (name, entry) in [
            (MEMORY_FILE, written.memory_file),
            (STATE_FILE, written.state_file),
        ] {
            let path = self.path.join(name);
            let file = files.open(&path).context("open", &path)?;
            let attributes = files.attributes(&file).context("examine", &path)?;
            if attributes.len() != entry.bytes {
                return Err(SnapshotError::Truncated {
                    what: if name == STATE_FILE {
                        STATE_FILE
                    } else {
                        MEMORY_FILE
                    },
                });
            }
            files.sync(&file).context("sync", &path)?;
            self.files.insert(name.to_owned(), entry);
        }
        self.memory = Some(written.memory);
        Ok(())
    }

    /// Stores which pages to read ahead. Without this call there are none.
    ///
    /// # Errors
    /// When the disk fails, or it was called before.
    pub fn working_set(&mut self, working_set: &WorkingSet) -> Result<()> {
        self.small(WORKING_SET_FILE, &working_set.encode())
    }

    /// Makes a file that nobody will write to any more one of the generation,
    /// with `entry` as its [`FileEntry::of`]: by a further name for it where
    /// the file system can do that, as a copy elsewhere.
    ///
    /// # Errors
    /// When the name is not one, there are too many, the file is another than
    /// the one described, or reading or writing fails.
    pub fn link(&mut self, name: &str, source: &Path, entry: FileEntry) -> Result<()> {
        self.check_extra(name)?;
        let path = self.path.join(name);
        let files = Arc::clone(self.lock.files());
        // Other file systems, other owners, too many links: all that is left
        // then is to copy, and if that is no way out either, it says why.
        if files.hard_link(source, &path).is_err() {
            let mut file = files.open(source).context("open", source)?;
            self.extra_file(name, &mut file)?;
        }
        let linked = files.attributes_of(&path).context("examine", &path)?;
        let copied = self.files.insert(name.to_owned(), entry);
        let is_same = copied.is_none_or(|copied| copied == entry);
        if !linked.is_file() || linked.len() != entry.bytes || !is_same {
            return Err(SnapshotError::Malformed {
                what: "file that was to be linked",
            });
        }
        Ok(())
    }

    fn check_extra(&self, name: &str) -> Result<()> {
        check_extra_name(name)?;
        if self.files.contains_key(name) {
            return Err(SnapshotError::Name {
                name: name.to_owned(),
            });
        }
        let count = self.files.len() as u64 + 1;
        cap("number of files", count, MAX_EXTRA_FILES as u64)
    }

    /// Takes over a further file that another process wrote into [`Draft::path`], and
    /// that nobody will write to any more. All of it is read for its checksum.
    ///
    /// # Errors
    /// When the name is not one, there are too many, the file is too long, or it cannot be
    /// read.
    pub fn adopt_file(&mut self, name: &str) -> Result<()> {
        self.check_extra(name)?;
        let path = self.path.join(name);
        let files = self.lock.files();
        let attributes = files.attributes_of(&path).context("examine", &path)?;
        cap("extra file", attributes.len(), MAX_EXTRA_BYTES)?;
        let entry = FileEntry::of(&**files, &path)?;
        self.unsynced.push(name.to_owned());
        self.files.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Stores a further file that restoring will need.
    ///
    /// # Errors
    /// When the name is not one, there are too many, or reading or writing
    /// fails.
    pub fn extra_file(&mut self, name: &str, content: &mut dyn Read) -> Result<()> {
        self.check_extra(name)?;
        let files = self.lock.files();
        let path = self.path.join(name);
        let file = files.create(&path).context("create", &path)?;
        let mut entry = FileEntry {
            bytes: 0,
            crc32c: 0,
        };
        let mut buffer = vec![0; 64 << 10];
        loop {
            let piece = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => &buffer[..count],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("read the source of", &path),
            };
            cap(
                "extra file",
                entry.bytes + piece.len() as u64,
                MAX_EXTRA_BYTES,
            )?;
            let written = files.write_all_at(&file, piece, entry.bytes);
            written.context("write", &path)?;
            entry.bytes += piece.len() as u64;
            entry.crc32c = crc32c::crc32c_append(entry.crc32c, piece);
        }
        self.unsynced.push(name.to_owned());
        self.files.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Writes a whole file.
    fn small(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let files = self.lock.files();
        write_file(&**files, &self.path.join(name), bytes)?;
        self.unsynced.push(name.to_owned());
        self.files.insert(name.to_owned(), entry_of(bytes));
        Ok(())
    }

    /// Makes the draft the current generation of its name and gives its
    /// number. Whoever opens the name from then on gets this one; those that
    /// have an older one keep it.
    ///
    /// # Errors
    /// When memory or state is missing, or the disk fails. The generation
    /// before stays current, except when only the very last wait for the
    /// medium fails: then either of the two is, whole.
    pub fn publish(mut self, description: Description) -> Result<u64> {
        if !self.files.contains_key(WORKING_SET_FILE) {
            self.working_set(&WorkingSet::default())?;
        }
        let memory = self.memory.take().ok_or(SnapshotError::Malformed {
            what: "draft without memory",
        })?;
        if let Some(set) = self.files.get(WORKING_SET_FILE) {
            cap(
                "working set",
                set.bytes,
                crate::limits::MAX_WORKING_SET_BYTES,
            )?;
        }
        if memory.base_runs.is_empty() {
            self.drop_base()?;
        }
        let manifest = Manifest {
            format: MANIFEST_FORMAT,
            name: self.lock.name().to_owned(),
            machine: description,
            memory,
            files: std::mem::take(&mut self.files),
        };
        self.write_manifest(&manifest)?;
        self.commit()?;
        Ok(self.number)
    }

    fn write_manifest(&mut self, manifest: &Manifest) -> Result<()> {
        let encoded = manifest.encode()?;
        let path = self.path.join(manifest::FILE);
        write_file(&**self.lock.files(), &path, &encoded)?;
        self.unsynced.push(manifest::FILE.to_owned());
        Ok(())
    }

    /// As [`Draft::publish`], of files that came with their manifest: once all of them
    /// are as it says.
    pub(crate) fn publish_whole(mut self, manifest: &Manifest) -> Result<u64> {
        self.write_manifest(manifest)?;
        let files = Arc::clone(self.lock.files());
        match Inspection::open(files, &self.path)? {
            Some(written) => written.verify()?,
            None => {
                return Err(SnapshotError::Locked {
                    name: self.lock.name().to_owned(),
                    holder: None,
                });
            }
        }
        self.commit()?;
        Ok(self.number)
    }

    pub(crate) fn lock(&self) -> &SnapshotLock {
        &self.lock
    }

    /// Removes a base that has nothing of this memory.
    fn drop_base(&self) -> Result<()> {
        let path = self.path.join(BASE_FILE);
        match self.lock.files().remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context("remove", &path)
            }
            _ => Ok(()),
        }
    }

    fn commit(&mut self) -> Result<()> {
        let next = self.lock.directory().join(temporary_name(POINTER));
        let swapped = self.swap(&next);
        if swapped.is_err() && self.stage != Stage::Published {
            let _ = self.lock.files().remove_file(&next);
        }
        swapped
    }

    /// Commits with `next` as the pointer to come. Each step is on the medium before
    /// one that needs it.
    fn swap(&mut self, next: &Path) -> Result<()> {
        let files = Arc::clone(self.lock.files());
        let directory = self.lock.directory().to_owned();
        let text = pointer_to(self.number);
        let pointer = write_file(&*files, next, text.as_bytes())?;
        for name in std::mem::take(&mut self.unsynced) {
            let path = self.path.join(name);
            let file = files.open(&path).context("open", &path)?;
            files.sync(&file).context("sync", &path)?;
        }
        files.sync(&pointer).context("sync", next)?;
        files.sync_dir(&self.path).context("sync", &self.path)?;

        let place = directory.join(generation_name(self.number));
        files
            .rename(&self.path, &place)
            .context("rename", &self.path)?;
        self.stage = Stage::Renamed;
        self.path = place;
        files.sync_dir(&directory).context("sync", &directory)?;

        files
            .rename(next, &directory.join(POINTER))
            .context("rename", next)?;
        self.stage = Stage::Published;
        files.sync_dir(&directory).context("sync", &directory)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.stage != Stage::Published {
            // What cannot be removed now is swept by the next to hold the lock.
            let _ = self.lock.files().remove_tree(&self.path);
            self.lock.remove_if_empty();
        }
    }
}

/// Writes a new file, which is not on the medium yet.
fn write_file(files: &dyn Files, path: &Path, bytes: &[u8]) -> Result<File> {
    let file = files.create(path).context("create", path)?;
    files.write_all_at(&file, bytes, 0).context("write", path)?;
    Ok(file)
}

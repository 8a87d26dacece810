//! Files that are open already: for a process that is to open none itself,
//! because it is confined, or because what was checked must be what is used.

use crate::error::Context;
use crate::files::{Files, LockKind};
use crate::manifest::{self, BASE_FILE, MEMORY_FILE, STATE_FILE, WORKING_SET_FILE};
use crate::reader::Inspection;
use crate::{FilesBelow, Result, SnapshotError, SystemFiles};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the directory itself is called among [`OpenFiles`].
const DIRECTORY: &str = ".";

/// The files of one directory by their names, each open. As [`Files`] they are
/// found by the last part of a path, and nothing else is.
#[derive(Debug, Default)]
pub struct OpenFiles {
    files: BTreeMap<String, File>,
    /// What the directory is called, if it is among them.
    directory: PathBuf,
}

impl OpenFiles {
    /// Files of a directory, by their names in it.
    pub fn new(files: impl IntoIterator<Item = (String, File)>) -> Self {
        Self {
            files: files.into_iter().collect(),
            directory: PathBuf::new(),
        }
    }

    /// Creates what [`Written::write`](crate::Written::write) writes into the
    /// directory of a draft, and opens the base, if there is one.
    ///
    /// # Errors
    /// When a file is there already or cannot be created.
    pub fn to_write(directory: &Path) -> Result<Self> {
        let files = FilesBelow::open(directory)?;
        let create = |name: &str| {
            let path = directory.join(name);
            let file = files.create(&path).context("create", &path)?;
            Ok((name.to_owned(), file))
        };
        let created = [create(MEMORY_FILE)?, create(STATE_FILE)?];
        let base = open_base(&files, directory)?;
        Ok(Self::new(created.into_iter().chain(base)))
    }

    /// Opens what [`Written::map_over`](crate::Written::map_over) maps of the
    /// directory of a draft.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn to_map(directory: &Path) -> Result<Self> {
        let files = FilesBelow::open(directory)?;
        let path = directory.join(MEMORY_FILE);
        let memory = files.open(&path).context("open", &path)?;
        let base = open_base(&files, directory)?;
        let memory = (MEMORY_FILE.to_owned(), memory);
        Ok(Self::new([memory].into_iter().chain(base)))
    }

    /// Their names, in the order in which they come from
    /// [`OpenFiles::into_files`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The files, without their names.
    pub fn into_files(self) -> impl Iterator<Item = File> {
        self.files.into_values()
    }

    /// One of them, by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&File> {
        self.files.get(name)
    }

    /// The file that a path is of.
    fn find(&self, path: &Path) -> io::Result<&File> {
        let name = if path == self.directory {
            Some(DIRECTORY)
        } else {
            path.file_name().and_then(|name| name.to_str())
        };
        let file = name.and_then(|name| self.files.get(name));
        Ok(file.ok_or(io::ErrorKind::NotFound)?)
    }
}

fn open_base(files: &FilesBelow, directory: &Path) -> Result<Option<(String, File)>> {
    let path = directory.join(BASE_FILE);
    match files.open(&path) {
        Ok(file) => Ok(Some((BASE_FILE.to_owned(), file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("open", &path),
    }
}

impl Inspection {
    /// All files of the generation, open, for another process to make an
    /// [`Inspection::of_open`] of. That of memory is the one that was checked,
    /// and the lock of the generation is shared with that process.
    ///
    /// # Errors
    /// When one cannot be opened any more.
    pub fn open_files(&self) -> Result<OpenFiles> {
        let same = |name: &'static str, file: &File| {
            let path = self.path().join(name);
            let file = file.try_clone().context("open", &path)?;
            Ok((name.to_owned(), file))
        };
        let again = |name: &str| {
            let path = self.path().join(name);
            let file = self.files().open(&path).context("open", &path)?;
            Ok((name.to_owned(), file))
        };
        let mut files = vec![
            same(DIRECTORY, self.directory())?,
            same(MEMORY_FILE, self.memory())?,
        ];
        if let Some(base) = self.base() {
            files.push(same(BASE_FILE, base)?);
        }
        for name in [manifest::FILE, STATE_FILE, WORKING_SET_FILE] {
            files.push(again(name)?);
        }
        for (name, _) in self.manifest().extra_files() {
            files.push(again(name)?);
        }
        Ok(OpenFiles::new(files))
    }

    /// Looks at a generation whose files are open. `path` is for errors, and for
    /// the generation's number.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the generation is being removed.
    pub fn of_open(files: OpenFiles, path: &Path) -> Result<Self> {
        let files = OpenFiles {
            directory: path.to_owned(),
            ..files
        };
        Self::open(Arc::new(files), path)?.ok_or_else(|| SnapshotError::NotFound {
            name: path.display().to_string(),
        })
    }
}

fn no_names<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What is done with an open file works; what needs a name does not.
impl Files for OpenFiles {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        no_names()
    }

    /// It was created by whoever opened it.
    fn create(&self, path: &Path) -> io::Result<File> {
        self.find(path)?.try_clone()
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.find(path)?.try_clone()
    }

    fn open_lock(&self, _: &Path) -> io::Result<File> {
        no_names()
    }

    fn attributes(&self, file: &File) -> io::Result<Metadata> {
        SystemFiles.attributes(file)
    }

    fn attributes_of(&self, path: &Path) -> io::Result<Metadata> {
        self.find(path)?.metadata()
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        SystemFiles.write_at(file, bytes, offset)
    }

    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        SystemFiles.read_at(file, bytes, offset)
    }

    fn set_len(&self, file: &File, bytes: u64) -> io::Result<()> {
        SystemFiles.set_len(file, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        SystemFiles.sync(file)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        no_names()
    }

    fn hard_link(&self, _: &Path, _: &Path) -> io::Result<()> {
        no_names()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        no_names()
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        no_names()
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        no_names()
    }

    fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
        no_names()
    }

    fn try_lock(&self, file: &File, kind: LockKind) -> io::Result<bool> {
        SystemFiles.try_lock(file, kind)
    }
}

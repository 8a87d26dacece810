//! The right to change an image: to add a generation, and to remove some.

use crate::draft::Draft;
use crate::error::Context;
use crate::files::LockKind;
use crate::generation::{POINTER, generation_name, generation_number};
use crate::store::Store;
use crate::{Result, SnapshotError};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The right to change an image. The system takes it back when the process
/// dies.
#[derive(Debug)]
pub struct ImageLock<'a> {
    store: &'a Store,
    image: String,
    directory: PathBuf,
    path: PathBuf,
    _file: File,
}

impl<'a> ImageLock<'a> {
    /// For whoever has locked `file`, which is at `path`.
    pub(crate) fn new(
        store: &'a Store,
        image: &str,
        directory: PathBuf,
        path: PathBuf,
        file: File,
    ) -> Self {
        Self {
            store,
            image: image.to_owned(),
            directory,
            path,
            _file: file,
        }
    }

    /// Starts a new generation.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn draft(self) -> Result<Draft<'a>> {
        let files = self.store.files();
        match files.create_dir(&self.directory) {
            Ok(()) => files
                .sync_dir(self.store.root())
                .context("sync", self.store.root())?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.sweep()?;
            }
            Err(error) => return Err(error).context("create", &self.directory),
        }
        let newest = self.generations()?.last().copied().unwrap_or(0);
        Draft::new(self, newest + 1)
    }

    pub(crate) fn store(&self) -> &'a Store {
        self.store
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn image(&self) -> &str {
        &self.image
    }

    /// Numbers of the generations there are, ascending.
    fn generations(&self) -> Result<Vec<u64>> {
        let names = match self.store.files().list(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names.context("list", &self.directory)?,
        };
        let numbers = names.iter().filter_map(|name| generation_number(name));
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Whether someone uses a generation, until the file is closed. `None` if
    /// it is no directory: then it is nobody's.
    fn take_generation(&self, path: &Path) -> Result<Option<(File, bool)>> {
        let files = self.store.files();
        if !files.attributes_of(path).context("examine", path)?.is_dir() {
            return Ok(None);
        }
        let directory = files.open(path).context("open", path)?;
        let free = files.try_lock(&directory, LockKind::Exclusive);
        Ok(Some((directory, free.context("lock", path)?)))
    }

    /// Removes a generation unless someone uses it. Of a link in its place the
    /// link goes, and what it leads to stays.
    fn remove_generation(&self, number: u64) -> Result<bool> {
        let files = self.store.files();
        let path = self.directory.join(generation_name(number));
        let removed = match self.take_generation(&path)? {
            Some((_, false)) => return Ok(false),
            Some((_lock, true)) => files.remove_tree(&path),
            None => files.remove_file(&path),
        };
        removed.context("remove", &path)?;
        Ok(true)
    }

    /// Makes a generation one that nobody finds any more, because it cannot be
    /// used: the next to bake the image bakes it anew. Gives whether it was
    /// the current one.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn retire(&self, number: u64) -> Result<bool> {
        if !matches!(self.store.current(&self.image), Ok(current) if current == number) {
            return Ok(false);
        }
        let files = self.store.files();
        let pointer = self.directory.join(POINTER);
        files.remove_file(&pointer).context("remove", &pointer)?;
        let synced = files.sync_dir(&self.directory);
        synced.context("sync", &self.directory)?;
        Ok(true)
    }

    /// Removes all generations that are neither current nor in use, and gives
    /// their number.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn collect(&self) -> Result<u32> {
        let current = match self.store.current(&self.image) {
            Ok(number) => Some(number),
            Err(error) if error.wants_rebake() => None,
            Err(error) => return Err(error),
        };
        let mut removed = 0;
        for number in self.generations()? {
            if Some(number) != current {
                removed += u32::from(self.remove_generation(number)?);
            }
        }
        Ok(removed)
    }

    /// Whether a machine runs from a generation of the image right now. More
    /// may begin to, until the image is removed.
    ///
    /// # Errors
    /// When a generation cannot be looked at.
    pub fn is_in_use(&self) -> Result<bool> {
        let files = self.store.files();
        match files.attributes_of(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            result => result.context("examine", &self.directory)?,
        };
        for number in self.generations()? {
            let path = self.directory.join(generation_name(number));
            if matches!(self.take_generation(&path)?, Some((_, false))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes the directory of an image that has nothing in it, and its lock:
    /// of an image that could not be baked nothing is left.
    pub(crate) fn remove_if_empty(&self) {
        let files = self.store.files();
        if files.remove_dir(&self.directory).is_ok() {
            let _ = files.remove_file(&self.path);
        }
    }

    /// Removes the image with all that belongs to it.
    ///
    /// # Errors
    /// [`SnapshotError::InUse`] when a machine runs from it; then what it runs
    /// from is still there, and no longer found under the image's name.
    pub fn remove(self) -> Result<()> {
        let files = self.store.files();
        let generations = match files.attributes_of(&self.directory) {
            Ok(_) => self.generations()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SnapshotError::NotFound {
                    image: self.image.clone(),
                });
            }
            Err(error) => return Err(error).context("examine", &self.directory),
        };
        let pointer = self.directory.join(POINTER);
        match files.remove_file(&pointer) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context("remove", &pointer);
            }
            _ => (),
        }
        for number in generations {
            if !self.remove_generation(number)? {
                return Err(SnapshotError::InUse {
                    image: self.image.clone(),
                });
            }
        }
        self.sweep()?;
        files
            .remove_dir(&self.directory)
            .context("remove", &self.directory)?;
        files.remove_file(&self.path).context("remove", &self.path)
    }
}

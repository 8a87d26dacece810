//! The right to add generations to a name, and to remove some.

use crate::error::Context;
use crate::files::{Files, LockKind};
use crate::layout::{POINTER, generation_name, generation_number, temporary_name};
use crate::place::Place;
use crate::{Result, SnapshotError};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Pauses between looks at something that another process has.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(1);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The right to change what is under a name. The system takes it back when the
/// process dies.
#[derive(Debug)]
pub struct SnapshotLock {
    place: Place,
    _file: File,
}

/// Generations that nobody finds any more. Dropping this removes them; what cannot be
/// removed, because the process ends for instance, goes before the next bake of the name.
#[derive(Debug)]
#[must_use = "dropping it waits until the files are removed"]
pub struct SetAside {
    place: Place,
    /// Their paths, and the locks of those that are directories.
    all: Vec<(PathBuf, Option<File>)>,
}

impl SetAside {
    /// Nothing.
    fn none(place: &Place) -> Self {
        Self {
            place: place.clone(),
            all: Vec::new(),
        }
    }

    /// Whether there is nothing to remove.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Removes them, and gives their number.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove(mut self) -> Result<u32> {
        let mut removed = 0;
        while let Some((path, _taken)) = self.all.pop() {
            self.place.discard(&path)?;
            removed += 1;
        }
        Ok(removed)
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        for (path, _taken) in self.all.drain(..) {
            let _ = self.place.discard(&path);
        }
    }
}

/// Whether the open file is the one at that path.
fn is_at(files: &dyn Files, file: &File, path: &Path) -> Result<bool> {
    let open = files.attributes(file).context("examine", path)?;
    match files.attributes_of(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context("examine", path),
    }
}

impl SnapshotLock {
    /// Waits up to `patience`.
    pub(crate) fn take(place: Place, patience: Duration) -> Result<Self> {
        place.check()?;
        let files = &place.files;
        let path = place.lock_path();
        let deadline = Instant::now().checked_add(patience);
        let mut pause = FIRST_PAUSE;
        loop {
            let file = files.open_lock(&path).context("open", &path)?;
            let locked = files.try_lock(&file, LockKind::Exclusive);
            if locked.context("lock", &path)? {
                if is_at(&**files, &file, &path)? {
                    let holder = format!("{:<10}", std::process::id());
                    let written = files.write_all_at(&file, holder.as_bytes(), 0);
                    written.context("write", &path)?;
                    return Ok(Self { place, _file: file });
                }
                // Its holder removed the snapshot and the lock with it.
                continue;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let mut text = [0; 10];
                let length = files.read_at(&file, &mut text, 0).unwrap_or(0);
                let holder = str::from_utf8(&text[..length]).ok();
                return Err(SnapshotError::Locked {
                    holder: holder.and_then(|text| text.trim().parse().ok()),
                    name: place.name,
                });
            }
            thread::sleep(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    pub(crate) fn files(&self) -> &Arc<dyn Files> {
        &self.place.files
    }

    pub(crate) fn root(&self) -> &Path {
        &self.place.root
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.place.directory
    }

    pub(crate) fn name(&self) -> &str {
        &self.place.name
    }

    /// Removes what is unfinished: nobody else can be at work on it.
    pub(crate) fn sweep(&self) -> Result<u32> {
        let mut removed = 0;
        for (path, _) in self.place.unfinished()? {
            self.place.discard(&path)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Numbers of the generations there are, ascending.
    pub(crate) fn generations(&self) -> Result<Vec<u64>> {
        let names = match self.files().list(self.directory()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names.context("list", self.directory())?,
        };
        let numbers = names.iter().filter_map(|name| generation_number(name));
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Whether someone uses a generation, until the file is closed. `None` if
    /// it is no directory: then it is nobody's.
    fn take_generation(&self, path: &Path) -> Result<Option<(File, bool)>> {
        let files = self.files();
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
        let files = self.files();
        let path = self.directory().join(generation_name(number));
        let removed = match self.take_generation(&path)? {
            Some((_, false)) => return Ok(false),
            Some((_lock, true)) => files.remove_tree(&path),
            None => files.remove_file(&path),
        };
        removed.context("remove", &path)?;
        Ok(true)
    }

    /// Makes a generation one that nobody finds any more, because it cannot be
    /// used: the next to bake under the name bakes anew. Gives whether it was
    /// the current one.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn retire(&self, number: u64) -> Result<bool> {
        if !matches!(self.place.current(), Ok(current) if current == number) {
            return Ok(false);
        }
        let files = self.files();
        let pointer = self.directory().join(POINTER);
        files.remove_file(&pointer).context("remove", &pointer)?;
        let synced = files.sync_dir(self.directory());
        synced.context("sync", self.directory())?;
        Ok(true)
    }

    /// Removes all generations that are neither current nor in use, and gives
    /// their number.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn collect(&self) -> Result<u32> {
        self.set_aside()?.remove()
    }

    /// Has nobody find the generations any more that are neither current nor in use: they
    /// have names of what is unfinished, and go when what is returned goes. That may take
    /// longer than a bake, and needs no lock.
    ///
    /// # Errors
    /// When something cannot be renamed. What was before stays, or goes with the error.
    pub fn set_aside(&self) -> Result<SetAside> {
        let current = match self.place.current() {
            Ok(number) => Some(number),
            Err(error) if error.wants_rebake() => None,
            Err(error) => return Err(error),
        };
        let mut aside = SetAside::none(&self.place);
        for number in self.generations()? {
            if Some(number) != current {
                self.set_generation_aside(number, &mut aside)?;
            }
        }
        Ok(aside)
    }

    /// Sets a generation aside unless someone uses it.
    fn set_generation_aside(&self, number: u64, aside: &mut SetAside) -> Result<()> {
        let name = generation_name(number);
        let path = self.directory().join(&name);
        let taken = match self.take_generation(&path)? {
            Some((_, false)) => return Ok(()),
            Some((taken, true)) => Some(taken),
            None => None,
        };
        let other = self.directory().join(temporary_name(&name));
        self.files().rename(&path, &other).context("move", &path)?;
        aside.all.push((other, taken));
        Ok(())
    }

    /// Whether a machine runs from a generation right now. More may begin to,
    /// until all are removed.
    ///
    /// # Errors
    /// When a generation cannot be looked at.
    pub fn is_in_use(&self) -> Result<bool> {
        let files = self.files();
        match files.attributes_of(self.directory()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            result => result.context("examine", self.directory())?,
        };
        for number in self.generations()? {
            let path = self.directory().join(generation_name(number));
            if matches!(self.take_generation(&path)?, Some((_, false))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes a directory that has nothing in it, and its lock: of a bake that
    /// failed nothing is left.
    pub(crate) fn remove_if_empty(&self) {
        let files = self.files();
        if files.remove_dir(self.directory()).is_ok() {
            let _ = files.remove_file(&self.place.lock_path());
        }
    }

    /// Removes all generations and the name.
    ///
    /// # Errors
    /// [`SnapshotError::InUse`] when a machine runs from one; then that one is
    /// still there, and no longer found under the name.
    pub fn remove(self) -> Result<()> {
        let files = self.files();
        let generations = match files.attributes_of(self.directory()) {
            Ok(_) => self.generations()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SnapshotError::NotFound {
                    name: self.place.name.clone(),
                });
            }
            Err(error) => return Err(error).context("examine", self.directory()),
        };
        let pointer = self.directory().join(POINTER);
        match files.remove_file(&pointer) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context("remove", &pointer);
            }
            _ => (),
        }
        for number in generations {
            if !self.remove_generation(number)? {
                return Err(SnapshotError::InUse {
                    name: self.place.name.clone(),
                });
            }
        }
        self.sweep()?;
        files
            .remove_dir(self.directory())
            .context("remove", self.directory())?;
        let path = self.place.lock_path();
        files.remove_file(&path).context("remove", &path)
    }
}

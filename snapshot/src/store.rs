//! A directory of snapshots by name, each with its generations.
//!
//! ```text
//! ROOT/.NAME.lock               held by whoever bakes or removes
//! ROOT/NAME/current             number of the generation in use, and its checksum
//! ROOT/NAME/0000000001/         locked shared by whoever uses it
//! ROOT/NAME/.0000000002.PID.RANDOM.tmp/   being written, or removed
//! ```
//!
//! A process that writes a snapshot holds the lock of its name, and the system
//! releases the lock when the process dies. So what is unfinished while
//! the lock is ours belongs to nobody.

use crate::draft::Draft;
use crate::error::Context;
use crate::files::Files;
use crate::layout::generation_name;
use crate::lock::{FIRST_PAUSE, LONGEST_PAUSE, SetAside, SnapshotLock};
use crate::place::Place;
use crate::reader::{Inspection, Snapshot};
use crate::{FilesBelow, Result, SnapshotError, Stamp, SystemFiles, name};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How often an open starts again when the generation it found is removed.
const OPEN_ATTEMPTS: u32 = 16;

/// A directory of snapshots.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    files: Arc<dyn Files>,
}

/// What [`Store::bake`] came back with.
#[derive(Debug)]
pub enum Baked {
    /// This call baked; and what went out of use by that is removed when it is dropped.
    New(Snapshot, Option<SetAside>),
    /// There was a snapshot with the same key.
    Reused(Snapshot),
}

impl Baked {
    /// The snapshot, however it came about.
    #[must_use]
    pub fn into_snapshot(self) -> Snapshot {
        match self {
            Self::New(snapshot, _) | Self::Reused(snapshot) => snapshot,
        }
    }
}

impl Store {
    /// Uses the directory `root`, which is created if only it is missing.
    /// Symbolic links are not followed, there and below.
    ///
    /// # Errors
    /// [`SnapshotError::NotDirectory`] when it is a link; when it cannot be
    /// created.
    pub fn new(root: impl Into<PathBuf>) -> Result<Self> {
        Self::existing(Self::with_files(root, Arc::new(SystemFiles))?.root)
    }

    /// As [`Store::new`], of a directory that is there.
    ///
    /// # Errors
    /// [`SnapshotError::NotDirectory`] when it is a link; when it is not there.
    pub fn existing(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let files = Arc::new(FilesBelow::open(&root)?);
        Ok(Self { root, files })
    }

    /// As [`Store::new`], doing everything with the given files, which see to
    /// links themselves.
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub fn with_files(root: impl Into<PathBuf>, files: Arc<dyn Files>) -> Result<Self> {
        let root = root.into();
        match files.create_dir(&root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).context("create", &root)
            }
            _ => Ok(Self { root, files }),
        }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn place(&self, name: &str) -> Result<Place> {
        Place::new(&self.files, &self.root, name)
    }

    /// Names that have a snapshot, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let names = self.files.list(&self.root).context("list", &self.root)?;
        let mut names: Vec<String> = names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .filter(|name| self.current(name).is_ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Number of the generation in use.
    ///
    /// # Errors
    /// When there is none.
    pub fn current(&self, name: &str) -> Result<u64> {
        self.place(name)?.current()
    }

    /// Opens the current generation of a name to run it here.
    ///
    /// # Errors
    /// When there is none, it is damaged, or it cannot run here.
    pub fn open(&self, name: &str, here: &Stamp) -> Result<Snapshot> {
        self.inspect(name)?.admit(here)
    }

    /// Opens the current generation of a name to look at it.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn inspect(&self, name: &str) -> Result<Inspection> {
        let place = self.place(name)?;
        let mut pause = FIRST_PAUSE;
        for _ in 0..OPEN_ATTEMPTS {
            let number = place.current()?;
            let path = place.directory.join(generation_name(number));
            match Inspection::open(Arc::clone(&self.files), &path) {
                Ok(Some(found)) => return Ok(found),
                // Being removed: there is a newer one, or none.
                Ok(None) => {
                    thread::sleep(pause);
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
                Err(error) => {
                    if place.current()? == number {
                        return Err(error);
                    }
                }
            }
        }
        Err(SnapshotError::Locked {
            name: name.to_owned(),
            holder: None,
        })
    }

    /// Opens the generation in a directory, wherever it came from.
    ///
    /// # Errors
    /// When it is damaged or being removed, or the directory is a link.
    pub fn inspect_path(path: &Path) -> Result<Inspection> {
        let files = Self::existing(path)?.files;
        Inspection::open(files, path)?.ok_or_else(|| SnapshotError::NotFound {
            name: path.display().to_string(),
        })
    }

    /// Waits up to `patience` for the right to change what is under a name.
    ///
    /// # Errors
    /// [`SnapshotError::Locked`] when another process keeps it for longer.
    pub fn lock(&self, name: &str, patience: Duration) -> Result<SnapshotLock> {
        SnapshotLock::take(self.place(name)?, patience)
    }

    /// Removes what processes that died left behind, under all names that
    /// nobody is changing now. Gives the number of things removed.
    ///
    /// # Errors
    /// When the directory cannot be read or something cannot be removed.
    pub fn sweep(&self) -> Result<u32> {
        let mut removed = 0;
        let names = self.files.list(&self.root).context("list", &self.root)?;
        for name in names {
            if let Some(name) = name.to_str().filter(|name| name::check(name).is_ok()) {
                removed += self.sweep_name(name)?;
            }
        }
        Ok(removed)
    }

    /// As [`Store::sweep`], of one name.
    fn sweep_name(&self, name: &str) -> Result<u32> {
        // Most often there is nothing, and then nobody needs to be kept out.
        if self.place(name)?.unfinished()?.is_empty() {
            return Ok(0);
        }
        match self.lock(name, Duration::ZERO) {
            Ok(lock) => lock.sweep(),
            Err(SnapshotError::Locked { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Removes what this process has unfinished under a name, for a process
    /// that must end now. Whichever of its threads is at work on it fails, or
    /// must not be: what is being published is no longer unfinished half way.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn abandon(&self, name: &str) -> Result<()> {
        let place = self.place(name)?;
        let own = std::process::id();
        for (path, owner) in place.unfinished()? {
            if owner == own {
                place.discard(&path)?;
            }
        }
        Ok(())
    }

    /// Bakes unless there is a snapshot with the same key that runs here, and
    /// sets older generations aside that nobody uses. Of several that bake under the
    /// same name at once, one does the work and the others wait for it, each up
    /// to `patience`.
    ///
    /// # Errors
    /// What `bake` says; and when waiting, writing or opening fails.
    pub fn bake<E: From<SnapshotError>>(
        &self,
        name: &str,
        key: &str,
        here: &Stamp,
        patience: Duration,
        bake: impl FnOnce(Draft) -> Result<u64, E>,
    ) -> Result<Baked, E> {
        if let Some(found) = self.with_key(name, key, here)? {
            // Nobody waits for leftovers, nor is kept from what there is.
            let _ = self.sweep_name(name);
            return Ok(Baked::Reused(found));
        }
        let lock = self.lock(name, patience)?;
        if let Some(found) = self.with_key(name, key, here)? {
            return Ok(Baked::Reused(found));
        }
        bake(lock.draft()?)?;
        let snapshot = self.open(name, here)?;
        // Generations before this one may go; what is in use or cannot be
        // moved stays until the next time.
        let lock = self.lock(name, Duration::ZERO);
        let older = lock.and_then(|lock| lock.set_aside()).ok();
        Ok(Baked::New(snapshot, older))
    }

    /// The current generation if it has that key; a damaged one is as good as
    /// none.
    fn with_key(&self, name: &str, key: &str, here: &Stamp) -> Result<Option<Snapshot>> {
        match self.open(name, here) {
            Ok(found) if found.manifest().machine.key == key => Ok(Some(found)),
            Err(
                error @ (SnapshotError::Locked { .. }
                | SnapshotError::Name { .. }
                | SnapshotError::NotDirectory { .. }),
            ) => Err(error),
            // Whatever is wrong with the old one, a new one helps.
            Ok(_) | Err(_) => Ok(None),
        }
    }
}

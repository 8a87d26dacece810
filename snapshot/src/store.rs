//! A directory of images, each with its generations.
//!
//! ```text
//! ROOT/.IMAGE.lock               held by whoever bakes or removes
//! ROOT/IMAGE/current             number of the generation in use, and its checksum
//! ROOT/IMAGE/0000000001/         locked shared by whoever uses it
//! ROOT/IMAGE/.0000000002.PID.RANDOM.tmp/   being written
//! ```

use crate::draft::Draft;
use crate::error::Context;
use crate::files::{Files, LockKind};
use crate::generation::{POINTER, POINTER_BYTES, generation_name, pointed_to};
use crate::image_lock::ImageLock;
use crate::reader::{Inspection, Snapshot};
use crate::{FilesBelow, Result, SnapshotError, Stamp, SystemFiles, name};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How often an open starts again when the generation it found is removed.
const OPEN_ATTEMPTS: u32 = 16;
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A directory of images.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    files: Arc<dyn Files>,
}

/// What [`Store::bake`] came back with.
#[derive(Debug)]
pub enum Baked {
    /// This call baked.
    New(Snapshot),
    /// There was a snapshot with the same key.
    Reused(Snapshot),
}

impl Baked {
    /// The snapshot, however it came about.
    #[must_use]
    pub fn into_snapshot(self) -> Snapshot {
        match self {
            Self::New(snapshot) | Self::Reused(snapshot) => snapshot,
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

    /// Directory of an image.
    pub(crate) fn image_path(&self, image: &str) -> Result<PathBuf> {
        name::check(image)?;
        Ok(self.root.join(image))
    }

    pub(crate) fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }

    /// Names of the images that have a snapshot, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn images(&self) -> Result<Vec<String>> {
        let names = self.files.list(&self.root).context("list", &self.root)?;
        let mut images: Vec<String> = names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .filter(|image| self.current(image).is_ok())
            .collect();
        images.sort();
        Ok(images)
    }

    /// Number of the generation in use.
    ///
    /// # Errors
    /// When there is none.
    pub fn current(&self, image: &str) -> Result<u64> {
        let directory = self.image_path(image)?;
        let path = directory.join(POINTER);
        let not_found = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => SnapshotError::NotFound {
                image: image.to_owned(),
            },
            io::ErrorKind::NotADirectory => SnapshotError::NotDirectory { path: directory },
            _ => SnapshotError::Io {
                what: "open",
                path: path.clone(),
                source,
            },
        };
        let file = self.files.open(&path).map_err(not_found)?;
        let length = self.files.attributes(&file).context("examine", &path)?;
        let mut text = [0; POINTER_BYTES];
        let malformed = SnapshotError::Malformed {
            what: "pointer to the current generation",
        };
        if length.len() != POINTER_BYTES as u64 {
            return Err(malformed);
        }
        match self.files.read_exact_at(&file, &mut text, 0) {
            Ok(()) => (),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(malformed),
            Err(error) => return Err(error).context("read", &path),
        }
        pointed_to(&text).ok_or(malformed)
    }

    /// Opens the current generation of an image to run it here.
    ///
    /// # Errors
    /// When there is none, it is damaged, or it cannot run here.
    pub fn open(&self, image: &str, here: &Stamp) -> Result<Snapshot> {
        self.inspect(image)?.admit(here)
    }

    /// Opens the current generation of an image to look at it.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn inspect(&self, image: &str) -> Result<Inspection> {
        let directory = self.image_path(image)?;
        let mut pause = FIRST_PAUSE;
        for _ in 0..OPEN_ATTEMPTS {
            let number = self.current(image)?;
            let path = directory.join(generation_name(number));
            match Inspection::open(Arc::clone(&self.files), &path) {
                Ok(Some(found)) => return Ok(found),
                // Being removed: there is a newer one, or none.
                Ok(None) => {
                    thread::sleep(pause);
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
                Err(error) => {
                    if self.current(image)? == number {
                        return Err(error);
                    }
                }
            }
        }
        Err(SnapshotError::Locked {
            image: image.to_owned(),
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
            image: path.display().to_string(),
        })
    }

    /// Whether something other than a directory is in the place of an image.
    fn check_image(&self, image: &str) -> Result<()> {
        let path = self.image_path(image)?;
        match self.files.attributes_of(&path) {
            Ok(attributes) if !attributes.is_dir() => Err(SnapshotError::NotDirectory { path }),
            // Made when it is needed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            looked => looked.context("examine", &path).map(|_| ()),
        }
    }

    /// Waits up to `patience` for the right to change an image.
    ///
    /// # Errors
    /// [`SnapshotError::Locked`] when another process keeps it for longer.
    pub fn lock(&self, image: &str, patience: Duration) -> Result<ImageLock<'_>> {
        let directory = self.image_path(image)?;
        self.check_image(image)?;
        let path = self.root.join(format!(".{image}.lock"));
        let deadline = Instant::now().checked_add(patience);
        let mut pause = FIRST_PAUSE;
        loop {
            let file = self.files.open_lock(&path).context("open", &path)?;
            let locked = self.files.try_lock(&file, LockKind::Exclusive);
            if locked.context("lock", &path)? {
                if self.is_at(&file, &path)? {
                    return self.hold(image, directory, path, file);
                }
                // Its holder removed the image and the lock with it.
                continue;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let mut text = [0; 10];
                let length = self.files.read_at(&file, &mut text, 0).unwrap_or(0);
                let holder = str::from_utf8(&text[..length]).ok();
                return Err(SnapshotError::Locked {
                    image: image.to_owned(),
                    holder: holder.and_then(|text| text.trim().parse().ok()),
                });
            }
            thread::sleep(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Whether the open file is the one with that name.
    fn is_at(&self, file: &File, path: &Path) -> Result<bool> {
        let open = self.files.attributes(file).context("examine", path)?;
        match self.files.attributes_of(path) {
            Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).context("examine", path),
        }
    }

    fn hold(
        &self,
        image: &str,
        directory: PathBuf,
        path: PathBuf,
        file: File,
    ) -> Result<ImageLock<'_>> {
        let holder = format!("{:<10}", std::process::id());
        let written = self.files.write_all_at(&file, holder.as_bytes(), 0);
        written.context("write", &path)?;
        Ok(ImageLock::new(self, image, directory, path, file))
    }

    /// Bakes an image unless there is a snapshot with the same key that runs
    /// here, and removes older generations nobody uses. Of several that bake the same image at once, one does the work
    /// and the others wait for it, each up to `patience`.
    ///
    /// # Errors
    /// What `bake` says; and when waiting, writing or opening fails.
    pub fn bake<E: From<SnapshotError>>(
        &self,
        image: &str,
        key: &str,
        here: &Stamp,
        patience: Duration,
        bake: impl FnOnce(Draft<'_>) -> Result<u64, E>,
    ) -> Result<Baked, E> {
        if let Some(found) = self.with_key(image, key, here)? {
            // Nobody waits for leftovers, nor is kept from what there is.
            let _ = self.sweep_image(image);
            return Ok(Baked::Reused(found));
        }
        let lock = self.lock(image, patience)?;
        if let Some(found) = self.with_key(image, key, here)? {
            return Ok(Baked::Reused(found));
        }
        bake(lock.draft()?)?;
        let snapshot = self.open(image, here)?;
        // Generations before this one may go; what is in use or cannot be
        // removed stays until the next time.
        if let Ok(lock) = self.lock(image, Duration::ZERO) {
            let _ = lock.collect();
        }
        Ok(Baked::New(snapshot))
    }

    /// The current generation if it has that key; a damaged one is as good as
    /// none.
    fn with_key(&self, image: &str, key: &str, here: &Stamp) -> Result<Option<Snapshot>> {
        match self.open(image, here) {
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

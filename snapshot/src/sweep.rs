//! What is not finished, and removing it once nobody will finish it.
//!
//! Whoever writes something unfinished holds its image's lock, and the system
//! takes that back when the process dies. So what is there while the lock is
//! ours belongs to nobody.

use crate::error::Context;
use crate::generation::temporary_owner;
use crate::image_lock::ImageLock;
use crate::store::Store;
use crate::{Result, SnapshotError, name};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

impl Store {
    /// Removes what processes that died left behind, of all images that nobody
    /// is changing now. Gives the number of things removed.
    ///
    /// # Errors
    /// When the directory cannot be read or something cannot be removed.
    pub fn sweep(&self) -> Result<u32> {
        let mut removed = 0;
        let names = self
            .files()
            .list(self.root())
            .context("list", self.root())?;
        for image in names {
            if let Some(image) = image.to_str().filter(|image| name::check(image).is_ok()) {
                removed += self.sweep_image(image)?;
            }
        }
        Ok(removed)
    }

    /// As [`Store::sweep`], of one image.
    pub(crate) fn sweep_image(&self, image: &str) -> Result<u32> {
        let directory = self.image_path(image)?;
        // Most often there is nothing, and then nobody needs to be kept out.
        if self.unfinished(&directory)?.is_empty() {
            return Ok(0);
        }
        match self.lock(image, Duration::ZERO) {
            Ok(lock) => lock.sweep(),
            Err(SnapshotError::Locked { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Removes what this process has unfinished of an image, for a process
    /// that must end now. Whichever of its threads is at work on it fails, or
    /// must not be: what is being published is no longer unfinished half way.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn abandon(&self, image: &str) -> Result<()> {
        let directory = self.image_path(image)?;
        let own = std::process::id();
        for (path, owner) in self.unfinished(&directory)? {
            if owner == own {
                self.discard(&path)?;
            }
        }
        Ok(())
    }

    /// What is unfinished in the directory of an image, and whose it is.
    fn unfinished(&self, directory: &Path) -> Result<Vec<(PathBuf, u32)>> {
        let names = match self.files().list(directory) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Vec::new()
            }
            names => names.context("list", directory)?,
        };
        let unfinished = names.into_iter().filter_map(|name| {
            let owner = temporary_owner(&name)?;
            Some((directory.join(name), owner))
        });
        Ok(unfinished.collect())
    }

    /// Removes something unfinished, unless it is gone.
    fn discard(&self, path: &Path) -> Result<()> {
        let gone = match self.files().attributes_of(path) {
            Ok(attributes) if attributes.is_dir() => self.files().remove_tree(path),
            Ok(_) => self.files().remove_file(path),
            Err(error) => Err(error),
        };
        match gone {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context("remove", path)
            }
            _ => Ok(()),
        }
    }
}

impl ImageLock<'_> {
    /// Removes what is unfinished: nobody else can be at work on it.
    pub(crate) fn sweep(&self) -> Result<u32> {
        let mut removed = 0;
        for (path, _) in self.store().unfinished(self.directory())? {
            self.store().discard(&path)?;
            removed += 1;
        }
        Ok(removed)
    }
}

//! Where the generations of one name are.

use crate::error::Context;
use crate::files::Files;
use crate::layout::{POINTER, POINTER_BYTES, pointed_to, temporary_owner};
use crate::{Result, SnapshotError, name};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory of a name in a store, whether it is there or not.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub files: Arc<dyn Files>,
    pub root: PathBuf,
    pub name: String,
    pub directory: PathBuf,
}

impl Place {
    /// # Errors
    /// When the name is not one.
    pub fn new(files: &Arc<dyn Files>, root: &Path, name: &str) -> Result<Self> {
        name::check(name)?;
        Ok(Self {
            files: Arc::clone(files),
            root: root.to_owned(),
            name: name.to_owned(),
            directory: root.join(name),
        })
    }

    /// The file that is locked by whoever adds or removes generations.
    pub fn lock_path(&self) -> PathBuf {
        self.root.join(format!(".{}.lock", self.name))
    }

    /// Refuses something other than a directory in this place.
    pub fn check(&self) -> Result<()> {
        match self.files.attributes_of(&self.directory) {
            Ok(attributes) if !attributes.is_dir() => Err(SnapshotError::NotDirectory {
                path: self.directory.clone(),
            }),
            // Made when it is needed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            looked => looked.context("examine", &self.directory).map(|_| ()),
        }
    }

    /// Number of the generation in use.
    pub fn current(&self) -> Result<u64> {
        let path = self.directory.join(POINTER);
        let not_found = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => SnapshotError::NotFound {
                name: self.name.clone(),
            },
            io::ErrorKind::NotADirectory => SnapshotError::NotDirectory {
                path: self.directory.clone(),
            },
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

    /// What is unfinished here, and the process that began it.
    pub fn unfinished(&self) -> Result<Vec<(PathBuf, u32)>> {
        let names = match self.files.list(&self.directory) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Vec::new()
            }
            names => names.context("list", &self.directory)?,
        };
        let unfinished = names.into_iter().filter_map(|name| {
            let owner = temporary_owner(&name)?;
            Some((self.directory.join(name), owner))
        });
        Ok(unfinished.collect())
    }

    /// Removes something unfinished, unless it is gone.
    pub fn discard(&self, path: &Path) -> Result<()> {
        let gone = match self.files.attributes_of(path) {
            Ok(attributes) if attributes.is_dir() => self.files.remove_tree(path),
            Ok(_) => self.files.remove_file(path),
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

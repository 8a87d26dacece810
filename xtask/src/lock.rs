//! One builder at a time, across processes.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use anyhow::{Context, Result};

/// Held for as long as the value lives; the operating system lets go of it if
/// the process dies.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock file `path`, waiting for its holder if there is one.
    pub fn take(path: &Path, what: &str) -> Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        // The file stays: removing it would let two builders lock two files.
        let file =
            File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("waiting for another process that builds the {what}");
                file.lock()
                    .with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        Ok(Self { _file: file })
    }
}

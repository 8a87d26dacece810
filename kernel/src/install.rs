//! Putting a file in place so that a reader sees the old one, or the whole new
//! one, also after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::KernelError;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Copies `from` to `to`: to a temporary name in the same directory, flushed to
/// storage, then renamed over `to`. Permission bits become `0o644`. Nothing is
/// left behind on failure.
///
/// # Errors
/// [`KernelError::Io`] naming the step and the file.
pub fn copy_durably(from: &Path, to: &Path) -> Result<(), KernelError> {
    let source = File::open(from).map_err(io_error("open", from))?;
    write_durably(source, to)
}

/// Writes what `from` yields to `to`, as [`copy_durably`] does.
///
/// # Errors
/// [`KernelError::Io`] naming the step and the file.
pub fn write_durably(mut from: impl Read, to: &Path) -> Result<(), KernelError> {
    let dir = match to.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let temporary = Temporary::create(dir, to)?;
    let mut file = &temporary.file;
    io::copy(&mut from, &mut file).map_err(io_error("write", &temporary.path))?;
    file.sync_all()
        .map_err(io_error("flush", &temporary.path))?;
    fs::rename(&temporary.path, to).map_err(io_error("create", to))?;
    // The rename is durable only once the directory is. Where directories
    // cannot be opened or flushed there is nothing better to do.
    if let Ok(dir) = File::open(dir) {
        let _ = dir.sync_all();
    }
    Ok(())
}

struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn create(dir: &Path, to: &Path) -> Result<Self, KernelError> {
        let name = to.file_name().unwrap_or_default().to_string_lossy();
        loop {
            let path = dir.join(format!(
                ".{name}.{}.{}",
                process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            ));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { path, file }),
                // Left by an earlier process with our id: take the next name.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("create", &path)(error)),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Fails after the rename, when the name is gone; that is the good case.
        let _ = fs::remove_file(&self.path);
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KernelError {
    let path = path.to_path_buf();
    move |source| KernelError::Io {
        action,
        path,
        source,
    }
}

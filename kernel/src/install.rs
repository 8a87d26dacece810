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

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let name = format!("supermachine-install-{}-{name}", process::id());
            let dir = std::env::temp_dir().join(name);
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_copy_replaces_the_old_file_and_leaves_nothing_else() {
        let dir = Dir::new("replace");
        let (from, to) = (dir.0.join("from"), dir.0.join("to"));
        fs::write(&from, b"new").unwrap();
        fs::write(&to, b"older and longer").unwrap();
        copy_durably(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert_eq!(dir.names(), ["from", "to"]);
    }

    #[test]
    fn a_source_that_fails_midway_keeps_the_old_file() {
        struct Broken(bool);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::Error::other("gone"));
                }
                buffer[0] = b'x';
                Ok(1)
            }
        }
        let dir = Dir::new("midway");
        let to = dir.0.join("to");
        fs::write(&to, b"old").unwrap();
        assert!(write_durably(Broken(false), &to).is_err());
        assert_eq!(fs::read(&to).unwrap(), b"old");
        assert_eq!(dir.names(), ["to"]);
    }

    #[test]
    fn a_missing_source_or_directory_is_named() {
        let dir = Dir::new("missing");
        let absent = dir.0.join("absent");
        let error = copy_durably(&absent, &dir.0.join("to")).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
        let error = write_durably(&b"x"[..], &absent.join("to")).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }
}

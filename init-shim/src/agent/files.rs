//! Reading and writing guest files for the host.
//!
//! The agent is root, the guest's users are not trusted: a write never goes
//! through a link at its last component, never opens a device or a FIFO, and
//! shows up complete or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use exec_proto::{ErrorKind, Failure};

/// A path from the wire: bytes, as the guest's kernel sees them.
pub(crate) fn guest_path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

fn failure(kind: ErrorKind, path: &Path, what: &str) -> Failure {
    Failure {
        kind,
        errno: 0,
        message: format!("{}: {what}", path.display()),
    }
}

fn io_failure(path: &Path, error: &io::Error) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::NotFound,
        _ => ErrorKind::Io,
    };
    Failure {
        kind,
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("{}: {error}", path.display()),
    }
}

/// Opens a regular file for reading without ever waiting for one that is not.
///
/// # Errors
/// [`ErrorKind::NotFound`], [`ErrorKind::NotRegularFile`] or [`ErrorKind::Io`].
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64), Failure> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| io_failure(path, &error))?;
    let metadata = file.metadata().map_err(|error| io_failure(path, &error))?;
    if !metadata.is_file() {
        return Err(failure(
            ErrorKind::NotRegularFile,
            path,
            "not a regular file",
        ));
    }
    Ok((file, metadata.len()))
}

/// Reads a small file of the guest whole; longer ones are cut at `limit`.
pub(crate) fn read_up_to(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let (file, _) = open_regular(path).map_err(|failure| {
        if failure.errno == 0 {
            io::Error::from(io::ErrorKind::InvalidInput)
        } else {
            io::Error::from_raw_os_error(failure.errno)
        }
    })?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file read in pieces against a limit.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    file: File,
    path: &'a Path,
    left: u64,
}

impl<'a> Reading<'a> {
    pub(crate) fn open(path: &'a Path, limit: usize) -> Result<Self, Failure> {
        let (file, len) = open_regular(path)?;
        let limit = limit as u64;
        if len > limit {
            return Err(failure(ErrorKind::TooLarge, path, "file too large"));
        }
        Ok(Self {
            file,
            path,
            left: limit,
        })
    }

    /// The next piece; 0 bytes mean the end. Files of procfs and the like have
    /// no length, so the limit is kept while reading, too.
    pub(crate) fn next(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        loop {
            match self.file.read(buffer) {
                Ok(count) => {
                    self.left = self
                        .left
                        .checked_sub(count as u64)
                        .ok_or_else(|| failure(ErrorKind::TooLarge, self.path, "file too large"))?;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_failure(self.path, &error)),
            }
        }
    }
}

/// Distinguishes the temporary names of concurrent writes.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A file being written under a temporary name next to its final one.
#[derive(Debug)]
pub(crate) struct Writing {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    mode: u32,
    written: u64,
    limit: u64,
    done: bool,
}

impl Writing {
    /// Begins; missing directories are made.
    pub(crate) fn begin(path: &Path, mode: u32, limit: usize) -> Result<Self, Failure> {
        let no_name = || failure(ErrorKind::BadRequest, path, "path does not name a file");
        let parent = path.parent().ok_or_else(no_name)?;
        path.file_name().ok_or_else(no_name)?;
        match fs::symlink_metadata(path) {
            Ok(meta) if !(meta.is_file() || meta.is_symlink()) => {
                let what = if meta.file_type().is_fifo() {
                    "is a fifo"
                } else {
                    "not a regular file"
                };
                return Err(failure(ErrorKind::NotRegularFile, path, what));
            }
            _ => {}
        }
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let temporary = parent.join(format!(".supermachine-{}-{serial}", std::process::id()));
        let create = || {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&temporary)
        };
        let file = create().or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => fs::create_dir_all(parent).and_then(|()| create()),
            // Left behind by a write that was cut off by power loss.
            io::ErrorKind::AlreadyExists => fs::remove_file(&temporary).and_then(|()| create()),
            _ => Err(error),
        });
        Ok(Self {
            file: file.map_err(|error| io_failure(path, &error))?,
            temporary,
            path: path.to_path_buf(),
            mode,
            written: 0,
            limit: limit as u64,
            done: false,
        })
    }

    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.written += data.len() as u64;
        if self.written > self.limit {
            return Err(failure(ErrorKind::TooLarge, &self.path, "file too large"));
        }
        self.file
            .write_all(data)
            .map_err(|error| io_failure(&self.path, &error))
    }

    /// Puts the file in its place, replacing what was there, and returns its length.
    pub(crate) fn finish(mut self) -> Result<u64, Failure> {
        self.file
            .set_permissions(fs::Permissions::from_mode(self.mode))
            .and_then(|()| fs::rename(&self.temporary, &self.path))
            .map_err(|error| io_failure(&self.path, &error))?;
        self.done = true;
        Ok(self.written)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.done {
            // Only our own file: the name may have been taken over meanwhile.
            let same =
                |a: &fs::Metadata, b: &fs::Metadata| a.ino() == b.ino() && a.dev() == b.dev();
            if let (Ok(ours), Ok(there)) =
                (self.file.metadata(), fs::symlink_metadata(&self.temporary))
                && same(&ours, &there)
            {
                let _ = fs::remove_file(&self.temporary);
            }
        }
    }
}

/// Writes a whole file the same careful way, for the boot sequence.
pub(crate) fn replace_file(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
    let mut writing = Writing::begin(path, mode, usize::MAX)?;
    writing.append(bytes)?;
    writing.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("sm-files-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn write_replaces_a_link_instead_of_following_it() {
        let dir = scratch("link");
        let victim = dir.join("victim");
        fs::write(&victim, "precious").unwrap();
        let target = dir.join("target");
        std::os::unix::fs::symlink(&victim, &target).unwrap();
        replace_file(&target, 0o640, b"new").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o640);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn missing_directories_are_made_and_aborted_writes_leave_nothing() {
        let dir = scratch("abort");
        let path = dir.join("a/b/c");
        let mut writing = Writing::begin(&path, 0o644, 4).unwrap();
        writing.append(b"1234").unwrap();
        assert_eq!(writing.append(b"5").unwrap_err().kind, ErrorKind::TooLarge);
        drop(writing);
        assert_eq!(fs::read_dir(dir.join("a/b")).unwrap().count(), 0);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn special_files_are_refused_at_once() {
        let kind = |result: Result<Writing, Failure>| result.unwrap_err().kind;
        let dir = Path::new("/dev");
        assert_eq!(kind(Writing::begin(dir, 0, 1)), ErrorKind::NotRegularFile);
        assert_eq!(
            kind(Writing::begin(&dir.join("null"), 0, 1)),
            ErrorKind::NotRegularFile
        );
        assert_eq!(
            kind(Writing::begin(Path::new("/"), 0, 1)),
            ErrorKind::BadRequest
        );
        let zero = Reading::open(Path::new("/dev/zero"), 10).unwrap_err();
        assert_eq!(zero.kind, ErrorKind::NotRegularFile);
        let none = Reading::open(Path::new("/no/such/file"), 10).unwrap_err();
        assert_eq!((none.kind, none.errno), (ErrorKind::NotFound, libc::ENOENT));
    }

    #[test]
    fn file_without_a_length_is_read_to_its_end() {
        let mut reading = Reading::open(Path::new("/proc/self/status"), 1 << 20).unwrap();
        let mut buffer = [0; 64];
        let mut total = 0;
        loop {
            match reading.next(&mut buffer).unwrap() {
                0 => break,
                count => total += count,
            }
        }
        assert!(total > 64);
    }
}

//! What a guest has changed of a copy-on-write mount, and which of that is wanted.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use supermachine::{ChangeKind, FileKind, MountChange};

use crate::{BindingError, Copied, Result};

/// Names that are tried for an archive that is not whole.
const MOST_TRIES: u32 = 100;

/// A change that somebody has looked at and wants: what it was then. A guest that has
/// made something else of it meanwhile does not get it accepted under the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedChange {
    /// Its path in the mount.
    pub path: PathBuf,
    /// `added`, `changed` or `deleted`.
    pub kind: String,
    /// What the guest had there; none if it was deleted.
    pub file: Option<String>,
}

/// How a file is different, as a word.
#[must_use]
pub fn change_word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Added => "added",
        ChangeKind::Deleted => "deleted",
        // Also what a later version may have.
        _ => "changed",
    }
}

/// What a file is, as a word.
#[must_use]
pub fn file_word(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::CharDevice => "char-device",
        FileKind::BlockDevice => "block-device",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        _ => "file",
    }
}

/// A filter that takes these changes, or all if none are named.
pub(crate) fn filter(
    wanted: Option<Vec<WantedChange>>,
) -> impl Fn(&MountChange) -> bool + Send + 'static {
    let wanted = wanted.map(|wanted| wanted.into_iter().collect::<BTreeSet<_>>());
    move |change| {
        let is_named = |wanted: &BTreeSet<WantedChange>| {
            wanted.contains(&WantedChange {
                path: change.path.clone(),
                kind: change_word(change.kind).to_owned(),
                file: change.file.map(|kind| file_word(kind).to_owned()),
            })
        };
        wanted.as_ref().is_none_or(is_named)
    }
}

/// An archive that is there with all of it or not at all: until then it has another
/// name, and is removed if it is dropped.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    unfinished: PathBuf,
}

impl Archive {
    /// Begins it. Writing blocks.
    pub(crate) fn create(path: PathBuf) -> Result<(Self, BufWriter<fs::File>)> {
        let failed = |error| host("write", &path, &error);
        let name = path
            .file_name()
            .ok_or_else(|| failed(ErrorKind::InvalidFilename.into()))?;
        let mut tries = 0;
        loop {
            let mut unfinished = OsString::from(".");
            unfinished.push(name);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            unfinished.push(format!(".{}-{number}", std::process::id()));
            let unfinished = path.with_file_name(unfinished);
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            tries += 1;
            match options.open(&unfinished) {
                Ok(file) => return Ok((Self { path, unfinished }, BufWriter::new(file))),
                // A process that had this one's number has left it.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < MOST_TRIES => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Gives it its name.
    pub(crate) fn finish(self, copied: Copied, written: BufWriter<fs::File>) -> Result<Copied> {
        let failed = |error: io::Error| host("write", &self.path, &error);
        let file = written
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        fs::rename(&self.unfinished, &self.path).map_err(failed)?;
        Ok(copied)
    }
}

/// Tells the exports of this process apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Drop for Archive {
    fn drop(&mut self) {
        // One that is finished has this name no more.
        let _ = fs::remove_file(&self.unfinished);
    }
}

fn host(what: &str, path: &Path, error: &io::Error) -> BindingError {
    BindingError::host(format!(
        "cannot {what} {}; see to what the host says of it: {error}",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn archives_are_there_whole_or_not_at_all() {
        let name = format!("supermachine-archive-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let path = dir.join("changes.tar");
        let (archive, mut file) = Archive::create(path.clone()).unwrap();
        file.write_all(b"half").unwrap();
        drop((archive, file));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        fs::write(&path, "old").unwrap();
        // Of a process that had this one's number.
        let next = NEXT.load(Ordering::Relaxed);
        let left = dir.join(format!(".changes.tar.{}-{next}", std::process::id()));
        fs::write(&left, "").unwrap();
        let (archive, mut file) = Archive::create(path.clone()).unwrap();
        file.write_all(b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        archive.finish(Copied::default(), file).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        fs::remove_file(left).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        for bad in [dir.join("none/changes.tar"), dir.join("..")] {
            let error = Archive::create(bad).unwrap_err();
            assert_eq!((error.code, error.kind), ("host", "host"), "{error}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}

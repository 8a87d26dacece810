//! Blobs that are on their way here: what came of them is kept until their layer is in the
//! cache, so that a pull which is interrupted, or killed, goes on where it was.
//!
//! ```text
//! <cache>/partial/sha256-<digest>   the first bytes of a blob; locked by who gets the rest
//! ```
//!
//! Nothing of it is believed: the digest is taken of all of the blob, these bytes too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Store;
use super::lease::files_of;
use crate::digest::Digest;
use crate::no_follow::{open_in_cache, own_directory};

/// To get fewer bytes again takes no longer than to look after them.
const MIN_BYTES: u64 = 1 << 20;
/// Nobody comes back after this long.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// The first bytes of a blob, which nobody else adds to.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    /// Locked.
    file: File,
    bytes: u64,
    /// Whether what follows is added.
    grows: bool,
}

impl Store {
    pub(super) fn partials(&self) -> PathBuf {
        self.dir().join("partial")
    }

    /// What is here of a blob of so many bytes, none of it at first. `None` if it is not
    /// worth it, or somebody else is at it, or it cannot be kept here.
    pub(crate) fn partial(&self, digest: &Digest, bytes: u64, limit: u64) -> Option<Partial> {
        if !(MIN_BYTES..=limit).contains(&bytes) {
            return None;
        }
        let partial = self.open_partial(digest).ok()?;
        if partial.as_ref().is_some_and(|found| found.bytes > bytes) {
            // Not of this blob.
            let mut partial = partial?;
            partial.clear().ok()?;
            return Some(partial);
        }
        partial
    }

    fn open_partial(&self, digest: &Digest) -> io::Result<Option<Partial>> {
        own_directory(&self.partials())?;
        let path = self.partials().join(digest.file_stem());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let file = open_in_cache(options.truncate(false), &path)?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let metadata = file.metadata()?;
        // Removed between these two steps: it is gone with this.
        let is_there = metadata.is_file() && metadata.nlink() > 0;
        Ok(is_there.then_some(Partial {
            path,
            file,
            bytes: metadata.len(),
            grows: true,
        }))
    }

    /// Removes what nobody came back for.
    pub(super) fn sweep_partials(&self) {
        for path in files_of(&self.partials()) {
            let is_old = |metadata: fs::Metadata| {
                let age = metadata.modified().ok()?.elapsed().ok()?;
                Some(age > KEPT_FOR)
            };
            let metadata = fs::symlink_metadata(&path).ok();
            if metadata.and_then(is_old) == Some(true) && !is_held(&path) {
                // There is no one to tell.
                let _ = fs::remove_file(&path);
            }
        }
    }
}

/// Whether somebody adds to a blob.
pub(super) fn is_held(path: &Path) -> bool {
    open_in_cache(OpenOptions::new().read(true), path)
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

impl Partial {
    /// How many bytes there are.
    pub(crate) fn len(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    /// Adds the bytes at `offset`, unless something is missing before them. That a disk is
    /// full is no reason to get less.
    pub(crate) fn add(&mut self, bytes: &[u8], offset: u64) {
        if !self.grows || offset != self.bytes {
            return;
        }
        match self.file.write_all_at(bytes, offset) {
            Ok(()) => self.bytes += bytes.len() as u64,
            Err(_) => {
                self.grows = false;
                // What is there of these is cut off; else the digest will tell.
                let _ = self.file.set_len(self.bytes);
            }
        }
    }

    /// Begins anew.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.flush()?;
        self.bytes = 0;
        self.grows = true;
        Ok(())
    }

    /// Nobody needs it any more.
    pub(crate) fn remove(self) {
        // What stays is removed some days later.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 2 << 20;

    #[test]
    fn what_came_of_a_blob_is_there_for_the_next_who_wants_it() {
        let dir = std::env::temp_dir().join(format!("oci-bake-partial-{}", std::process::id()));
        let store = Store::open(&dir).unwrap();
        let digest = Digest::sha256_of(b"blob");
        let open = || store.partial(&digest, BYTES, u64::MAX);
        assert!(store.partial(&digest, MIN_BYTES - 1, u64::MAX).is_none());
        assert!(store.partial(&digest, BYTES, BYTES - 1).is_none());

        let mut first = open().unwrap();
        assert_eq!(first.len(), 0);
        first.add(b"abc", 0);
        // Something is missing before it.
        first.add(b"x", 4);
        first.add(b"def", 3);
        assert_eq!(first.len(), 6);
        assert!(open().is_none(), "two of them add to it");
        drop(first);

        let mut second = open().unwrap();
        let mut bytes = [0; 6];
        assert_eq!(second.read_at(&mut bytes, 0).unwrap(), 6);
        assert_eq!(&bytes, b"abcdef");
        second.clear().unwrap();
        second.add(b"z", 0);
        assert_eq!(second.len(), 1);
        let path = second.path.clone();
        second.remove();
        assert!(!path.exists());

        // Longer than the blob: of another one.
        fs::write(&path, vec![1; 3 << 20]).unwrap();
        assert_eq!(open().unwrap().len(), 0);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_nobody_came_back_for_is_swept_unless_somebody_has_it() {
        let dir = std::env::temp_dir().join(format!("oci-bake-sweep-{}", std::process::id()));
        let store = Store::open(&dir).unwrap();
        let partial = |text: &[u8]| {
            let digest = Digest::sha256_of(text);
            store.partial(&digest, BYTES, u64::MAX).unwrap()
        };
        let (old, held, young) = (partial(b"old"), partial(b"held"), partial(b"young"));
        for partial in [&old, &held] {
            let then = std::time::SystemTime::now() - KEPT_FOR - Duration::from_secs(60);
            partial.file.set_modified(then).unwrap();
        }
        let paths = [&old, &held, &young].map(|partial| partial.path.clone());
        drop((old, young));
        let store = Store::open(&dir).unwrap();
        assert_eq!(paths.map(|path| path.exists()), [false, true, true]);
        drop((held, store));
        fs::remove_dir_all(dir).unwrap();
    }
}

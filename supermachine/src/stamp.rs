//! What this host is, as snapshots compare it.

use crate::assets::home;
use crate::embedder::identity;
use crate::limits::SETTLED_FILE;
use crate::link::protocol::GuestFiles;
use crate::link::runtime_dir::open_regular;
use crate::random::hex;
use crate::{Error, VmConfig};
use sha2::{Digest, Sha256};
use snapshot::Stamp;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// A file as it was: device, inode, length, and when it was changed.
type FileVersion = (u64, u64, u64, i64, i64);

/// Digests of files this process has read before.
static DIGESTS: Mutex<Option<HashMap<FileVersion, String>>> = Mutex::new(None);

/// The stamp of machines that are made here as `config` says.
pub fn here(config: &VmConfig) -> Result<Stamp, Error> {
    let assets = config.assets()?;
    let machine = identity::of_workers(config)?;
    let guest = GuestFiles {
        kernel: digest(&assets.kernel)?,
        init: digest(&assets.init_oci)?,
    };
    Ok(machine.stamp(guest))
}

/// SHA-256 of a file, in hex digits.
fn digest(path: &Path) -> Result<String, Error> {
    let failed = || Error::host("cannot read", path);
    let mut file = File::open(path).map_err(failed())?;
    let metadata = file.metadata().map_err(failed())?;
    let version = (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    );
    let mut known = DIGESTS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(digest) = known.get(&version) {
        return Ok(digest.clone());
    }
    let noted = Noted::of(version);
    if let Some(digest) = noted.as_ref().and_then(Noted::read) {
        known.insert(version, digest.clone());
        return Ok(digest);
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = file.read(&mut buffer).map_err(failed())?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
    }
    let digest = hex(&hash.finalize());
    known.insert(version, digest.clone());
    if let Some(noted) = noted {
        noted.write(&digest);
    }
    Ok(digest)
}

/// Where a file's digest is noted for the next process: in the user's cache, under
/// what no other content of the file would have. Reading a kernel takes longer than
/// all else that a process does before its machine starts.
struct Noted(PathBuf);

/// Where digests are noted.
pub fn notes() -> Result<PathBuf, Error> {
    match home()? {
        Some(home) => Ok(home.join("digests")),
        None => Ok(kernel::cached("digests")?),
    }
}

/// Hex digits of a SHA-256.
const DIGEST_BYTES: u64 = 64;

impl Noted {
    /// `None` for a file that was changed so lately that the next change could have
    /// the same time, and where there is no cache.
    fn of((device, inode, bytes, seconds, nanoseconds): FileVersion) -> Option<Self> {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?;
        let changed = Duration::new(
            u64::try_from(seconds).ok()?,
            u32::try_from(nanoseconds).ok()?,
        );
        if since.checked_sub(changed)? < SETTLED_FILE {
            return None;
        }
        let directory = notes().ok()?;
        let name = format!("{device:x}-{inode:x}-{bytes:x}-{seconds:x}-{nanoseconds:x}");
        Some(Self(directory.join(name)))
    }

    fn read(&self) -> Option<String> {
        let mut digest = String::new();
        let file = open_regular(&self.0).ok()?;
        file.take(DIGEST_BYTES + 1)
            .read_to_string(&mut digest)
            .ok()?;
        let is_digest = digest.len() as u64 == DIGEST_BYTES
            && digest
                .bytes()
                .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        is_digest.then_some(digest)
    }

    /// What cannot be written is computed again.
    fn write(&self, digest: &str) {
        let Some(directory) = self.0.parent() else {
            return;
        };
        let made = fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(directory);
        // Whole or not at all. A digest that a crash loses is no loss.
        let next = self.0.with_extension(format!("{}.tmp", std::process::id()));
        if made.is_err() || fs::write(&next, digest).is_err() || fs::rename(&next, &self.0).is_err()
        {
            let _ = fs::remove_file(&next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_noted_for_a_file_that_rests_and_for_no_other() {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        let changed = |ago: u64| (1, 2, 3, now.as_secs().cast_signed() - ago.cast_signed(), 0);
        assert!(Noted::of(changed(0)).is_none());
        // By a clock that was set back it is in the future.
        assert!(Noted::of((1, 2, 3, i64::MAX, 0)).is_none());
        assert!(Noted::of(changed(3600)).is_some());
    }

    #[test]
    fn what_is_no_digest_is_not_taken_for_one() {
        let directory = crate::link::runtime_dir::RuntimeDir::create().unwrap();
        let noted = Noted(directory.path().join("below/1-2-3-4-5"));
        assert_eq!(noted.read(), None);
        let digest = "0123456789abcdef".repeat(4);
        noted.write(&digest);
        assert_eq!(noted.read(), Some(digest.clone()));
        for bad in ["", "0123", &digest.to_uppercase(), &format!("{digest}0")] {
            noted.write(bad);
            assert_eq!(noted.read(), None, "{bad}");
        }
        // Nothing but the note is left.
        let entries = fs::read_dir(directory.path().join("below")).unwrap();
        assert_eq!(entries.count(), 1);
    }
}

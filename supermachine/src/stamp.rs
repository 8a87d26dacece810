//! What this host is, as snapshots compare it.

use crate::embedder::identity;
use crate::link::protocol::GuestFiles;
use crate::random::hex;
use crate::{Error, VmConfig};
use sha2::{Digest, Sha256};
use snapshot::Stamp;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

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
    Ok(digest)
}

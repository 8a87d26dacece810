//! Names of snapshots, facts, resources and files.

use crate::{Result, SnapshotError};

/// Longest name in bytes.
const MAX_BYTES: usize = 128;

/// Refuses whatever could be a path, a hidden file or a nuisance in a shell.
pub(crate) fn check(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let first = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !first || name.len() > MAX_BYTES || !name.bytes().all(allowed) {
        return Err(SnapshotError::Name {
            name: name.to_owned(),
        });
    }
    Ok(())
}

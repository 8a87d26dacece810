//! What the cache remembers of images from elsewhere: their documents, and what names
//! meant when they were last asked for.
//!
//! ```text
//! <cache>/documents/sha256-<digest>        manifests, indexes and configs
//! <cache>/names/<sha256 of the name>.json  what a name led to
//! ```
//!
//! Nothing of it is believed without its digest; what is damaged is as good as not
//! there.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::document::Descriptor;
use crate::no_follow::{open_in_cache, own_directory};
use crate::store::Store;

/// Longest file about a name.
const MAX_NAME_FILE_BYTES: u64 = 16 << 10;

/// What a name led to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameFile {
    name: String,
    media_type: String,
    digest: String,
    size: u64,
}

impl Store {
    pub(crate) fn documents(&self) -> PathBuf {
        self.dir().join("documents")
    }

    pub(crate) fn names(&self) -> PathBuf {
        self.dir().join("names")
    }

    /// A document that was kept, if it is there and has the digest and length.
    #[must_use]
    pub fn document(&self, descriptor: &Descriptor) -> Option<Vec<u8>> {
        let path = self.documents().join(descriptor.digest.file_stem());
        let bytes = read(&path, descriptor.size)?;
        let is_it = bytes.len() as u64 == descriptor.size
            && Digest::of(descriptor.digest.algorithm(), &bytes) == descriptor.digest;
        is_it.then_some(bytes)
    }

    /// Keeps a document for [`Store::document`], if it has the digest.
    ///
    /// # Errors
    /// When it cannot be written; what was there before stays then.
    pub fn keep_document(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        if Digest::of(digest.algorithm(), bytes) != *digest {
            return Err(io::Error::other("the document does not have that digest"));
        }
        self.write(&self.documents(), &digest.file_stem(), bytes)
    }

    /// What `name` led to when it was last remembered.
    #[must_use]
    pub fn remembered(&self, name: &str) -> Option<Descriptor> {
        let (named, root) = self.remembered_in(&self.names().join(name_file(name)))?;
        (named == name).then_some(root)
    }

    /// A name, and what it led to, as a file says.
    pub(crate) fn remembered_in(&self, path: &Path) -> Option<(String, Descriptor)> {
        let file: NameFile = serde_json::from_slice(&read(path, MAX_NAME_FILE_BYTES)?).ok()?;
        let digest = file.digest.parse().ok()?;
        Some((
            file.name,
            Descriptor::new(file.media_type, digest, file.size),
        ))
    }

    /// Remembers what `name` leads to, instead of what it led to before.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remember(&self, name: &str, root: &Descriptor) -> io::Result<()> {
        let file = NameFile {
            name: name.to_owned(),
            media_type: root.media_type.clone(),
            digest: root.digest.to_string(),
            size: root.size,
        };
        let text = serde_json::to_vec(&file)?;
        self.write(&self.names(), &name_file(name), &text)
    }

    /// Writes a file under another name, and renames it: there is all of it or what was
    /// there before.
    fn write(&self, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        own_directory(directory)?;
        let (mut file, temporary) = self.temporary(name)?;
        let written = file
            .write_all(bytes)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, directory.join(name)));
        if written.is_err() {
            // There is no one to tell.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

fn name_file(name: &str) -> String {
    format!("{}.json", Digest::sha256_of(name.as_bytes()).hex())
}

/// A file of at most `limit` bytes.
fn read(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let file = open_in_cache(OpenOptions::new().read(true), path).ok()?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .ok()?;
    (bytes.len() as u64 <= limit).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_unless_it_is_damaged() {
        let dir = std::env::temp_dir().join(format!("oci-bake-names-{}", std::process::id()));
        let store = Store::open(&dir).unwrap();
        let digest = Digest::sha256_of(b"{}");
        let descriptor = Descriptor::new("x/y", digest.clone(), 2);
        assert_eq!(store.document(&descriptor), None);
        assert_eq!(store.remembered("a"), None);
        store.keep_document(&digest, b"{}").unwrap();
        assert!(store.keep_document(&digest, b"[]").is_err());
        assert_eq!(store.document(&descriptor).as_deref(), Some(&b"{}"[..]));
        store.remember("a", &descriptor).unwrap();
        assert_eq!(store.remembered("a"), Some(descriptor.clone()));
        assert_eq!(store.remembered("b"), None);
        let other = Descriptor::new("x/y", Digest::sha256_of(b"1"), 1);
        store.remember("a", &other).unwrap();
        assert_eq!(store.remembered("a"), Some(other));

        for damage in ["", "{", "[]", "{}x"] {
            fs::write(dir.join("documents").join(digest.file_stem()), damage).unwrap();
            assert_eq!(store.document(&descriptor), None, "{damage}");
            fs::write(dir.join("names").join(name_file("a")), damage).unwrap();
            assert_eq!(store.remembered("a"), None, "{damage}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}

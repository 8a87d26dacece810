//! What a machine is made of: an image, or what was baked of one.

use crate::{Error, snapshots_dir};
use snapshot::Store;
use std::path::{Path, PathBuf};

/// In front of the name or path of a snapshot, whatever else that could be.
const SCHEME: &str = "snapshot:";

/// What a reference on the command line stands for.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// An image, by its reference.
    Image(String),
    /// A snapshot: the directory of an image that was baked, or of a generation.
    Snapshot(PathBuf),
}

impl Source {
    /// Tells them apart. With a scheme (`oci:`, `docker-archive:`, `snapshot:`)
    /// a reference means one thing, whatever there is on the disk. Without one
    /// it is a directory, by a path that begins with `/`, `./` or `../`, or the
    /// name of a snapshot, if there is such a one; else an image.
    pub fn of(reference: &str) -> Result<Self, Error> {
        // Without a place for snapshots there are none by name.
        let root = snapshots_dir().ok();
        if let Some(which) = reference.strip_prefix(SCHEME) {
            let root = match root {
                Some(root) => root,
                None => snapshots_dir()?,
            };
            let is_name = !which.contains('/');
            return Ok(Self::Snapshot(if is_name {
                root.join(which)
            } else {
                PathBuf::from(which)
            }));
        }
        Ok(Self::without_scheme(reference, root.as_deref()))
    }

    fn without_scheme(reference: &str, root: Option<&Path>) -> Self {
        let is_path = ["/", "./", "../"]
            .iter()
            .any(|start| reference.starts_with(start));
        if is_path && Path::new(reference).is_dir() {
            return Self::Snapshot(PathBuf::from(reference));
        }
        // What has a colon is no name of a snapshot.
        let store = root.and_then(|root| Store::existing(root).ok());
        match store.filter(|store| store.current(reference).is_ok()) {
            Some(store) => Self::Snapshot(store.root().join(reference)),
            None => Self::Image(reference.to_owned()),
        }
    }
}

//! What a guest has changed of a copy-on-write mount, and which of that is wanted.

use std::collections::BTreeSet;
use std::path::PathBuf;

use supermachine::{ChangeKind, FileKind, MountChange};

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

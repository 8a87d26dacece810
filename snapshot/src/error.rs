//! What can go wrong, by what the caller can do about it.

use crate::{Architecture, Engine, SectionKind};
use std::io;
use std::path::PathBuf;

/// Why a snapshot could not be written, opened or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// An operation on a file failed; the text says which.
    #[error("could not {what} {path:?}")]
    Io {
        /// The operation, as a verb.
        what: &'static str,
        /// The file it was done to.
        path: PathBuf,
        /// The reason the system gave.
        #[source]
        source: io::Error,
    },
    /// The process that was to write it could not; the text says why.
    #[error("could not be written: {reason}")]
    NotWritten {
        /// What that process said.
        reason: String,
    },
    /// Guest memory could not be read while it was stored.
    #[error("could not read guest memory")]
    Source(#[source] io::Error),
    /// There is no snapshot under that name.
    #[error("there is no snapshot of image {image:?}")]
    NotFound {
        /// Name of the image.
        image: String,
    },
    /// What has to be a directory is a symbolic link, or no directory. Links
    /// are not followed: they could lead anywhere.
    #[error(
        "{path:?} is a symbolic link or no directory: remove it, or name the directory it leads to"
    )]
    NotDirectory {
        /// What was found.
        path: PathBuf,
    },
    /// A name has characters that are not for names.
    #[error("{name:?} is not a name: letters, digits, '.', '_' and '-' make one, at most 128")]
    Name {
        /// The name as given.
        name: String,
    },
    /// Another process works on this image and did not finish in time.
    #[error("image {image:?} is locked by another process (pid {holder:?})")]
    Locked {
        /// Name of the image.
        image: String,
        /// The process that says it holds the lock.
        holder: Option<u32>,
    },
    /// Running machines use a generation that was to be removed.
    #[error("image {image:?} is in use")]
    InUse {
        /// Name of the image.
        image: String,
    },
    /// Made by another engine.
    #[error("snapshot was made by engine {found}, here runs {here}: bake the image again")]
    WrongEngine {
        /// Engine in the file.
        found: Engine,
        /// Engine of this host.
        here: Engine,
    },
    /// Made for another processor architecture.
    #[error("snapshot is of architecture {found}, here runs {here}: bake the image again")]
    WrongArchitecture {
        /// Architecture in the file.
        found: Architecture,
        /// Architecture of this host.
        here: Architecture,
    },
    /// Something the guest has seen is different here.
    #[error("snapshot has {field} {found}, here it is {here}: bake the image again")]
    WrongHost {
        /// What is different: a register, the counter, the kernel.
        field: String,
        /// Value in the file.
        found: String,
        /// Value here.
        here: String,
    },
    /// Written by another version of the format.
    #[error("{what} has version {found}, this build reads {supported}: bake the image again")]
    Version {
        /// File or section.
        what: &'static str,
        /// Version in the file.
        found: String,
        /// What this build reads.
        supported: String,
    },
    /// A file or a section is shorter than it says it is.
    #[error("{what} is truncated: bake the image again")]
    Truncated {
        /// File or section.
        what: &'static str,
    },
    /// A file or a section is longer than it says it is.
    #[error("{what} has bytes after its end: bake the image again")]
    TrailingBytes {
        /// File or section.
        what: &'static str,
    },
    /// Stored bytes do not match their checksum.
    #[error("checksum of {section} does not match: bake the image again")]
    Checksum {
        /// The file, section or chunk.
        section: String,
    },
    /// A count or a length is above its cap.
    #[error("{what} is {found}, at most {limit} is allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The value.
        found: u64,
        /// The cap.
        limit: u64,
    },
    /// A field has a value the format does not allow.
    #[error("{what} is not valid: bake the image again")]
    Malformed {
        /// The field.
        what: &'static str,
    },
    /// A section that must be there is not.
    #[error("section {kind}/{instance} is missing: bake the image again")]
    Missing {
        /// Kind of the section.
        kind: SectionKind,
        /// Instance of the section.
        instance: u16,
    },
    /// A section is there that nobody asked for.
    #[error("section {kind}/{instance} is of no use here: bake the image again")]
    Unclaimed {
        /// Kind of the section.
        kind: SectionKind,
        /// Instance of the section.
        instance: u16,
    },
}

impl SnapshotError {
    /// Whether baking the image again is what helps.
    #[must_use]
    pub fn wants_rebake(&self) -> bool {
        !matches!(
            self,
            Self::Io { .. }
                | Self::NotWritten { .. }
                | Self::Source(_)
                | Self::NotDirectory { .. }
                | Self::Name { .. }
                | Self::Locked { .. }
                | Self::InUse { .. }
                | Self::TooLarge { .. }
        )
    }
}

/// A result of this crate.
pub type Result<T, E = SnapshotError> = std::result::Result<T, E>;

/// Gives an I/O error its context.
pub(crate) trait Context<T> {
    fn context(self, what: &'static str, path: &std::path::Path) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: &'static str, path: &std::path::Path) -> Result<T> {
        self.map_err(|source| SnapshotError::Io {
            what,
            path: path.to_owned(),
            source,
        })
    }
}

/// Refuses `found` above `limit`.
pub(crate) fn cap(what: &'static str, found: u64, limit: u64) -> Result<()> {
    if found > limit {
        return Err(SnapshotError::TooLarge { what, found, limit });
    }
    Ok(())
}

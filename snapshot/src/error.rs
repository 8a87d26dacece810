//! What can go wrong, by what the caller can do about it.

use crate::engine_id::EngineId;
use crate::section_kind::SectionKind;
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
    #[error("there is no snapshot of the name {name:?}: bake it, or look for its name in the list")]
    NotFound {
        /// The name.
        name: String,
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
    /// Another process works on this name and did not finish in time.
    #[error("snapshot {name:?} is locked by another process (pid {holder:?}): wait for its end")]
    Locked {
        /// The name.
        name: String,
        /// The process that says it holds the lock.
        holder: Option<u32>,
    },
    /// Running machines use a generation that was to be removed.
    #[error("snapshot {name:?} is in use: stop the machines that run from it")]
    InUse {
        /// The name.
        name: String,
    },
    /// Made by another engine.
    #[error("snapshot was made by engine {found}, here runs {here}: bake it again")]
    WrongEngine {
        /// Engine in the file.
        found: EngineId,
        /// Engine of this host.
        here: EngineId,
    },
    /// A fact that must be the same is another one here.
    #[error("snapshot has {fact} {found}, here it is {here}: bake it again")]
    WrongFact {
        /// Name of the fact.
        fact: String,
        /// Value in the file.
        found: String,
        /// Value here.
        here: String,
    },
    /// Written by another version of the format.
    #[error("{what} has version {found}, this build reads {supported}: bake it again")]
    Version {
        /// File or section.
        what: &'static str,
        /// Version in the file.
        found: String,
        /// What this build reads.
        supported: String,
    },
    /// A file or a section is shorter than it says it is.
    #[error("{what} is truncated: bake it again")]
    Truncated {
        /// File or section.
        what: &'static str,
    },
    /// A file or a section is longer than it says it is.
    #[error("{what} has bytes after its end: bake it again")]
    TrailingBytes {
        /// File or section.
        what: &'static str,
    },
    /// Stored bytes do not match their checksum.
    #[error("checksum of {section} does not match: bake it again")]
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
    #[error("{what} is not valid: bake it again")]
    Malformed {
        /// The field.
        what: &'static str,
    },
    /// A file is not what an export writes.
    #[error("this is no snapshot as it was exported: {reason}; get or export it again")]
    Bundle {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A section that must be there is not.
    #[error("section {kind}/{instance} is missing: bake it again")]
    Missing {
        /// Kind of the section.
        kind: SectionKind,
        /// Instance of the section.
        instance: u16,
    },
    /// A section is there that nobody asked for.
    #[error("section {kind}/{instance} is of no use here: bake it again")]
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

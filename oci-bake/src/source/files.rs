//! Where the files of an image are: a directory or an archive.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::decompress::{Format, MAGIC_BYTES, Windows, unread};
use crate::digest::Algorithm;
use crate::error::ImageError;
use crate::limits::Limits;
use crate::section::{ReadAt, Section};
use crate::spool::Spools;
use crate::store::Store;
use crate::tar::{EntryKind, Reader, TarError};
use crate::tree::normalise;

/// Links followed inside an archive before giving up.
const MAX_LINKS: usize = 8;
/// Cap on the names of an archive in bytes.
const MAX_INDEX_BYTES: usize = 64 << 20;

/// The files of an image by name.
#[derive(Debug)]
pub(crate) enum Files {
    Dir(PathBuf),
    Archive {
        path: PathBuf,
        members: HashMap<Vec<u8>, Member>,
    },
}

#[derive(Debug)]
pub(crate) enum Member {
    File(Section),
    /// A symlink or hard link, as the normalised name it leads to.
    Link(Vec<u8>),
}

impl Files {
    pub(crate) fn open_dir(path: &Path) -> Result<Self, ImageError> {
        let read = |source| ImageError::Read {
            path: path.to_owned(),
            source,
        };
        if !std::fs::metadata(path).map_err(read)?.is_dir() {
            return Err(ImageError::NotALayout {
                path: path.to_owned(),
                reason: "it is not a directory (for a file use oci-archive: or docker-archive:)",
            });
        }
        Ok(Self::Dir(path.to_owned()))
    }

    /// Indexes an archive without extracting it.
    pub(crate) fn open_archive(
        path: &Path,
        store: &Store,
        limits: &Limits,
    ) -> Result<Self, ImageError> {
        let read = |source| ImageError::Read {
            path: path.to_owned(),
            source,
        };
        let file = Section::open(path).map_err(read)?;
        let mut start = [0; MAGIC_BYTES];
        let n = file.read_at(&mut start, 0).map_err(read)?;
        if let Some(compression) = unread(&start[..n]) {
            return Err(ImageError::UnreadCompression {
                path: path.to_owned(),
                compression: compression.name,
                program: compression.program,
            });
        }
        let file = match Format::sniff(&start[..n]) {
            Format::Plain => file,
            format => {
                let sizes = (file.len(), limits);
                let format = (format, &Windows::default());
                Spools::default()
                    .add(store, file.reader(), format, sizes, Algorithm::Sha256)
                    .map_err(|source| ImageError::ArchiveCompression {
                        path: path.to_owned(),
                        source: Box::new(source),
                    })?
                    .0
            }
        };
        Self::of_archive(path, &file, limits)
    }

    /// The files in an archive that comes from elsewhere.
    pub(crate) fn receive(
        archive: &mut dyn Read,
        store: &Store,
        limits: &Limits,
    ) -> Result<Self, ImageError> {
        let path = Path::new("what was received");
        let sizes = (0, limits);
        let format = (Format::Plain, &Windows::default());
        let (file, _) = Spools::default()
            .add(store, archive, format, sizes, Algorithm::Sha256)
            .map_err(|source| ImageError::ArchiveCompression {
                path: path.to_owned(),
                source: Box::new(source),
            })?;
        Self::of_archive(path, &file, limits)
    }

    fn of_archive(path: &Path, file: &Section, limits: &Limits) -> Result<Self, ImageError> {
        let members = index(file, limits).map_err(|source| ImageError::NotAnArchive {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::Archive {
            path: path.to_owned(),
            members,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Dir(path) | Self::Archive { path, .. } => path,
        }
    }

    /// The file called `name`, if there is one. For a directory, `name` must
    /// be one of our constants or made from a checked digest.
    pub(crate) fn file(&self, name: &str) -> Result<Option<Section>, ImageError> {
        match self {
            Self::Dir(dir) => {
                let path = dir.join(name);
                match Section::open(&path) {
                    Ok(section) => Ok(Some(section)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(ImageError::Read { path, source }),
                }
            }
            Self::Archive { members, .. } => {
                let Ok(parts) = normalise(name.as_bytes()) else {
                    return Ok(None);
                };
                let mut name = parts.join(&b'/');
                for _ in 0..MAX_LINKS {
                    match members.get(&name) {
                        Some(Member::File(section)) => return Ok(Some(section.clone())),
                        Some(Member::Link(target)) => name.clone_from(target),
                        None => return Ok(None),
                    }
                }
                Ok(None)
            }
        }
    }

    /// Reads a whole small file.
    pub(crate) fn document(
        &self,
        name: &str,
        what: &'static str,
        limits: &Limits,
    ) -> Result<Option<Vec<u8>>, ImageError> {
        match self.file(name)? {
            Some(section) => self.read_document(&section, what, limits).map(Some),
            None => Ok(None),
        }
    }

    fn read_document(
        &self,
        section: &Section,
        what: &'static str,
        limits: &Limits,
    ) -> Result<Vec<u8>, ImageError> {
        let read = |source| ImageError::Read {
            path: self.path().to_owned(),
            source,
        };
        if section.len() > limits.max_document_bytes {
            return Err(ImageError::DocumentTooLarge {
                what,
                size: section.len(),
                limit: limits.max_document_bytes,
            });
        }
        let len = usize::try_from(section.len()).map_err(|e| read(io::Error::other(e)))?;
        let mut bytes = vec![0; len];
        section.read_exact_at(&mut bytes, 0).map_err(read)?;
        Ok(bytes)
    }
}

/// The members of an archive by normalised name; the last of several wins.
/// Members with names we would not accept in a layer cannot be referred to.
fn index(file: &Section, limits: &Limits) -> Result<HashMap<Vec<u8>, Member>, TarError> {
    let mut members = HashMap::new();
    let mut reader = Reader::new(file);
    let mut bytes = 0usize;
    while let Some(entry) = reader.next_entry()? {
        let Ok(parts) = normalise(&entry.path) else {
            continue;
        };
        bytes += entry.path.len() + entry.link.len() + 64;
        if bytes > MAX_INDEX_BYTES || members.len() as u64 >= limits.max_entries {
            return Err(TarError::TooLarge {
                offset: 0,
                what: "archive index",
                limit: MAX_INDEX_BYTES as u64,
            });
        }
        let member = match entry.kind {
            EntryKind::File => {
                let whole = match entry.extents.as_slice() {
                    [] if entry.size == 0 => file.slice(0, 0),
                    [e] if e.logical == 0 && e.len == entry.size => file.slice(e.source, e.len),
                    _ => None,
                };
                whole.map(Member::File)
            }
            EntryKind::Symlink => {
                let parents = &parts[..parts.len().saturating_sub(1)];
                join(parents, &entry.link).map(Member::Link)
            }
            EntryKind::HardLink => join(&[], &entry.link).map(Member::Link),
            _ => None,
        };
        if let Some(member) = member {
            members.insert(parts.join(&b'/'), member);
        }
    }
    Ok(members)
}

/// A link target as a name in the archive, unless it leaves it.
fn join(base: &[Vec<u8>], target: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = base.iter().map(Vec::as_slice).collect();
    if target.starts_with(b"/") {
        parts.clear();
    }
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

//! Iterating over the members of an archive.

use super::header::{BLOCK, Header};
use super::pax::{self, Records};
use super::sparse;
use super::{Entry, EntryKind, TarError};
use crate::section::ReadAt;
use crate::tree::Extent;

/// Cap on one extended header or long name in bytes. 64 KiB values are the
/// largest attributes Linux has; GNU tar itself stops far below this.
const MAX_EXTENSION: u64 = 1 << 20;

/// Reads members in order.
pub(crate) struct Reader<'a, R: ?Sized> {
    source: &'a R,
    /// Where the next header is.
    position: u64,
    done: bool,
}

/// What the extension headers before a member said.
#[derive(Default)]
struct Extensions {
    present: bool,
    pax: Vec<u8>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// PAX records that replace header fields.
#[derive(Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: SparseRecords,
}

#[derive(Default)]
struct SparseRecords {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    map: Option<sparse::Map>,
    offsets: Vec<u64>,
    lengths: Vec<u64>,
}

impl<'a, R: ReadAt + ?Sized> Reader<'a, R> {
    pub(crate) fn new(source: &'a R) -> Self {
        Self {
            source,
            position: 0,
            done: false,
        }
    }

    /// The next member, or `None` after the last. After an error the rest of
    /// the archive has no meaning and the reader yields nothing more.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.done {
            return Ok(None);
        }
        let result = self.advance();
        self.done = !matches!(result, Ok(Some(_)));
        result
    }

    fn advance(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            let offset = self.position;
            let Some(block) = self.header()? else {
                return match extensions.present {
                    true => Err(TarError::Truncated { offset }),
                    false => Ok(None),
                };
            };
            let header = Header(&block);
            let size = header
                .size()
                .and_then(|size| u64::try_from(size).ok())
                .ok_or(TarError::BadField {
                    offset,
                    field: "size",
                })?;
            match header.typeflag() {
                b'x' => {
                    extensions.pax = self.extension(offset, size)?;
                }
                b'g' => {
                    let data = self.extension(offset, size)?;
                    check_global(&data, offset)?;
                    continue;
                }
                b'L' => extensions.long_name = Some(until_nul(self.extension(offset, size)?)),
                b'K' => extensions.long_link = Some(until_nul(self.extension(offset, size)?)),
                _ => return self.member(&header, offset, size, extensions).map(Some),
            }
            extensions.present = true;
        }
    }

    /// The header block at the current position, which moves past it; `None`
    /// at the end of the archive.
    fn header(&mut self) -> Result<Option<[u8; 512]>, TarError> {
        let offset = self.position;
        if offset == self.source.len() {
            return Ok(None);
        }
        let mut block = [0; 512];
        self.block(offset, &mut block)?;
        if Header(&block).is_zero() {
            // The end is two zero blocks; at the very end of the file one
            // will do. Anything else is a hole to hide entries behind.
            let next = offset + BLOCK;
            if next < self.source.len() {
                self.block(next, &mut block)?;
                if !Header(&block).is_zero() {
                    return Err(TarError::BadHeader { offset });
                }
            }
            return Ok(None);
        }
        if !Header(&block).checksum_matches() {
            return Err(TarError::BadHeader { offset });
        }
        self.position = offset + BLOCK;
        Ok(Some(block))
    }

    fn block(&self, offset: u64, block: &mut [u8; 512]) -> Result<(), TarError> {
        if self.source.len().saturating_sub(offset) < BLOCK {
            return Err(TarError::Truncated { offset });
        }
        Ok(self.source.read_exact_at(block, offset)?)
    }

    /// Content of an extension header.
    fn extension(&mut self, offset: u64, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION {
            return Err(TarError::TooLarge {
                offset,
                what: "extended header",
                limit: MAX_EXTENSION,
            });
        }
        let at = self.skip_data(offset, size)?;
        let len = usize::try_from(size).map_err(std::io::Error::other)?;
        let mut data = vec![0; len];
        self.source.read_exact_at(&mut data, at)?;
        Ok(data)
    }

    /// Moves past `size` bytes of data and its padding; returns where the
    /// data starts. Data that the archive does not hold is an error; padding
    /// may be cut short at the end, as some writers do.
    fn skip_data(&mut self, offset: u64, size: u64) -> Result<u64, TarError> {
        let start = self.position;
        let truncated = || TarError::Truncated { offset };
        let end = start.checked_add(size).ok_or_else(truncated)?;
        if end > self.source.len() {
            return Err(truncated());
        }
        let padded = end.checked_next_multiple_of(BLOCK).ok_or_else(truncated)?;
        self.position = padded.min(self.source.len());
        Ok(start)
    }

    fn member(
        &mut self,
        header: &Header<'_>,
        offset: u64,
        header_size: u64,
        extensions: Extensions,
    ) -> Result<Entry, TarError> {
        let bad = |field| TarError::BadField { offset, field };
        let records = pax::parse(&extensions.pax).ok_or_else(|| bad("extended header"))?;
        let over = overrides(&records).map_err(bad)?;
        let mut path = match over.path {
            Some(path) => path,
            None => extensions.long_name.unwrap_or_else(|| header.name()),
        };
        let link = match over.link {
            Some(link) => link,
            None => extensions.long_link.unwrap_or_else(|| header.link_name()),
        };
        let kind = kind_of(header, &path, offset)?;
        let mut entry = Entry {
            path: Vec::new(),
            link,
            kind,
            mode: u16::try_from(header.mode().ok_or_else(|| bad("mode"))? & 0o7777)
                .map_err(|_| bad("mode"))?,
            uid: id(over.uid, header.uid()).ok_or_else(|| bad("uid"))?,
            gid: id(over.gid, header.gid()).ok_or_else(|| bad("gid"))?,
            mtime: match over.mtime {
                Some(mtime) => mtime,
                None => header.mtime().ok_or_else(|| bad("mtime"))?,
            },
            size: 0,
            extents: Vec::new(),
            xattrs: over.xattrs,
        };
        // Only files have data. For other types the size is informative at
        // best; runtimes ignore it, so data behind it would be read as
        // headers by them and must be by us.
        if kind == EntryKind::File {
            let stored = over.size.unwrap_or(header_size);
            if let Some(name) = &over.sparse.name {
                path.clone_from(name);
            }
            self.file_data(header, offset, stored, over.sparse, &mut entry)?;
        }
        if path.is_empty() {
            return Err(bad("name"));
        }
        entry.path = path;
        Ok(entry)
    }

    fn file_data(
        &mut self,
        header: &Header<'_>,
        offset: u64,
        stored: u64,
        records: SparseRecords,
        entry: &mut Entry,
    ) -> Result<(), TarError> {
        let bad = || TarError::BadField {
            offset,
            field: "sparse map",
        };
        let extents = |map: &[(u64, u64)], size, data, stored| {
            sparse::extents(map, size, data, stored).ok_or_else(bad)
        };
        if header.typeflag() == b'S' {
            let (map, real, used) =
                sparse::old_gnu(header.0, self.source, self.position).ok_or_else(bad)?;
            self.position += used;
            let data = self.skip_data(offset, stored)?;
            entry.size = real;
            entry.extents = extents(&map, real, data, stored)?;
            return Ok(());
        }
        let data = self.skip_data(offset, stored)?;
        if let Some((map, used)) = records.resolve(self.source, data, stored).ok_or_else(bad)? {
            entry.size = records.real_size.ok_or_else(bad)?;
            entry.extents = extents(&map, entry.size, data + used, stored - used)?;
        } else {
            entry.size = stored;
            if stored > 0 {
                entry.extents.push(Extent {
                    logical: 0,
                    source: data,
                    len: stored,
                });
            }
        }
        Ok(())
    }
}

impl SparseRecords {
    /// The map, if the records describe a sparse file, and how much of the
    /// data it took. The outer `None` is a malformed description.
    #[allow(
        clippy::option_option,
        reason = "malformed and absent are different answers"
    )]
    fn resolve<R: ReadAt + ?Sized>(
        &self,
        source: &R,
        data: u64,
        stored: u64,
    ) -> Option<Option<(sparse::Map, u64)>> {
        match (self.major, self.minor) {
            (Some(1), Some(0)) => Some(Some(sparse::in_data(source, data, stored)?)),
            (None, None) | (Some(0), Some(0 | 1)) => {
                if let Some(map) = &self.map {
                    return Some(Some((map.clone(), 0)));
                }
                if self.offsets.len() != self.lengths.len() {
                    return None;
                }
                if self.offsets.is_empty() && self.real_size.is_none() {
                    return Some(None);
                }
                let pairs = self.offsets.iter().zip(&self.lengths);
                Some(Some((pairs.map(|(o, l)| (*o, *l)).collect(), 0)))
            }
            _ => None,
        }
    }
}

fn id(over: Option<u32>, header: Option<i64>) -> Option<u32> {
    match over {
        Some(id) => Some(id),
        None => u32::try_from(header?).ok(),
    }
}

fn kind_of(header: &Header<'_>, path: &[u8], offset: u64) -> Result<EntryKind, TarError> {
    let device = || {
        let (major, minor) = header.device()?;
        Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?))
    };
    let bad_device = TarError::BadField {
        offset,
        field: "device number",
    };
    Ok(match header.typeflag() {
        // Before ustar, a trailing slash was how to say directory.
        0 if path.last() == Some(&b'/') => EntryKind::Dir,
        0 | b'0' | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => {
            let (major, minor) = device().ok_or(bad_device)?;
            EntryKind::Char { major, minor }
        }
        b'4' => {
            let (major, minor) = device().ok_or(bad_device)?;
            EntryKind::Block { major, minor }
        }
        b'5' => EntryKind::Dir,
        b'6' => EntryKind::Fifo,
        typeflag => return Err(TarError::UnsupportedType { offset, typeflag }),
    })
}

/// Global headers (`git archive` writes a comment) do not apply to members
/// in the runtimes' reader, so one that would change where or how large a
/// member is makes readers disagree.
fn check_global(data: &[u8], offset: u64) -> Result<(), TarError> {
    let bad = TarError::BadField {
        offset,
        field: "global extended header",
    };
    let Some(records) = pax::parse(data) else {
        return Err(bad);
    };
    let shapes = |key: &[u8]| {
        matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.")
    };
    match records.iter().any(|(key, _)| shapes(key)) {
        true => Err(bad),
        false => Ok(()),
    }
}

fn overrides(records: &Records<'_>) -> Result<Overrides, &'static str> {
    let mut over = Overrides::default();
    let number = |value: &[u8], field| pax::decimal(value).ok_or(field);
    let id = |value: &[u8], field| {
        pax::decimal(value)
            .and_then(|id| u32::try_from(id).ok())
            .ok_or(field)
    };
    for &(key, value) in records {
        // POSIX: an empty value takes an earlier one back.
        let set = !value.is_empty();
        match key {
            b"path" | b"linkpath" if value.contains(&0) => return Err("name"),
            b"path" => over.path = set.then(|| value.to_vec()),
            b"linkpath" => over.link = set.then(|| value.to_vec()),
            b"size" if set => over.size = Some(number(value, "size")?),
            b"uid" if set => over.uid = Some(id(value, "uid")?),
            b"gid" if set => over.gid = Some(id(value, "gid")?),
            b"mtime" if set => over.mtime = Some(pax::seconds(value).ok_or("mtime")?),
            _ if key.starts_with(b"GNU.sparse.") => sparse_record(&mut over.sparse, key, value)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    push_xattr(&mut over.xattrs, name, value)?;
                }
            }
        }
    }
    Ok(over)
}

/// Linux `XATTR_NAME_MAX` and `XATTR_SIZE_MAX`.
fn push_xattr(
    xattrs: &mut Vec<(Vec<u8>, Vec<u8>)>,
    name: &[u8],
    value: &[u8],
) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > 255 || value.len() > 65536 {
        return Err("extended attribute");
    }
    xattrs.push((name.to_vec(), value.to_vec()));
    Ok(())
}

fn sparse_record(sparse: &mut SparseRecords, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
    let number = || pax::decimal(value).ok_or("sparse map");
    match &key[b"GNU.sparse.".len()..] {
        b"major" => sparse.major = Some(number()?),
        b"minor" => sparse.minor = Some(number()?),
        b"name" => sparse.name = Some(value.to_vec()),
        b"size" | b"realsize" => sparse.real_size = Some(number()?),
        b"map" => sparse.map = Some(sparse::comma_list(value).ok_or("sparse map")?),
        b"offset" => sparse.offsets.push(number()?),
        b"numbytes" => sparse.lengths.push(number()?),
        b"numblocks" => {}
        _ => return Err("sparse map"),
    }
    Ok(())
}

fn until_nul(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|byte| *byte == 0) {
        data.truncate(end);
    }
    data
}

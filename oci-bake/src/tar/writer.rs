//! Writing archives: ustar headers, with PAX records where they do not do.

use std::io::{self, Read, Write};

use super::header::BLOCK;
use super::{Entry, EntryKind};

/// Largest value of an 11-digit octal field.
const MAX_SIZE: u64 = 0o777_7777_7777;
/// Largest value of a 7-digit octal field.
const MAX_ID: u32 = 0o777_7777;

/// Writes members to `out`.
pub(crate) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    /// Appends a member whose `entry.size` bytes come from `data`. The
    /// extents of `entry` are not looked at.
    pub(crate) fn append(&mut self, entry: &Entry, data: &mut dyn Read) -> io::Result<()> {
        let records = records(entry);
        if !records.is_empty() {
            let len = records.len() as u64;
            let header = header(b"PaxHeaders.0", b"", b'x', 0o644, 0, 0, 0, len, (0, 0))?;
            self.out.write_all(&header)?;
            self.out.write_all(&records)?;
            self.pad(len)?;
        }
        let (typeflag, device) = match entry.kind {
            EntryKind::File => (b'0', (0, 0)),
            EntryKind::HardLink => (b'1', (0, 0)),
            EntryKind::Symlink => (b'2', (0, 0)),
            EntryKind::Char { major, minor } => (b'3', (major, minor)),
            EntryKind::Block { major, minor } => (b'4', (major, minor)),
            EntryKind::Dir => (b'5', (0, 0)),
            EntryKind::Fifo => (b'6', (0, 0)),
        };
        let size = match entry.kind {
            EntryKind::File => entry.size,
            _ => 0,
        };
        let header = header(
            cut(&entry.path),
            cut(&entry.link),
            typeflag,
            entry.mode.into(),
            entry.uid.min(MAX_ID),
            entry.gid.min(MAX_ID),
            u64::try_from(entry.mtime).unwrap_or(0).min(MAX_SIZE),
            size.min(MAX_SIZE),
            device,
        )?;
        self.out.write_all(&header)?;
        let copied = io::copy(&mut data.take(size), &mut self.out)?;
        if copied != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pad(size)
    }

    /// Writes the end of the archive and hands the output back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 1024])?;
        Ok(self.out)
    }

    fn pad(&mut self, len: u64) -> io::Result<()> {
        let padding = len.next_multiple_of(BLOCK) - len;
        io::copy(&mut io::repeat(0).take(padding), &mut self.out)?;
        Ok(())
    }
}

/// A name cut to its header field; the PAX record has the whole.
fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(100)]
}

/// The PAX records an entry needs.
fn records(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    let plain = |name: &[u8]| name.len() <= 100 && name.is_ascii();
    if !plain(&entry.path) {
        record(&mut out, b"path", &entry.path);
    }
    if !plain(&entry.link) {
        record(&mut out, b"linkpath", &entry.link);
    }
    if entry.size > MAX_SIZE {
        record(&mut out, b"size", entry.size.to_string().as_bytes());
    }
    if entry.uid > MAX_ID {
        record(&mut out, b"uid", entry.uid.to_string().as_bytes());
    }
    if entry.gid > MAX_ID {
        record(&mut out, b"gid", entry.gid.to_string().as_bytes());
    }
    if entry.mtime < 0 {
        record(&mut out, b"mtime", entry.mtime.to_string().as_bytes());
    }
    for (name, value) in &entry.xattrs {
        record(
            &mut out,
            &[b"SCHILY.xattr.", name.as_slice()].concat(),
            value,
        );
    }
    out
}

/// Appends `"%d %s=%s\n"`; the length counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[allow(
    clippy::too_many_arguments,
    reason = "they are the fields of the block, in its order"
)]
fn header(
    name: &[u8],
    link: &[u8],
    typeflag: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: u64,
    size: u64,
    device: (u32, u32),
) -> io::Result<[u8; 512]> {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[157..157 + link.len()].copy_from_slice(link);
    block[156] = typeflag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    let fields: [(usize, usize, u64); 7] = [
        (100, 7, mode.into()),
        (108, 7, uid.into()),
        (116, 7, gid.into()),
        (124, 11, size),
        (136, 11, mtime),
        (329, 7, device.0.into()),
        (337, 7, device.1.into()),
    ];
    for (at, digits, value) in fields {
        let text = format!("{value:0digits$o}");
        if text.len() > digits {
            return Err(io::Error::other("a number too large for a tar header"));
        }
        block[at..at + digits].copy_from_slice(text.as_bytes());
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Reader;
    use crate::tree::Extent;

    #[test]
    fn what_is_written_is_read_back() {
        let entries = [
            Entry {
                path: b"etc/".to_vec(),
                link: Vec::new(),
                kind: EntryKind::Dir,
                mode: 0o1777,
                uid: 0,
                gid: 5,
                mtime: -3,
                size: 0,
                extents: Vec::new(),
                xattrs: vec![(b"user.a".to_vec(), b"=\n\0".to_vec())],
            },
            Entry {
                path: "n\u{e4}me/".repeat(40).into_bytes(),
                link: Vec::new(),
                kind: EntryKind::File,
                mode: 0o4755,
                uid: u32::MAX,
                gid: 3_000_000,
                mtime: 1_700_000_000,
                size: 5,
                extents: Vec::new(),
                xattrs: Vec::new(),
            },
            Entry {
                path: b"null".to_vec(),
                link: Vec::new(),
                kind: EntryKind::Char { major: 1, minor: 3 },
                mode: 0o666,
                uid: 0,
                gid: 0,
                mtime: 0,
                size: 0,
                extents: Vec::new(),
                xattrs: Vec::new(),
            },
        ];
        let mut writer = Writer::new(Vec::new());
        for entry in &entries {
            writer.append(entry, &mut &b"hello"[..]).unwrap();
        }
        let archive = writer.finish().unwrap();
        let mut reader = Reader::new(&archive);
        for entry in &entries {
            let mut read = reader.next_entry().unwrap().unwrap();
            for Extent { source, len, .. } in std::mem::take(&mut read.extents) {
                let at = usize::try_from(source).unwrap();
                assert_eq!(&archive[at..at + 5], b"hello");
                assert_eq!(len, 5);
            }
            assert_eq!(&read, entry);
        }
        assert!(reader.next_entry().unwrap().is_none());
    }
}

//! Trees of a guest as tar archives.

use super::{Copied, CopyOptions, Words, absolute, check, cut_off, feed, limited, mkdir_all, tool};
use crate::Error;
use crate::exec::{ExecStatus, Opens, Sinks};
use exec_proto::tree::{self, Node, NodeKind, TreeEvent, TreeReader};
use std::io::{Read, Write};
use tar::{Archive, Entry, EntryType, Header};

/// Archives are made of blocks of this size.
const BLOCK: u64 = 512;
/// Longest name in a header; a longer one comes before it.
const NAME_BYTES: usize = 100;
/// The stream is handed over in pieces of about this size.
const PIECE_BYTES: usize = 64 * 1024;
/// Permission bits that are taken over from a guest: not setuid and its kin.
const MODE_BITS: u32 = 0o777;

pub(crate) fn copy_in_tar(
    on: &dyn Opens,
    archive: impl Read + Send,
    guest: &[u8],
    options: &CopyOptions,
) -> Result<Copied, Error> {
    mkdir_all(on, guest)?;
    feed(on, guest, options, move |write| {
        let mut unpacking = Unpacking {
            options,
            write,
            pending: Vec::new(),
            is_wanted: true,
            copied: Copied::default(),
        };
        unpacking.run(archive)?;
        Ok(unpacking.copied)
    })
}

fn unreadable(error: std::io::Error) -> Error {
    Error::system("read the tar archive")(error)
}

/// A name as it is in a tree: from its root, without what means nothing.
fn inside(name: &[u8]) -> Result<Vec<u8>, Error> {
    let parts = name.split(|byte| *byte == b'/');
    let parts: Vec<&[u8]> = parts.filter(|part| !matches!(*part, b"" | b".")).collect();
    match parts.contains(&&b".."[..]) {
        true => Err(Error::Unsuitable {
            what: "a tar archive with .. in a name",
            needs: "names that lead to no directory above",
        }),
        false => Ok(parts.join(&b'/')),
    }
}

struct Unpacking<'a> {
    options: &'a CopyOptions,
    write: &'a mut dyn FnMut(&[u8]) -> Result<bool, Error>,
    pending: Vec<u8>,
    is_wanted: bool,
    copied: Copied,
}

impl Unpacking<'_> {
    fn run(&mut self, archive: impl Read) -> Result<(), Error> {
        let mut archive = Archive::new(archive);
        for entry in archive.entries().map_err(unreadable)? {
            self.one(&mut entry.map_err(unreadable)?)?;
            if !self.is_wanted {
                return Ok(());
            }
        }
        tree::encode_end(&mut self.pending);
        self.flush(0)
    }

    fn one(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), Error> {
        let path = inside(&entry.path_bytes())?;
        let link = entry.link_name_bytes().unwrap_or_default().into_owned();
        let kind = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => NodeKind::File,
            EntryType::Directory => NodeKind::Directory,
            EntryType::Symlink => NodeKind::Symlink(link),
            EntryType::Link => NodeKind::HardLink(inside(&link)?),
            EntryType::Fifo => NodeKind::Fifo,
            EntryType::Char | EntryType::Block => {
                self.copied.skipped += 1;
                return Ok(());
            }
            // Of the archive, and no file.
            _ => return Ok(()),
        };
        // The directory that it is unpacked in stays as it is.
        if path.is_empty() {
            return Ok(());
        }
        self.copied.entry(self.options)?;
        let header = entry.header();
        let owner = |id: std::io::Result<u64>| match self.options.keep_owners {
            true => u32::try_from(id.unwrap_or(0)).unwrap_or(0),
            false => 0,
        };
        let is_file = kind == NodeKind::File;
        let node = Node {
            path,
            kind,
            mode: header.mode().unwrap_or(0o644) & 0o7777,
            uid: owner(header.uid()),
            gid: owner(header.gid()),
            size: entry.size(),
            links: 1,
            mtime_s: i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0),
            mtime_ns: 0,
            xattrs: Vec::new(),
        };
        node.encode(&mut self.pending)?;
        if is_file {
            self.content(entry)?;
        }
        self.flush(PIECE_BYTES)
    }

    fn content(&mut self, entry: &mut impl Read) -> Result<(), Error> {
        let mut buffer = vec![0; PIECE_BYTES];
        while self.is_wanted {
            let count = entry.read(&mut buffer).map_err(unreadable)?;
            if count == 0 {
                break;
            }
            self.copied.content(count, self.options)?;
            tree::encode_data(&mut self.pending, &buffer[..count]);
            self.flush(PIECE_BYTES)?;
        }
        tree::encode_end(&mut self.pending);
        Ok(())
    }

    /// Hands over what there is, if it is as much as that.
    fn flush(&mut self, bytes: usize) -> Result<(), Error> {
        if self.pending.len() >= bytes && self.is_wanted {
            self.is_wanted = (self.write)(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }
}

/// A tree that becomes an archive.
pub(super) struct Packing<'a, W> {
    reader: TreeReader,
    out: W,
    /// What the root is called.
    name: Vec<u8>,
    options: &'a CopyOptions,
    copied: Copied,
    /// Of the file that arrives: what its header has promised and is not there yet,
    /// and how long it is.
    left: u64,
    size: u64,
    words: Words,
}

impl<'a, W: Write> Packing<'a, W> {
    /// `name` is what the tree's root is called; a tree without one has no root in the
    /// archive.
    pub(super) fn new(out: W, name: &[u8], options: &'a CopyOptions) -> Self {
        Self {
            reader: TreeReader::new(),
            out,
            name: name.to_vec(),
            options,
            copied: Copied::default(),
            left: 0,
            size: 0,
            words: Words(Vec::new()),
        }
    }

    /// An empty file.
    pub(super) fn empty_file(&mut self, path: &[u8]) -> Result<(), Error> {
        self.node(&Node {
            path: path.to_vec(),
            kind: NodeKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            links: 1,
            mtime_s: 0,
            mtime_ns: 0,
            xattrs: Vec::new(),
        })
    }

    /// Ends the archive, if the guest has done its part.
    pub(super) fn finish(mut self, status: &ExecStatus) -> Result<Copied, Error> {
        check(status, &self.words.0)?;
        if !self.reader.is_over() {
            return Err(cut_off());
        }
        self.zeros(2 * BLOCK)?;
        let flushed = self.out.flush();
        flushed.map_err(Error::system("write the tar archive"))?;
        Ok(self.copied)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.out.write_all(bytes);
        written.map_err(Error::system("write the tar archive"))
    }

    fn zeros(&mut self, count: u64) -> Result<(), Error> {
        let copied = std::io::copy(&mut std::io::repeat(0).take(count), &mut self.out);
        copied
            .map(drop)
            .map_err(Error::system("write the tar archive"))
    }

    /// Writes a name that does not fit its header before that.
    fn long_name(&mut self, kind: EntryType, name: &[u8]) -> Result<(), Error> {
        if name.len() <= NAME_BYTES {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        fill_name(&mut header.as_old_mut().name, b"././@LongLink");
        header.set_entry_type(kind);
        let size = name.len() as u64 + 1;
        header.set_size(size);
        header.set_cksum();
        self.put(header.as_bytes())?;
        self.put(name)?;
        self.zeros(1 + padding(size))
    }

    fn path(&self, path: &[u8]) -> Vec<u8> {
        match (path, &self.name[..]) {
            (b"", name) => name.to_vec(),
            (path, b"") => path.to_vec(),
            (path, _) => [&self.name, &b"/"[..], path].concat(),
        }
    }

    fn node(&mut self, node: &Node) -> Result<(), Error> {
        let (kind, link, device) = match &node.kind {
            NodeKind::File => (EntryType::Regular, Vec::new(), None),
            NodeKind::Directory => (EntryType::Directory, Vec::new(), None),
            NodeKind::Symlink(target) => (EntryType::Symlink, target.clone(), None),
            NodeKind::HardLink(first) => (EntryType::Link, self.path(first), None),
            NodeKind::CharDevice { major, minor } => {
                (EntryType::Char, Vec::new(), Some((*major, *minor)))
            }
            NodeKind::BlockDevice { major, minor } => {
                (EntryType::Block, Vec::new(), Some((*major, *minor)))
            }
            NodeKind::Fifo => (EntryType::Fifo, Vec::new(), None),
            _ => {
                self.copied.skipped += 1;
                return Ok(());
            }
        };
        let mut path = self.path(&node.path);
        if path.is_empty() {
            return Ok(());
        }
        self.copied.entry(self.options)?;
        if kind == EntryType::Directory {
            path.push(b'/');
        }
        self.long_name(EntryType::GNULongName, &path)?;
        self.long_name(EntryType::GNULongLink, &link)?;
        let mut header = Header::new_gnu();
        let old = header.as_old_mut();
        fill_name(&mut old.name, &path);
        fill_name(&mut old.linkname, &link);
        header.set_entry_type(kind);
        header.set_mode(node.mode & MODE_BITS);
        header.set_uid(node.uid.into());
        header.set_gid(node.gid.into());
        header.set_mtime(u64::try_from(node.mtime_s).unwrap_or(0));
        if let Some((major, minor)) = device {
            let set = header
                .set_device_major(major)
                .and_then(|()| header.set_device_minor(minor));
            set.map_err(Error::system("write the tar archive"))?;
        }
        self.size = match kind {
            EntryType::Regular => node.size,
            _ => 0,
        };
        // A guest says how long its files are; nobody waits for more than may come.
        let room = self.options.max_bytes.saturating_sub(self.copied.bytes);
        if self.size > room {
            return Err(Error::CopyTooLarge {
                what: "bytes",
                limit: self.options.max_bytes,
            });
        }
        self.left = self.size;
        header.set_size(self.size);
        header.set_cksum();
        self.put(header.as_bytes())
    }

    fn take(&mut self, event: TreeEvent) -> Result<(), Error> {
        match event {
            TreeEvent::Node(node) => self.node(&node),
            TreeEvent::Data(data) => {
                let some = usize::try_from(self.left).unwrap_or(usize::MAX);
                let data = &data[..data.len().min(some)];
                self.left -= data.len() as u64;
                self.copied.content(data.len(), self.options)?;
                self.put(data)
            }
            TreeEvent::FileEnd => self.zeros(self.left + padding(self.size)),
            _ => Ok(()),
        }
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

/// As much of a name as its field takes.
fn fill_name(field: &mut [u8], name: &[u8]) {
    let count = name.len().min(field.len());
    field[..count].copy_from_slice(&name[..count]);
}

impl<W: Write> Sinks for Packing<'_, W> {
    fn stdout(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.reader.feed(bytes);
        while let Some(event) = self.reader.next_event()? {
            self.take(event)?;
        }
        Ok(())
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.words.take(bytes);
        Ok(())
    }
}

pub(crate) fn copy_out_tar(
    on: &dyn Opens,
    guest: &[u8],
    archive: impl Write,
    options: &CopyOptions,
) -> Result<Copied, Error> {
    let path = absolute(guest)?;
    let command = limited(tool(&[b"pack", path]), options);
    let mut parts = path.split(|byte| *byte == b'/').rev();
    let name = parts.find(|part| !part.is_empty()).unwrap_or(b".");
    let mut packing = Packing::new(archive, name, options);
    let status = command.start(on, false)?.read_to_end(&mut packing)?;
    packing.finish(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_brought_inside_and_none_leads_out() {
        assert_eq!(inside(b"./a//b/").unwrap(), b"a/b");
        assert_eq!(inside(b"/etc/x").unwrap(), b"etc/x");
        assert_eq!(inside(b"./").unwrap(), b"");
        for name in [&b".."[..], b"a/../../b", b"/../x"] {
            assert!(matches!(inside(name), Err(Error::Unsuitable { .. })));
        }
    }

    #[test]
    fn a_file_that_lies_about_its_length_has_the_one_it_promised() {
        for sent in [0, 5, 700] {
            let options = CopyOptions::default();
            let mut packing = Packing::new(Vec::new(), b"f", &options);
            let node = Node {
                path: Vec::new(),
                kind: NodeKind::File,
                mode: 0o4755,
                uid: 1,
                gid: 2,
                size: 600,
                links: 1,
                mtime_s: -1,
                mtime_ns: 0,
                xattrs: Vec::new(),
            };
            packing.take(TreeEvent::Node(node)).unwrap();
            packing.take(TreeEvent::Data(vec![7; sent])).unwrap();
            packing.take(TreeEvent::FileEnd).unwrap();
            packing.zeros(2 * BLOCK).unwrap();
            assert_eq!(packing.out.len() as u64, 512 + 1024 + 1024);
            let mut archive = Archive::new(&packing.out[..]);
            let mut entries = archive.entries().unwrap();
            let mut entry = entries.next().unwrap().unwrap();
            assert_eq!(entry.header().mode().unwrap(), 0o755);
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let kept = sent.min(600);
            assert!(content[..kept].iter().all(|byte| *byte == 7));
            assert!(content.len() == 600 && content[kept..].iter().all(|byte| *byte == 0));
            assert!(entries.next().is_none());
        }
    }
}

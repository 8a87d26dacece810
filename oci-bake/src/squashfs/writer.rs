//! Lays a tree out as an image.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Seek, SeekFrom, Write};

use sha2::Digest as _;

use super::directory::{self, Entry, Listing};
use super::inode::{self, Blocks, Header, kind};
use super::table::{Address, Table, write_indexed};
use super::xattr::Xattrs;
use super::{BLOCK_UNCOMPRESSED, MAGIC, SUPERBLOCK_BYTES, SquashfsError};
use crate::tree::{FileData, Kind, NodeId, Tree};

/// Size of a data block in bytes.
const BLOCK_BYTES: usize = 128 * 1024;
/// log2 of [`BLOCK_BYTES`], which the superblock repeats.
const BLOCK_LOG: u16 = 17;

/// Superblock flags: inodes, data, fragments, xattrs and ids uncompressed.
const FLAG_RAW_INODES: u16 = 0x0001;
const FLAG_RAW_DATA: u16 = 0x0002;
const FLAG_RAW_FRAGMENTS: u16 = 0x0008;
const FLAG_NO_FRAGMENTS: u16 = 0x0010;
const FLAG_EXPORTABLE: u16 = 0x0080;
const FLAG_RAW_XATTRS: u16 = 0x0100;
const FLAG_NO_XATTRS: u16 = 0x0200;
const FLAG_COMPRESSOR_OPTIONS: u16 = 0x0400;
const FLAG_RAW_IDS: u16 = 0x0800;

/// Compressor numbers.
const GZIP: u16 = 1;
const LZ4: u16 = 5;

/// How file data is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Compression {
    /// As it is: the cheapest for the guest to read.
    #[default]
    None,
    /// LZ4 blocks: smaller on disk, some work for the guest.
    Lz4,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Length of the file system, without padding.
    pub(crate) bytes_used: u64,
    /// Where the inode table, and with it all metadata, starts.
    pub(crate) metadata_start: u64,
    /// SHA-256 of everything from `metadata_start` on, then the superblock.
    pub(crate) metadata_sha256: [u8; 32],
    /// CRC-32 of everything between superblock and `metadata_start`.
    pub(crate) data_crc32: u32,
}

/// Writes `tree` as a squashfs image from the current start of `out`.
///
/// # Errors
/// When `out` or the file data fails, or the tree outgrows the format.
pub(crate) fn write<W: Write + Seek>(
    tree: &Tree,
    out: &mut W,
    compression: Compression,
) -> Result<Image, SquashfsError> {
    let plan = Plan::new(tree)?;
    let mut sink = Sink::new(out)?;
    let mut flags = FLAG_RAW_INODES
        | FLAG_RAW_FRAGMENTS
        | FLAG_NO_FRAGMENTS
        | FLAG_EXPORTABLE
        | FLAG_RAW_XATTRS
        | FLAG_RAW_IDS;
    match compression {
        Compression::None => flags |= FLAG_RAW_DATA,
        Compression::Lz4 => {
            flags |= FLAG_COMPRESSOR_OPTIONS;
            // One metadata block of eight bytes: LZ4_LEGACY (1), no flags.
            sink.write_all(&(8u16 | super::METADATA_UNCOMPRESSED).to_le_bytes())?;
            sink.write_all(&1u32.to_le_bytes())?;
            sink.write_all(&0u32.to_le_bytes())?;
        }
    }
    let blocks = write_data(tree, &plan, &mut sink, compression)?;
    let tables = Tables::build(tree, &plan, &blocks)?;
    if tables.xattrs_empty {
        flags |= FLAG_NO_XATTRS;
    }
    sink.start_metadata();
    let metadata_start = sink.position;
    let inode_start = sink.position;
    tables.inodes.write_to(&mut sink)?;
    let directory_start = sink.position;
    tables.directories.write_to(&mut sink)?;
    let fragment_start = sink.position;
    let (export_start, _) = write_indexed(&tables.export, sink.position, &mut sink)?;
    let (id_start, _) = write_indexed(&tables.ids, sink.position, &mut sink)?;
    let (xattr_start, _) = tables.xattrs.write_to(sink.position, &mut sink)?;
    let bytes_used = sink.position;

    let mut superblock = Vec::with_capacity(96);
    superblock.extend_from_slice(&MAGIC.to_le_bytes());
    superblock.extend_from_slice(&plan.inode_count().to_le_bytes());
    // mkfs time: zero, so that equal layers are equal files.
    superblock.extend_from_slice(&0u32.to_le_bytes());
    superblock.extend_from_slice(&(1u32 << BLOCK_LOG).to_le_bytes());
    superblock.extend_from_slice(&0u32.to_le_bytes()); // fragments
    let compressor = match compression {
        Compression::None => GZIP,
        Compression::Lz4 => LZ4,
    };
    for field in [compressor, BLOCK_LOG, flags, tables.id_count, 4, 0] {
        superblock.extend_from_slice(&field.to_le_bytes());
    }
    for field in [
        tables.root.reference(),
        bytes_used,
        id_start,
        xattr_start,
        inode_start,
        directory_start,
        fragment_start,
        export_start,
    ] {
        superblock.extend_from_slice(&field.to_le_bytes());
    }
    let (metadata_sha256, data_crc32) = sink.finish(&superblock)?;
    Ok(Image {
        bytes_used,
        metadata_start,
        metadata_sha256,
        data_crc32,
    })
}

/// Numbers and link counts, fixed before anything is written.
struct Plan {
    /// Reachable nodes, parents before children; a node's number is its
    /// position plus one.
    order: Vec<NodeId>,
    number: Vec<u32>,
    nlink: Vec<u32>,
    parent: Vec<u32>,
}

impl Plan {
    fn new(tree: &Tree) -> Result<Self, SquashfsError> {
        let count = tree.node_count();
        let mut plan = Self {
            order: Vec::new(),
            number: vec![0; count],
            nlink: vec![0; count],
            parent: vec![0; count],
        };
        let mut queue = VecDeque::from([tree.root()]);
        plan.assign(tree.root())?;
        while let Some(id) = queue.pop_front() {
            let Some(dir) = tree.node(id).as_dir() else {
                continue;
            };
            // "." and the entry in the parent.
            plan.nlink[id] += 2;
            for &child in dir.children.values() {
                let is_dir = tree.node(child).as_dir().is_some();
                if plan.number[child] == 0 {
                    plan.assign(child)?;
                    plan.parent[child] = plan.number[id];
                    if is_dir {
                        queue.push_back(child);
                    }
                }
                // A child directory's ".." links to us.
                let linked = if is_dir { id } else { child };
                plan.nlink[linked] = plan.nlink[linked].saturating_add(1);
            }
        }
        // mksquashfs gives the root a parent number outside the table; a
        // mount replaces it anyway.
        plan.parent[tree.root()] = plan.inode_count().saturating_add(1);
        Ok(plan)
    }

    fn assign(&mut self, id: NodeId) -> Result<(), SquashfsError> {
        self.order.push(id);
        self.number[id] = u32::try_from(self.order.len())
            .ok()
            .filter(|number| *number < u32::MAX - 1)
            .ok_or(SquashfsError::TooLarge {
                what: "inodes",
                limit: u64::from(u32::MAX - 2),
            })?;
        Ok(())
    }

    fn inode_count(&self) -> u32 {
        u32::try_from(self.order.len()).unwrap_or(u32::MAX)
    }
}

/// Everything after the data.
struct Tables {
    inodes: Table,
    directories: Table,
    export: Vec<u8>,
    ids: Vec<u8>,
    id_count: u16,
    xattrs: Xattrs,
    xattrs_empty: bool,
    root: Address,
}

impl Tables {
    fn build(
        tree: &Tree,
        plan: &Plan,
        blocks: &BTreeMap<NodeId, Blocks>,
    ) -> Result<Self, SquashfsError> {
        let mut build = Build {
            tree,
            plan,
            blocks,
            inodes: Table::default(),
            directories: Table::default(),
            ids: Ids::default(),
            xattrs: Xattrs::default(),
            address: vec![None; tree.node_count()],
            listings: BTreeMap::new(),
        };
        // Backwards, so that a directory's children have their addresses
        // before its listing names them, and lie next to each other.
        for &id in plan.order.iter().rev() {
            if tree.node(id).as_dir().is_some() {
                build.directory(id)?;
            }
        }
        let root = build.inode(tree.root())?;
        let mut export = Vec::with_capacity(plan.order.len() * 8);
        for &id in &plan.order {
            let address = build.inode(id)?;
            export.extend_from_slice(&address.reference().to_le_bytes());
        }
        let xattrs_empty = build.xattrs.is_empty();
        Ok(Self {
            inodes: build.inodes,
            directories: build.directories,
            export,
            id_count: build.ids.count,
            ids: build.ids.bytes,
            xattrs: build.xattrs,
            xattrs_empty,
            root,
        })
    }
}

struct Build<'a> {
    tree: &'a Tree,
    plan: &'a Plan,
    blocks: &'a BTreeMap<NodeId, Blocks>,
    inodes: Table,
    directories: Table,
    ids: Ids,
    xattrs: Xattrs,
    address: Vec<Option<Address>>,
    listings: BTreeMap<NodeId, Listing>,
}

impl Build<'_> {
    fn directory(&mut self, id: NodeId) -> Result<(), SquashfsError> {
        let tree = self.tree;
        let Some(dir) = tree.node(id).as_dir() else {
            return Ok(());
        };
        let mut entries = Vec::with_capacity(dir.children.len());
        for (name, &child) in &dir.children {
            entries.push(Entry {
                name,
                inode: self.inode(child)?,
                number: self.plan.number[child],
                kind: basic_kind(&tree.node(child).kind),
            });
        }
        let listing = directory::append(&mut self.directories, &entries)?;
        self.listings.insert(id, listing);
        Ok(())
    }

    /// The address of a node's inode, writing it on first use.
    fn inode(&mut self, id: NodeId) -> Result<Address, SquashfsError> {
        if let Some(address) = self.address[id] {
            return Ok(address);
        }
        let node = self.tree.node(id);
        let header = Header {
            mode: node.meta.mode,
            uid: self.ids.index(node.meta.uid)?,
            gid: self.ids.index(node.meta.gid)?,
            mtime: node.meta.mtime,
            number: self.plan.number[id],
            nlink: self.plan.nlink[id],
            xattr: self.xattrs.intern(&node.xattrs)?,
        };
        let record = match &node.kind {
            Kind::Dir(_) => {
                let listing = self.listings.remove(&id).unwrap_or(Listing::EMPTY);
                inode::directory(&header, &listing, self.plan.parent[id])
            }
            Kind::File(_) => match self.blocks.get(&id) {
                Some(blocks) => inode::file(&header, blocks),
                None => inode::file(&header, &Blocks::default()),
            },
            Kind::Symlink(target) => inode::symlink(&header, target),
            Kind::Char(rdev) => inode::special(&header, kind::CHAR, Some(*rdev)),
            Kind::Block(rdev) => inode::special(&header, kind::BLOCK, Some(*rdev)),
            Kind::Fifo => inode::special(&header, kind::FIFO, None),
        };
        let address = self.inodes.address()?;
        self.inodes.push(&record);
        self.address[id] = Some(address);
        Ok(address)
    }
}

fn basic_kind(node: &Kind) -> u16 {
    match node {
        Kind::Dir(_) => kind::DIR,
        Kind::File(_) => kind::FILE,
        Kind::Symlink(_) => kind::SYMLINK,
        Kind::Char(_) => kind::CHAR,
        Kind::Block(_) => kind::BLOCK,
        Kind::Fifo => kind::FIFO,
    }
}

/// The table of distinct user and group ids.
#[derive(Default)]
struct Ids {
    bytes: Vec<u8>,
    known: BTreeMap<u32, u16>,
    count: u16,
}

impl Ids {
    fn index(&mut self, id: u32) -> Result<u16, SquashfsError> {
        if let Some(&index) = self.known.get(&id) {
            return Ok(index);
        }
        let index = self.count;
        self.count = index.checked_add(1).ok_or(SquashfsError::TooLarge {
            what: "distinct user and group ids",
            limit: u64::from(u16::MAX),
        })?;
        self.known.insert(id, index);
        self.bytes.extend_from_slice(&id.to_le_bytes());
        Ok(index)
    }
}

fn write_data<W: Write + Seek>(
    tree: &Tree,
    plan: &Plan,
    sink: &mut Sink<'_, W>,
    compression: Compression,
) -> Result<BTreeMap<NodeId, Blocks>, SquashfsError> {
    let mut written = BTreeMap::new();
    let mut buffer = vec![0u8; BLOCK_BYTES];
    for &id in &plan.order {
        if let Kind::File(data) = &tree.node(id).kind
            && data.size > 0
        {
            written.insert(id, write_file(data, sink, compression, &mut buffer)?);
        }
    }
    Ok(written)
}

fn write_file<W: Write + Seek>(
    data: &FileData,
    sink: &mut Sink<'_, W>,
    compression: Compression,
    buffer: &mut [u8],
) -> Result<Blocks, SquashfsError> {
    let mut blocks = Blocks {
        start: sink.position,
        size: data.size,
        ..Blocks::default()
    };
    let mut offset = 0u64;
    let mut extent = 0;
    while offset < data.size {
        let left = usize::try_from(data.size - offset).unwrap_or(usize::MAX);
        let block = &mut buffer[..left.min(BLOCK_BYTES)];
        let end = offset + block.len() as u64;
        let has_data = fill(data, offset, block, &mut extent)?;
        if has_data && block.iter().any(|byte| *byte != 0) {
            blocks.sizes.push(store(block, sink, compression)?);
        } else {
            blocks.sizes.push(0);
            blocks.sparse += block.len() as u64;
        }
        offset = end;
    }
    Ok(blocks)
}

/// Fills `block` with the file's bytes from `offset`; false when no extent
/// touches it. `extent` is the first extent that may still matter.
fn fill(data: &FileData, offset: u64, block: &mut [u8], extent: &mut usize) -> io::Result<bool> {
    let end = offset + block.len() as u64;
    while let Some(e) = data.extents.get(*extent) {
        if e.logical + e.len > offset {
            break;
        }
        *extent += 1;
    }
    let mut touched = false;
    for e in &data.extents[*extent..] {
        if e.logical >= end {
            break;
        }
        if !touched {
            block.fill(0);
            touched = true;
        }
        let from = e.logical.max(offset);
        let to = (e.logical + e.len).min(end);
        let range = usize::try_from(from - offset).map_err(io::Error::other)?
            ..usize::try_from(to - offset).map_err(io::Error::other)?;
        data.source
            .read_exact_at(&mut block[range], e.source + (from - e.logical))?;
    }
    Ok(touched)
}

fn store<W: Write + Seek>(
    block: &[u8],
    sink: &mut Sink<'_, W>,
    compression: Compression,
) -> Result<u32, SquashfsError> {
    if compression == Compression::Lz4 {
        let packed = lz4_flex::block::compress(block);
        if packed.len() < block.len() {
            sink.write_all(&packed)?;
            return u32::try_from(packed.len()).map_err(|_| SquashfsError::TooLarge {
                what: "block bytes",
                limit: BLOCK_BYTES as u64,
            });
        }
    }
    sink.write_all(block)?;
    let len = u32::try_from(block.len()).map_err(|_| SquashfsError::TooLarge {
        what: "block bytes",
        limit: BLOCK_BYTES as u64,
    })?;
    Ok(len | BLOCK_UNCOMPRESSED)
}

/// Sequential output that checksums what passes and patches the superblock in
/// at the end.
struct Sink<'a, W: Write + Seek> {
    out: &'a mut W,
    position: u64,
    crc: crc32fast::Hasher,
    /// Runs once the data is complete: metadata gets the stronger hash.
    metadata: Option<sha2::Sha256>,
}

impl<'a, W: Write + Seek> Sink<'a, W> {
    fn new(out: &'a mut W) -> io::Result<Self> {
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&[0; 96])?;
        Ok(Self {
            out,
            position: SUPERBLOCK_BYTES,
            crc: crc32fast::Hasher::new(),
            metadata: None,
        })
    }

    fn start_metadata(&mut self) {
        self.metadata = Some(sha2::Sha256::new());
    }

    fn finish(mut self, superblock: &[u8]) -> io::Result<([u8; 32], u32)> {
        let mut sha = self.metadata.take().unwrap_or_default();
        sha.update(superblock);
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(superblock)?;
        self.out.seek(SeekFrom::Start(self.position))?;
        Ok((sha.finalize().into(), self.crc.finalize()))
    }
}

impl<W: Write + Seek> Write for Sink<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.out.write_all(buf)?;
        self.position += buf.len() as u64;
        match &mut self.metadata {
            Some(metadata) => metadata.update(buf),
            None => self.crc.update(buf),
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

//! Lays a tree out as an image.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Seek, Write};

use super::data::{BLOCK_BYTES, Sink, write_file};
use super::directory::{self, Entry, Listing};
use super::inode::{self, Blocks, Header, kind};
use super::table::{Address, Table, write_indexed};
use super::xattr::Xattrs;
use super::{Compression, MAGIC, SquashfsError};
use crate::tree::{Kind, NodeId, Tree};

/// log2 of [`BLOCK_BYTES`], which the superblock repeats.
const BLOCK_LOG: u16 = 17;

/// Superblock flags: inodes, data, fragments, xattrs and ids uncompressed.
const FLAG_RAW_INODES: u16 = 0x0001;
const FLAG_RAW_DATA: u16 = 0x0002;
const FLAG_RAW_FRAGMENTS: u16 = 0x0008;
const FLAG_NO_FRAGMENTS: u16 = 0x0010;
const FLAG_EXPORTABLE: u16 = 0x0080;
const FLAG_RAW_XATTRS: u16 = 0x0100;
const FLAG_COMPRESSOR_OPTIONS: u16 = 0x0400;
const FLAG_RAW_IDS: u16 = 0x0800;

/// Compressor numbers.
const GZIP: u16 = 1;
const LZ4: u16 = 5;

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
        build.xattrs.fill()?;
        Ok(Self {
            inodes: build.inodes,
            directories: build.directories,
            export,
            id_count: build.ids.count,
            ids: build.ids.bytes,
            xattrs: build.xattrs,
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

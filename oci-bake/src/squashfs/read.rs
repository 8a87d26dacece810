//! Reads what the writer wrote: one node by its path, without the content of files.
//!
//! Layers in the cache have their metadata checked before they are read here; all the
//! same nothing of it is believed further than it is long.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::inode::kind;
use super::xattr::full_name;
use super::{INVALID, MAGIC, METADATA_BYTES, METADATA_UNCOMPRESSED, SUPERBLOCK_BYTES};
use crate::section::ReadAt;
use crate::tree::{Dir, FileData, Kind, Meta, Node};

/// Bytes of all inodes before what their types add.
const HEADER_BYTES: usize = 16;
/// Records of one block of the lookup tables.
const IDS_IN_BLOCK: u32 = 2048;
const XATTRS_IN_BLOCK: u32 = 512;
/// Most bytes of the attributes of one node: Linux has no more than 64 KiB a value.
const MAX_XATTR_BYTES: u32 = 1 << 20;
const MAX_TARGET_BYTES: u32 = 4095;

/// A layer's file.
pub(crate) struct Layer {
    file: Arc<dyn ReadAt + Send + Sync>,
    root: u64,
    ids: u64,
    xattrs: u64,
    inodes: u64,
    directories: u64,
}

/// A node of a layer.
pub(crate) struct Found {
    pub(crate) node: Node,
    /// Where its entries are, if it is a directory.
    listing: Option<Listing>,
}

struct Listing {
    block: u32,
    offset: u16,
    bytes: u32,
}

impl Layer {
    /// Opens a file that has passed the check of the cache.
    pub(crate) fn open(file: Arc<dyn ReadAt + Send + Sync>) -> io::Result<Self> {
        let mut superblock = [0; 96];
        debug_assert_eq!(superblock.len() as u64, SUPERBLOCK_BYTES);
        file.read_exact_at(&mut superblock, 0)?;
        if number::<4>(&superblock, 0)? != u64::from(MAGIC) {
            return Err(invalid());
        }
        Ok(Self {
            root: number::<8>(&superblock, 32)?,
            ids: number::<8>(&superblock, 48)?,
            xattrs: number::<8>(&superblock, 56)?,
            inodes: number::<8>(&superblock, 64)?,
            directories: number::<8>(&superblock, 72)?,
            file,
        })
    }

    /// The root directory.
    pub(crate) fn root(&self) -> io::Result<Found> {
        self.inode(self.root)
    }

    /// The node called `name` in a directory.
    pub(crate) fn child(&self, directory: &Found, name: &[u8]) -> io::Result<Option<Found>> {
        let Some(listing) = &directory.listing else {
            return Ok(None);
        };
        let start = address(self.directories, listing.block.into(), listing.offset);
        let mut records = self.records(start);
        let mut left = listing.bytes;
        while left > 0 {
            let header = records.take_of(&mut left, 12)?;
            let entries = number::<4>(&header, 0)?.saturating_add(1);
            let block = number::<4>(&header, 4)?;
            for _ in 0..entries {
                let entry = records.take_of(&mut left, 8)?;
                let length = u32::try_from(number::<2>(&entry, 6)? + 1).map_err(|_| invalid())?;
                let found = records.take_of(&mut left, length)?;
                // They are in order.
                if found.as_slice() > name {
                    return Ok(None);
                }
                if found == name {
                    let inode = (block << 16) | number::<2>(&entry, 0)?;
                    return self.inode(inode).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn inode(&self, reference: u64) -> io::Result<Found> {
        let offset = u16::try_from(reference & 0xffff).map_err(|_| invalid())?;
        let mut records = self.records(address(self.inodes, reference >> 16, offset));
        let header = records.take(16)?;
        debug_assert_eq!(header.len(), HEADER_BYTES);
        let declared = u16::try_from(number::<2>(&header, 0)?).map_err(|_| invalid())?;
        let (basic, is_extended) = match declared {
            1..=7 => (declared, false),
            8..=14 => (declared - kind::EXTENDED, true),
            _ => return Err(invalid()),
        };
        let mut listing = None;
        let mut xattr = None;
        let node = match basic {
            kind::DIR => {
                let fields = records.take(if is_extended { 24 } else { 16 })?;
                let (bytes, block, offset) = match is_extended {
                    true => (number::<4>(&fields, 4)?, 8, 18),
                    false => (number::<2>(&fields, 8)?, 0, 10),
                };
                if is_extended {
                    xattr = Some(number::<4>(&fields, 20)?);
                }
                // Three more than there are: for "." and "..".
                let bytes = bytes.checked_sub(3).ok_or_else(invalid)?;
                listing = Some(Listing {
                    block: u32::try_from(number::<4>(&fields, block)?).map_err(|_| invalid())?,
                    offset: u16::try_from(number::<2>(&fields, offset)?).map_err(|_| invalid())?,
                    bytes: u32::try_from(bytes).map_err(|_| invalid())?,
                });
                Kind::Dir(Dir::default())
            }
            kind::SYMLINK => {
                let fields = records.take(8)?;
                let length = u32::try_from(number::<4>(&fields, 4)?).map_err(|_| invalid())?;
                if length > MAX_TARGET_BYTES {
                    return Err(invalid());
                }
                let target = records.take(length)?;
                if is_extended {
                    xattr = Some(number::<4>(&records.take(4)?, 0)?);
                }
                Kind::Symlink(target)
            }
            kind::CHAR | kind::BLOCK => {
                let fields = records.take(8)?;
                let device = u32::try_from(number::<4>(&fields, 4)?).map_err(|_| invalid())?;
                match basic {
                    kind::CHAR => Kind::Char(device),
                    _ => Kind::Block(device),
                }
            }
            kind::FIFO => Kind::Fifo,
            // What is in it nobody asks for here.
            _ => Kind::File(FileData::none()),
        };
        let mode = u16::try_from(number::<2>(&header, 2)?).map_err(|_| invalid())?;
        let meta = Meta {
            mode: mode & 0o7777,
            uid: self.id(number::<2>(&header, 4)?)?,
            gid: self.id(number::<2>(&header, 6)?)?,
            mtime: u32::try_from(number::<4>(&header, 8)?).map_err(|_| invalid())?,
        };
        let xattrs = match xattr {
            Some(index) if index != u64::from(INVALID) => self.attributes(index)?,
            _ => BTreeMap::new(),
        };
        Ok(Found {
            node: Node {
                meta,
                xattrs,
                kind: node,
                explicit: true,
            },
            listing,
        })
    }

    /// A user or group by its index.
    fn id(&self, index: u64) -> io::Result<u32> {
        let index = u32::try_from(index).map_err(|_| invalid())?;
        let mut at = [0; 8];
        let block = u64::from(index / IDS_IN_BLOCK);
        self.file
            .read_exact_at(&mut at, self.ids.saturating_add(block * 8))?;
        let mut records = self.records((u64::from_le_bytes(at), 4 * (index % IDS_IN_BLOCK)));
        u32::try_from(number::<4>(&records.take(4)?, 0)?).map_err(|_| invalid())
    }

    /// A set of attributes by its index.
    fn attributes(&self, index: u64) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let index = u32::try_from(index).map_err(|_| invalid())?;
        let mut header = [0; 16];
        self.file.read_exact_at(&mut header, self.xattrs)?;
        let values = number::<8>(&header, 0)?;
        if u64::from(index) >= number::<4>(&header, 8)? {
            return Err(invalid());
        }
        let block = u64::from(index / XATTRS_IN_BLOCK);
        let mut at = [0; 8];
        let place = self.xattrs.saturating_add(16 + block * 8);
        self.file.read_exact_at(&mut at, place)?;
        let offset = 16 * (index % XATTRS_IN_BLOCK);
        let record = self.records((u64::from_le_bytes(at), offset)).take(16)?;
        let reference = number::<8>(&record, 0)?;
        let count = number::<4>(&record, 8)?;
        let bytes = u32::try_from(number::<4>(&record, 12)?).map_err(|_| invalid())?;
        if bytes > MAX_XATTR_BYTES {
            return Err(invalid());
        }
        let offset = u16::try_from(reference & 0xffff).map_err(|_| invalid())?;
        let text = self
            .records(address(values, reference >> 16, offset))
            .take(bytes)?;
        let mut rest = text.as_slice();
        let mut take = |length: usize| {
            let (head, tail) = rest.split_at_checked(length).ok_or_else(invalid)?;
            rest = tail;
            Ok::<_, io::Error>(head)
        };
        let mut found = BTreeMap::new();
        for _ in 0..count {
            let head = take(4)?;
            let (prefix, length) = (number::<2>(head, 0)?, number::<2>(head, 2)?);
            let name = take(usize::try_from(length).map_err(|_| invalid())?)?;
            let name = full_name(prefix, name).ok_or_else(invalid)?;
            let length = usize::try_from(number::<4>(take(4)?, 0)?).map_err(|_| invalid())?;
            found.insert(name, take(length)?.to_vec());
        }
        Ok(found)
    }

    fn records(&self, (block, skip): (u64, u32)) -> Records<'_> {
        Records {
            file: &*self.file,
            block,
            skip,
            bytes: Vec::new(),
        }
    }
}

/// Where a record starts: the place of its block in the file, and bytes into it.
fn address(table: u64, block: u64, offset: u16) -> (u64, u32) {
    (table.saturating_add(block), offset.into())
}

/// Consecutive records of a metadata table.
struct Records<'a> {
    file: &'a (dyn ReadAt + Send + Sync),
    /// The next block in the file.
    block: u64,
    /// Bytes of it that are not asked for.
    skip: u32,
    /// What was read and not taken.
    bytes: Vec<u8>,
}

impl Records<'_> {
    /// As [`Self::take`], of so many that are left.
    fn take_of(&mut self, left: &mut u32, bytes: u32) -> io::Result<Vec<u8>> {
        *left = left.checked_sub(bytes).ok_or_else(invalid)?;
        self.take(bytes)
    }

    fn take(&mut self, bytes: u32) -> io::Result<Vec<u8>> {
        let bytes = usize::try_from(bytes).map_err(|_| invalid())?;
        while self.bytes.len() < bytes {
            let mut header = [0; 2];
            self.file.read_exact_at(&mut header, self.block)?;
            let header = u16::from_le_bytes(header);
            let length = header & !METADATA_UNCOMPRESSED;
            let is_ours = header & METADATA_UNCOMPRESSED != 0;
            if !is_ours || length == 0 || u64::from(length) > METADATA_BYTES {
                return Err(invalid());
            }
            let mut block = vec![0; length.into()];
            self.file
                .read_exact_at(&mut block, self.block.saturating_add(2))?;
            self.block = self.block.saturating_add(2 + u64::from(length));
            let skip = usize::try_from(self.skip).map_err(|_| invalid())?;
            self.bytes
                .extend_from_slice(block.get(skip..).ok_or_else(invalid)?);
            self.skip = 0;
        }
        let rest = self.bytes.split_off(bytes);
        Ok(std::mem::replace(&mut self.bytes, rest))
    }
}

/// A little-endian number of `N` bytes.
fn number<const N: usize>(bytes: &[u8], at: usize) -> io::Result<u64> {
    let field = bytes.get(at..at + N).ok_or_else(invalid)?;
    let mut whole = [0; 8];
    whole[..N].copy_from_slice(field);
    Ok(u64::from_le_bytes(whole))
}

fn invalid() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the converted layer is damaged; remove it with Store::gc and bake again",
    )
}

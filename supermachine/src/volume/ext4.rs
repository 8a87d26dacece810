//! A new, empty ext4 file system: what `mke2fs` would write, without it.
//!
//! The layout is the plain one: 4 KiB blocks, groups of 128 MiB that each hold their
//! own tables, and descriptors in the groups that they describe (`meta_bg`), so that
//! the guest's kernel can grow it without room having been kept. All that is not
//! written must be a hole: tables that nothing was put into are zeroes, and the groups'
//! flags say that they need not even be read.
//!
//! Numbers of fields are those of the kernel's documentation of ext4.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of a block.
pub const BLOCK_BYTES: u64 = 4096;
const BLOCK: usize = 4096;
/// Blocks of a group: as many as a bitmap of one block has bits.
const GROUP_BLOCKS: u32 = 32_768;
/// Inodes of a group: one for 16 KiB, as mke2fs has it.
const GROUP_INODES: u32 = 8192;
const INODE: usize = 256;
/// Blocks of a group's table of inodes.
const TABLE_BLOCKS: u32 = 512;
/// Bytes of a group's descriptor (feature `64bit`).
const DESCRIPTOR: usize = 64;
const DESCRIPTORS_PER_BLOCK: u32 = 64;
/// Smallest last group that is worth its tables, in blocks beyond them.
const LEAST_DATA_BLOCKS: u32 = 64;

const ROOT_INODE: u32 = 2;
const JOURNAL_INODE: u32 = 8;
/// The first that is not reserved.
const LOST_AND_FOUND_INODE: u32 = 11;

/// has_journal, ext_attr, dir_index.
const COMPATIBLE: u32 = 0x4 | 0x8 | 0x20;
/// filetype, meta_bg, extents, 64bit.
const INCOMPATIBLE: u32 = 0x2 | 0x10 | 0x40 | 0x80;
/// sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum.
const READ_ONLY_COMPATIBLE: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;

const INODES_UNUSED: u16 = 1;
const BLOCKS_UNUSED: u16 = 2;
const TABLE_ZEROED: u16 = 4;

/// What tells one file system from another.
pub struct Identity {
    pub uuid: [u8; 16],
    /// Keeps guests from choosing names that collide in directories.
    pub hash_seed: [u8; 16],
    pub now_s: u32,
}

/// Makes an empty file system over all of `file`, which must be `bytes` of nothing but
/// hole; no more than 8 TiB, and no less than 16 MiB.
pub fn format(file: &File, bytes: u64, identity: &Identity) -> io::Result<()> {
    let blocks = u32::try_from(bytes / BLOCK_BYTES).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let plan = Plan::new(blocks, identity);
    if plan.groups == 0 || plan.free_of(0) < LEAST_DATA_BLOCKS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    plan.write(file)
}

struct Plan<'a> {
    identity: &'a Identity,
    blocks: u32,
    groups: u32,
    journal_blocks: u32,
    /// Of all checksums.
    seed: u32,
}

impl<'a> Plan<'a> {
    fn new(blocks: u32, identity: &'a Identity) -> Self {
        let mut plan = Self {
            identity,
            blocks,
            groups: blocks.div_ceil(GROUP_BLOCKS),
            journal_blocks: journal_blocks(blocks),
            seed: crc32c(!0, &identity.uuid),
        };
        // What is left at the end may be too little for its tables.
        let Some(last) = plan.groups.checked_sub(1) else {
            return plan;
        };
        if plan.blocks_of(last) < plan.overhead_of(last) + LEAST_DATA_BLOCKS {
            plan.groups = last;
            plan.blocks = last * GROUP_BLOCKS;
        }
        plan
    }

    fn blocks_of(&self, group: u32) -> u32 {
        (self.blocks - group * GROUP_BLOCKS).min(GROUP_BLOCKS)
    }

    /// Blocks of a group that hold no data: superblock, descriptors, two bitmaps and
    /// the table of inodes.
    fn overhead_of(&self, group: u32) -> u32 {
        tables_at(group) + 2 + TABLE_BLOCKS
    }

    /// Where the root's data begin, and after them those of the others.
    fn data(&self) -> u32 {
        self.overhead_of(0)
    }

    /// Blocks of a group that have data.
    fn data_of(&self, group: u32) -> u32 {
        match group {
            // Root, lost+found, journal.
            0 => 2 + self.journal_blocks,
            _ => 0,
        }
    }

    fn free_of(&self, group: u32) -> u32 {
        self.blocks_of(group)
            .saturating_sub(self.overhead_of(group) + self.data_of(group))
    }

    fn write(&self, file: &File) -> io::Result<()> {
        let at = |block: u32| u64::from(block) * BLOCK_BYTES;
        let descriptors = self.write_bitmaps(file)?;
        for group in 0..self.groups {
            let first = group * GROUP_BLOCKS;
            if has_superblock(group) {
                let offset = if group == 0 { 1024 } else { at(first) };
                file.write_all_at(&self.superblock(group), offset)?;
            }
            if has_descriptors(group) {
                let start = group / DESCRIPTORS_PER_BLOCK * DESCRIPTORS_PER_BLOCK;
                let start = start as usize * DESCRIPTOR;
                let end = descriptors.len().min(start + BLOCK);
                let block = descriptors.get(start..end).unwrap_or_default();
                let place = first + u32::from(has_superblock(group));
                file.write_all_at(block, at(place))?;
            }
        }
        let table = at(tables_at(0) + 2);
        for (number, inode) in self.inodes() {
            let offset = u64::from(number - 1) * INODE as u64;
            file.write_all_at(&inode, table + offset)?;
        }
        let [root, lost] = self.directories();
        file.write_all_at(&root, at(self.data()))?;
        file.write_all_at(&lost, at(self.data() + 1))?;
        file.write_all_at(&self.journal(), at(self.data() + 2))
    }

    /// Writes the bitmaps that something is in, and gives the descriptors of all groups.
    fn write_bitmaps(&self, file: &File) -> io::Result<Vec<u8>> {
        let at = |block: u32| u64::from(block) * BLOCK_BYTES;
        let mut descriptors = Vec::with_capacity(self.groups as usize * DESCRIPTOR);
        for group in 0..self.groups {
            let tables = group * GROUP_BLOCKS + tables_at(group);
            let mut flags = TABLE_ZEROED | INODES_UNUSED | BLOCKS_UNUSED;
            let mut sums = [0, 0];
            // That of the last group says where the file system ends.
            if group == 0 || group + 1 == self.groups {
                let used = self.overhead_of(group) + self.data_of(group);
                let bitmap = bitmap(used, self.blocks_of(group));
                sums[0] = crc32c(self.seed, &bitmap);
                file.write_all_at(&bitmap, at(tables))?;
                flags &= !BLOCKS_UNUSED;
            }
            if group == 0 {
                let bitmap = bitmap(LOST_AND_FOUND_INODE, GROUP_INODES);
                sums[1] = crc32c(self.seed, &bitmap[..GROUP_INODES as usize / 8]);
                file.write_all_at(&bitmap, at(tables + 1))?;
                flags &= !INODES_UNUSED;
            }
            descriptors.extend(self.descriptor(group, tables, flags, sums));
        }
        Ok(descriptors)
    }

    fn descriptor(&self, group: u32, tables: u32, flags: u16, sums: [u32; 2]) -> [u8; DESCRIPTOR] {
        let (inodes, directories) = if group == 0 {
            (GROUP_INODES - LOST_AND_FOUND_INODE, 2)
        } else {
            (GROUP_INODES, 0)
        };
        let mut descriptor = [0; DESCRIPTOR];
        let fields = &mut Fields(&mut descriptor);
        fields.u32(0, tables);
        fields.u32(4, tables + 1);
        fields.u32(8, tables + 2);
        fields.u16(12, low(self.free_of(group)));
        fields.u16(14, low(inodes));
        fields.u16(16, directories);
        fields.u16(18, flags);
        fields.u16(24, low(sums[0]));
        fields.u16(26, low(sums[1]));
        // All after the last that is used.
        fields.u16(28, low(inodes));
        fields.u16(56, low(sums[0] >> 16));
        fields.u16(58, low(sums[1] >> 16));
        let sum = crc32c(self.seed, &group.to_le_bytes());
        let sum = crc32c(sum, &descriptor);
        Fields(&mut descriptor).u16(30, low(sum));
        descriptor
    }

    fn superblock(&self, group: u32) -> [u8; 1024] {
        let free: u32 = (0..self.groups).map(|group| self.free_of(group)).sum();
        let inodes = self.groups * GROUP_INODES;
        let now = self.identity.now_s;
        let mut block = [0; 1024];
        let fields = &mut Fields(&mut block);
        fields.u32(0, inodes);
        fields.u32(4, self.blocks);
        fields.u32(12, free);
        fields.u32(16, inodes - LOST_AND_FOUND_INODE);
        fields.u32(24, 2); // 1024 << 2 bytes in a block
        fields.u32(28, 2);
        fields.u32(32, GROUP_BLOCKS);
        fields.u32(36, GROUP_BLOCKS);
        fields.u32(40, GROUP_INODES);
        fields.u32(48, now);
        fields.u16(54, 0xffff); // never checked for having been mounted often
        fields.u16(56, 0xef53);
        fields.u16(58, 1); // clean
        fields.u16(60, 2); // read-only after errors
        fields.u32(64, now);
        fields.u32(76, 1); // revision
        fields.u32(84, LOST_AND_FOUND_INODE);
        fields.u16(88, 256);
        fields.u16(90, low(group));
        fields.u32(92, COMPATIBLE);
        fields.u32(96, INCOMPATIBLE);
        fields.u32(100, READ_ONLY_COMPATIBLE);
        fields.bytes(104, &self.identity.uuid);
        fields.u32(224, JOURNAL_INODE);
        fields.bytes(236, &self.identity.hash_seed);
        fields.bytes(252, &[1, 1]); // half MD4; the journal's inode is kept here, too
        fields.u16(254, 64);
        fields.u32(256, 0xc); // user attributes and ACLs
        fields.u32(264, now);
        fields.bytes(268, &self.journal_map());
        fields.u32(268 + 16 * 4, self.journal_blocks * 4096);
        fields.u16(348, 32);
        fields.u16(350, 32);
        fields.u32(352, 1); // names are hashed as signed bytes
        fields.bytes(373, &[1]); // CRC-32C
        let sum = crc32c(!0, &block[..1020]);
        Fields(&mut block).u32(1020, sum);
        block
    }

    fn journal_map(&self) -> [u8; 60] {
        extent(self.data() + 2, self.journal_blocks)
    }

    fn inodes(&self) -> [(u32, [u8; INODE]); 3] {
        let data = self.data();
        let directory = |number, mode, links, block| {
            let map = extent(block, 1);
            (number, self.inode(number, (mode, links, 1), &map))
        };
        let journal = (0o100_600, 1, self.journal_blocks);
        let journal = self.inode(JOURNAL_INODE, journal, &self.journal_map());
        [
            directory(ROOT_INODE, 0o040_755, 3, data),
            (JOURNAL_INODE, journal),
            directory(LOST_AND_FOUND_INODE, 0o040_700, 2, data + 1),
        ]
    }

    fn inode(
        &self,
        number: u32,
        (mode, links, blocks): (u16, u16, u32),
        map: &[u8; 60],
    ) -> [u8; INODE] {
        let now = self.identity.now_s;
        let mut inode = [0; INODE];
        let fields = &mut Fields(&mut inode);
        fields.u16(0, mode);
        fields.u32(4, blocks * 4096);
        for time in [8, 12, 16, 144] {
            fields.u32(time, now);
        }
        fields.u16(26, links);
        fields.u32(28, blocks * 8); // of 512 bytes
        fields.u32(32, 0x8_0000); // extents
        fields.bytes(40, map);
        fields.u16(128, 32); // fields beyond the first 128 bytes
        let sum = crc32c(self.inode_seed(number), &inode);
        let fields = &mut Fields(&mut inode);
        fields.u16(124, low(sum));
        fields.u16(130, low(sum >> 16));
        inode
    }

    /// Where the checksums of an inode and of its blocks begin; its generation is zero.
    fn inode_seed(&self, number: u32) -> u32 {
        crc32c(crc32c(self.seed, &number.to_le_bytes()), &[0; 4])
    }

    /// The root and lost+found.
    fn directories(&self) -> [[u8; BLOCK]; 2] {
        let (root, lost) = (ROOT_INODE, LOST_AND_FOUND_INODE);
        [
            self.directory(
                root,
                &[(root, b"."), (root, b".."), (lost, &b"lost+found"[..])],
            ),
            self.directory(lost, &[(lost, &b"."[..]), (root, b"..")]),
        ]
    }

    fn directory(&self, number: u32, entries: &[(u32, &[u8])]) -> [u8; BLOCK] {
        const TAIL: usize = BLOCK - 12;
        let mut block = [0; BLOCK];
        let fields = &mut Fields(&mut block);
        let mut at = 0;
        for (n, (inode, name)) in entries.iter().enumerate() {
            // The last one has the rest.
            let length = match n + 1 == entries.len() {
                true => TAIL - at,
                false => (8 + name.len()).next_multiple_of(4),
            };
            fields.u32(at, *inode);
            fields.u16(at + 4, u16::try_from(length).unwrap_or(u16::MAX));
            let name_bytes = u8::try_from(name.len()).unwrap_or(u8::MAX);
            fields.bytes(at + 6, &[name_bytes, 2]); // a directory
            fields.bytes(at + 8, name);
            at += length;
        }
        fields.u16(TAIL + 4, 12);
        fields.bytes(TAIL + 7, &[0xde]);
        let sum = crc32c(self.inode_seed(number), &block[..TAIL]);
        Fields(&mut block).u32(TAIL + 8, sum);
        block
    }

    /// The first block of an empty journal, in network order.
    fn journal(&self) -> [u8; 1024] {
        let mut block = [0; 1024];
        let fields = &mut Fields(&mut block);
        let numbers = [
            (0, 0xc03b_3998),
            (4, 4), // superblock, version 2
            (12, 4096),
            (16, self.journal_blocks),
            (20, 1), // first block of the log
            (24, 1), // first transaction
            (64, 1), // file systems that use it
        ];
        for (offset, number) in numbers {
            fields.bytes(offset, &u32::to_be_bytes(number));
        }
        block
    }
}

/// As mke2fs has it, but for the largest: one extent.
fn journal_blocks(blocks: u32) -> u32 {
    match blocks {
        0..32_768 => 1024,
        32_768..262_144 => 4096,
        262_144..524_288 => 8192,
        _ => 16_384,
    }
}

/// Copies of the superblock are in groups 0 and 1 and in powers of 3, 5 and 7.
fn has_superblock(group: u32) -> bool {
    let is_power = |base: u32| {
        let mut rest = group;
        while rest.is_multiple_of(base) {
            rest /= base;
        }
        rest == 1
    };
    group <= 1 || [3, 5, 7].into_iter().any(is_power)
}

/// Descriptors of 64 groups are in the first of them, and copies in the second and the
/// last.
fn has_descriptors(group: u32) -> bool {
    let place = group % DESCRIPTORS_PER_BLOCK;
    place <= 1 || place == DESCRIPTORS_PER_BLOCK - 1
}

/// Where in a group its bitmaps are, and after them its table of inodes.
fn tables_at(group: u32) -> u32 {
    u32::from(has_superblock(group)) + u32::from(has_descriptors(group))
}

/// A block whose first `used` bits are set, and those from `count` on, which mean
/// nothing.
fn bitmap(used: u32, count: u32) -> [u8; BLOCK] {
    let mut bitmap = [0; BLOCK];
    let mut set = |bit: u32| {
        if let Some(byte) = bitmap.get_mut(bit as usize / 8) {
            *byte |= 1 << (bit % 8);
        }
    };
    (0..used).for_each(&mut set);
    (count..GROUP_BLOCKS).for_each(&mut set);
    bitmap
}

/// The map of a file of `count` blocks from `start` on.
fn extent(start: u32, count: u32) -> [u8; 60] {
    let mut map = [0; 60];
    let fields = &mut Fields(&mut map);
    fields.u16(0, 0xf30a);
    fields.u16(2, 1); // extents here
    fields.u16(4, 4); // and room for them
    fields.u16(16, low(count));
    fields.u32(20, start);
    map
}

fn low(number: u32) -> u16 {
    (number & 0xffff) as u16
}

/// Little-endian fields, by their offsets.
struct Fields<'a>(&'a mut [u8]);

impl Fields<'_> {
    fn bytes(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn u16(&mut self, offset: usize, number: u16) {
        self.bytes(offset, &number.to_le_bytes());
    }

    fn u32(&mut self, offset: usize, number: u32) {
        self.bytes(offset, &number.to_le_bytes());
    }
}

/// CRC-32C (Castagnoli) without the usual inversions, as ext4 has it.
fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!start, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const IDENTITY: Identity = Identity {
        uuid: *b"\x01\x23\x45\x67\x89\xab\x4d\xef\x81\x23\x45\x67\x89\xab\xcd\xef",
        hash_seed: [7; 16],
        now_s: 1_700_000_000,
    };

    /// Sizes whose last groups are whole, hardly worth it, and too small to be made; a
    /// copy of descriptors in the last group of 64; and more than one block of them.
    #[test]
    fn file_systems_of_all_sizes_are_clean_for_e2fsck() {
        let directory = std::env::temp_dir().join(format!("sm-ext4-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mib = 1 << 20;
        let tables = u64::from(2 + TABLE_BLOCKS) * BLOCK_BYTES;
        let sizes = [
            16 * mib,
            100 * mib,
            128 * mib + 4096,
            256 * mib + tables + 64 * 4096,
            1024 * mib,
            4096 * mib,
            64 * 128 * mib,
            67 * 128 * mib + 20 * mib,
            1 << 40,
        ];
        for bytes in sizes {
            let path = directory.join(bytes.to_string());
            let file = File::create_new(&path).unwrap();
            file.set_len(bytes).unwrap();
            format(&file, bytes, &IDENTITY).unwrap();
            let checked = Command::new("e2fsck").arg("-fn").arg(&path).output();
            let checked = checked.expect("e2fsck is in the package e2fsprogs");
            let said = String::from_utf8_lossy(&checked.stdout);
            assert!(checked.status.success(), "{bytes}: {said}");
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn what_has_no_room_for_its_own_tables_is_refused() {
        for blocks in [0, 1, 515, 1000] {
            let file = File::open("/dev/null").unwrap();
            assert!(format(&file, blocks * BLOCK_BYTES, &IDENTITY).is_err());
        }
    }
}

//! The FUSE protocol as Linux speaks it (`include/uapi/linux/fuse.h`), the
//! same on every host.
//!
//! What a guest says is read field by field from its bytes, and what is not
//! there ends the request with `EINVAL`.

use std::ffi::CStr;

use rustix::io::Errno;

use super::host::Stat;
use super::owners::Owner;

/// Bytes of the header of each request.
pub const IN_HEADER_BYTES: usize = 40;
/// Bytes of the header of each answer.
pub const OUT_HEADER_BYTES: usize = 16;
/// Node of the shared directory itself.
pub const ROOT: u64 = 1;
/// Longest name of a directory entry.
pub const MAX_NAME_BYTES: usize = 255;

/// The one major version.
pub const MAJOR: u32 = 7;
/// The minor version this server is written for.
pub const MINOR: u32 = 38;
/// The oldest minor version whose structures are those of [`MINOR`], as far as
/// they are used here: since then reads say with `FOPEN_CACHE_DIR` and the like
/// nothing that matters here, and `INIT` is as long as it is now.
pub const OLDEST_MINOR: u32 = 31;

/// Request numbers.
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SETUPMAPPING: u32 = 48;
    pub const REMOVEMAPPING: u32 = 49;
    pub const SYNCFS: u32 = 50;
}

/// What the two sides agree on (`FUSE_*` of `INIT`).
pub mod init {
    pub const ASYNC_READ: u32 = 1 << 0;
    pub const ATOMIC_O_TRUNC: u32 = 1 << 3;
    pub const BIG_WRITES: u32 = 1 << 5;
    pub const AUTO_INVAL_DATA: u32 = 1 << 12;
    pub const DO_READDIRPLUS: u32 = 1 << 13;
    pub const READDIRPLUS_AUTO: u32 = 1 << 14;
    pub const ASYNC_DIO: u32 = 1 << 15;
    pub const PARALLEL_DIROPS: u32 = 1 << 18;
    pub const MAX_PAGES: u32 = 1 << 22;
    pub const MAP_ALIGNMENT: u32 = 1 << 26;
    pub const HANDLE_KILLPRIV_V2: u32 = 1 << 28;
    /// There are more flags, in a word of their own.
    pub const INIT_EXT: u32 = 1 << 30;
    /// In that word: which files are mapped is said with each file's attributes.
    pub const HAS_INODE_DAX: u32 = 1 << 1;
}

/// What `SETUPMAPPING` asks for (`FUSE_SETUPMAPPING_FLAG_*`).
pub mod mapping {
    pub const WRITE: u64 = 1 << 0;
    pub const READ: u64 = 1 << 1;
}

/// `DT_*`: what an entry of a list is.
pub mod kind {
    pub const UNKNOWN: u32 = 0;
    pub const DIRECTORY: u32 = 4;
    pub const FILE: u32 = 8;
    pub const LINK: u32 = 10;
}

/// What the device says in its notification queue: our own number, in the place of an
/// error, to guests with our patch of the kernel (`kernel/patches`).
pub const NOTIFY_CHANGED: u32 = 0x534d_0001;

/// `FUSE_ATTR_DAX`: the guest maps the file instead of reading it.
pub const ATTR_DAX: u32 = 1 << 1;

/// What `SETATTR` sets (`FATTR_*`).
pub mod set {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
}

/// `FUSE_GETATTR_FH`: the request names an open file.
pub const GETATTR_FH: u32 = 1;
/// `FOPEN_KEEP_CACHE`: what the guest has cached of the file is still good.
pub const OPEN_KEEP_CACHE: u32 = 1 << 1;
/// `FUSE_FSYNC_FDATASYNC`: the data without what nobody needs to find it.
pub const FSYNC_DATA: u32 = 1;

/// Open flags that are the same number in every Linux guest.
pub mod open {
    pub const ACCESS: u32 = 3;
    pub const WRONLY: u32 = 1;
    pub const RDWR: u32 = 2;
    pub const EXCL: u32 = 0o200;
    pub const TRUNC: u32 = 0o1000;
    pub const APPEND: u32 = 0o2000;
}

/// The header of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InHeader {
    pub opcode: u32,
    pub unique: u64,
    pub node: u64,
    /// Who asks.
    pub owner: Owner,
}

impl InHeader {
    /// Reads it from the front of a request.
    pub fn read(bytes: &[u8; IN_HEADER_BYTES]) -> Self {
        let mut fields = Fields(bytes);
        // All of it is there.
        let mut header = || {
            fields.u32()?; // the length, which the chain says as well
            let opcode = fields.u32()?;
            let unique = fields.u64()?;
            let node = fields.u64()?;
            let owner = Owner {
                uid: fields.u32()?,
                gid: fields.u32()?,
            };
            Ok::<_, Errno>(Self {
                opcode,
                unique,
                node,
                owner,
            })
        };
        header().unwrap_or(Self {
            opcode: 0,
            unique: 0,
            node: 0,
            owner: Owner::default(),
        })
    }
}

/// The arguments of a request, taken from the front.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*field)
    }

    pub fn u32(&mut self) -> Result<u32, Errno> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Errno> {
        self.take().map(u64::from_le_bytes)
    }

    /// Leaves out so many bytes.
    pub fn skip(&mut self, bytes: usize) -> Result<(), Errno> {
        self.0 = self.0.get(bytes..).ok_or(Errno::INVAL)?;
        Ok(())
    }

    /// A string with the zero byte that ends it.
    pub fn string(&mut self) -> Result<&'a CStr, Errno> {
        let text = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = &self.0[text.to_bytes_with_nul().len()..];
        Ok(text)
    }

    /// A name of one entry in a directory: the only kind a guest may say.
    pub fn name(&mut self) -> Result<&'a CStr, Errno> {
        check_name(self.string()?)
    }
}

/// Refuses what is not the name of one directory entry.
pub fn check_name(name: &CStr) -> Result<&CStr, Errno> {
    match name.to_bytes() {
        b"" | b"." | b".." => Err(Errno::INVAL),
        bytes if bytes.len() > MAX_NAME_BYTES => Err(Errno::NAMETOOLONG),
        bytes if bytes.contains(&b'/') => Err(Errno::INVAL),
        _ => Ok(name),
    }
}

/// How long the guest may believe something without asking again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub seconds: u64,
}

/// What the guest is shown of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    pub stat: Stat,
    pub ino: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// `FUSE_ATTR_*`.
    pub flags: u32,
}

/// The body of an answer.
#[derive(Debug, Default)]
pub struct Body(pub Vec<u8>);

impl Body {
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    /// `struct fuse_attr`.
    pub fn attr(&mut self, attributes: &Attributes) -> &mut Self {
        let stat = &attributes.stat;
        self.u64(attributes.ino)
            .u64(stat.size)
            .u64(stat.blocks)
            .u64(stat.atime.seconds.cast_unsigned())
            .u64(stat.mtime.seconds.cast_unsigned())
            .u64(stat.ctime.seconds.cast_unsigned())
            .u32(stat.atime.nanos)
            .u32(stat.mtime.nanos)
            .u32(stat.ctime.nanos)
            .u32(attributes.mode)
            .u32(stat.nlink)
            .u32(attributes.uid)
            .u32(attributes.gid)
            .u32(stat.rdev)
            .u32(stat.block_bytes)
            .u32(attributes.flags)
    }

    /// `struct fuse_entry_out`.
    pub fn entry(&mut self, node: u64, valid: Validity, attributes: &Attributes) -> &mut Self {
        self.u64(node)
            .u64(0) // generation: a node's number is never used again
            .u64(valid.seconds)
            .u64(valid.seconds)
            .u32(0)
            .u32(0)
            .attr(attributes)
    }

    /// `struct fuse_attr_out`.
    pub fn attr_out(&mut self, valid: Validity, attributes: &Attributes) -> &mut Self {
        self.u64(valid.seconds).u32(0).u32(0).attr(attributes)
    }

    /// `struct fuse_open_out`.
    pub fn open_out(&mut self, handle: u64, flags: u32) -> &mut Self {
        self.u64(handle).u32(flags).u32(0)
    }
}

/// Bytes of `struct fuse_entry_out`.
pub const ENTRY_BYTES: usize = 128;
/// Bytes of `struct fuse_dirent` before the name.
pub const DIRENT_BYTES: usize = 24;

/// Bytes that an entry with a name of `name` bytes takes in a list.
pub fn dirent_bytes(name: usize) -> usize {
    (DIRENT_BYTES + name).next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_one_entry_are_names() {
        for bad in [c"", c".", c"..", c"a/b", c"/", c"../x"] {
            assert_eq!(check_name(bad), Err(Errno::INVAL), "{bad:?}");
        }
        let long = std::ffi::CString::new(vec![b'n'; 256]).unwrap();
        assert_eq!(check_name(&long), Err(Errno::NAMETOOLONG));
        for good in [c"a", c"...", c".hidden", c" ", c"\xff"] {
            assert_eq!(check_name(good), Ok(good));
        }
    }

    #[test]
    fn strings_that_do_not_end_are_refused() {
        assert_eq!(Fields(b"abc").string(), Err(Errno::INVAL));
        let mut two = Fields(b"a\0b\0");
        assert_eq!((two.name(), two.name()), (Ok(c"a"), Ok(c"b")));
        assert_eq!(two.name(), Err(Errno::INVAL));
        assert_eq!(Fields(&[0; 7]).u64(), Err(Errno::INVAL));
        assert_eq!(Fields(&[0; 7]).skip(8), Err(Errno::INVAL));
    }

    #[test]
    fn structures_have_the_length_that_linux_reads() {
        let attributes = Attributes {
            stat: Stat::default(),
            ino: 1,
            mode: 0,
            uid: 0,
            gid: 0,
            flags: 0,
        };
        let length = |write: &dyn for<'b> Fn(&'b mut Body) -> &'b mut Body| {
            let mut body = Body::default();
            write(&mut body).0.len()
        };
        let valid = Validity { seconds: 1 };
        assert_eq!(length(&|b| b.attr(&attributes)), 88);
        assert_eq!(length(&|b| b.attr_out(valid, &attributes)), 104);
        assert_eq!(length(&|b| b.entry(2, valid, &attributes)), ENTRY_BYTES);
        assert_eq!(length(&|b| b.open_out(1, 0)), 16);
        assert_eq!(dirent_bytes(1), 32);
        assert_eq!(dirent_bytes(8), 32);
    }
}

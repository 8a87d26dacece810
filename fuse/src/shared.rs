//! Calls of fuse-backend-rs as requests of FUSE, and answers as what they return.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use devices::virtio::fs::{FsConfig, FsError, Requests};
use fuse_backend_rs::abi::fuse_abi::{
    AttrOut, CreateIn, Dirent, EntryOut, FallocateIn, FsOptions, FsyncIn, GetattrIn, GetxattrIn,
    GetxattrOut, InHeader, InitIn, LinkIn, LseekIn, LseekOut, MkdirIn, MknodIn, Opcode, OpenIn,
    OpenOptions, OpenOut, ReadIn, ReleaseIn, Rename2In, SetattrIn, SetattrValid, SetxattrIn,
    WriteIn, WriteOut, stat64,
};
use fuse_backend_rs::api::filesystem::{
    Context, DirEntry, Entry, FileSystem, GetxattrReply, ListxattrReply, ZeroCopyReader,
    ZeroCopyWriter,
};
use vm_memory::ByteValued;

/// Bytes of `struct fuse_out_header`.
const HEADER_BYTES: usize = 16;
/// Most bytes that one read, write or list is about.
const MAX_DATA_BYTES: u32 = 1 << 20;
/// `FUSE_GETATTR_FH`, and the same in `SetattrIn`.
const GETATTR_HANDLE: u32 = 1;
const SETATTR_HANDLE: u32 = 1 << 6;

/// A directory, or a file, of the host.
#[derive(Debug)]
pub struct Shared {
    requests: Requests,
}

/// The parts of an answer that have a length of their own.
struct Answer(Vec<u8>, usize);

impl Answer {
    fn take<T: ByteValued + Default>(&mut self) -> io::Result<T> {
        let end = self.1 + size_of::<T>();
        let bytes = self.0.get(self.1..end).ok_or_else(broken)?;
        let mut value = T::default();
        value.as_mut_slice().copy_from_slice(bytes);
        self.1 = end;
        Ok(value)
    }

    fn bytes(&mut self, length: usize) -> io::Result<&[u8]> {
        let begin = self.1;
        self.1 += length;
        self.0.get(begin..self.1).ok_or_else(broken)
    }

    fn is_empty(&self) -> bool {
        self.1 >= self.0.len()
    }
}

/// An answer of ours that is not one.
fn broken() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn entry(told: &EntryOut) -> Entry {
    Entry {
        inode: told.nodeid,
        generation: told.generation,
        attr: told.attr.into(),
        attr_flags: told.attr.flags,
        attr_timeout: Duration::from_secs(told.attr_valid),
        entry_timeout: Duration::from_secs(told.entry_valid),
    }
}

impl Shared {
    /// Over an open directory or file. Tag and workers of `config` are a device's.
    ///
    /// # Errors
    /// [`FsError`], as for a device.
    pub fn new(directory: OwnedFd, config: &FsConfig) -> Result<Self, FsError> {
        Ok(Self {
            requests: Requests::new(directory, config)?,
        })
    }

    fn send(
        &self,
        by: &Context,
        opcode: Opcode,
        node: u64,
        parts: &[&[u8]],
        room: usize,
    ) -> Vec<u8> {
        let length = size_of::<InHeader>() + parts.iter().map(|part| part.len()).sum::<usize>();
        let header = InHeader {
            len: u32::try_from(length).unwrap_or(u32::MAX),
            opcode: opcode as u32,
            unique: 1,
            nodeid: node,
            uid: by.uid,
            gid: by.gid,
            pid: by.pid.cast_unsigned(),
            ..InHeader::default()
        };
        let mut request = header.as_slice().to_vec();
        request.extend(parts.iter().copied().flatten());
        self.requests.answer(&request, HEADER_BYTES + room)
    }

    /// What follows the header of an answer without an error.
    fn ask(
        &self,
        by: &Context,
        opcode: Opcode,
        node: u64,
        parts: &[&[u8]],
        room: usize,
    ) -> io::Result<Answer> {
        let answer = self.send(by, opcode, node, parts, room);
        let error = answer.get(4..8).and_then(|bytes| bytes.try_into().ok());
        match error.map(i32::from_le_bytes) {
            Some(0) => Ok(Answer(answer, HEADER_BYTES)),
            Some(error) => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
            None => Err(broken()),
        }
    }

    fn tell(&self, by: &Context, opcode: Opcode, node: u64, parts: &[&[u8]]) -> io::Result<Entry> {
        let mut answer = self.ask(by, opcode, node, parts, size_of::<EntryOut>())?;
        Ok(entry(&answer.take()?))
    }

    fn done(&self, by: &Context, opcode: Opcode, node: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.ask(by, opcode, node, parts, 0).map(drop)
    }

    fn handle(
        &self,
        by: &Context,
        opcode: Opcode,
        node: u64,
        flags: u32,
    ) -> io::Result<(u64, OpenOptions)> {
        let asked = OpenIn {
            flags,
            ..OpenIn::default()
        };
        let room = size_of::<OpenOut>();
        let mut answer = self.ask(by, opcode, node, &[asked.as_slice()], room)?;
        let open: OpenOut = answer.take()?;
        Ok((open.fh, OpenOptions::from_bits_truncate(open.open_flags)))
    }

    fn list(
        &self,
        by: &Context,
        opcode: Opcode,
        (node, handle): (u64, u64),
        (size, offset): (u32, u64),
    ) -> io::Result<Answer> {
        let size = size.min(MAX_DATA_BYTES);
        let asked = ReadIn {
            fh: handle,
            offset,
            size,
            ..ReadIn::default()
        };
        let room = usize::try_from(size).map_err(|_| broken())?;
        self.ask(by, opcode, node, &[asked.as_slice()], room)
    }

    fn attributes(
        &self,
        by: &Context,
        opcode: Opcode,
        node: u64,
        asked: &[u8],
    ) -> io::Result<(stat64, Duration)> {
        let mut answer = self.ask(by, opcode, node, &[asked], size_of::<AttrOut>())?;
        let told: AttrOut = answer.take()?;
        Ok((told.attr.into(), Duration::from_secs(told.attr_valid)))
    }
}

/// The entry at the front of a list; its name is padded to eight bytes.
fn listed(answer: &mut Answer) -> io::Result<(Dirent, Vec<u8>)> {
    let found: Dirent = answer.take()?;
    let length = usize::try_from(found.namelen).map_err(|_| broken())?;
    let name = answer.bytes(length)?.to_vec();
    let whole = size_of::<Dirent>() + length;
    answer.bytes(whole.next_multiple_of(8) - whole)?;
    Ok((found, name))
}

fn shown<'a>(found: &Dirent, name: &'a [u8]) -> DirEntry<'a> {
    DirEntry {
        ino: found.ino,
        offset: found.off,
        type_: found.type_,
        name,
    }
}

impl FileSystem for Shared {
    type Inode = u64;
    type Handle = u64;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        let wanted = FsOptions::ASYNC_READ
            | FsOptions::ATOMIC_O_TRUNC
            | FsOptions::BIG_WRITES
            | FsOptions::AUTO_INVAL_DATA
            | FsOptions::DO_READDIRPLUS
            | FsOptions::READDIRPLUS_AUTO
            | FsOptions::ASYNC_DIO
            | FsOptions::PARALLEL_DIROPS
            | FsOptions::MAX_PAGES
            | FsOptions::HANDLE_KILLPRIV_V2;
        let hello = InitIn {
            major: 7,
            minor: 38,
            max_readahead: MAX_DATA_BYTES,
            ..InitIn::default()
        };
        let parts = [hello.as_slice(), &[0; 48]];
        self.ask(&Context::new(), Opcode::Init, 0, &parts, 64)?;
        Ok(capable & wanted)
    }

    fn destroy(&self) {
        self.send(&Context::new(), Opcode::Destroy, 0, &[], 0);
    }

    fn lookup(&self, by: &Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.tell(by, Opcode::Lookup, parent, &[name.to_bytes_with_nul()])
    }

    fn forget(&self, by: &Context, node: u64, count: u64) {
        self.send(by, Opcode::Forget, node, &[&count.to_le_bytes()], 0);
    }

    fn getattr(
        &self,
        by: &Context,
        node: u64,
        handle: Option<u64>,
    ) -> io::Result<(stat64, Duration)> {
        let asked = GetattrIn {
            flags: handle.map_or(0, |_| GETATTR_HANDLE),
            fh: handle.unwrap_or(0),
            ..GetattrIn::default()
        };
        self.attributes(by, Opcode::Getattr, node, asked.as_slice())
    }

    fn setattr(
        &self,
        by: &Context,
        node: u64,
        wanted: stat64,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(stat64, Duration)> {
        // Nanoseconds that are none become a number that is refused.
        let nanos = |nanos: i64| u32::try_from(nanos).unwrap_or(u32::MAX);
        let asked = SetattrIn {
            valid: valid.bits() | handle.map_or(0, |_| SETATTR_HANDLE),
            fh: handle.unwrap_or(0),
            size: wanted.st_size.cast_unsigned(),
            atime: wanted.st_atime.cast_unsigned(),
            mtime: wanted.st_mtime.cast_unsigned(),
            atimensec: nanos(wanted.st_atime_nsec),
            mtimensec: nanos(wanted.st_mtime_nsec),
            mode: wanted.st_mode,
            uid: wanted.st_uid,
            gid: wanted.st_gid,
            ..SetattrIn::default()
        };
        self.attributes(by, Opcode::Setattr, node, asked.as_slice())
    }

    fn readlink(&self, by: &Context, node: u64) -> io::Result<Vec<u8>> {
        let room = usize::try_from(libc::PATH_MAX).map_err(|_| broken())?;
        let answer = self.ask(by, Opcode::Readlink, node, &[], room)?;
        Ok(answer.0[HEADER_BYTES..].to_vec())
    }

    fn symlink(&self, by: &Context, to: &CStr, parent: u64, name: &CStr) -> io::Result<Entry> {
        let parts = [name.to_bytes_with_nul(), to.to_bytes_with_nul()];
        self.tell(by, Opcode::Symlink, parent, &parts)
    }

    fn mknod(
        &self,
        by: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        rdev: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        let asked = MknodIn {
            mode,
            rdev,
            umask,
            ..MknodIn::default()
        };
        let parts = [asked.as_slice(), name.to_bytes_with_nul()];
        self.tell(by, Opcode::Mknod, parent, &parts)
    }

    fn mkdir(
        &self,
        by: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        let asked = MkdirIn { mode, umask };
        let parts = [asked.as_slice(), name.to_bytes_with_nul()];
        self.tell(by, Opcode::Mkdir, parent, &parts)
    }

    fn unlink(&self, by: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.done(by, Opcode::Unlink, parent, &[name.to_bytes_with_nul()])
    }

    fn rmdir(&self, by: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.done(by, Opcode::Rmdir, parent, &[name.to_bytes_with_nul()])
    }

    fn rename(
        &self,
        by: &Context,
        from: u64,
        name: &CStr,
        to: u64,
        new_name: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        let asked = Rename2In {
            newdir: to,
            flags,
            ..Rename2In::default()
        };
        let names = [name.to_bytes_with_nul(), new_name.to_bytes_with_nul()];
        let parts = [asked.as_slice(), names[0], names[1]];
        self.done(by, Opcode::Rename2, from, &parts)
    }

    fn link(&self, by: &Context, node: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        let asked = LinkIn { oldnodeid: node };
        let parts = [asked.as_slice(), name.to_bytes_with_nul()];
        self.tell(by, Opcode::Link, parent, &parts)
    }

    fn open(
        &self,
        by: &Context,
        node: u64,
        flags: u32,
        _fuse_flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions, Option<u32>)> {
        let (handle, options) = self.handle(by, Opcode::Open, node, flags)?;
        Ok((Some(handle), options, None))
    }

    fn create(
        &self,
        by: &Context,
        parent: u64,
        name: &CStr,
        asked: CreateIn,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions, Option<u32>)> {
        let parts = [asked.as_slice(), name.to_bytes_with_nul()];
        let room = size_of::<EntryOut>() + size_of::<OpenOut>();
        let mut answer = self.ask(by, Opcode::Create, parent, &parts, room)?;
        let made: EntryOut = answer.take()?;
        let open: OpenOut = answer.take()?;
        let options = OpenOptions::from_bits_truncate(open.open_flags);
        Ok((entry(&made), Some(open.fh), options, None))
    }

    fn read(
        &self,
        by: &Context,
        node: u64,
        handle: u64,
        into: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        _lock_owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        let size = size.min(MAX_DATA_BYTES);
        let asked = ReadIn {
            fh: handle,
            offset,
            size,
            flags,
            ..ReadIn::default()
        };
        let room = usize::try_from(size).map_err(|_| broken())?;
        let answer = self.ask(by, Opcode::Read, node, &[asked.as_slice()], room)?;
        let data = &answer.0[HEADER_BYTES..];
        into.write_all(data)?;
        Ok(data.len())
    }

    fn write(
        &self,
        by: &Context,
        node: u64,
        handle: u64,
        from: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
        _lock_owner: Option<u64>,
        _delayed_write: bool,
        flags: u32,
        fuse_flags: u32,
    ) -> io::Result<usize> {
        if size > MAX_DATA_BYTES {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut data = vec![0; usize::try_from(size).map_err(|_| broken())?];
        from.read_exact(&mut data)?;
        let asked = WriteIn {
            fh: handle,
            offset,
            size,
            fuse_flags,
            flags,
            ..WriteIn::default()
        };
        let parts = [asked.as_slice(), &data];
        let mut answer = self.ask(by, Opcode::Write, node, &parts, size_of::<WriteOut>())?;
        let written: WriteOut = answer.take()?;
        usize::try_from(written.size).map_err(|_| broken())
    }

    fn flush(&self, _by: &Context, _node: u64, _handle: u64, _lock_owner: u64) -> io::Result<()> {
        // What was written is the host's already.
        Ok(())
    }

    fn fsync(&self, by: &Context, node: u64, datasync: bool, handle: u64) -> io::Result<()> {
        let asked = FsyncIn {
            fh: handle,
            fsync_flags: datasync.into(),
            ..FsyncIn::default()
        };
        self.done(by, Opcode::Fsync, node, &[asked.as_slice()])
    }

    fn fallocate(
        &self,
        by: &Context,
        node: u64,
        handle: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        let asked = FallocateIn {
            fh: handle,
            offset,
            length,
            mode,
            ..FallocateIn::default()
        };
        self.done(by, Opcode::Fallocate, node, &[asked.as_slice()])
    }

    fn release(
        &self,
        by: &Context,
        node: u64,
        _flags: u32,
        handle: u64,
        _flush: bool,
        _flock_release: bool,
        _lock_owner: Option<u64>,
    ) -> io::Result<()> {
        let asked = ReleaseIn {
            fh: handle,
            ..ReleaseIn::default()
        };
        self.done(by, Opcode::Release, node, &[asked.as_slice()])
    }

    fn setxattr(
        &self,
        by: &Context,
        node: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
    ) -> io::Result<()> {
        let size = u32::try_from(value.len());
        let size = size.map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
        let asked = SetxattrIn { size, flags };
        let parts = [asked.as_slice(), name.to_bytes_with_nul(), value];
        self.done(by, Opcode::Setxattr, node, &parts)
    }

    fn getxattr(
        &self,
        by: &Context,
        node: u64,
        name: &CStr,
        size: u32,
    ) -> io::Result<GetxattrReply> {
        let size = size.min(MAX_DATA_BYTES);
        let asked = GetxattrIn {
            size,
            ..GetxattrIn::default()
        };
        let room = usize::try_from(size.max(8)).map_err(|_| broken())?;
        let parts = [asked.as_slice(), name.to_bytes_with_nul()];
        let mut answer = self.ask(by, Opcode::Getxattr, node, &parts, room)?;
        match size {
            0 => Ok(GetxattrReply::Count(answer.take::<GetxattrOut>()?.size)),
            _ => Ok(GetxattrReply::Value(answer.0[HEADER_BYTES..].to_vec())),
        }
    }

    fn listxattr(&self, by: &Context, node: u64, size: u32) -> io::Result<ListxattrReply> {
        let size = size.min(MAX_DATA_BYTES);
        let asked = GetxattrIn {
            size,
            ..GetxattrIn::default()
        };
        let room = usize::try_from(size.max(8)).map_err(|_| broken())?;
        let mut answer = self.ask(by, Opcode::Listxattr, node, &[asked.as_slice()], room)?;
        match size {
            0 => Ok(ListxattrReply::Count(answer.take::<GetxattrOut>()?.size)),
            _ => Ok(ListxattrReply::Names(answer.0[HEADER_BYTES..].to_vec())),
        }
    }

    fn removexattr(&self, by: &Context, node: u64, name: &CStr) -> io::Result<()> {
        self.done(by, Opcode::Removexattr, node, &[name.to_bytes_with_nul()])
    }

    fn opendir(
        &self,
        by: &Context,
        node: u64,
        flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions)> {
        let (handle, options) = self.handle(by, Opcode::Opendir, node, flags)?;
        Ok((Some(handle), options))
    }

    fn readdir(
        &self,
        by: &Context,
        node: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut answer = self.list(by, Opcode::Readdir, (node, handle), (size, offset))?;
        while !answer.is_empty() {
            let (found, name) = listed(&mut answer)?;
            if add(shown(&found, &name))? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn readdirplus(
        &self,
        by: &Context,
        node: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut answer = self.list(by, Opcode::Readdirplus, (node, handle), (size, offset))?;
        let mut takes = true;
        let mut outcome = Ok(());
        while !answer.is_empty() {
            let told: EntryOut = answer.take()?;
            let (found, name) = listed(&mut answer)?;
            if takes {
                match add(shown(&found, &name), entry(&told)) {
                    Ok(0) => takes = false,
                    Ok(_) => continue,
                    Err(error) => (takes, outcome) = (false, Err(error)),
                }
            }
            // Nobody heard of this one.
            if told.nodeid != 0 {
                self.forget(by, told.nodeid, 1);
            }
        }
        outcome
    }

    fn fsyncdir(&self, by: &Context, node: u64, datasync: bool, handle: u64) -> io::Result<()> {
        let asked = FsyncIn {
            fh: handle,
            fsync_flags: datasync.into(),
            ..FsyncIn::default()
        };
        self.done(by, Opcode::Fsyncdir, node, &[asked.as_slice()])
    }

    fn releasedir(&self, by: &Context, node: u64, _flags: u32, handle: u64) -> io::Result<()> {
        let asked = ReleaseIn {
            fh: handle,
            ..ReleaseIn::default()
        };
        self.done(by, Opcode::Releasedir, node, &[asked.as_slice()])
    }

    fn access(&self, _by: &Context, _node: u64, _mask: u32) -> io::Result<()> {
        // Who may do what is for the kernel that asks.
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }

    fn lseek(
        &self,
        by: &Context,
        node: u64,
        handle: u64,
        offset: u64,
        whence: u32,
    ) -> io::Result<u64> {
        let asked = LseekIn {
            fh: handle,
            offset,
            whence,
            ..LseekIn::default()
        };
        let room = size_of::<LseekOut>();
        let mut answer = self.ask(by, Opcode::Lseek, node, &[asked.as_slice()], room)?;
        Ok(answer.take::<LseekOut>()?.offset)
    }
}

//! Calls of fuse-backend-rs as requests of FUSE.

use std::ffi::CStr;
use std::io;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{
    CreateIn, Dirent, EntryOut, FallocateIn, FsOptions, GetattrIn, InitIn, LinkIn, LseekIn,
    LseekOut, MkdirIn, MknodIn, Opcode, OpenOptions, OpenOut, Rename2In, SetattrIn, SetattrValid,
    SetxattrIn, WriteIn, WriteOut, stat64,
};
use fuse_backend_rs::api::filesystem::{
    Context, DirEntry, Entry, FileSystem, GetxattrReply, ListxattrReply, ZeroCopyReader,
    ZeroCopyWriter,
};
use vm_memory::ByteValued;

use super::{Answer, Extended, MAX_DATA_BYTES, Shared, broken, entry, opened};

/// `FUSE_GETATTR_FH`, and the same in `SetattrIn`.
const GETATTR_HANDLE: u32 = 1;
const SETATTR_HANDLE: u32 = 1 << 6;

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
        Ok(answer.rest().to_vec())
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
        let (handle, options) = opened(&answer.take()?);
        Ok((entry(&made), Some(handle), options, None))
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
        _flags: u32,
    ) -> io::Result<usize> {
        let answer = self.content(by, Opcode::Read, (node, handle), (size, offset))?;
        let data = answer.rest();
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
        self.sync(by, Opcode::Fsync, (node, handle), datasync)
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
        self.release_handle(by, Opcode::Release, (node, handle))
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
        let asked = (name.to_bytes_with_nul(), size);
        let found = self.extended(by, Opcode::Getxattr, node, asked)?;
        Ok(match found {
            Extended::Count(count) => GetxattrReply::Count(count),
            Extended::Bytes(bytes) => GetxattrReply::Value(bytes),
        })
    }

    fn listxattr(&self, by: &Context, node: u64, size: u32) -> io::Result<ListxattrReply> {
        let found = self.extended(by, Opcode::Listxattr, node, (&[], size))?;
        Ok(match found {
            Extended::Count(count) => ListxattrReply::Count(count),
            Extended::Bytes(bytes) => ListxattrReply::Names(bytes),
        })
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
        let mut answer = self.content(by, Opcode::Readdir, (node, handle), (size, offset))?;
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
        let mut answer = self.content(by, Opcode::Readdirplus, (node, handle), (size, offset))?;
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
        self.sync(by, Opcode::Fsyncdir, (node, handle), datasync)
    }

    fn releasedir(&self, by: &Context, node: u64, _flags: u32, handle: u64) -> io::Result<()> {
        self.release_handle(by, Opcode::Releasedir, (node, handle))
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

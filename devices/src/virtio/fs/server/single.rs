//! A mount of one file: the guest finds it alone in a directory that is nowhere.
//!
//! The file is reached by the descriptor that the device was given, and by no name: it
//! stays the same one, whatever the host puts in the place that it was opened at.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::super::handles::{Cleared, Handle, OpenFile};
use super::super::host::{self, Stat};
use super::super::wire::{
    Attributes, Body, ENTRY_BYTES, Fields, InHeader, ROOT, kind, opcode, open,
};
use super::directories::put_entry;
use super::find::Target;
use super::{Rules, Server, VALIDITY, Validity, changes};

/// Its node, which the guest knows as long as there is the device.
const FILE: u64 = ROOT + 1;
/// Its name.
const NAME: &std::ffi::CStr = c"file";
/// What is said of the directory: root's, for everybody to look at.
const DIRECTORY_MODE: u32 = 0o040_755;

/// What a device over one file serves.
#[derive(Debug)]
pub(super) struct Single(Arc<OpenFile>);

impl Single {
    pub(super) fn new(file: &OwnedFd, rules: &Rules) -> Result<Self, Errno> {
        let opened = rustix::fs::fcntl_getfl(file)?;
        let access = match opened & OFlags::RWMODE {
            OFlags::RDWR => open::RDWR,
            OFlags::WRONLY => return Err(Errno::BADF),
            _ if rules.read_only => 0,
            // It could not be what the guest is told that it is.
            _ => return Err(Errno::ROFS),
        };
        let file = rustix::io::fcntl_dupfd_cloexec(file, 0)?;
        Ok(Self(Arc::new(handle(file, access))))
    }

    fn stat(&self) -> Result<Stat, Errno> {
        host::stat(&self.0.file)
    }
}

fn handle(file: OwnedFd, flags: u32) -> OpenFile {
    OpenFile {
        file,
        node: FILE,
        flags: flags & (open::ACCESS | open::APPEND),
        // All that are open share what the host knows of one, so that it never appends:
        // where the end is, the guest's kernel says.
        appends: AtomicBool::new(false),
        is_shared: true,
        cleared: Cleared::default(),
    }
}

impl Server {
    /// Whether the device has one file, and no directory.
    pub fn is_single(&self) -> bool {
        self.single.is_some()
    }

    /// How long the guest may believe what it was told of a file. One alone need not be
    /// looked at often, and its copies are given others in its place, by no other name.
    pub(super) fn validity(&self) -> Validity {
        match self.single {
            Some(_) => Validity { seconds: 0 },
            None => VALIDITY,
        }
    }

    /// The file, if that is what the device has and what the node is.
    pub(super) fn single(&self, node: u64) -> Option<Handle> {
        let single = self.single.as_ref().filter(|_| node == FILE)?;
        Some(Handle::File(single.0.clone()))
    }

    /// Opens the file once more.
    pub(super) fn open_single(&self, flags: u32) -> Result<(Handle, Stat), Errno> {
        let single = self.single.as_ref().ok_or(Errno::STALE)?;
        let writes = flags & open::ACCESS != 0;
        if writes && self.rules.read_only {
            return Err(Errno::ROFS);
        }
        let file = rustix::io::fcntl_dupfd_cloexec(single.0.file.as_fd(), 0)?;
        Ok((Handle::File(Arc::new(handle(file, flags))), single.stat()?))
    }

    /// Answers a request for a device of one file; `None` for one that is answered as
    /// any other device's.
    pub(super) fn dispatch_single(
        &self,
        single: &Single,
        header: &InHeader,
        mut arguments: Fields<'_>,
        room: usize,
    ) -> Option<Result<Body, Errno>> {
        let body = match (header.opcode, header.node) {
            (opcode::INIT, _) => self.begin_anew(arguments),
            (opcode::LOOKUP, ROOT) => arguments.name().and_then(|name| match name == NAME {
                true => self.tell_single(single),
                false => Ok(nothing()),
            }),
            (opcode::GETATTR, ROOT) => self.directory(single).map(|shown| {
                let mut body = Body::default();
                body.attr_out(VALIDITY, &shown);
                body
            }),
            (opcode::OPENDIR, ROOT) => {
                // There is nothing to keep of it.
                let mut body = Body::default();
                body.open_out(0, 0);
                Ok(body)
            }
            (opcode::READDIR | opcode::READDIRPLUS, ROOT) => {
                let plus = header.opcode == opcode::READDIRPLUS;
                self.list_single(single, arguments, plus, room)
            }
            (opcode::RELEASEDIR | opcode::FSYNCDIR, _) => Ok(Body::default()),
            (opcode::SYNCFS, _) => rustix::fs::fsync(&self.root).map(|()| Body::default()),
            // Of the directory nothing can be changed, and the file keeps its name.
            (
                opcode::SETATTR
                | opcode::GETXATTR
                | opcode::LISTXATTR
                | opcode::SETXATTR
                | opcode::REMOVEXATTR
                | opcode::OPEN
                | opcode::WRITE
                | opcode::FALLOCATE
                | opcode::COPY_FILE_RANGE,
                FILE,
            ) => return None,
            (opcode::LISTXATTR | opcode::GETXATTR, _) => Err(Errno::OPNOTSUPP),
            (request, _) if changes(request) => Err(Errno::PERM),
            (opcode::LOOKUP | opcode::OPENDIR | opcode::READDIR | opcode::READDIRPLUS, _) => {
                Err(Errno::NOTDIR)
            }
            _ => return None,
        };
        Some(body)
    }

    fn tell_single(&self, single: &Single) -> Result<Body, Errno> {
        let mut body = Body::default();
        let file = Target::Open(Handle::File(single.0.clone()));
        body.entry(FILE, self.validity(), &self.shown(&self.stat_of(&file)?));
        Ok(body)
    }

    fn directory(&self, single: &Single) -> Result<Attributes, Errno> {
        let file = single.stat()?;
        let stat = Stat {
            mode: DIRECTORY_MODE,
            nlink: 2,
            block_bytes: file.block_bytes,
            atime: file.atime,
            mtime: file.mtime,
            ctime: file.ctime,
            ..Stat::default()
        };
        Ok(Attributes {
            ino: ROOT,
            ..self.shown(&stat)
        })
    }

    fn list_single(
        &self,
        single: &Single,
        mut arguments: Fields<'_>,
        plus: bool,
        room: usize,
    ) -> Result<Body, Errno> {
        arguments.skip(8)?; // the handle
        let offset = arguments.u64()?;
        let size = usize::try_from(arguments.u32()?).unwrap_or(usize::MAX);
        let room = room.min(size);
        let entries = [
            (c".", kind::DIRECTORY),
            (c"..", kind::DIRECTORY),
            (NAME, kind::FILE),
        ];
        let mut body = Body::default();
        for (next, (name, kind)) in (1..).zip(entries) {
            if next <= offset {
                continue;
            }
            let mut entry = Body::default();
            match plus && name == NAME {
                true => entry = self.tell_single(single)?,
                false if plus => entry.0.resize(ENTRY_BYTES, 0),
                false => {}
            }
            let ino = match name == NAME {
                true => self.shown(&single.stat()?).ino,
                false => ROOT,
            };
            let listed = host::Entry {
                ino,
                next,
                kind,
                name,
            };
            put_entry(&mut entry, &listed);
            if body.0.len() + entry.0.len() > room {
                // A guest that has room for none would ask for ever.
                return match body.0.is_empty() {
                    true => Err(Errno::INVAL),
                    false => Ok(body),
                };
            }
            body.bytes(&entry.0);
        }
        Ok(body)
    }
}

/// That there is none of that name.
fn nothing() -> Body {
    let mut body = Body::default();
    body.u64(0).u64(0).u64(VALIDITY.seconds);
    body.0.resize(ENTRY_BYTES, 0);
    body
}

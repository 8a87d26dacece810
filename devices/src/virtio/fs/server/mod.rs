//! A FUSE server for one directory of the host.
//!
//! Requests are independent of each other, and several threads answer them at a
//! time. Tables are locked to look at them and never while the host is asked
//! something.

mod attributes;
mod directories;
mod edits;
mod entries;
mod files;
mod find;
mod mappings;
mod owners;
mod single;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use self::single::Single;
use super::handles::{Handles, SavedHandle};
use super::host;
use super::nodes::{Nodes, SavedNode};
use super::watch::Watch;
use super::wire::{
    self, Attributes, Body, Fields, IN_HEADER_BYTES, InHeader, OUT_HEADER_BYTES, Validity, init,
    opcode,
};
use super::{DaxPolicy, FileWindow, Owners, PIECE_BYTES, SymlinkPolicy};
use crate::virtio::chain::QueueError;
pub use edits::{Lately, everything_changed};
use mappings::Mappings;
pub use mappings::{SavedWindow, Shown};

/// Most bytes of a read or a write: what the guest's kernel asks for at most.
const MAX_DATA_BYTES: u32 = 1 << 20;
/// Pages of 4 KiB in that.
const MAX_PAGES: u16 = 256;
/// Longest arguments of a request other than a write: an extended attribute of
/// 64 KiB with its name, and room.
const MAX_ARGUMENT_BYTES: usize = 128 << 10;
/// How much of a file goes through a thread's buffer at a time.
pub const BUFFER_BYTES: usize = 128 << 10;
/// How long the guest may believe what it was told of a file or a name: the host
/// changes them without saying so.
const VALIDITY: Validity = Validity { seconds: 1 };

/// Why nothing is done when a program closes a file: what was written is the host's
/// already. The guest's kernel does not say so again.
const NEEDS_NO_FLUSH: Errno = Errno::NOSYS;

/// One request and the room for its answer.
pub trait Exchange {
    /// Bytes that the guest has written.
    fn incoming(&self) -> usize;
    /// Bytes that it has room for.
    fn room(&self) -> usize;
    /// Reads all of `buffer` from what the guest has written at `at`.
    fn read(&mut self, at: usize, buffer: &mut [u8]) -> Result<(), QueueError>;
    /// Writes to the room.
    fn write(&mut self, at: usize, bytes: &[u8]) -> Result<(), QueueError>;
}

/// Why a request was not carried out.
enum Failure {
    /// The guest is told.
    Refused(Errno),
    /// Guest memory could not be used.
    Queue(QueueError),
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::Refused(error)
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

/// How a directory is shared.
#[derive(Debug, Clone)]
pub struct Rules {
    pub read_only: bool,
    pub symlinks: SymlinkPolicy,
    pub owners: Owners,
}

/// What a server saves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    pub next_node: u64,
    pub nodes: Vec<SavedNode>,
    pub next_handle: u64,
    pub handles: Vec<SavedHandle>,
    pub window: SavedWindow,
}

/// The server.
#[derive(Debug)]
pub struct Server {
    root: OwnedFd,
    root_dev: u64,
    rules: Rules,
    /// The device has one file, and no directory.
    single: Option<Single>,
    nodes: Mutex<Nodes>,
    handles: Mutex<Handles>,
    /// How often the guest has given a file set-user-id or set-group-id.
    given: AtomicU64,
    /// The window, if the guest can map files.
    mappings: Option<Mappings>,
    /// What the host changes, if the guest is told.
    watch: Option<Watch>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub fn new(root: OwnedFd, rules: Rules) -> Result<Self, Errno> {
        let stat = host::stat(&root)?;
        let single = match () {
            () if stat.is_dir() => None,
            () if stat.is_file() => Some(Single::new(&root, &rules)?),
            () => return Err(Errno::NOTDIR),
        };
        Ok(Self {
            single,
            root_dev: stat.identity.dev,
            root,
            rules,
            nodes: Mutex::default(),
            handles: Mutex::default(),
            given: AtomicU64::new(0),
            mappings: None,
            watch: None,
        })
    }

    /// A server whose guest can map files into `window`.
    pub fn with_window(self, window: Arc<dyn FileWindow>, policy: DaxPolicy) -> Self {
        Self {
            mappings: Some(Mappings::new(window, policy)),
            ..self
        }
    }

    /// A server whose guest has at most so many files and directories open.
    pub fn with_open_files(self, most: usize) -> Self {
        self.handles().limit(most);
        self
    }

    pub fn window(&self) -> Option<&Arc<dyn FileWindow>> {
        self.mappings.as_ref().map(|mappings| &mappings.window)
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        lock(&self.nodes)
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        lock(&self.handles)
    }

    /// Forgets all that a guest knows.
    pub fn reset(&self) {
        if let Some(mappings) = &self.mappings {
            mappings.clear();
        }
        self.nodes().clear();
        self.handles().clear();
        if let Some(watch) = &self.watch {
            watch.clear();
        }
    }

    pub fn save(&self) -> Saved {
        let (next_node, nodes) = self.nodes().save();
        let (next_handle, handles) = self.handles().save();
        let window = self.mappings.as_ref().map(Mappings::save);
        Saved {
            next_node,
            nodes,
            next_handle,
            handles,
            window: window.unwrap_or_default(),
        }
    }

    /// Takes over what was saved, which is not trusted; `None` if it cannot be.
    pub fn restore(&self, saved: &Saved) -> Option<()> {
        let mut table = self.nodes();
        table.restore(saved.next_node, &saved.nodes)?;
        let handles = &saved.handles;
        self.handles().restore(saved.next_handle, handles)?;
        for handle in handles {
            table.opened(handle.node, handle.number);
        }
        drop(table);
        self.restore_mappings(&saved.window)
    }

    /// Answers one request; how many bytes that took. `buffer` is the thread's.
    pub fn answer(
        &self,
        exchange: &mut dyn Exchange,
        buffer: &mut Vec<u8>,
    ) -> Result<usize, QueueError> {
        let mut header = [0; IN_HEADER_BYTES];
        if exchange.incoming() < header.len() {
            return Ok(0);
        }
        exchange.read(0, &mut header)?;
        self.mend_mappings();
        let header = InHeader::read(&header);
        let _request = self.begin(header.opcode, header.node);
        let answered = match header.opcode {
            opcode::READ => self.read(exchange, buffer),
            opcode::WRITE => self.write(exchange, buffer),
            _ => self.answer_short(&header, exchange, buffer),
        };
        let (error, bytes) = match answered {
            Ok(Some(bytes)) => (0, bytes),
            // Nothing is said to this one.
            Ok(None) => return Ok(0),
            Err(Failure::Refused(error)) => (host::linux_errno(error), 0),
            Err(Failure::Queue(error)) => return Err(error),
        };
        let length = OUT_HEADER_BYTES + bytes;
        if exchange.room() < length {
            return Ok(0);
        }
        let mut answer = Body::default();
        answer
            .u32(u32::try_from(length).unwrap_or(u32::MAX))
            .u32(error.wrapping_neg().cast_unsigned())
            .u64(header.unique);
        exchange.write(0, &answer.0)?;
        Ok(length)
    }

    /// Answers a request whose arguments and answer are short; how many bytes
    /// follow the header of the answer.
    fn answer_short(
        &self,
        header: &InHeader,
        exchange: &mut dyn Exchange,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<usize>, Failure> {
        let length = exchange.incoming() - IN_HEADER_BYTES;
        if length > MAX_ARGUMENT_BYTES {
            return Err(Errno::TOOBIG.into());
        }
        buffer.resize(length.max(buffer.len()), 0);
        let arguments = &mut buffer[..length];
        exchange.read(IN_HEADER_BYTES, arguments)?;
        let room = exchange.room().saturating_sub(OUT_HEADER_BYTES);
        let Some(body) = self.dispatch(header, Fields(arguments), room)? else {
            return Ok(None);
        };
        if body.0.len() > room {
            return Err(Errno::INVAL.into());
        }
        // Where there is nothing to write there need not be a place for it.
        if !body.0.is_empty() {
            exchange.write(OUT_HEADER_BYTES, &body.0)?;
        }
        Ok(Some(body.0.len()))
    }

    fn dispatch(
        &self,
        header: &InHeader,
        mut arguments: Fields<'_>,
        room: usize,
    ) -> Result<Option<Body>, Errno> {
        let node = header.node;
        if self.rules.read_only && changes(header.opcode) {
            return Err(Errno::ROFS);
        }
        if let Some(single) = &self.single
            && let Some(body) = self.dispatch_single(single, header, arguments, room)
        {
            return body.map(Some);
        }
        let body = match header.opcode {
            opcode::FORGET => {
                if self.nodes().forget(node, arguments.u64()?) {
                    self.unwatch([node]);
                }
                return Ok(None);
            }
            opcode::BATCH_FORGET => {
                let count = arguments.u32()?;
                arguments.skip(4)?;
                self.forget_all(count, arguments)?;
                return Ok(None);
            }
            opcode::INTERRUPT => return Ok(None),
            opcode::INIT => self.begin_anew(arguments)?,
            opcode::DESTROY => {
                self.reset();
                Body::default()
            }
            opcode::LOOKUP => self.look_up(node, arguments)?,
            opcode::READLINK => self.read_link(node)?,
            opcode::SYMLINK => self.make_link(node, arguments, header.owner)?,
            opcode::MKNOD => self.make_file(node, arguments, header.owner)?,
            opcode::MKDIR => self.make_directory(node, arguments, header.owner)?,
            opcode::UNLINK => self.remove(node, arguments, false)?,
            opcode::RMDIR => self.remove(node, arguments, true)?,
            opcode::RENAME | opcode::RENAME2 => {
                self.rename(node, arguments, header.opcode == opcode::RENAME2)?
            }
            opcode::LINK => self.add_name(node, arguments)?,
            opcode::GETATTR => self.get_attributes(node, arguments)?,
            opcode::SETATTR => self.set_attributes(node, arguments)?,
            opcode::STATFS => self.file_system()?,
            opcode::GETXATTR => self.get_extended(node, arguments)?,
            opcode::LISTXATTR => self.list_extended(node, arguments)?,
            opcode::SETXATTR => self.set_extended(node, arguments)?,
            opcode::REMOVEXATTR => self.remove_extended(node, arguments)?,
            opcode::OPEN => self.open(node, arguments)?,
            opcode::CREATE => self.create(node, arguments, header.owner)?,
            opcode::RELEASE | opcode::RELEASEDIR => self.release(arguments)?,
            opcode::FLUSH => return Err(NEEDS_NO_FLUSH),
            opcode::FSYNC | opcode::FSYNCDIR => self.sync(arguments)?,
            opcode::SYNCFS => {
                host::sync_all(&self.root)?;
                Body::default()
            }
            opcode::FALLOCATE => self.allocate(arguments)?,
            opcode::LSEEK => self.seek(arguments)?,
            opcode::COPY_FILE_RANGE => self.copy_range(arguments)?,
            opcode::SETUPMAPPING => self.set_up_mapping(node, arguments)?,
            opcode::REMOVEMAPPING => self.remove_mappings(arguments)?,
            opcode::OPENDIR => self.open_directory(node)?,
            opcode::READDIR => self.list(arguments, false, room)?,
            opcode::READDIRPLUS => self.list(arguments, true, room)?,
            opcode::IOCTL => return Err(Errno::NOTTY),
            // Locks among them: the guest's kernel keeps those of its programs.
            _ => return Err(Errno::NOSYS),
        };
        Ok(Some(body))
    }

    /// Begins with a guest's kernel, which knows nothing of what was before: it may be
    /// another than the one that the same queues were of.
    fn begin_anew(&self, arguments: Fields<'_>) -> Result<Body, Errno> {
        let body = initialise(arguments, self.mappings.is_some())?;
        self.reset();
        self.watch_root();
        Ok(body)
    }

    /// `BATCH_FORGET`; what it has named before its end is forgotten also if that is early.
    fn forget_all(&self, count: u32, mut arguments: Fields<'_>) -> Result<(), Errno> {
        let mut directories = Vec::new();
        let mut nodes = self.nodes();
        let done = (0..count).try_for_each(|_| {
            let (node, times) = (arguments.u64()?, arguments.u64()?);
            if nodes.forget(node, times) {
                directories.push(node);
            }
            Ok(())
        });
        drop(nodes);
        self.unwatch(directories);
        done
    }

    /// What the guest is shown of a file.
    fn shown(&self, stat: &host::Stat) -> Attributes {
        let identity = &stat.identity;
        // Files of a file system that is mounted below may have the numbers of
        // others.
        let apart = match identity.dev == self.root_dev {
            true => 0,
            false => identity.dev.rotate_left(40),
        };
        let (owner, mode) = self.seen(stat);
        let mappings = self.mappings.as_ref();
        let is_mapped = mappings.is_some_and(|mappings| mappings.are_for(stat));
        Attributes {
            stat: host::Stat {
                rdev: self.seen_device(stat),
                ..*stat
            },
            ino: identity.ino ^ apart,
            mode,
            uid: owner.uid,
            gid: owner.gid,
            flags: if is_mapped { wire::ATTR_DAX } else { 0 },
        }
    }
}

/// Requests that change something, whatever their arguments.
fn changes(request: u32) -> bool {
    matches!(
        request,
        opcode::SETATTR
            | opcode::SYMLINK
            | opcode::MKNOD
            | opcode::MKDIR
            | opcode::UNLINK
            | opcode::RMDIR
            | opcode::RENAME
            | opcode::RENAME2
            | opcode::LINK
            | opcode::WRITE
            | opcode::SETXATTR
            | opcode::REMOVEXATTR
            | opcode::CREATE
            | opcode::FALLOCATE
            | opcode::COPY_FILE_RANGE
    )
}

/// Agrees with the guest's kernel on a version and on what both can do.
fn initialise(mut arguments: Fields<'_>, has_window: bool) -> Result<Body, Errno> {
    let major = arguments.u32()?;
    let minor = arguments.u32()?;
    let mut body = Body::default();
    body.u32(wire::MAJOR).u32(wire::MINOR);
    if major > wire::MAJOR {
        // It asks again with ours.
        return Ok(body);
    }
    if major < wire::MAJOR || minor < wire::OLDEST_MINOR {
        return Err(Errno::PROTO);
    }
    let read_ahead = arguments.u32()?;
    let offered = arguments.u32()?;
    let (mapping, alignment, more) = match has_window {
        false => (0, 0, 0),
        true => {
            let more = match offered & init::INIT_EXT {
                0 => 0,
                _ => arguments.u32()?,
            };
            let alignment = u16::try_from(PIECE_BYTES.trailing_zeros()).unwrap_or(0);
            (init::MAP_ALIGNMENT | init::INIT_EXT, alignment, more)
        }
    };
    let wanted = init::ASYNC_READ
        | init::ATOMIC_O_TRUNC
        | init::BIG_WRITES
        | init::AUTO_INVAL_DATA
        | init::DO_READDIRPLUS
        | init::READDIRPLUS_AUTO
        | init::ASYNC_DIO
        | init::PARALLEL_DIROPS
        | init::MAX_PAGES
        | init::HANDLE_KILLPRIV_V2
        | mapping;
    body.u32(read_ahead.min(MAX_DATA_BYTES))
        .u32(offered & wanted)
        .u16(64) // max_background
        .u16(48) // congestion_threshold
        .u32(MAX_DATA_BYTES)
        .u32(1) // time_gran: nanoseconds
        .u16(MAX_PAGES)
        .u16(alignment) // map_alignment, as a power of two
        .u32(more & init::HAS_INODE_DAX) // flags2
        .bytes(&[0; 28]);
    Ok(body)
}

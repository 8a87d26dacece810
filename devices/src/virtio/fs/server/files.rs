//! Open files and their content.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::super::Owner;
use super::super::handles::{Cleared, Handle, OpenFile};
use super::super::host::{self, Stat};
use super::super::owners::Made;
use super::super::wire::{
    Body, FSYNC_DATA, Fields, IN_HEADER_BYTES, OPEN_KEEP_CACHE, OUT_HEADER_BYTES, open,
};
use super::entries::{create_file, told_node};
use super::find::{Dir, Found};
use super::{BUFFER_BYTES, Exchange, Failure, MAX_DATA_BYTES, Server};

/// Bytes of the arguments of a read or a write.
const DATA_ARGUMENT_BYTES: usize = 40;
/// Most bytes that the host copies for one request: it cannot be paused then.
const MAX_COPY_BYTES: u64 = 64 << 20;

/// What the guest's flags mean here. Those that decide who may see what are for
/// its own kernel.
fn host_flags(flags: u32) -> OFlags {
    let mut wanted = match flags & open::ACCESS {
        open::WRONLY => OFlags::WRONLY,
        open::RDWR => OFlags::RDWR,
        _ => OFlags::RDONLY,
    };
    if flags & open::APPEND != 0 {
        wanted |= OFlags::APPEND;
    }
    wanted
}

fn writes(flags: u32) -> bool {
    matches!(flags & open::ACCESS, open::WRONLY | open::RDWR)
}

impl OpenFile {
    /// Makes the host append or not, as the guest's flags say now.
    fn set_append(&self, flags: u32) -> Result<(), Errno> {
        let appends = flags & open::APPEND != 0 && !self.is_shared;
        if self.appends.swap(appends, Ordering::Relaxed) != appends {
            let mut now = rustix::fs::fcntl_getfl(&self.file)?;
            now.set(OFlags::APPEND, appends);
            rustix::fs::fcntl_setfl(&self.file, now)?;
        }
        Ok(())
    }

    fn for_writing(&self) -> Result<&Self, Errno> {
        if writes(self.flags) {
            Ok(self)
        } else {
            Err(Errno::BADF)
        }
    }
}

impl Server {
    /// As [`Self::clear_privileges`], unless that is done already.
    fn clear(&self, file: &OpenFile) -> Result<(), Errno> {
        // Looked at first: what is given meanwhile is taken by the next write.
        let given = self.given.load(Ordering::Acquire);
        if !file.cleared.is_since(given) {
            self.clear_privileges(&file.file, &host::stat(&file.file)?)?;
            file.cleared.set(given);
        }
        Ok(())
    }

    /// Opens a file that was found, with the guest's flags.
    pub(super) fn file_handle(
        &self,
        node: u64,
        found: &Found<'_>,
        flags: u32,
    ) -> Result<(Handle, Stat), Errno> {
        if writes(flags) && self.rules.read_only {
            return Err(Errno::ROFS);
        }
        if !found.stat.is_file() {
            return Err(Errno::OPNOTSUPP);
        }
        let (file, stat) = found.open(host_flags(flags))?;
        Ok((
            Handle::File(Arc::new(OpenFile {
                file,
                node,
                flags: flags & (open::ACCESS | open::APPEND),
                appends: AtomicBool::new(flags & open::APPEND != 0),
                is_shared: false,
                cleared: Cleared::default(),
            })),
            stat,
        ))
    }

    fn add_handle(&self, handle: Handle) -> Result<u64, Errno> {
        let node = handle.node();
        let number = self.handles().insert(handle)?;
        self.nodes().opened(node, number);
        Ok(number)
    }

    pub(super) fn add_directory(&self, handle: Handle) -> Result<Body, Errno> {
        let mut body = Body::default();
        body.open_out(self.add_handle(handle)?, 0);
        Ok(body)
    }

    pub(super) fn open(&self, node: u64, mut arguments: Fields<'_>) -> Result<Body, Errno> {
        let flags = arguments.u32()?;
        let truncates = flags & open::TRUNC != 0;
        if truncates && self.rules.read_only {
            return Err(Errno::ROFS);
        }
        let (handle, stat) = match self.single(node) {
            Some(_) => self.open_single(flags)?,
            None => self.file_handle(node, &self.find(node)?, flags)?,
        };
        if truncates {
            self.empty(node, &handle)?;
        }
        let keeps = self.nodes().is_unchanged(node, &stat) && !truncates;
        let mut body = Body::default();
        let keep = if keeps { OPEN_KEEP_CACHE } else { 0 };
        body.open_out(self.add_handle(handle)?, keep);
        Ok(body)
    }

    /// Empties a file that was opened, also one that was opened to be read: who may do
    /// that has been asked for.
    fn empty(&self, node: u64, opened: &Handle) -> Result<(), Errno> {
        let writable = match opened {
            Handle::File(file) if writes(file.flags) => opened.clone(),
            _ => match self.single(node) {
                Some(_) => self.open_single(open::RDWR)?.0,
                None => self.file_handle(node, &self.find(node)?, open::WRONLY)?.0,
            },
        };
        let Handle::File(file) = writable else {
            return Err(Errno::ISDIR);
        };
        self.clear(file.for_writing()?)?;
        rustix::fs::ftruncate(&file.file, 0)?;
        self.touched(&file.file);
        Ok(())
    }

    pub(super) fn create(
        &self,
        parent: u64,
        mut arguments: Fields<'_>,
        by: Owner,
    ) -> Result<Body, Errno> {
        let flags = arguments.u32()?;
        let mode = arguments.u32()?;
        arguments.skip(8)?; // umask, open flags
        let name = arguments.name()?;
        let dir = self.dir(parent)?;
        let host_mode = self.host_mode(mode, false);
        let made = self
            .may_make(by)
            .and_then(|()| create_file(&dir, name, host_flags(flags), host_mode));
        match made {
            // The host was quicker.
            Err(Errno::EXIST) if flags & open::EXCL == 0 => {
                let (file, stat) = self.open_made(dir, name, flags)?;
                self.tell_open((parent, name), file, &stat, flags)
            }
            made => {
                let (file, stat) = made?;
                let given = self.give(&dir, &file, Made::plain(by, mode), stat);
                let told = given.and_then(|stat| {
                    self.made(parent, &dir, name);
                    self.tell_open((parent, name), file, &stat, flags)
                });
                told.inspect_err(|_| host::unmake(&dir, name, false))
            }
        }
    }

    /// Opens what is there already where a file was to be made, if it is one.
    fn open_made(&self, dir: Dir<'_>, name: &CStr, flags: u32) -> Result<(OwnedFd, Stat), Errno> {
        let stat = host::stat_entry(&dir, name)?;
        if !stat.is_file() {
            return Err(Errno::EXIST);
        }
        let found = Found {
            dir,
            name: name.into(),
            followed: false,
            stat,
        };
        let (file, mut stat) = found.open(host_flags(flags))?;
        if flags & open::TRUNC != 0 {
            self.clear_privileges(&file, &stat)?;
            rustix::fs::ftruncate(&file, 0)?;
            stat = host::stat(&file)?;
            self.touched(&file);
        }
        let stat = self.with_record(&found.dir, name, stat)?;
        Ok((file, stat))
    }

    /// Tells of a file and of a handle by which it is open.
    fn tell_open(
        &self,
        (parent, name): (u64, &CStr),
        file: OwnedFd,
        stat: &Stat,
        flags: u32,
    ) -> Result<Body, Errno> {
        let mut body = self.tell(parent, name, false, stat)?;
        let node = told_node(&body)?;
        let handle = Handle::File(Arc::new(OpenFile {
            file,
            node,
            flags: flags & (open::ACCESS | open::APPEND),
            appends: AtomicBool::new(flags & open::APPEND != 0),
            is_shared: false,
            cleared: Cleared::default(),
        }));
        match self.add_handle(handle) {
            Ok(handle) => body.open_out(handle, 0),
            Err(error) => {
                self.nodes().forget(node, 1);
                return Err(error);
            }
        };
        Ok(body)
    }

    pub(super) fn release(&self, mut arguments: Fields<'_>) -> Result<Body, Errno> {
        let number = arguments.u64()?;
        let handle = self.handles().remove(number).ok_or(Errno::BADF)?;
        self.nodes().closed(handle.node(), number);
        if let Handle::File(file) = &handle
            && writes(file.flags)
        {
            // The host says of this one that it was closed.
            self.touched(&file.file);
        }
        drop(handle);
        Ok(Body::default())
    }

    pub(super) fn sync(&self, mut arguments: Fields<'_>) -> Result<Body, Errno> {
        let handle = self.opened(arguments.u64()?)?;
        let node = handle.node();
        let data_only = arguments.u32()? & FSYNC_DATA != 0;
        match handle {
            Handle::File(file) if data_only => host::sync_data(&file.file)?,
            Handle::File(file) => rustix::fs::fsync(&file.file)?,
            Handle::Dir(dir) => rustix::fs::fsync(super::lock(&dir.listing).dir())?,
            Handle::Saved(_) => return Err(Errno::STALE),
        }
        // Whoever waits for what was written has to know that it may be nowhere.
        match self.nodes().take_lost(node) {
            true => Err(Errno::IO),
            false => Ok(Body::default()),
        }
    }

    pub(super) fn allocate(&self, mut arguments: Fields<'_>) -> Result<Body, Errno> {
        let file = self.opened_file(arguments.u64()?)?;
        let offset = arguments.u64()?;
        let bytes = arguments.u64()?;
        let mode = arguments.u32()?;
        let end = offset.checked_add(bytes).ok_or(Errno::FBIG)?;
        if bytes == 0 || i64::try_from(end).is_err() {
            return Err(Errno::INVAL);
        }
        self.clear(file.for_writing()?)?;
        host::allocate(&file.file, mode, offset, bytes)?;
        self.touched(&file.file);
        Ok(Body::default())
    }

    pub(super) fn seek(&self, mut arguments: Fields<'_>) -> Result<Body, Errno> {
        let file = self.opened_file(arguments.u64()?)?;
        let offset = arguments.u64()?;
        let whence = arguments.u32()?;
        if i64::try_from(offset).is_err() {
            return Err(Errno::INVAL);
        }
        let mut body = Body::default();
        body.u64(host::seek_content(&file.file, whence, offset)?);
        Ok(body)
    }

    pub(super) fn copy_range(&self, mut arguments: Fields<'_>) -> Result<Body, Errno> {
        let from = self.opened_file(arguments.u64()?)?;
        let from_offset = arguments.u64()?;
        arguments.skip(8)?; // the node that is written to
        let to = self.opened_file(arguments.u64()?)?;
        let to_offset = arguments.u64()?;
        let bytes = arguments.u64()?.min(MAX_COPY_BYTES);
        let end = |offset: u64| offset.checked_add(bytes).ok_or(Errno::OVERFLOW);
        for end in [end(from_offset)?, end(to_offset)?] {
            i64::try_from(end).map_err(|_| Errno::OVERFLOW)?;
        }
        self.clear(to.for_writing()?)?;
        let bytes = usize::try_from(bytes).map_err(|_| Errno::INVAL)?;
        let copied = host::copy_range((&from.file, from_offset), (&to.file, to_offset), bytes)?;
        self.touched(&to.file);
        let mut body = Body::default();
        body.u32(u32::try_from(copied).unwrap_or(u32::MAX)).u32(0);
        Ok(body)
    }

    /// Reads from a file into the room of the request.
    pub(super) fn read(
        &self,
        exchange: &mut dyn Exchange,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<usize>, Failure> {
        let (handle, offset, size, _) = data_arguments(exchange)?;
        let file = self.opened_file(handle)?;
        let room = exchange.room().saturating_sub(OUT_HEADER_BYTES);
        let size = size.min(room);
        buffer.resize(BUFFER_BYTES.max(buffer.len()), 0);
        let mut done = 0;
        while done < size {
            let piece = &mut buffer[..(size - done).min(BUFFER_BYTES)];
            let at = offset.checked_add(done as u64).ok_or(Errno::INVAL)?;
            let read = match rustix::io::pread(&file.file, &mut *piece, at) {
                Ok(read) => read,
                Err(Errno::INTR) => continue,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error.into()),
            };
            if read == 0 {
                break;
            }
            exchange.write(OUT_HEADER_BYTES + done, &buffer[..read])?;
            done += read;
        }
        Ok(Some(done))
    }

    /// Writes what comes with the request to a file.
    pub(super) fn write(
        &self,
        exchange: &mut dyn Exchange,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<usize>, Failure> {
        let (handle, offset, size, flags) = data_arguments(exchange)?;
        if self.rules.read_only {
            return Err(Errno::ROFS.into());
        }
        let begin = IN_HEADER_BYTES + DATA_ARGUMENT_BYTES;
        if exchange.incoming() - begin < size {
            return Err(Errno::INVAL.into());
        }
        let file = self.opened_file(handle)?;
        self.clear(file.for_writing()?)?;
        file.set_append(flags)?;
        buffer.resize(BUFFER_BYTES.max(buffer.len()), 0);
        let mut done = 0;
        while done < size {
            let piece = &mut buffer[..(size - done).min(BUFFER_BYTES)];
            exchange.read(begin + done, piece)?;
            let at = offset.checked_add(done as u64).ok_or(Errno::FBIG)?;
            match rustix::io::pwrite(&file.file, piece, at) {
                Ok(0) => break,
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(_) if done > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.touched(&file.file);
        let mut body = Body::default();
        body.u32(u32::try_from(done).unwrap_or(u32::MAX)).u32(0);
        if exchange.room() < OUT_HEADER_BYTES + body.0.len() {
            return Err(Errno::INVAL.into());
        }
        exchange.write(OUT_HEADER_BYTES, &body.0)?;
        Ok(Some(body.0.len()))
    }
}

/// Handle, offset, size and open flags of a read or a write.
fn data_arguments(exchange: &mut dyn Exchange) -> Result<(u64, u64, usize, u32), Failure> {
    let mut arguments = [0; DATA_ARGUMENT_BYTES];
    if exchange.incoming() < IN_HEADER_BYTES + arguments.len() {
        return Err(Errno::INVAL.into());
    }
    exchange.read(IN_HEADER_BYTES, &mut arguments)?;
    let mut fields = Fields(&arguments);
    let handle = fields.u64()?;
    let offset = fields.u64()?;
    let size = fields.u32()?;
    if size > MAX_DATA_BYTES {
        return Err(Errno::INVAL.into());
    }
    fields.skip(12)?; // read or write flags, lock owner
    let flags = fields.u32()?;
    let size = usize::try_from(size).map_err(|_| Errno::INVAL)?;
    Ok((handle, offset, size, flags))
}

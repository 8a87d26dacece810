//! A directory that is asked by FUSE's requests, and its answers as fuse-backend-rs has them.

mod calls;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use devices::virtio::fs::{FsConfig, FsError, Requests};
use fuse_backend_rs::abi::fuse_abi::{
    AttrOut, EntryOut, FsyncIn, GetxattrIn, GetxattrOut, InHeader, Opcode, OpenIn, OpenOptions,
    OpenOut, ReadIn, ReleaseIn, stat64,
};
use fuse_backend_rs::api::filesystem::{Context, Entry};
use vm_memory::ByteValued;

/// Bytes of `struct fuse_out_header`.
const HEADER_BYTES: usize = 16;
/// Most bytes that one read, write or list is about.
const MAX_DATA_BYTES: u32 = 1 << 20;

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

    fn rest(&self) -> &[u8] {
        self.0.get(self.1..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }
}

/// What is said of extended attributes: how many bytes there are, or those.
enum Extended {
    Count(u32),
    Bytes(Vec<u8>),
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

fn opened(open: &OpenOut) -> (u64, OpenOptions) {
    (open.fh, OpenOptions::from_bits_truncate(open.open_flags))
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
        Ok(opened(&answer.take()?))
    }

    fn release_handle(
        &self,
        by: &Context,
        opcode: Opcode,
        (node, handle): (u64, u64),
    ) -> io::Result<()> {
        let asked = ReleaseIn {
            fh: handle,
            ..ReleaseIn::default()
        };
        self.done(by, opcode, node, &[asked.as_slice()])
    }

    fn sync(
        &self,
        by: &Context,
        opcode: Opcode,
        (node, handle): (u64, u64),
        data_only: bool,
    ) -> io::Result<()> {
        let asked = FsyncIn {
            fh: handle,
            fsync_flags: data_only.into(),
            ..FsyncIn::default()
        };
        self.done(by, opcode, node, &[asked.as_slice()])
    }

    /// What is read of a file, or the entries of a directory.
    fn content(
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

    /// Without a size it is only said how many bytes there are.
    fn extended(
        &self,
        by: &Context,
        opcode: Opcode,
        node: u64,
        (name, size): (&[u8], u32),
    ) -> io::Result<Extended> {
        let size = size.min(MAX_DATA_BYTES);
        let asked = GetxattrIn {
            size,
            ..GetxattrIn::default()
        };
        let room = usize::try_from(size).map_err(|_| broken())?;
        let room = room.max(size_of::<GetxattrOut>());
        let mut answer = self.ask(by, opcode, node, &[asked.as_slice(), name], room)?;
        match size {
            0 => Ok(Extended::Count(answer.take::<GetxattrOut>()?.size)),
            _ => Ok(Extended::Bytes(answer.rest().to_vec())),
        }
    }
}

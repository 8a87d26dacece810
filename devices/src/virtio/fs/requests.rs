//! The server without a device, for whoever has FUSE's requests in another way.

use std::os::fd::OwnedFd;

use super::{Exchange, FsConfig, FsError, Server, server};
use crate::virtio::chain::QueueError;

/// Answers FUSE's requests for a directory or a file of the host, as [`Fs`](super::Fs)
/// does for its guest. Threads may share it.
#[derive(Debug)]
pub struct Requests {
    server: Server,
}

/// A request and its answer in memory.
pub(crate) struct InMemory<'a> {
    pub request: &'a [u8],
    pub answer: Vec<u8>,
}

impl Exchange for InMemory<'_> {
    fn incoming(&self) -> usize {
        self.request.len()
    }

    fn room(&self) -> usize {
        self.answer.len()
    }

    fn read(&mut self, at: usize, buffer: &mut [u8]) -> Result<(), QueueError> {
        let end = at.checked_add(buffer.len());
        let bytes = end.and_then(|end| self.request.get(at..end));
        buffer.copy_from_slice(bytes.ok_or(QueueError::BadRequest)?);
        Ok(())
    }

    fn write(&mut self, at: usize, bytes: &[u8]) -> Result<(), QueueError> {
        let end = at.checked_add(bytes.len());
        let room = end.and_then(|end| self.answer.get_mut(at..end));
        room.ok_or(QueueError::BadRequest)?.copy_from_slice(bytes);
        Ok(())
    }
}

impl Requests {
    /// Over an open directory or file. Tag and workers of `config` are a device's.
    ///
    /// # Errors
    /// [`FsError`], as for a device.
    pub fn new(directory: OwnedFd, config: &FsConfig) -> Result<Self, FsError> {
        Ok(Self {
            server: server(directory, config)?,
        })
    }

    /// Answers a request, which begins with `struct fuse_in_header` of Linux, in at most
    /// `room` bytes, beginning with `struct fuse_out_header`. Empty if nothing is said to
    /// it, or it is no request.
    pub fn answer(&self, request: &[u8], room: usize) -> Vec<u8> {
        let mut exchange = InMemory {
            request,
            answer: vec![0; room],
        };
        let answered = self.server.answer(&mut exchange, &mut Vec::new());
        // What is in memory is always there.
        exchange.answer.truncate(answered.unwrap_or(0));
        exchange.answer
    }
}

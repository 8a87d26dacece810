//! One connection: bytes in through the parser, bytes out through a buffer
//! whose size its users keep bounded.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use exec_proto::server::Parser;
use exec_proto::{HEADER_BYTES, Kind, MAX_DATA_BYTES, Reply, encode_header};

use crate::sys;

/// Output queued for the host at which the command's pipes are left alone.
pub(super) const OUTPUT_LIMIT: usize = 4 * MAX_DATA_BYTES;

/// Most bytes of a command's output or of a file in a frame: so many pages that frame
/// and header are one packet of vsock, of which the largest is 64 KiB. With all that a
/// frame may hold, each would be followed by a packet with its last eight bytes.
pub(super) const CHUNK_BYTES: usize = 60 * 1024;
const _: () = assert!(CHUNK_BYTES + HEADER_BYTES <= 64 * 1024);

/// A host that has sent less, and no more, does not send as fast as it can.
const LITTLE_BYTES: usize = 2048;

/// Buffers of a worker, used by one connection after the other so that their
/// pages fault in only once.
#[derive(Debug)]
pub struct Buffers {
    input: Vec<u8>,
    output: Vec<u8>,
    pub(super) chunk: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            input: vec![0; MAX_DATA_BYTES],
            // The kernel gives the pages once they are used.
            output: Vec::with_capacity(OUTPUT_LIMIT + 2 * MAX_DATA_BYTES),
            chunk: vec![0; CHUNK_BYTES],
        }
    }
}

/// What one receive brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    Data,
    Nothing,
    /// The peer closed, half-closed or is gone.
    End,
}

pub(super) struct Link<'a> {
    socket: OwnedFd,
    pub(super) parser: Parser,
    pub(super) buffers: &'a mut Buffers,
    sent: usize,
    /// The host sends as fast as it can.
    is_fast: bool,
}

impl<'a> Link<'a> {
    pub(super) fn new(socket: OwnedFd, buffers: &'a mut Buffers) -> Self {
        buffers.output.clear();
        Self {
            socket,
            parser: Parser::new(),
            buffers,
            sent: 0,
            is_fast: false,
        }
    }

    /// Serves another connection from here on; what was queued for the one before
    /// is dropped.
    pub(super) fn replace(&mut self, socket: OwnedFd, parser: Parser) {
        self.socket = socket;
        self.parser = parser;
        self.buffers.output.clear();
        self.sent = 0;
        self.is_fast = false;
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The socket, and room for what is received from it and sent to it, for a
    /// connection that carries frames no more.
    pub(super) fn raw(&mut self) -> (BorrowedFd<'_>, &mut [u8], &mut [u8]) {
        let Buffers { input, chunk, .. } = &mut *self.buffers;
        (self.socket.as_fd(), input, chunk)
    }

    pub(super) fn queue(&mut self, reply: &Reply<'_>) {
        reply.encode(&mut self.buffers.output);
    }

    /// Queues the first `len` bytes of the chunk buffer.
    pub(super) fn queue_chunk(&mut self, len: usize, reply: impl FnOnce(&[u8]) -> Reply<'_>) {
        let Buffers { output, chunk, .. } = &mut *self.buffers;
        reply(chunk.get(..len).unwrap_or_default()).encode(output);
    }

    /// Reads once from `source`, at most `most` bytes, and queues what comes in frames.
    pub(super) fn queue_read(
        &mut self,
        source: BorrowedFd<'_>,
        most: usize,
        kind: Kind,
    ) -> io::Result<usize> {
        let output = &mut self.buffers.output;
        let start = output.len();
        let got = sys::read_pieces(source, output, (HEADER_BYTES, CHUNK_BYTES), most)?;
        let frames = output.get_mut(start..).unwrap_or_default();
        for frame in frames.chunks_mut(HEADER_BYTES + CHUNK_BYTES) {
            let len = frame.len().saturating_sub(HEADER_BYTES);
            if let Some(header) = frame.first_chunk_mut() {
                *header = encode_header(kind, len);
            }
        }
        Ok(got)
    }

    /// Bytes queued and not yet taken by the socket.
    pub(super) fn pending(&self) -> usize {
        self.buffers.output.len() - self.sent
    }

    /// Sends what the socket takes without waiting.
    pub(super) fn send_some(&mut self) -> io::Result<()> {
        while self.pending() > 0 {
            let rest = self.buffers.output.get(self.sent..).unwrap_or_default();
            match sys::send(self.socket.as_fd(), rest) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Bounds the buffer while a slow peer takes it piecemeal.
                    if self.sent >= MAX_DATA_BYTES {
                        self.buffers.output.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.buffers.output.clear();
        self.sent = 0;
        Ok(())
    }

    /// Sends everything, waiting for a peer that is slow.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        loop {
            self.send_some()?;
            if self.pending() == 0 {
                return Ok(());
            }
            let mut watch = [super::watch(self.socket.as_fd(), sys::POLLOUT)];
            sys::poll(&mut watch, None)?;
        }
    }

    /// Waits until there is something to receive; false when the time is up.
    pub(super) fn wait_for_input(&self, limit: Duration) -> io::Result<bool> {
        let mut watch = [super::watch(self.socket.as_fd(), sys::POLLIN)];
        sys::poll(&mut watch, Some(limit))?;
        Ok(watch[0].revents != 0)
    }

    /// Receives once, where the parser has its bytes, from a host that sends much.
    fn receive_in_place(&mut self, wait: bool) -> io::Result<usize> {
        // Up to the end of the next header: frames then lie where they are parsed, and
        // are not moved there.
        let most = match self.parser.missing() {
            0 => MAX_DATA_BYTES,
            missing => missing.min(MAX_DATA_BYTES) + HEADER_BYTES,
        };
        let got = sys::receive_onto(self.socket.as_fd(), self.parser.room(), most, wait);
        if matches!(got, Ok(count) if count < most.min(LITTLE_BYTES)) {
            self.is_fast = false;
        }
        got
    }

    /// Receives once into the parser.
    pub(super) fn receive(&mut self, wait: bool) -> Received {
        let got = if self.is_fast {
            self.receive_in_place(wait)
        } else {
            let input = &mut self.buffers.input;
            sys::receive(self.socket.as_fd(), input, wait).inspect(|count| {
                self.parser.feed(input.get(..*count).unwrap_or_default());
                self.is_fast = *count == input.len();
            })
        };
        match got {
            Ok(0) => Received::End,
            Ok(_) => Received::Data,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Received::Nothing,
                _ => Received::End,
            },
        }
    }

    /// Ends the connection so that what was sent arrives: closing with unread
    /// input would make the peer lose the tail of our output.
    pub(super) fn close_gently(mut self, limit: Duration) {
        if self.flush().is_err() {
            return;
        }
        sys::shutdown_write(self.socket.as_fd());
        let end =
            sys::monotonic_ns().saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        loop {
            let left = end.saturating_sub(sys::monotonic_ns());
            let mut watch = [super::watch(self.socket.as_fd(), sys::POLLIN)];
            let ready = sys::poll(&mut watch, Some(Duration::from_nanos(left)));
            if left == 0 || ready.is_err() {
                return;
            }
            if watch[0].revents != 0 {
                match sys::receive(self.socket.as_fd(), &mut self.buffers.input, false) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        }
    }
}

//! One stream: the guest's packets on one side, a Unix socket on the other.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use vm_memory::{ReadVolatile, VolatileMemoryError};

use super::credit::{BUFFER_BYTES, ReceiveCredit, SendCredit};
use super::host;
use super::packet::{
    HEADER_BYTES, HOST_CID, Header, MAX_PAYLOAD_BYTES, SHUTDOWN_RECEIVE, SHUTDOWN_SEND,
    TYPE_STREAM, op,
};
use crate::DeviceMemory;
use crate::virtio::chain::Segments;

/// Longest first line of a client of the mux socket, newline included.
const MAX_HANDSHAKE_BYTES: usize = 32;

/// How far a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// A client of the mux socket has not yet said where it wants to go.
    Handshake(Vec<u8>),
    /// The guest has been asked and has not answered.
    Connecting {
        /// The client expects an "OK" line.
        via_mux: bool,
    },
    /// Data flows.
    Open,
    /// The guest is done with it; what it sent is still being written to the
    /// host's reader. Not in the port table any more.
    Draining,
}

/// Control packets waiting for room in the guest's receive queue.
#[derive(Debug, Clone, Copy, Default)]
struct Pending {
    request: bool,
    response: bool,
    credit_update: bool,
    credit_request: bool,
    /// SHUTDOWN flags to send.
    shutdown: u32,
}

/// What became of a try to fill a receive buffer.
pub(super) enum Filled {
    /// A packet with this many payload bytes stands in the buffer.
    Packet(Header, usize),
    /// There is nothing to send; the buffer is untouched.
    Nothing,
    /// The guest's buffer could not be written.
    Fault,
}

/// What a connection wants after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// To go on.
    Keep,
    /// To be forgotten, telling the guest with a reset.
    Reset,
    /// To be forgotten; the guest knows, or never knew.
    Close,
}

pub(super) struct Connection {
    pub(super) stream: UnixStream,
    /// Under which the reactor reports its events.
    pub(super) key: u32,
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
    pub(super) phase: Phase,
    /// It stands in the list of those with something to send.
    pub(super) queued: bool,
    /// The guest called and has said nothing since: it may not know yet that it
    /// was answered.
    pub(super) is_silent: bool,
    pending: Pending,

    /// Guest to host: received, but not taken by the socket.
    out: VecDeque<u8>,
    receive_credit: ReceiveCredit,
    can_write: bool,
    /// The guest sends nothing more.
    guest_send_done: bool,
    /// The host's reader is gone.
    host_receive_done: bool,

    send_credit: SendCredit,
    can_read: bool,
    /// The guest receives nothing more.
    guest_receive_done: bool,
    /// The host's writer is done, and everything it wrote has been sent.
    host_send_done: bool,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, host_port: u32, guest_port: u32, phase: Phase) -> Self {
        Self {
            stream,
            key: 0,
            host_port,
            guest_port,
            phase,
            queued: false,
            is_silent: false,
            pending: Pending::default(),
            out: VecDeque::new(),
            receive_credit: ReceiveCredit::default(),
            can_write: true,
            guest_send_done: false,
            host_receive_done: false,
            send_credit: SendCredit::default(),
            can_read: true,
            guest_receive_done: false,
            host_send_done: false,
        }
    }

    /// Asks the guest for this connection.
    pub(super) fn request(&mut self, via_mux: bool) {
        self.phase = Phase::Connecting { via_mux };
        self.pending.request = true;
    }

    /// Answers the guest's request.
    pub(super) fn accept(&mut self, request: &Header) {
        self.phase = Phase::Open;
        self.is_silent = true;
        self.pending.response = true;
        self.send_credit.learn(request.buf_alloc, request.fwd_cnt);
    }

    /// Bytes held for the host's reader.
    pub(super) fn buffered(&self) -> usize {
        self.out.len()
    }

    pub(super) fn set_readiness(&mut self, readable: bool, writable: bool) {
        self.can_read |= readable;
        self.can_write |= writable;
    }

    /// Reads the mux client's "CONNECT <port>\n"; the port once it is whole.
    pub(super) fn read_handshake(&mut self) -> Result<Option<u32>, ()> {
        let Phase::Handshake(line) = &mut self.phase else {
            return Ok(None);
        };
        loop {
            // Byte by byte: what follows the line belongs to the guest.
            let mut byte = [0];
            match (&self.stream).read(&mut byte) {
                Ok(1) if byte[0] == b'\n' => break,
                Ok(1) if line.len() + 1 < MAX_HANDSHAKE_BYTES => line.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.can_read = false;
                    return Ok(None);
                }
                _ => return Err(()),
            }
        }
        let text = std::str::from_utf8(line).map_err(|_| ())?;
        let port = text.strip_prefix("CONNECT ").ok_or(())?;
        let port = port.trim_end_matches('\r').parse().map_err(|_| ())?;
        Ok(Some(port))
    }

    /// Handles a packet of the guest for this connection.
    pub(super) fn receive(&mut self, header: &Header, payload: &[u8]) -> Fate {
        self.is_silent = false;
        if header.op == op::RST {
            return self.receive_reset();
        }
        self.send_credit.learn(header.buf_alloc, header.fwd_cnt);
        match (header.op, &self.phase) {
            (op::RESPONSE, &Phase::Connecting { via_mux }) => self.receive_response(via_mux),
            (op::RW, Phase::Open) => self.receive_data(payload),
            (op::SHUTDOWN, Phase::Open) => self.receive_shutdown(header.flags),
            (op::CREDIT_UPDATE, Phase::Open) => Fate::Keep,
            (op::CREDIT_REQUEST, Phase::Open) => {
                self.pending.credit_update = true;
                Fate::Keep
            }
            _ => Fate::Reset,
        }
    }

    fn receive_reset(&mut self) -> Fate {
        // A reset after the guest's own shutdown is an orderly end: what it
        // sent before still belongs to the reader.
        if self.guest_send_done && !self.out.is_empty() {
            self.drain_only();
            return Fate::Keep;
        }
        Fate::Close
    }

    fn drain_only(&mut self) {
        self.phase = Phase::Draining;
        self.pending = Pending::default();
    }

    fn receive_response(&mut self, via_mux: bool) -> Fate {
        self.phase = Phase::Open;
        if via_mux {
            let line = format!("OK {}\n", self.host_port);
            // The socket is new and empty: a line that does not fit at once
            // means that the client is gone.
            match host::send(&self.stream, line.as_bytes()) {
                Ok(len) if len == line.len() => {}
                _ => return Fate::Reset,
            }
        }
        Fate::Keep
    }

    fn receive_data(&mut self, payload: &[u8]) -> Fate {
        if self.guest_send_done || !self.receive_credit.receive(payload.len()) {
            return Fate::Reset;
        }
        if self.host_receive_done {
            self.forward(payload.len());
            return Fate::Keep;
        }
        let mut rest = payload;
        if self.out.is_empty() {
            while self.can_write && !rest.is_empty() {
                match self.write(rest) {
                    Some(len) => {
                        self.forward(len);
                        rest = &rest[len..];
                    }
                    None => break,
                }
            }
        }
        if self.host_receive_done {
            self.forward(rest.len());
        } else {
            self.out.extend(rest);
        }
        Fate::Keep
    }

    /// One write to the socket; `None` if it takes nothing now or ever again.
    fn write(&mut self, bytes: &[u8]) -> Option<usize> {
        loop {
            match host::send(&self.stream, bytes) {
                Ok(len) if len > 0 => return Some(len),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.can_write = false;
                    return None;
                }
                _ => {
                    self.host_stopped_receiving();
                    return None;
                }
            }
        }
    }

    /// Counts bytes as taken, and tells the guest once that matters to it.
    fn forward(&mut self, len: usize) {
        self.pending.credit_update |= self.receive_credit.forward(len);
    }

    /// Writes what waits for the host's reader.
    pub(super) fn flush(&mut self) -> Fate {
        while self.can_write && !self.out.is_empty() {
            let (head, _) = self.out.as_slices();
            // Field by field, since `head` borrows `out`.
            let outcome = host::send(&self.stream, head);
            match outcome {
                Ok(len) if len > 0 => {
                    self.out.drain(..len);
                    self.forward(len);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.can_write = false,
                _ => self.host_stopped_receiving(),
            }
        }
        if self.out.is_empty() {
            self.out.shrink_to_fit();
            if self.phase == Phase::Draining {
                return Fate::Close;
            }
            if self.guest_send_done {
                let _ = self.stream.shutdown(Shutdown::Write);
            }
        }
        Fate::Keep
    }

    /// The host's reader went away: what waits for it is dropped, and the
    /// guest hears that nobody receives.
    pub(super) fn host_stopped_receiving(&mut self) {
        if self.host_receive_done {
            return;
        }
        self.host_receive_done = true;
        let dropped = self.out.len();
        self.out = VecDeque::new();
        self.forward(dropped);
        if !self.guest_send_done {
            self.pending.shutdown |= SHUTDOWN_RECEIVE;
        }
    }

    fn receive_shutdown(&mut self, flags: u32) -> Fate {
        if flags & SHUTDOWN_RECEIVE != 0 && !self.guest_receive_done {
            self.guest_receive_done = true;
            let _ = self.stream.shutdown(Shutdown::Read);
        }
        if flags & SHUTDOWN_SEND != 0 {
            self.guest_send_done = true;
        }
        if self.guest_send_done && self.guest_receive_done {
            // The guest waits for a reset as its answer. All it sent is in
            // our hands, so it need not wait for the reader.
            if self.out.is_empty() {
                return Fate::Reset;
            }
            self.drain_only();
            return Fate::Reset;
        }
        self.flush()
    }

    /// Whether there may be a packet for the guest.
    pub(super) fn wants_to_send(&self) -> bool {
        let Pending {
            request,
            response,
            credit_update,
            credit_request,
            shutdown,
        } = self.pending;
        let data = self.may_read() && self.send_credit.can_go_on();
        let shutdown = self.phase == Phase::Open && shutdown != 0;
        request || response || credit_update || credit_request || shutdown || data
    }

    fn may_read(&self) -> bool {
        self.phase == Phase::Open
            && self.can_read
            && !self.host_send_done
            && !self.guest_receive_done
    }

    fn header(&mut self, guest_cid: u64, op: u16) -> Header {
        self.pending.credit_update = false;
        Header {
            src_cid: HOST_CID,
            dst_cid: guest_cid,
            src_port: self.host_port,
            dst_port: self.guest_port,
            len: 0,
            kind: TYPE_STREAM,
            op,
            flags: 0,
            buf_alloc: BUFFER_BYTES,
            fwd_cnt: self.receive_credit.announce(),
        }
    }

    /// Puts the next packet's payload into `buffer` and returns its header.
    pub(super) fn fill<M: DeviceMemory>(
        &mut self,
        guest_cid: u64,
        ram: &M,
        buffer: &Segments,
    ) -> Filled {
        if std::mem::take(&mut self.pending.request) {
            return Filled::Packet(self.header(guest_cid, op::REQUEST), 0);
        }
        if std::mem::take(&mut self.pending.response) {
            return Filled::Packet(self.header(guest_cid, op::RESPONSE), 0);
        }
        if self.may_read() {
            let credit = self.send_credit.available();
            if credit > 0 {
                match self.read_into(ram, buffer, credit.min(MAX_PAYLOAD_BYTES)) {
                    Ok(0) => {}
                    Ok(len) => {
                        let mut header = self.header(guest_cid, op::RW);
                        // At most MAX_PAYLOAD_BYTES.
                        header.len = u32::try_from(len).unwrap_or(u32::MAX);
                        self.send_credit.send(header.len);
                        return Filled::Packet(header, len);
                    }
                    Err(()) => return Filled::Fault,
                }
            } else if self.send_credit.should_request() {
                self.pending.credit_request = true;
            }
        }
        self.fill_control(guest_cid)
    }

    fn fill_control(&mut self, guest_cid: u64) -> Filled {
        if self.phase == Phase::Open && self.pending.shutdown != 0 {
            let flags = std::mem::take(&mut self.pending.shutdown);
            let mut header = self.header(guest_cid, op::SHUTDOWN);
            header.flags = flags;
            return Filled::Packet(header, 0);
        }
        if std::mem::take(&mut self.pending.credit_request) {
            return Filled::Packet(self.header(guest_cid, op::CREDIT_REQUEST), 0);
        }
        if self.pending.credit_update {
            return Filled::Packet(self.header(guest_cid, op::CREDIT_UPDATE), 0);
        }
        Filled::Nothing
    }

    /// Reads from the socket straight into guest memory. Notes the end of the
    /// stream, and that there is nothing more for now.
    fn read_into<M: DeviceMemory>(
        &mut self,
        ram: &M,
        buffer: &Segments,
        max: usize,
    ) -> Result<usize, ()> {
        let mut done = 0;
        for part in buffer.range(HEADER_BYTES, max) {
            for slice in ram.get_slices(part.addr, part.len) {
                let mut slice = slice.map_err(|_| ())?;
                let len = match read_once(&self.stream, &mut slice) {
                    Ok(len) => len,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.can_read = false;
                        return Ok(done);
                    }
                    // A stream that was broken off ends like one that ended.
                    Err(_) => 0,
                };
                if len == 0 {
                    self.host_send_done = true;
                    self.pending.shutdown |= SHUTDOWN_SEND;
                    return Ok(done);
                }
                done += len;
                if len < slice.len() {
                    return Ok(done);
                }
            }
        }
        Ok(done)
    }
}

fn read_once<B: vm_memory::bitmap::BitmapSlice>(
    mut stream: &UnixStream,
    slice: &mut vm_memory::VolatileSlice<'_, B>,
) -> io::Result<usize> {
    loop {
        match stream.read_volatile(slice) {
            Ok(len) => return Ok(len),
            Err(VolatileMemoryError::IOError(error)) => {
                if error.kind() != ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            Err(_) => return Err(ErrorKind::Other.into()),
        }
    }
}

//! Frames from the host to the agent.

use alloc::vec::Vec;

use crate::frame::put_frame;
use crate::wire::{Reader, put_bytes};
use crate::{
    ExecRequest, Hello, Kind, MAX_DATA_BYTES, MAX_PATH_BYTES, Offsets, ProtoError, Resume, WinSize,
};

/// One piece of a file to write into the guest.
///
/// A file is one chunk with `first`, any number of plain ones, one with `last`
/// (the same chunk may be both). It appears under its name, complete, when the
/// last chunk is processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileChunk<'a> {
    /// Absolute guest path; only the first chunk's is used.
    pub path: &'a [u8],
    /// Permission bits; only the first chunk's are used.
    pub mode: u32,
    /// Begins a file.
    pub first: bool,
    /// Ends the file.
    pub last: bool,
    /// Answer the last chunk with [`crate::Reply::FileWritten`].
    pub ack: bool,
    /// At most [`MAX_DATA_BYTES`].
    pub data: &'a [u8],
}

impl<'a> FileChunk<'a> {
    const FIRST: u8 = 1;
    const LAST: u8 = 1 << 1;
    const ACK: u8 = 1 << 2;

    fn put(&self, out: &mut Vec<u8>) {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(
            bit(self.first, Self::FIRST) | bit(self.last, Self::LAST) | bit(self.ack, Self::ACK),
        );
        out.extend_from_slice(&self.mode.to_le_bytes());
        put_bytes(out, self.path);
        out.extend_from_slice(self.data);
    }

    fn decode(payload: &'a [u8]) -> Result<Self, ProtoError> {
        let mut fields = Reader::new(Kind::FileChunk, payload);
        let flags = fields.u8()?;
        if flags & !(Self::FIRST | Self::LAST | Self::ACK) != 0 {
            return Err(fields.bad("unknown flag"));
        }
        let mode = fields.u32()?;
        if mode & !0o7777 != 0 {
            return Err(fields.bad("mode has more than permission bits"));
        }
        let path = fields.c_bytes(MAX_PATH_BYTES - 1)?;
        let first = flags & Self::FIRST != 0;
        if first && path.first() != Some(&b'/') {
            return Err(fields.bad("path is not absolute"));
        }
        let data = fields.rest();
        if data.len() > MAX_DATA_BYTES {
            return Err(fields.bad("chunk too long"));
        }
        Ok(Self {
            path,
            mode,
            first,
            last: flags & Self::LAST != 0,
            ack: flags & Self::ACK != 0,
            data,
        })
    }
}

/// A decoded frame from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request<'a> {
    /// Opening frame.
    Hello(Hello),
    /// Start a command.
    Exec(ExecRequest),
    /// Write a piece of a file.
    FileChunk(FileChunk<'a>),
    /// Standard input.
    Stdin(&'a [u8]),
    /// End of standard input.
    StdinEof,
    /// Signal number for the command's process group.
    Signal(u32),
    /// New terminal size.
    Resize(WinSize),
    /// Let the command go on without a host, as a durable one.
    Detach,
    /// Take up the streams of a durable command.
    Attach {
        /// Its id.
        id: u64,
        /// Where in its streams to begin.
        from: Offsets,
    },
    /// Ask for the durable commands.
    ListExecs,
    /// Ask for a pong with the same number.
    Ping(u64),
    /// Set the wall clock to these nanoseconds since the Unix epoch.
    SetTime(u64),
    /// Seed for the kernel's random generator, all of it credited.
    Reseed(&'a [u8]),
    /// Read the file of this absolute path.
    ReadFile(&'a [u8]),
    /// Flush file systems.
    Sync,
    /// Power off cleanly.
    Shutdown,
    /// Become a machine of one's own.
    Resume(Resume<'a>),
    /// Flush file systems and make the copy to be captured small.
    Quiesce {
        /// Drop the page cache as well.
        drop_caches: bool,
    },
    /// Say whether the guest has no program but the agent.
    Alone,
    /// Let programs go on that a resume has left held.
    Release,
    /// Make the layers on the machine's disks its root, as these options say: those of a
    /// kernel's command line, at most [`crate::MAX_OPTIONS_BYTES`]. For a machine that was booted
    /// without a root of its own, once.
    EnterRoot(&'a [u8]),
    /// Start the workload.
    StartWorkload(ExecRequest),
    /// Signal number for the workload; 9 reaches all its descendants.
    WorkloadSignal(u32),
    /// Ask for a [`crate::WorkloadReport`].
    WorkloadStatus {
        /// Most bytes of output wanted.
        tail_bytes: u32,
    },
    /// Connect to a port of this machine; once that is answered, the connection is
    /// that connection.
    Dial {
        /// What is spoken there.
        transport: Transport,
        /// The port.
        port: u16,
    },
    /// Wait until a socket of this machine listens on a TCP port.
    AwaitListener {
        /// The port.
        port: u16,
        /// How long to wait, in ms.
        timeout_ms: u64,
    },
}

/// What a port is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A stream, which ends in each direction on its own.
    Tcp,
    /// Datagrams, each as a `u16` length of at most [`MAX_DATAGRAM_BYTES`] and that
    /// many bytes.
    Udp,
}

impl Transport {
    fn number(self) -> u32 {
        match self {
            Self::Tcp => 0,
            Self::Udp => 1,
        }
    }
}

/// Longest datagram that is passed on: the longest that IPv4 has room for (RFC 768).
pub const MAX_DATAGRAM_BYTES: usize = 65_507;

/// Highest signal number of arm64 Linux (`_NSIG`).
const MAX_SIGNAL: u32 = 64;

impl<'a> Request<'a> {
    /// Appends the frame. Payloads beyond their limit are refused by the peer;
    /// [`crate::client::Session`] never produces them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => hello.encode(out),
            Self::Exec(exec) => put_frame(out, Kind::Exec, |out| exec.put(out)),
            Self::FileChunk(chunk) => put_frame(out, Kind::FileChunk, |out| chunk.put(out)),
            Self::Stdin(data) => put_frame(out, Kind::Stdin, |out| out.extend_from_slice(data)),
            Self::StdinEof => put_frame(out, Kind::StdinEof, |_| {}),
            Self::Signal(number) => put_frame(out, Kind::Signal, |out| {
                out.extend_from_slice(&number.to_le_bytes());
            }),
            Self::Resize(size) => put_frame(out, Kind::Resize, |out| {
                out.extend_from_slice(&size.cols.to_le_bytes());
                out.extend_from_slice(&size.rows.to_le_bytes());
            }),
            Self::Detach => put_frame(out, Kind::Detach, |_| {}),
            Self::Attach { id, from } => put_frame(out, Kind::Attach, |out| {
                out.extend_from_slice(&id.to_le_bytes());
                from.put(out);
            }),
            Self::ListExecs => put_frame(out, Kind::ListExecs, |_| {}),
            Self::Ping(nonce) => put_frame(out, Kind::Ping, |out| {
                out.extend_from_slice(&nonce.to_le_bytes());
            }),
            Self::SetTime(ns) => put_frame(out, Kind::SetTime, |out| {
                out.extend_from_slice(&ns.to_le_bytes());
            }),
            Self::Reseed(seed) => put_frame(out, Kind::Reseed, |out| out.extend_from_slice(seed)),
            Self::ReadFile(path) => put_frame(out, Kind::ReadFile, |out| put_bytes(out, path)),
            Self::Sync => put_frame(out, Kind::Sync, |_| {}),
            Self::Shutdown => put_frame(out, Kind::Shutdown, |_| {}),
            Self::Resume(resume) => put_frame(out, Kind::Resume, |out| resume.put(out)),
            Self::Quiesce { drop_caches } => put_frame(out, Kind::Quiesce, |out| {
                out.extend_from_slice(&u32::from(*drop_caches).to_le_bytes());
            }),
            Self::Alone => put_frame(out, Kind::Alone, |_| {}),
            Self::Release => put_frame(out, Kind::Release, |_| {}),
            Self::EnterRoot(options) => put_frame(out, Kind::EnterRoot, |out| {
                out.extend_from_slice(options);
            }),
            Self::StartWorkload(exec) => put_frame(out, Kind::StartWorkload, |out| exec.put(out)),
            Self::WorkloadSignal(number) => put_frame(out, Kind::WorkloadSignal, |out| {
                out.extend_from_slice(&number.to_le_bytes());
            }),
            Self::WorkloadStatus { tail_bytes } => put_frame(out, Kind::WorkloadStatus, |out| {
                out.extend_from_slice(&tail_bytes.to_le_bytes());
            }),
            Self::Dial { transport, port } => put_frame(out, Kind::Dial, |out| {
                out.extend_from_slice(&u32::from(*port).to_le_bytes());
                out.extend_from_slice(&transport.number().to_le_bytes());
            }),
            Self::AwaitListener { port, timeout_ms } => {
                put_frame(out, Kind::AwaitListener, |out| {
                    out.extend_from_slice(&u32::from(*port).to_le_bytes());
                    out.extend_from_slice(&timeout_ms.to_le_bytes());
                });
            }
        }
    }

    /// Decodes the payload of a frame that flows to the agent.
    ///
    /// # Errors
    /// A payload that does not follow the layout of `kind`, or a kind that does
    /// not flow in this direction.
    pub fn decode(kind: Kind, payload: &'a [u8]) -> Result<Self, ProtoError> {
        let mut fields = Reader::new(kind, payload);
        let request = match kind {
            Kind::Hello => return Hello::decode(payload).map(Self::Hello),
            Kind::Exec => return ExecRequest::decode(kind, payload).map(Self::Exec),
            Kind::StartWorkload => {
                return ExecRequest::decode(kind, payload).map(Self::StartWorkload);
            }
            Kind::Resume => return Resume::decode(payload).map(Self::Resume),
            Kind::FileChunk => return FileChunk::decode(payload).map(Self::FileChunk),
            Kind::Stdin => Self::Stdin(fields.rest()),
            Kind::StdinEof => Self::StdinEof,
            Kind::Signal => Self::Signal(read_signal(&mut fields)?),
            Kind::WorkloadSignal => Self::WorkloadSignal(read_signal(&mut fields)?),
            Kind::WorkloadStatus => Self::WorkloadStatus {
                tail_bytes: fields.u32()?,
            },
            Kind::AwaitListener => Self::AwaitListener {
                port: read_port(&mut fields)?,
                timeout_ms: fields.u64()?,
            },
            Kind::Dial => Self::Dial {
                port: read_port(&mut fields)?,
                transport: match fields.u32()? {
                    0 => Transport::Tcp,
                    1 => Transport::Udp,
                    _ => return Err(fields.bad("unknown transport")),
                },
            },
            Kind::Quiesce => Self::Quiesce {
                drop_caches: match fields.u32()? {
                    0 => false,
                    1 => true,
                    _ => return Err(fields.bad("unknown flag")),
                },
            },
            Kind::Alone => Self::Alone,
            Kind::Release => Self::Release,
            Kind::EnterRoot => Self::EnterRoot(fields.rest()),
            Kind::Resize => Self::Resize(WinSize {
                cols: fields.u16()?,
                rows: fields.u16()?,
            }),
            Kind::Detach => Self::Detach,
            Kind::Attach => Self::Attach {
                id: fields.u64()?,
                from: Offsets::read(&mut fields)?,
            },
            Kind::ListExecs => Self::ListExecs,
            Kind::Ping => Self::Ping(fields.u64()?),
            Kind::SetTime => Self::SetTime(fields.u64()?),
            Kind::Reseed => Self::Reseed(fields.rest()),
            Kind::ReadFile => {
                let path = fields.c_bytes(MAX_PATH_BYTES - 1)?;
                if path.first() != Some(&b'/') {
                    return Err(fields.bad("path is not absolute"));
                }
                Self::ReadFile(path)
            }
            Kind::Sync => Self::Sync,
            Kind::Shutdown => Self::Shutdown,
            _ => return Err(ProtoError::UnknownKind { kind: kind.byte() }),
        };
        fields.end()?;
        Ok(request)
    }
}

fn read_port(fields: &mut Reader<'_>) -> Result<u16, ProtoError> {
    let port = u16::try_from(fields.u32()?).ok().filter(|port| *port != 0);
    port.ok_or_else(|| fields.bad("no such port"))
}

fn read_signal(fields: &mut Reader<'_>) -> Result<u32, ProtoError> {
    let number = fields.u32()?;
    if number == 0 || number > MAX_SIGNAL {
        return Err(fields.bad("no such signal"));
    }
    Ok(number)
}

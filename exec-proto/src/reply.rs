//! Frames from the agent to the host.

use alloc::string::String;
use alloc::vec::Vec;

use crate::durable::{put_execs, read_execs};
use crate::exited::{put_exited, read_exited};
use crate::frame::put_frame;
use crate::wire::{Reader, put_bytes};
use crate::{
    AgentReady, Attached, ExecInfo, Exited, Hello, Kind, MAX_DATA_BYTES, MAX_MESSAGE_BYTES,
    Offsets, Printable, ProtoError, Resumed, WorkloadReport,
};

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal => $exit:literal;)*) => {
        /// Why a request failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum ErrorKind {
            $($(#[$doc])* $name = $code,)*
        }

        impl ErrorKind {
            fn from_code(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Whether a program could not be executed, and nothing else is wrong:
            /// such a command ends with a status and not with an error.
            #[must_use]
            pub fn is_exec_status(self) -> bool {
                matches!(self, Self::NotFound | Self::NotExecutable)
            }

            /// Exit status by which a command line tool reports this failure:
            /// 127 not found, 126 found but not runnable, 125 everything else.
            #[must_use]
            pub fn exit_status(self) -> u8 {
                match self {
                    $(Self::$name => $exit,)*
                }
            }
        }
    };
}

error_kinds! {
    /// No such program, or no such file for a file request.
    NotFound = 1 => 127;
    /// The program exists but cannot be executed.
    NotExecutable = 2 => 126;
    /// The request breaks a rule of the protocol or of its kind.
    BadRequest = 3 => 125;
    /// The user or group is not in the guest's files.
    UnknownUser = 4 => 126;
    /// The working directory does not exist or cannot be entered.
    NoSuchCwd = 5 => 126;
    /// The guest has no processes, memory or descriptors left.
    Resources = 6 => 125;
    /// The two ends speak different versions.
    Version = 7 => 125;
    /// A file operation failed; the errno says how.
    Io = 8 => 125;
    /// A file is larger than its limit.
    TooLarge = 9 => 125;
    /// The path names something other than a regular file.
    NotRegularFile = 10 => 125;
    /// The agent serves as many connections as it can.
    Busy = 11 => 125;
    /// The guest kernel or the agent's place in it forbids the request.
    NotPermitted = 12 => 125;
    /// A defect in the agent.
    Internal = 13 => 125;
    /// What was waited for did not happen in time.
    TimedOut = 14 => 125;
    /// The workload ended before what was waited for happened.
    WorkloadEnded = 15 => 125;
    /// No durable command has this id: there was none, or it ended long ago.
    NoSuchExec = 16 => 125;
    /// Another host has taken the command's streams.
    TakenOver = 17 => 125;
    /// Nothing takes connections on the port.
    Refused = 18 => 125;
}

/// A failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub kind: ErrorKind,
    /// Guest errno, 0 if none applies.
    pub errno: i32,
    /// One line for people, as the other side wrote it; its `Display` is safe to
    /// show.
    pub message: String,
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&Printable::line(&self.message), f)
    }
}

impl core::error::Error for Failure {}

/// A decoded frame from the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply<'a> {
    /// Opening frame of a connection the host made.
    Hello(Hello),
    /// Opening frame of a connection the agent made.
    Ready(AgentReady),
    /// The command runs under this guest process id.
    Started {
        /// Guest process id of the first command; 0 if it could not be executed.
        pid: u32,
    },
    /// Standard output or terminal output.
    Stdout(&'a [u8]),
    /// Standard error.
    Stderr(&'a [u8]),
    /// So many more bytes of stdin may be sent.
    StdinWindow(u32),
    /// Nobody reads stdin any more; what comes is dropped.
    StdinClosed,
    /// The command ended.
    Exited(Exited),
    /// A command of the chain ended with 0, and the next is tried: its own status,
    /// time and memory.
    Step(Exited),
    /// The command is durable; comes right behind [`Reply::Started`].
    Durable {
        /// Its id.
        id: u64,
    },
    /// The command goes on without a host.
    Detached {
        /// Its id.
        id: u64,
        /// What of its streams was sent.
        sent: Offsets,
    },
    /// The streams of a durable command follow.
    Attached(Attached),
    /// Bytes that the agent could not keep are missing from a stream here.
    Gap {
        /// From standard error and not from standard output.
        stderr: bool,
        /// How many.
        bytes: u64,
    },
    /// The oldest unanswered request failed; nothing after it was done.
    Error(Failure),
    /// Answer to a ping.
    Pong(u64),
    /// A piece of a file that was asked for.
    FileData {
        /// No piece follows.
        last: bool,
        /// At most [`MAX_DATA_BYTES`].
        data: &'a [u8],
    },
    /// A file write that asked for an answer is complete with this many bytes.
    FileWritten(u64),
    /// The control request succeeded.
    Done,
    /// The machine is one of its own now.
    Resumed(Resumed),
    /// How the workload does.
    Workload(WorkloadReport),
    /// The durable commands, oldest first.
    Execs(Vec<ExecInfo>),
}

impl<'a> Reply<'a> {
    /// Appends the frame; an over-long error message is cut at a character.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => hello.encode(out),
            Self::Ready(ready) => ready.encode(out),
            Self::Started { pid } => put_frame(out, Kind::Started, |out| {
                out.extend_from_slice(&pid.to_le_bytes());
            }),
            Self::Stdout(data) => put_frame(out, Kind::Stdout, |out| out.extend_from_slice(data)),
            Self::Stderr(data) => put_frame(out, Kind::Stderr, |out| out.extend_from_slice(data)),
            Self::StdinWindow(bytes) => put_frame(out, Kind::StdinWindow, |out| {
                out.extend_from_slice(&bytes.to_le_bytes());
            }),
            Self::StdinClosed => put_frame(out, Kind::StdinClosed, |_| {}),
            Self::Exited(exited) => put_frame(out, Kind::Exited, |out| put_exited(out, exited)),
            Self::Step(exited) => put_frame(out, Kind::Step, |out| put_exited(out, exited)),
            Self::Durable { id } => put_frame(out, Kind::Durable, |out| {
                out.extend_from_slice(&id.to_le_bytes());
            }),
            Self::Detached { id, sent } => put_frame(out, Kind::Detached, |out| {
                out.extend_from_slice(&id.to_le_bytes());
                sent.put(out);
            }),
            Self::Attached(attached) => put_frame(out, Kind::Attached, |out| attached.put(out)),
            Self::Gap { stderr, bytes } => put_frame(out, Kind::Gap, |out| {
                out.push(u8::from(*stderr));
                out.extend_from_slice(&bytes.to_le_bytes());
            }),
            Self::Error(failure) => put_frame(out, Kind::Error, |out| put_failure(out, failure)),
            Self::Pong(nonce) => put_frame(out, Kind::Pong, |out| {
                out.extend_from_slice(&nonce.to_le_bytes());
            }),
            Self::FileData { last, data } => put_frame(out, Kind::FileData, |out| {
                out.push(u8::from(*last));
                out.extend_from_slice(data);
            }),
            Self::FileWritten(bytes) => put_frame(out, Kind::FileWritten, |out| {
                out.extend_from_slice(&bytes.to_le_bytes());
            }),
            Self::Done => put_frame(out, Kind::Done, |_| {}),
            Self::Resumed(resumed) => put_frame(out, Kind::Resumed, |out| resumed.put(out)),
            Self::Workload(report) => put_frame(out, Kind::Workload, |out| report.put(out)),
            Self::Execs(execs) => put_frame(out, Kind::Execs, |out| put_execs(out, execs)),
        }
    }

    /// Decodes the payload of a frame that flows to the host.
    ///
    /// # Errors
    /// A payload that does not follow the layout of `kind`, or a kind that does
    /// not flow in this direction.
    pub fn decode(kind: Kind, payload: &'a [u8]) -> Result<Self, ProtoError> {
        let mut fields = Reader::new(kind, payload);
        let reply = match kind {
            Kind::Hello => return Hello::decode(payload).map(Self::Hello),
            Kind::AgentReady => return AgentReady::decode(payload).map(Self::Ready),
            Kind::Started => Self::Started { pid: fields.u32()? },
            Kind::Stdout => Self::Stdout(fields.rest()),
            Kind::Stderr => Self::Stderr(fields.rest()),
            Kind::StdinWindow => Self::StdinWindow(fields.u32()?),
            Kind::StdinClosed => Self::StdinClosed,
            Kind::Exited => Self::Exited(read_exited(&mut fields)?),
            Kind::Step => Self::Step(read_exited(&mut fields)?),
            Kind::Durable => Self::Durable { id: fields.u64()? },
            Kind::Detached => Self::Detached {
                id: fields.u64()?,
                sent: Offsets::read(&mut fields)?,
            },
            Kind::Attached => Self::Attached(Attached::read(&mut fields)?),
            Kind::Gap => Self::Gap {
                stderr: fields.bool()?,
                bytes: fields.u64()?,
            },
            Kind::Error => Self::Error(read_failure(&mut fields)?),
            Kind::Pong => Self::Pong(fields.u64()?),
            Kind::FileData => {
                let last = fields.bool()?;
                let data = fields.rest();
                if data.len() > MAX_DATA_BYTES {
                    return Err(fields.bad("chunk too long"));
                }
                Self::FileData { last, data }
            }
            Kind::FileWritten => Self::FileWritten(fields.u64()?),
            Kind::Done => Self::Done,
            Kind::Resumed => Self::Resumed(Resumed::read(&mut fields)?),
            Kind::Workload => Self::Workload(WorkloadReport::read(&mut fields)?),
            Kind::Execs => Self::Execs(read_execs(&mut fields)?),
            _ => return Err(ProtoError::UnknownKind { kind: kind.byte() }),
        };
        fields.end()?;
        Ok(reply)
    }
}

fn put_failure(out: &mut Vec<u8>, failure: &Failure) {
    out.extend_from_slice(&(failure.kind as u16).to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&failure.errno.to_le_bytes());
    let cut = failure.message.floor_char_boundary(MAX_MESSAGE_BYTES);
    let message = failure.message.get(..cut).unwrap_or_default();
    put_bytes(out, message.as_bytes());
}

fn read_failure(fields: &mut Reader<'_>) -> Result<Failure, ProtoError> {
    let code = fields.u16()?;
    let kind = ErrorKind::from_code(code).ok_or_else(|| fields.bad("unknown error kind"))?;
    fields.u16()?;
    let errno = fields.i32()?;
    let message = String::from_utf8_lossy(fields.bytes(MAX_MESSAGE_BYTES)?).into_owned();
    Ok(Failure {
        kind,
        errno,
        message,
    })
}

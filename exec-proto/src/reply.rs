//! Frames from the agent to the host.

use alloc::string::String;
use alloc::vec::Vec;

use crate::frame::put_frame;
use crate::wire::{Reader, put_bytes};
use crate::{
    AgentReady, Hello, Kind, MAX_DATA_BYTES, MAX_MESSAGE_BYTES, Printable, ProtoError, Resumed,
    WorkloadReport,
};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It called `exit` with this status.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
}

impl ExitStatus {
    /// The status a shell would show: the code, or 128 plus the signal.
    #[must_use]
    pub fn shell_status(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// Report of a command that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exited {
    /// How the last command that ran ended.
    pub status: ExitStatus,
    /// Wall time from before the first command's start to the last one's end, in ns.
    pub duration_ns: u64,
    /// Largest resident set of any of the commands or their waited-for
    /// children, in KiB.
    pub peak_rss_kib: u64,
    /// The time limit ended it.
    pub timed_out: bool,
    /// Which command of the chain ended last, 0 being `argv`.
    pub step: u32,
    /// Its program came to run. If not, the status is 127 (there is none) or 126
    /// (it cannot be executed), and standard error says which it was.
    pub executed: bool,
}

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
            _ => return Err(ProtoError::UnknownKind { kind: kind.byte() }),
        };
        fields.end()?;
        Ok(reply)
    }
}

pub(crate) fn put_exited(out: &mut Vec<u8>, exited: &Exited) {
    let (signaled, number) = match exited.status {
        ExitStatus::Code(code) => (0, code),
        ExitStatus::Signal(signal) => (1, signal),
    };
    let (timed_out, not_executed) = (u8::from(exited.timed_out), u8::from(!exited.executed));
    out.extend_from_slice(&[signaled, number, timed_out, not_executed]);
    out.extend_from_slice(&exited.step.to_le_bytes());
    out.extend_from_slice(&exited.duration_ns.to_le_bytes());
    out.extend_from_slice(&exited.peak_rss_kib.to_le_bytes());
}

pub(crate) fn read_exited(fields: &mut Reader<'_>) -> Result<Exited, ProtoError> {
    let signaled = fields.bool()?;
    let number = fields.u8()?;
    let timed_out = fields.bool()?;
    let executed = !fields.bool()?;
    Ok(Exited {
        status: if signaled {
            ExitStatus::Signal(number)
        } else {
            ExitStatus::Code(number)
        },
        timed_out,
        executed,
        step: fields.u32()?,
        duration_ns: fields.u64()?,
        peak_rss_kib: fields.u64()?,
    })
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

//! Versioned, length-bounded binary frames between a host and its guest agent.
//!
//! Everything here is a pure function or a pure state machine over byte
//! slices: no sockets, no clocks, no allocation that the peer can size beyond
//! the limits below. [`client::Session`] is the host's end, [`server::Parser`]
//! the agent's. The wire format is written down in
//! [docs/protocol.md](https://github.com/supermachine/supermachine/blob/main/docs/protocol.md).
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![no_std]

extern crate alloc;

pub mod client;
mod durable;
mod error;
mod exec_request;
mod exited;
mod frame;
pub mod fuzzing;
mod hello;
mod reply;
mod request;
mod resume;
pub mod server;
mod text;
pub mod tree;
mod wire;
mod workload;

pub use durable::{Attached, ExecInfo, Offsets, StdinState};
pub use error::ProtoError;
pub use exec_request::{ExecFlags, ExecLimits, ExecRequest, WinSize};
pub use exited::{ExitStatus, Exited};
pub use frame::{Deframer, Direction, HEADER_BYTES, Kind, encode_header};
pub use hello::{AgentReady, CAP_TREE_KILL, Hello};
pub use reply::{ErrorKind, Failure, Reply};
pub use request::{FileChunk, MAX_DATAGRAM_BYTES, Request, Transport};
pub use resume::{Resume, Resumed};
pub use text::Printable;
pub use workload::{WorkloadReport, WorkloadState};

/// Protocol version this crate speaks. Both ends must speak the same one.
pub const VERSION: u16 = 6;
/// First bytes of every hello: tells a stray peer from one of another version.
pub const MAGIC: [u8; 4] = *b"SMXP";
/// Vsock port in the guest on which the agent listens (`DEFAULT_EXEC_GUEST_PORT`).
pub const EXEC_PORT: u32 = 1028;
/// Vsock port on the host (CID 2) to which the agent keeps one unused
/// connection open.
pub const READY_PORT: u32 = 1027;

/// Most bytes of stream or file data in one frame.
pub const MAX_DATA_BYTES: usize = 64 * 1024;
/// Most bytes in an `Exec` frame: Linux's default total for argv and
/// environment (a quarter of the 8 MiB stack) and some room for the rest.
pub const MAX_EXEC_BYTES: usize = 2 * 1024 * 1024 + 64 * 1024;
/// Most strings (argv, environment and chain together) in an `Exec` frame.
pub const MAX_EXEC_STRINGS: usize = 64 * 1024;
/// Longest guest path, including the terminating NUL the kernel wants (`PATH_MAX`).
pub const MAX_PATH_BYTES: usize = 4096;
/// Longest text in an error or a hello.
pub const MAX_MESSAGE_BYTES: usize = 1024;
/// Most bytes that one `ReadFile` or one acknowledged file write may move.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes of one file staged in front of a command.
pub const MAX_STAGED_BYTES: usize = 256 * 1024 * 1024;
/// Most seed bytes in one `Reseed`.
pub const MAX_SEED_BYTES: usize = 512;
/// Stdin bytes a client may have sent that the agent has not yet granted back.
pub const STDIN_WINDOW_BYTES: usize = 256 * 1024;
/// Seed bytes of a `Resume`: the kernel's generator takes 32 at a time, and
/// more than 64 add nothing.
pub const RESUME_SEED_BYTES: core::ops::RangeInclusive<usize> = 32..=64;
/// Longest host name (`HOST_NAME_MAX` of Linux).
pub const MAX_HOSTNAME_BYTES: usize = 64;
/// Longest options of [`Request::EnterRoot`] in bytes: as a kernel's command line on arm64
/// (`COMMAND_LINE_SIZE`).
pub const MAX_OPTIONS_BYTES: usize = 2048;
/// Output of a workload that the agent keeps, the latest.
pub const WORKLOAD_TAIL_BYTES: usize = 64 * 1024;

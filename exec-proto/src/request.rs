//! Frames from the host to the agent.

use alloc::vec::Vec;

use crate::frame::put_frame;
use crate::wire::{Reader, put_bytes};
use crate::{
    Hello, Kind, MAX_DATA_BYTES, MAX_EXEC_BYTES, MAX_EXEC_STRINGS, MAX_PATH_BYTES, ProtoError,
    Resume,
};

/// Switches of an [`ExecRequest`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecFlags {
    /// Run on a terminal; its output comes as stdout.
    pub tty: bool,
    /// The client will send stdin; without this the command reads `/dev/null`.
    pub stdin: bool,
    /// Create a missing working directory instead of refusing it.
    pub create_cwd: bool,
    /// Let the command live, its output discarded, if the connection ends.
    pub keep_on_disconnect: bool,
    /// Use the environment as given; otherwise a missing `PATH`, `HOME` and
    /// (on a terminal) `TERM` are filled in.
    pub exact_env: bool,
    /// Run the agent's own program instead of one of the guest's: the first
    /// argument is [`crate::tree::TOOL_NAME`].
    pub agent_tool: bool,
}

impl ExecFlags {
    const TTY: u32 = 1;
    const STDIN: u32 = 1 << 1;
    const CREATE_CWD: u32 = 1 << 2;
    const KEEP: u32 = 1 << 3;
    const EXACT_ENV: u32 = 1 << 4;
    const AGENT_TOOL: u32 = 1 << 5;

    fn bits(self) -> u32 {
        [
            (self.tty, Self::TTY),
            (self.stdin, Self::STDIN),
            (self.create_cwd, Self::CREATE_CWD),
            (self.keep_on_disconnect, Self::KEEP),
            (self.exact_env, Self::EXACT_ENV),
            (self.agent_tool, Self::AGENT_TOOL),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .fold(0, |bits, (_, bit)| bits | bit)
    }

    fn from_bits(bits: u32) -> Option<Self> {
        let flags = Self {
            tty: bits & Self::TTY != 0,
            stdin: bits & Self::STDIN != 0,
            create_cwd: bits & Self::CREATE_CWD != 0,
            keep_on_disconnect: bits & Self::KEEP != 0,
            exact_env: bits & Self::EXACT_ENV != 0,
            agent_tool: bits & Self::AGENT_TOOL != 0,
        };
        (flags.bits() == bits).then_some(flags)
    }
}

/// Size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WinSize {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

impl Default for WinSize {
    fn default() -> Self {
        Self { cols: 80, rows: 24 }
    }
}

/// One command, or a chain of them.
///
/// Strings are bytes without NUL, as the guest kernel sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments; at least the program.
    pub argv: Vec<Vec<u8>>,
    /// Environment as `K=V` entries.
    pub env: Vec<Vec<u8>>,
    /// Working directory; empty means `/`.
    pub cwd: Vec<u8>,
    /// `USER[:GROUP]`, names or numbers; empty means root.
    pub user: Vec<u8>,
    /// Switches.
    pub flags: ExecFlags,
    /// Terminal size, used with `flags.tty`.
    pub winsize: WinSize,
    /// Wall-clock limit for the command and its chain in ms; 0 means none.
    pub timeout_ms: u64,
    /// Commands to run one after the other as long as each exits with 0.
    pub chain: Vec<Vec<Vec<u8>>>,
}

impl ExecRequest {
    /// A request that runs `argv` as root in `/` with no stdin.
    pub fn new<I>(argv: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Vec<u8>>,
    {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Checks what the agent would refuse.
    ///
    /// # Errors
    /// [`ProtoError::Misuse`] naming the first problem.
    pub fn check(&self) -> Result<(), ProtoError> {
        let misuse = |what| Err(ProtoError::Misuse { what });
        if self.argv.is_empty() || self.chain.iter().any(Vec::is_empty) {
            return misuse("a command needs at least a program");
        }
        if self.strings().count() > MAX_EXEC_STRINGS {
            return misuse("too many arguments and environment entries");
        }
        if self.cwd.len() >= MAX_PATH_BYTES || self.user.len() >= MAX_PATH_BYTES {
            return misuse("working directory or user too long");
        }
        let all = || self.strings().chain([&self.cwd, &self.user]);
        if all().any(|s| s.contains(&0)) {
            return misuse("NUL inside an argument, environment entry, directory or user");
        }
        // Every string has a 4-byte length; the rest is far below 64 KiB.
        let bytes = all().fold(4 * self.chain.len(), |sum, s| {
            sum.saturating_add(4).saturating_add(s.len())
        });
        if bytes.saturating_add(64) > MAX_EXEC_BYTES {
            return misuse("arguments and environment too large");
        }
        Ok(())
    }

    /// Checks what the agent would refuse of a workload.
    ///
    /// # Errors
    /// [`ProtoError::Misuse`] naming the first problem.
    pub fn check_workload(&self) -> Result<(), ProtoError> {
        self.check()?;
        self.workload_problem()
            .map_or(Ok(()), |what| Err(ProtoError::Misuse { what }))
    }

    fn workload_problem(&self) -> Option<&'static str> {
        let attended = self.flags.tty || self.flags.stdin || self.flags.agent_tool;
        (attended || self.timeout_ms != 0 || !self.chain.is_empty())
            .then_some("a workload has no terminal, stdin, time limit or chain, and is no tool")
    }

    fn strings(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.argv
            .iter()
            .chain(&self.env)
            .chain(self.chain.iter().flatten())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.flags.bits().to_le_bytes());
        out.extend_from_slice(&self.timeout_ms.to_le_bytes());
        out.extend_from_slice(&self.winsize.cols.to_le_bytes());
        out.extend_from_slice(&self.winsize.rows.to_le_bytes());
        put_bytes(out, &self.cwd);
        put_bytes(out, &self.user);
        put_list(out, &self.argv);
        put_list(out, &self.env);
        put_count(out, self.chain.len());
        for argv in &self.chain {
            put_list(out, argv);
        }
    }

    fn decode(kind: Kind, payload: &[u8]) -> Result<Self, ProtoError> {
        let mut fields = Reader::new(kind, payload);
        let flags =
            ExecFlags::from_bits(fields.u32()?).ok_or_else(|| fields.bad("unknown flag"))?;
        let timeout_ms = fields.u64()?;
        let winsize = WinSize {
            cols: fields.u16()?,
            rows: fields.u16()?,
        };
        let cwd = fields.c_bytes(MAX_PATH_BYTES - 1)?.to_vec();
        let user = fields.c_bytes(MAX_PATH_BYTES - 1)?.to_vec();
        let mut budget = MAX_EXEC_STRINGS;
        let argv = read_list(&mut fields, &mut budget)?;
        let env = read_list(&mut fields, &mut budget)?;
        let steps = fields.u32()? as usize;
        if steps > budget {
            return Err(fields.bad("too many chained commands"));
        }
        let mut chain = Vec::new();
        for _ in 0..steps {
            chain.push(read_list(&mut fields, &mut budget)?);
        }
        if argv.is_empty() || chain.iter().any(Vec::is_empty) {
            return Err(fields.bad("command without a program"));
        }
        let request = Self {
            argv,
            env,
            cwd,
            user,
            flags,
            winsize,
            timeout_ms,
            chain,
        };
        if kind == Kind::StartWorkload
            && let Some(what) = request.workload_problem()
        {
            return Err(fields.bad(what));
        }
        fields.end()?;
        Ok(request)
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    out.extend_from_slice(&count.to_le_bytes());
}

fn put_list(out: &mut Vec<u8>, list: &[Vec<u8>]) {
    put_count(out, list.len());
    for item in list {
        put_bytes(out, item);
    }
}

/// Reads strings against a budget shared by the whole request; nothing is
/// reserved from the announced count, only from bytes that are there.
fn read_list(fields: &mut Reader<'_>, budget: &mut usize) -> Result<Vec<Vec<u8>>, ProtoError> {
    let count = fields.u32()? as usize;
    *budget = budget
        .checked_sub(count)
        .ok_or_else(|| fields.bad("too many strings"))?;
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(fields.c_bytes(MAX_EXEC_BYTES)?.to_vec());
    }
    Ok(list)
}

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
    /// Start the workload.
    StartWorkload(ExecRequest),
    /// Signal number for the workload; 9 reaches all its descendants.
    WorkloadSignal(u32),
    /// Ask for a [`crate::WorkloadReport`].
    WorkloadStatus {
        /// Most bytes of output wanted.
        tail_bytes: u32,
    },
    /// Wait until a socket of this machine listens on a TCP port.
    AwaitListener {
        /// The port.
        port: u16,
        /// How long to wait, in ms.
        timeout_ms: u64,
    },
}

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
            Self::StartWorkload(exec) => put_frame(out, Kind::StartWorkload, |out| exec.put(out)),
            Self::WorkloadSignal(number) => put_frame(out, Kind::WorkloadSignal, |out| {
                out.extend_from_slice(&number.to_le_bytes());
            }),
            Self::WorkloadStatus { tail_bytes } => put_frame(out, Kind::WorkloadStatus, |out| {
                out.extend_from_slice(&tail_bytes.to_le_bytes());
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
            Kind::AwaitListener => {
                let port = u16::try_from(fields.u32()?).ok().filter(|port| *port != 0);
                Self::AwaitListener {
                    port: port.ok_or_else(|| fields.bad("no such port"))?,
                    timeout_ms: fields.u64()?,
                }
            }
            Kind::Quiesce => Self::Quiesce {
                drop_caches: match fields.u32()? {
                    0 => false,
                    1 => true,
                    _ => return Err(fields.bad("unknown flag")),
                },
            },
            Kind::Alone => Self::Alone,
            Kind::Release => Self::Release,
            Kind::Resize => Self::Resize(WinSize {
                cols: fields.u16()?,
                rows: fields.u16()?,
            }),
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

fn read_signal(fields: &mut Reader<'_>) -> Result<u32, ProtoError> {
    let number = fields.u32()?;
    if number == 0 || number > MAX_SIGNAL {
        return Err(fields.bad("no such signal"));
    }
    Ok(number)
}

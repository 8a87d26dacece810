//! What a host asks to run.

use alloc::vec::Vec;

use crate::wire::{Reader, put_bytes};
use crate::{Kind, MAX_EXEC_BYTES, MAX_EXEC_STRINGS, MAX_PATH_BYTES, ProtoError};

/// Switches of an [`ExecRequest`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecFlags {
    /// Run on a terminal; its output comes as stdout.
    pub tty: bool,
    /// The client will send stdin; without this the command reads `/dev/null`.
    pub stdin: bool,
    /// Create a missing working directory instead of refusing it.
    pub create_cwd: bool,
    /// The command is the agent's: it lives on if the connection ends, and its
    /// streams can be taken up again.
    pub durable: bool,
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
    const DURABLE: u32 = 1 << 3;
    const EXACT_ENV: u32 = 1 << 4;
    const AGENT_TOOL: u32 = 1 << 5;

    fn bits(self) -> u32 {
        [
            (self.tty, Self::TTY),
            (self.stdin, Self::STDIN),
            (self.create_cwd, Self::CREATE_CWD),
            (self.durable, Self::DURABLE),
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
            durable: bits & Self::DURABLE != 0,
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

/// What a command and all its descendants may use together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecLimits {
    /// Memory in bytes; all are killed at it. 0 means no limit.
    pub memory_bytes: u64,
    /// Processes and threads; more cannot be made. 0 means the guest's own limit.
    pub processes: u64,
    /// Thousandths of a processor's time. 0 means no limit.
    pub cpu_thousandths: u64,
}

impl ExecLimits {
    fn put(self, out: &mut Vec<u8>) {
        for limit in [self.memory_bytes, self.processes, self.cpu_thousandths] {
            out.extend_from_slice(&limit.to_le_bytes());
        }
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, ProtoError> {
        Ok(Self {
            memory_bytes: fields.u64()?,
            processes: fields.u64()?,
            cpu_thousandths: fields.u64()?,
        })
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
    /// What it may use.
    pub limits: ExecLimits,
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
        let attended = self.flags.tty
            || self.flags.stdin
            || self.flags.agent_tool
            || self.flags.durable
            || self.limits != ExecLimits::default();
        (attended || self.timeout_ms != 0 || !self.chain.is_empty())
            .then_some("a workload has no terminal, stdin, limits or chain, and is no tool")
    }

    fn strings(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.argv
            .iter()
            .chain(&self.env)
            .chain(self.chain.iter().flatten())
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.flags.bits().to_le_bytes());
        out.extend_from_slice(&self.timeout_ms.to_le_bytes());
        out.extend_from_slice(&self.winsize.cols.to_le_bytes());
        out.extend_from_slice(&self.winsize.rows.to_le_bytes());
        self.limits.put(out);
        put_bytes(out, &self.cwd);
        put_bytes(out, &self.user);
        put_list(out, &self.argv);
        put_list(out, &self.env);
        put_count(out, self.chain.len());
        for argv in &self.chain {
            put_list(out, argv);
        }
    }

    pub(crate) fn decode(kind: Kind, payload: &[u8]) -> Result<Self, ProtoError> {
        let mut fields = Reader::new(kind, payload);
        let flags =
            ExecFlags::from_bits(fields.u32()?).ok_or_else(|| fields.bad("unknown flag"))?;
        let timeout_ms = fields.u64()?;
        let winsize = WinSize {
            cols: fields.u16()?,
            rows: fields.u16()?,
        };
        let limits = ExecLimits::read(&mut fields)?;
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
            limits,
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

pub(crate) fn put_list(out: &mut Vec<u8>, list: &[Vec<u8>]) {
    put_count(out, list.len());
    for item in list {
        put_bytes(out, item);
    }
}

/// Reads strings against a budget shared by the whole request; nothing is
/// reserved from the announced count, only from bytes that are there.
pub(crate) fn read_list(
    fields: &mut Reader<'_>,
    budget: &mut usize,
) -> Result<Vec<Vec<u8>>, ProtoError> {
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

//! Commands that are the agent's: they outlive connections, and their streams can
//! be taken up again.

use alloc::vec::Vec;

use crate::exec_request::{put_list, read_list};
use crate::exited::{put_exited, read_exited};
use crate::wire::Reader;
use crate::{Exited, MAX_EXEC_STRINGS, ProtoError};

/// A place in each of a command's output streams, in bytes from its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offsets {
    /// In standard output; with a terminal, in all it writes.
    pub stdout: u64,
    /// In standard error.
    pub stderr: u64,
}

impl Offsets {
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stdout.to_le_bytes());
        out.extend_from_slice(&self.stderr.to_le_bytes());
    }

    pub(crate) fn read(fields: &mut Reader<'_>) -> Result<Self, ProtoError> {
        Ok(Self {
            stdout: fields.u64()?,
            stderr: fields.u64()?,
        })
    }
}

/// What has become of the standard input of a command that is taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StdinState {
    /// It never had one, or it ended.
    Closed,
    /// So many bytes may be sent before more are granted.
    Open(u32),
}

/// A durable command whose streams are taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// Its guest process id; 0 once it has ended.
    pub pid: u32,
    /// It runs on a terminal.
    pub tty: bool,
    /// Its standard input.
    pub stdin: StdinState,
    /// Where its streams begin, unless a gap comes first: what was asked for, or
    /// their end if that is before it.
    pub from: Offsets,
}

impl Attached {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.pid.to_le_bytes());
        let (open, window) = match self.stdin {
            StdinState::Closed => (0, 0),
            StdinState::Open(window) => (1, window),
        };
        out.extend_from_slice(&[u8::from(self.tty), open]);
        out.extend_from_slice(&window.to_le_bytes());
        self.from.put(out);
    }

    pub(crate) fn read(fields: &mut Reader<'_>) -> Result<Self, ProtoError> {
        let pid = fields.u32()?;
        let tty = fields.bool()?;
        let stdin = match (fields.bool()?, fields.u32()?) {
            (true, window) => StdinState::Open(window),
            (false, 0) => StdinState::Closed,
            (false, _) => return Err(fields.bad("a window of a closed input")),
        };
        Ok(Self {
            pid,
            tty,
            stdin,
            from: Offsets::read(fields)?,
        })
    }
}

/// A durable command in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecInfo {
    /// Its id.
    pub id: u64,
    /// Its guest process id; 0 once it has ended.
    pub pid: u32,
    /// Program and arguments, cut where they are long.
    pub argv: Vec<Vec<u8>>,
    /// It runs on a terminal.
    pub tty: bool,
    /// A host has its streams.
    pub attached: bool,
    /// Guest time since it was started, in ns.
    pub age_ns: u64,
    /// What it has written so far.
    pub written: Offsets,
    /// How it ended, if it has.
    pub ended: Option<Exited>,
}

impl ExecInfo {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.pid.to_le_bytes());
        let flags = [self.tty, self.attached, self.ended.is_some()];
        out.extend_from_slice(&flags.map(u8::from));
        out.extend_from_slice(&self.age_ns.to_le_bytes());
        self.written.put(out);
        if let Some(exited) = &self.ended {
            put_exited(out, exited);
        }
        put_list(out, &self.argv);
    }

    fn read(fields: &mut Reader<'_>, budget: &mut usize) -> Result<Self, ProtoError> {
        let (id, pid) = (fields.u64()?, fields.u32()?);
        let (tty, attached, has_ended) = (fields.bool()?, fields.bool()?, fields.bool()?);
        let age_ns = fields.u64()?;
        let written = Offsets::read(fields)?;
        let ended = match has_ended {
            true => Some(read_exited(fields)?),
            false => None,
        };
        Ok(Self {
            id,
            pid,
            argv: read_list(fields, budget)?,
            tty,
            attached,
            age_ns,
            written,
            ended,
        })
    }
}

pub(crate) fn put_execs(out: &mut Vec<u8>, execs: &[ExecInfo]) {
    let count = u32::try_from(execs.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    for exec in execs {
        exec.put(out);
    }
}

/// Nothing is reserved from the announced count, only from bytes that are there.
pub(crate) fn read_execs(fields: &mut Reader<'_>) -> Result<Vec<ExecInfo>, ProtoError> {
    let mut budget = MAX_EXEC_STRINGS;
    let mut execs = Vec::new();
    for _ in 0..fields.u32()? {
        execs.push(ExecInfo::read(fields, &mut budget)?);
    }
    Ok(execs)
}

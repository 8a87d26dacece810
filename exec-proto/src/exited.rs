//! How commands end.

use alloc::vec::Vec;

use crate::ProtoError;
use crate::wire::Reader;

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
    /// Its memory limit ended it, or something that it had started.
    pub oom: bool,
    /// Which command of the chain ended last, 0 being `argv`.
    pub step: u32,
    /// Its program came to run. If not, the status is 127 (there is none) or 126
    /// (it cannot be executed), and standard error says which it was.
    pub executed: bool,
}

pub(crate) fn put_exited(out: &mut Vec<u8>, exited: &Exited) {
    let (signaled, number) = match exited.status {
        ExitStatus::Code(code) => (0, code),
        ExitStatus::Signal(signal) => (1, signal),
    };
    let (timed_out, not_executed) = (u8::from(exited.timed_out), u8::from(!exited.executed));
    let oom = u8::from(exited.oom);
    out.extend_from_slice(&[signaled, number, timed_out, oom, not_executed]);
    out.extend_from_slice(&exited.step.to_le_bytes());
    out.extend_from_slice(&exited.duration_ns.to_le_bytes());
    out.extend_from_slice(&exited.peak_rss_kib.to_le_bytes());
}

pub(crate) fn read_exited(fields: &mut Reader<'_>) -> Result<Exited, ProtoError> {
    let signaled = fields.bool()?;
    let number = fields.u8()?;
    let timed_out = fields.bool()?;
    let oom = fields.bool()?;
    let executed = !fields.bool()?;
    Ok(Exited {
        status: if signaled {
            ExitStatus::Signal(number)
        } else {
            ExitStatus::Code(number)
        },
        timed_out,
        oom,
        executed,
        step: fields.u32()?,
        duration_ns: fields.u64()?,
        peak_rss_kib: fields.u64()?,
    })
}

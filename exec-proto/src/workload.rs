//! How the machine's workload does.

use alloc::vec::Vec;

use crate::exited::{put_exited, read_exited};
use crate::wire::{Reader, put_bytes};
use crate::{Exited, ProtoError, WORKLOAD_TAIL_BYTES};

/// What has become of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkloadState {
    /// Nobody has started one.
    NotStarted,
    /// It runs.
    Running {
        /// Guest process id.
        pid: u32,
        /// Guest time since its start in ns.
        for_ns: u64,
    },
    /// It ended. What it left in the background may live on.
    Exited(Exited),
}

/// State and output of the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadReport {
    /// What has become of it.
    pub state: WorkloadState,
    /// All bytes it wrote to stdout and stderr so far.
    pub output_bytes: u64,
    /// The latest of these, as many as were asked for; both streams in the
    /// order in which the agent read them.
    pub tail: Vec<u8>,
}

impl WorkloadReport {
    const NOT_STARTED: u8 = 0;
    const RUNNING: u8 = 1;
    const EXITED: u8 = 2;

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match &self.state {
            WorkloadState::NotStarted => out.push(Self::NOT_STARTED),
            WorkloadState::Running { pid, for_ns } => {
                out.push(Self::RUNNING);
                out.extend_from_slice(&pid.to_le_bytes());
                out.extend_from_slice(&for_ns.to_le_bytes());
            }
            WorkloadState::Exited(exited) => {
                out.push(Self::EXITED);
                put_exited(out, exited);
            }
        }
        out.extend_from_slice(&self.output_bytes.to_le_bytes());
        let start = self.tail.len().saturating_sub(WORKLOAD_TAIL_BYTES);
        put_bytes(out, self.tail.get(start..).unwrap_or_default());
    }

    pub(crate) fn read(fields: &mut Reader<'_>) -> Result<Self, ProtoError> {
        let state = match fields.u8()? {
            Self::NOT_STARTED => WorkloadState::NotStarted,
            Self::RUNNING => WorkloadState::Running {
                pid: fields.u32()?,
                for_ns: fields.u64()?,
            },
            Self::EXITED => WorkloadState::Exited(read_exited(fields)?),
            _ => return Err(fields.bad("unknown workload state")),
        };
        Ok(Self {
            state,
            output_bytes: fields.u64()?,
            tail: fields.bytes(WORKLOAD_TAIL_BYTES)?.to_vec(),
        })
    }
}

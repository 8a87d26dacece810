//! The command a machine runs by itself.

use crate::exec::ExecStatus;
use crate::{Error, Vm};
use exec_proto::client::Event;
use exec_proto::{WORKLOAD_TAIL_BYTES, WorkloadReport};
use std::time::Duration;

/// What has become of a machine's workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkloadState {
    /// The machine has none.
    NotStarted,
    /// It runs.
    Running {
        /// Its process id in the guest.
        pid: u32,
        /// Guest time since it was started. In a copy of a machine where it ran
        /// already, that is from before the capture.
        since_start: Duration,
    },
    /// It ended. What it left in the background may live on.
    Exited(ExecStatus),
}

/// How a machine's workload does, and the end of what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkloadStatus {
    /// What has become of it.
    pub state: WorkloadState,
    /// All it has written to standard output and error, in bytes.
    pub output_bytes: u64,
    /// The last of that, at most 64 KiB: both streams, in the order in which
    /// the agent read them.
    pub tail: Vec<u8>,
}

impl WorkloadStatus {
    fn from_wire(report: WorkloadReport) -> Self {
        let state = match report.state {
            exec_proto::WorkloadState::NotStarted => WorkloadState::NotStarted,
            exec_proto::WorkloadState::Running { pid, for_ns } => WorkloadState::Running {
                pid,
                since_start: Duration::from_nanos(for_ns),
            },
            exec_proto::WorkloadState::Exited(exited) => {
                WorkloadState::Exited(ExecStatus::from_wire(&exited))
            }
        };
        Self {
            state,
            output_bytes: report.output_bytes,
            tail: report.tail,
        }
    }
}

impl Vm {
    /// How the workload does, which [`crate::OciImageBuilder::cmd`] or the
    /// image named.
    ///
    /// # Errors
    /// [`Error::Ended`] once the machine has ended.
    pub fn workload_status(&self) -> Result<WorkloadStatus, Error> {
        let most = u32::try_from(WORKLOAD_TAIL_BYTES).unwrap_or(u32::MAX);
        let channel = self.open_session(|session| session.workload_status(most))?;
        channel.answer(|event| match event {
            Event::Workload(report) => Some(WorkloadStatus::from_wire(report)),
            _ => None,
        })
    }

    /// Sends a signal, 1 to 64, to the workload's process group; 9 (KILL) ends
    /// its descendants too, wherever they are. One that has ended already is
    /// no error.
    ///
    /// # Errors
    /// [`Error::Protocol`] for another number, [`Error::Exec`] if there is no
    /// workload, [`Error::Ended`] once the machine has ended.
    pub fn workload_signal(&self, number: u32) -> Result<(), Error> {
        let channel = self.open_session(|session| session.signal_workload(number))?;
        channel.answer(|event| matches!(event, Event::Done).then_some(()))
    }
}

//! Where a command's output goes, and how it ends.

use super::{ExecId, ExecStatus};
use crate::Error;

/// Where a command's output goes. A sink that blocks slows the command down.
pub trait Sinks {
    /// Takes standard output.
    fn stdout(&mut self, bytes: &[u8]) -> Result<(), Error>;
    /// Takes standard error.
    fn stderr(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// Learns that bytes are missing from standard error, or from standard output,
    /// here: the guest could not keep them.
    fn gap(&mut self, _is_stderr: bool, _bytes: u64) -> Result<(), Error> {
        Ok(())
    }

    /// Learns that a command of a chain ended, and the next is tried.
    fn step(&mut self, _status: ExecStatus) {}
}

/// How a connection and its command came apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// The command ended.
    Ended(ExecStatus),
    /// It goes on without this connection.
    LetGo(ExecId),
}

impl Finished {
    /// How the command ended, for who has nothing to do with one that goes on.
    pub fn status(self) -> Result<ExecStatus, Error> {
        match self {
            Self::Ended(status) => Ok(status),
            Self::LetGo(_) => Err(Error::Unsuitable {
                what: "waiting for a command",
                needs: "one that was not detached from",
            }),
        }
    }
}

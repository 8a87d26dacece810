//! Commands in a guest: built, run, streamed.

mod asked;
#[cfg(feature = "tokio")]
mod begun;
#[cfg(feature = "tokio")]
mod cancel;
mod channel;
mod child;
mod collect;
mod command;
mod durable;
mod ends;
mod environment;
mod gap;
mod liveness;
mod output;
#[cfg(feature = "tokio")]
pub(crate) mod tasks;
#[cfg(test)]
mod tests;
mod wanted;

pub(crate) use asked::{Asked, is_refusal};
#[cfg(feature = "tokio")]
pub use begun::{ExecBegun, ExecStop};
pub(crate) use channel::Channel;
pub use child::{ExecChild, ExecControl, ExecStdin};
pub use command::Command;
use command::settings;
pub use durable::{ExecId, ExecInfo, ExecState, StreamOffsets};
pub(crate) use durable::{attach, list};
#[cfg(feature = "cli")]
pub(crate) use durable::{attach_channel, durable_id};
pub(crate) use ends::{Finished, Sinks};
pub use gap::OutputGap;
pub(crate) use liveness::{Liveness, Unwatched};
pub use output::ExecOutput;
pub(crate) use wanted::Wanted;

use crate::Error;
use crate::deadline::Deadline;
use crate::pool::turns::Turn;
use exec_proto::client::Session;
use exec_proto::{ExitStatus, Exited, ProtoError, WinSize};
use oci_bake::ImageConfig;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecStatus {
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal number, if one ended it.
    pub signal: Option<i32>,
    /// Wall time in the guest, from start to end.
    pub duration: Duration,
    /// The time limit ended it.
    pub timed_out: bool,
    /// Its [memory limit](ExecBuilder::max_memory_bytes) ended it, or something that
    /// it had started.
    pub oom: bool,
    /// Largest resident set of the command and its descendants, in KiB.
    pub peak_rss_kib: u64,
    /// Which command it was that ended last: 0 for the first, 1 for the first
    /// that was chained to it.
    pub step: u32,
    /// Its program came to run. If not, `code` is 127 if there is no such program,
    /// 126 if it cannot be executed, and standard error says which it was.
    pub executed: bool,
}

impl ExecStatus {
    pub(crate) fn from_wire(exited: &Exited) -> Self {
        let (code, signal) = match exited.status {
            ExitStatus::Code(code) => (Some(i32::from(code)), None),
            ExitStatus::Signal(signal) => (None, Some(i32::from(signal))),
        };
        Self {
            code,
            signal,
            duration: Duration::from_nanos(exited.duration_ns),
            timed_out: exited.timed_out,
            oom: exited.oom,
            peak_rss_kib: exited.peak_rss_kib,
            step: exited.step,
            executed: exited.executed,
        }
    }

    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// As shells report it: the exit code, or 128 and the signal's number.
    pub fn shell_status(&self) -> u8 {
        let status = match (self.code, self.signal) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            (None, None) => 255,
        };
        u8::try_from(status).unwrap_or(255)
    }
}

/// What a command wrote and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecOutcome {
    /// How it ended.
    pub status: ExecStatus,
    /// Standard output; with a terminal, everything.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Wall time in the guest.
    pub duration: Duration,
    /// The time limit ended it.
    pub timed_out: bool,
    /// Largest resident set, in KiB.
    pub peak_rss_kib: u64,
    /// More was written than is here: see [`ExecBuilder::truncate_output`].
    pub truncated: bool,
    /// Each command of the chain that was tried, in order, with its own time and
    /// memory. Only the last can have failed; [`ExecOutcome::status`] is how it ended.
    pub steps: Vec<ExecStatus>,
}

impl ExecOutcome {
    /// Whether the command exited with 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

/// What leads to a guest's agent.
pub(crate) trait Opens: fmt::Debug + Send + Sync {
    /// What the guest's image says about running it.
    fn image_config(&self) -> &ImageConfig;

    /// Connects to the agent and sends requests. `queue` is called again if the
    /// agent refuses.
    fn open_session(
        &self,
        deadline: Deadline,
        queue: &dyn Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Channel, Error>;

    /// Sends requests over a connection that is there, and waits for nothing. `None` if
    /// nobody could be asked without waiting.
    ///
    /// # Errors
    /// Those of [`Opens::open_session`]; nothing was begun then.
    fn ask_at_once(
        &self,
        _queue: &dyn Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Option<Asked>, Error> {
        Ok(None)
    }

    /// Waits until a command whose output is collected may compute, where not all may at
    /// once. It may as long as what is returned is there.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if it is not wanted any more.
    fn turn(&self, _is_wanted: &dyn Fn() -> bool) -> Result<Option<Turn>, Error> {
        Ok(None)
    }
}

/// A [`Command`] for one machine: its settings, and what runs it.
#[derive(Debug)]
#[must_use = "nothing runs before output, spawn or one of their kin is called"]
pub struct ExecBuilder<'vm> {
    target: &'vm dyn Opens,
    command: Command,
    #[cfg(feature = "cli")]
    keeps_stdin_open: bool,
}

impl<'vm> ExecBuilder<'vm> {
    pub(crate) fn new(target: &'vm dyn Opens) -> Self {
        Self {
            target,
            command: Command::default(),
            #[cfg(feature = "cli")]
            keeps_stdin_open: false,
        }
    }

    settings!();

    fn settings(&mut self) -> &mut Command {
        &mut self.command
    }

    /// The command alone, to be run elsewhere or later.
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Runs the command and collects what it writes. A command that fails is
    /// no error: see [`ExecOutcome::status`].
    ///
    /// # Errors
    /// [`Error::Exec`] when the guest cannot start a command as it was asked to
    /// (no such user or directory, no memory left),
    /// [`Error::OutputTooLarge`] when it wrote more than the limit,
    /// [`Error::Ended`] when the machine ended meanwhile.
    pub fn output(self) -> Result<ExecOutcome, Error> {
        self.command.output_of(self.target)
    }

    /// Starts the command with its streams open. A guest that cannot start it
    /// shows in [`ExecChild::wait`].
    ///
    /// # Errors
    /// [`Error::Ended`] when the machine has ended, [`Error::System`] when the
    /// host has no threads or descriptors left.
    pub fn spawn(self) -> Result<ExecChild, Error> {
        self.command.spawn_on(self.target)
    }

    /// Connects and sends everything that comes before the command's output.
    #[cfg(feature = "cli")]
    pub(crate) fn start(self) -> Result<Channel, Error> {
        let has_stdin = self.keeps_stdin_open || self.command.stdin.is_some();
        self.command.start(self.target, has_stdin)
    }

    /// Starts the command as the machine's workload, which lives on its own.
    pub(crate) fn start_workload(self, deadline: Deadline) -> Result<(), Error> {
        self.command.start_workload(self.target, deadline)
    }

    #[cfg(feature = "cli")]
    pub(crate) fn keep_stdin_open(&mut self) {
        self.keeps_stdin_open = true;
    }
}

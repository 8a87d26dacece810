//! Commands that are the guest's: they outlive whoever started them.

use super::output::MAX_UNREAD_BYTES;
use super::{Channel, ExecChild, ExecStatus, Opens};
use crate::deadline::Deadline;
use crate::limits::{GREETING_TIMEOUT, OVERRUN_TIMEOUT};
use crate::{Error, Vm};
use exec_proto::Offsets;
use exec_proto::client::Event;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Which of a machine's durable commands. It stays the same in copies of the
/// machine, where the command goes on too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExecId(u64);

impl ExecId {
    pub(crate) fn from_wire(id: u64) -> Self {
        Self(id)
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for ExecId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A place in each of a command's outputs, in bytes from its start. The default is
/// the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOffsets {
    /// In standard output; with a terminal, in all it writes.
    pub stdout: u64,
    /// In standard error.
    pub stderr: u64,
}

impl StreamOffsets {
    /// Behind all that has been written.
    pub const LATEST: Self = Self {
        stdout: u64::MAX,
        stderr: u64::MAX,
    };

    fn from_wire(offsets: Offsets) -> Self {
        Self {
            stdout: offsets.stdout,
            stderr: offsets.stderr,
        }
    }
}

/// A durable command, as the machine tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecInfo {
    /// For [`Vm::attach`].
    pub id: ExecId,
    /// Program and arguments, cut after about a thousand bytes.
    pub argv: Vec<Vec<u8>>,
    /// What has become of it.
    pub state: ExecState,
    /// Guest time since it was started. In a copy of a machine where it ran already,
    /// that is from before the capture.
    pub since_start: Duration,
    /// It has a terminal.
    pub tty: bool,
    /// Somebody has its streams.
    pub is_attached: bool,
    /// What it has written so far.
    pub written: StreamOffsets,
}

/// What has become of a durable command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExecState {
    /// It runs.
    Running {
        /// Its process id in the guest.
        pid: u32,
    },
    /// It ended.
    Exited(ExecStatus),
}

impl From<exec_proto::ExecInfo> for ExecInfo {
    fn from(info: exec_proto::ExecInfo) -> Self {
        Self {
            id: ExecId(info.id),
            argv: info.argv,
            state: match info.ended {
                None => ExecState::Running { pid: info.pid },
                Some(exited) => ExecState::Exited(ExecStatus::from_wire(&exited)),
            },
            since_start: Duration::from_nanos(info.age_ns),
            tty: info.tty,
            is_attached: info.attached,
            written: StreamOffsets::from_wire(info.written),
        }
    }
}

/// Waits until a durable command has a name, so that it can be found again
/// whatever happens next.
pub(crate) fn durable_id(channel: &Channel) -> Result<ExecId, Error> {
    let mut buffer = Vec::new();
    loop {
        match channel.next_event(&mut buffer)? {
            Event::Durable { id } => return Ok(ExecId::from_wire(id)),
            Event::Failed(failure) => return Err(failure.into()),
            _ => {}
        }
    }
}

/// The durable commands of a machine, oldest first.
pub(crate) fn list(on: &dyn Opens) -> Result<Vec<ExecInfo>, Error> {
    let deadline = Deadline::within(GREETING_TIMEOUT);
    let channel = on.open_session(deadline, &|session| session.list_execs())?;
    channel.answer(|event| match event {
        Event::Execs(execs) => Some(execs.into_iter().map(ExecInfo::from).collect()),
        _ => None,
    })
}

/// A connection that has the streams of a durable command, and where they begin.
pub(crate) fn attach_channel(
    on: &dyn Opens,
    id: ExecId,
    from: StreamOffsets,
) -> Result<(Channel, StreamOffsets), Error> {
    let deadline = Deadline::within(GREETING_TIMEOUT);
    let offsets = Offsets {
        stdout: from.stdout,
        stderr: from.stderr,
    };
    let channel = on.open_session(deadline, &|session| session.attach(id.0, offsets))?;
    let begins = channel.answer_until(deadline, |event| match event {
        Event::Attached(attached) => Some(StreamOffsets::from_wire(attached.from)),
        _ => None,
    })?;
    channel.limit(Deadline::none());
    Ok((channel, begins))
}

pub(crate) fn attach(on: &dyn Opens, id: ExecId, from: StreamOffsets) -> Result<ExecChild, Error> {
    let (channel, begins) = attach_channel(on, id, from)?;
    let child = ExecChild::begun(channel, MAX_UNREAD_BYTES, OVERRUN_TIMEOUT, begins)?;
    Ok(child.durable(id))
}

impl Vm {
    /// The durable commands of the machine, oldest first: those that run, and the
    /// last 32 that have ended.
    ///
    /// # Errors
    /// [`Error::Ended`] once the machine has ended.
    pub fn execs(&self) -> Result<Vec<ExecInfo>, Error> {
        list(self)
    }

    /// Takes up the streams of a durable command from a place in each, or from their
    /// ends if these come first. Also after the machine was paused, and in a copy of
    /// the machine: there the command is a copy too.
    ///
    /// Of each output the guest keeps the last 256 KiB. What is asked for and not kept
    /// any more is a gap: reading it fails once with an [`OutputGap`] inside, and goes
    /// on behind it. A command with somebody at its streams waits for them, and loses
    /// nothing. There is one at a time: whoever had them before gets an error.
    ///
    /// Dropping the result lets the command go on.
    ///
    /// [`OutputGap`]: crate::OutputGap
    ///
    /// # Errors
    /// [`Error::Exec`] with [`crate::ExecErrorKind::NoSuchExec`] if there is no such
    /// command, or it ended long ago; [`Error::Ended`] once the machine has ended.
    pub fn attach(&self, id: ExecId, from: StreamOffsets) -> Result<ExecChild, Error> {
        attach(self, id, from)
    }
}

//! Commands that a guest is asked for at once, by who does not wait for anything.

use super::channel::Channel;
use super::{Command, ExecOutcome, Opens};
use crate::Error;
use crate::deadline::Deadline;
use crate::pool::turns::Turn;
use exec_proto::ErrorKind;
use exec_proto::client::Session;
use std::sync::Arc;

/// The most that may be staged by who does not wait: what is copied in some microseconds,
/// and what a connection takes at once where its buffers are as large as Linux's.
const AT_ONCE_BYTES: usize = 64 * 1024;

/// Whether an agent that was asked for something has not begun it, and may do so when it
/// is asked again.
pub fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::Connection { .. }
            | Error::Exec {
                kind: ErrorKind::Busy,
                ..
            }
    )
}

/// A connection over which a guest was asked for something.
#[derive(Debug)]
pub struct Asked {
    pub channel: Channel,
    /// The agent has taken it. If not, its greeting is still to come.
    pub is_greeted: bool,
}

/// A command whose output is to be collected, and that the guest was asked for.
#[derive(Debug)]
pub struct AskedCommand {
    channel: Arc<Channel>,
    is_greeted: bool,
    whole: Deadline,
    _turn: Option<Turn>,
}

impl Command {
    /// Asks for the command, if that can be done without waiting: there is a connection,
    /// the machine may compute, and little is staged. What is wrong with it is found
    /// by who asks patiently.
    pub(super) fn ask_at_once(&self, on: &dyn Opens) -> Option<AskedCommand> {
        if self.staged_bytes() > AT_ONCE_BYTES {
            return None;
        }
        let turn = on.turn(&|| false).ok()?;
        let (request, times) = self.to_collect(on).ok()?;
        let queue = |session: &mut Session| self.queue(session, &request);
        let asked = on.ask_at_once(&queue).ok()??;
        asked.channel.limit(match asked.is_greeted {
            true => times.whole,
            false => times.opening,
        });
        Some(AskedCommand {
            channel: Arc::new(asked.channel),
            is_greeted: asked.is_greeted,
            whole: times.whole,
            _turn: turn,
        })
    }
}

impl AskedCommand {
    pub fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Waits for the command's end. `None` if the agent has not begun it, and may do so
    /// when it is asked again.
    ///
    /// # Errors
    /// Those of [`Command::collect`].
    pub fn collect(&self, command: &Command) -> Result<Option<ExecOutcome>, Error> {
        if !self.is_greeted {
            match self.channel.greeting() {
                Err(error) if is_refusal(&error) => return Ok(None),
                greeted => greeted?,
            }
            self.channel.limit(self.whole);
        }
        command.collect(&self.channel).map(Some)
    }
}

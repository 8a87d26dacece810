//! Commands that end because nobody waits for them any more.

use super::wanted::Wanted;
use super::{Channel, Command, ExecOutcome, Opens};
use crate::Error;
use crate::sync::lock;
use std::sync::{Arc, Mutex, Weak};

/// Ends a command whose outcome nobody waits for any more.
#[derive(Debug, Default)]
pub(super) struct Cancel {
    state: Mutex<Cancelled>,
}

#[derive(Debug, Default)]
struct Cancelled {
    is_cancelled: bool,
    channel: Weak<Channel>,
}

impl Cancel {
    /// Ends the command that is run, and that which would be.
    pub(super) fn cancel(&self) {
        let mut state = lock(&self.state);
        state.is_cancelled = true;
        if let Some(channel) = state.channel.upgrade() {
            channel.close();
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        lock(&self.state).is_cancelled
    }

    /// Has the command of this connection end with it.
    pub(super) fn watch(&self, channel: &Arc<Channel>) {
        let mut state = lock(&self.state);
        if state.is_cancelled {
            channel.close();
        }
        state.channel = Arc::downgrade(channel);
    }

    /// Runs a command until it ends, or nobody waits for it.
    pub(super) fn run(
        &self,
        on: &dyn Opens,
        command: &Command,
        wanted: Option<Wanted>,
    ) -> Result<ExecOutcome, Error> {
        if self.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let is_wanted = || !self.is_cancelled() && wanted.as_ref().is_none_or(Wanted::is_wanted);
        let _turn = on.turn(&is_wanted)?;
        let channel = Arc::new(command.start_collected(on)?);
        self.watch(&channel);
        if let Some(wanted) = wanted {
            channel.want(wanted);
        }
        match command.collect(&channel) {
            Err(_) if self.is_cancelled() => Err(Error::Cancelled),
            result => result,
        }
    }
}

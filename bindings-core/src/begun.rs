//! Commands that a guest was asked for at once, for threads that wait for them.

use supermachine::async_::ExecBegun;
use supermachine::{Command, Error, ExecOutcome};

use crate::cancel::Hook;
use crate::{BindingError, Result};

/// What became of a command that was to be begun.
#[derive(Debug)]
pub enum Beginning {
    /// The guest was asked for it.
    Begun(Begun),
    /// That would have to wait: it is for [`Machine::run`](crate::Machine::run).
    Later(Command),
}

/// A command that a guest was asked for. Dropped, or cancelled by what it was begun
/// with, it is killed.
#[derive(Debug)]
pub struct Begun {
    command: ExecBegun,
    /// Those that stop it.
    _hooks: Vec<Hook>,
}

impl Begun {
    pub(crate) fn new(command: ExecBegun, hooks: Vec<Hook>) -> Self {
        Self {
            command,
            _hooks: hooks,
        }
    }

    /// Waits for its end on this thread.
    ///
    /// # Errors
    /// As [`supermachine::Vm::run`], and [`BindingError::aborted`].
    pub fn wait(self) -> Result<ExecOutcome> {
        told(self.command.wait())
    }

    /// The same, as long as `is_wanted` says so, which this thread asks ten times a second.
    ///
    /// # Errors
    /// As [`Begun::wait`].
    pub fn wait_while(
        self,
        is_wanted: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<ExecOutcome> {
        told(self.command.wait_while(is_wanted))
    }

    /// Has `then` told of its end, on a thread of the runtime that this is called in.
    pub fn then(self, then: impl FnOnce(Result<ExecOutcome>) + Send + 'static) {
        drop(tokio::task::spawn_blocking(move || then(self.wait())));
    }
}

fn told(outcome: std::result::Result<ExecOutcome, Error>) -> Result<ExecOutcome> {
    outcome.map_err(|error| match error {
        Error::Cancelled => BindingError::aborted(),
        error => error.into(),
    })
}

//! Commands that were begun by one thread, and are waited for by another.

use super::asked::AskedCommand;
use super::cancel::Cancel;
use super::wanted::Wanted;
use super::{Command, ExecOutcome, Opens};
use crate::Error;
use std::fmt;
use std::sync::Arc;

/// A command that a machine was asked for, and whose output is to be collected by a
/// thread that may wait. Dropping it kills the command, with all its descendants.
///
/// It is for programs that have threads of their own, so that nothing is handed over
/// between the call and its result that need not be.
pub struct ExecBegun {
    on: Arc<dyn AsOpens + Send + Sync>,
    command: Command,
    asked: Option<AskedCommand>,
    wanted: Option<Wanted>,
    cancel: Arc<Cancel>,
}

/// Kills a command that was begun.
#[derive(Clone, Debug)]
pub struct ExecStop(Arc<Cancel>);

impl ExecBegun {
    /// Asks for a command, if that can be done without waiting.
    pub(crate) fn ask<T>(on: &Arc<T>, command: &Command) -> Option<Self>
    where
        T: AsOpens + Send + Sync + 'static,
    {
        let asked = command.ask_at_once(on.opens())?;
        let cancel = Arc::new(Cancel::default());
        cancel.watch(asked.channel());
        Some(Self {
            on: on.clone(),
            command: command.clone(),
            asked: Some(asked),
            wanted: None,
            cancel,
        })
    }

    /// What kills the command from elsewhere: who waits for it learns
    /// [`Error::Cancelled`].
    pub fn stop(&self) -> ExecStop {
        ExecStop(self.cancel.clone())
    }

    pub(super) fn cancel(&self) -> Arc<Cancel> {
        self.cancel.clone()
    }

    /// Waits for the command to end, and collects its output.
    ///
    /// # Errors
    /// As [`crate::Vm::run`], and [`Error::Cancelled`] if it was stopped.
    pub fn wait(mut self) -> Result<ExecOutcome, Error> {
        self.outcome()
    }

    /// The same as long as the command is wanted, of which `is_wanted` is asked ten times
    /// a second, on this thread.
    ///
    /// # Errors
    /// As [`ExecBegun::wait`].
    pub fn wait_while(
        mut self,
        is_wanted: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<ExecOutcome, Error> {
        let wanted = Wanted::new(is_wanted);
        if let Some(asked) = &self.asked {
            asked.channel().want(wanted.clone());
        }
        self.wanted = Some(wanted);
        self.outcome()
    }

    fn outcome(&mut self) -> Result<ExecOutcome, Error> {
        let result = match self.asked.take() {
            Some(asked) => asked.collect(&self.command),
            None => Ok(None),
        };
        match result {
            Err(_) if self.cancel.is_cancelled() => Err(Error::Cancelled),
            Ok(Some(outcome)) => Ok(outcome),
            // It was not begun, so it may be asked for once more.
            Ok(None) => {
                let wanted = self.wanted.take();
                self.cancel.run(self.on.opens(), &self.command, wanted)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for ExecBegun {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl fmt::Debug for ExecBegun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither its words nor its variables: they may be secret.
        f.debug_struct("ExecBegun").finish_non_exhaustive()
    }
}

impl ExecStop {
    /// Kills the command with all its descendants, if it has not ended. It does not wait.
    pub fn stop(&self) {
        self.0.cancel();
    }
}

/// What has a machine in it.
pub(crate) trait AsOpens {
    fn opens(&self) -> &dyn Opens;
}

impl AsOpens for crate::Vm {
    fn opens(&self) -> &dyn Opens {
        self
    }
}

impl AsOpens for crate::PooledVm {
    fn opens(&self) -> &dyn Opens {
        &**self
    }
}

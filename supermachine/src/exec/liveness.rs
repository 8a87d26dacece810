//! What is known of the worker behind a connection to an agent.

use crate::Error;
use std::fmt;
use std::time::Duration;

/// Knows of the worker behind a connection, as far as anybody does.
pub trait Liveness: fmt::Debug + Send + Sync {
    /// For how long the machine has stood still because of orders to its worker.
    fn paused(&self) -> Duration {
        Duration::ZERO
    }

    /// How the machine or its worker ended, if it has or does within `patience`.
    fn end_within(&self, _patience: Duration) -> Option<Error> {
        None
    }

    /// Asks the worker whether it lives, and waits for its answer up to `patience`.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not answer, or how its machine ended.
    fn probe(&self, _patience: Duration) -> Result<(), Error> {
        Ok(())
    }
}

/// A worker of another process, of which nobody here knows.
#[derive(Debug)]
pub struct Unwatched;

impl Liveness for Unwatched {}

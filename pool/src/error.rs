//! What can go wrong, by what the caller can do about it.

use std::fmt;
use std::time::Duration;

/// Most lines of a worker's log that are kept.
const MAX_LINES: usize = 20;
/// Most bytes of one line that are kept.
const MAX_LINE_BYTES: usize = 512;

/// Why a worker could not be started, restored or reset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", Log(.log))]
pub struct Failure {
    message: String,
    log: Vec<String>,
}

struct Log<'a>(&'a [String]);

impl fmt::Display for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() {
            write!(f, "; last lines of its log: {:?}", self.0)?;
        }
        Ok(())
    }
}

fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_LINE_BYTES);
    text[..end].to_owned()
}

impl Failure {
    /// A failure with a reason, and nothing from the worker.
    #[must_use]
    pub fn new(message: impl fmt::Display) -> Self {
        Self {
            message: shortened(&message.to_string()),
            log: Vec::new(),
        }
    }

    /// Adds what the worker said; the last lines of it are kept.
    #[must_use]
    pub fn with_log<'a>(mut self, lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut last = std::collections::VecDeque::new();
        for line in lines {
            if last.len() == MAX_LINES {
                last.pop_front();
            }
            last.push_back(shortened(line));
        }
        self.log = last.into();
        self
    }

    /// The reason.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The last lines of the worker's log.
    #[must_use]
    pub fn log(&self) -> &[String] {
        &self.log
    }
}

/// Why there is no worker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The configuration contradicts itself.
    #[error("pool configuration: {0}")]
    Config(&'static str),
    /// All workers were in use for as long as one was willing to wait.
    #[error(
        "no worker became free within {waited:?}{}",
        if .failure.is_some() { ", and no further one can be started" } else { "" }
    )]
    Timeout {
        /// How long that was.
        waited: Duration,
        /// Why no further worker was started, if that was tried in vain.
        #[source]
        failure: Option<Failure>,
    },
    /// Another worker would not have fitted into memory for as long as one was
    /// willing to wait.
    #[error("no memory for another worker of {needed_bytes} bytes within {waited:?}")]
    OverBudget {
        /// How long that was.
        waited: Duration,
        /// What another worker is expected to need.
        needed_bytes: u64,
    },
    /// Workers fail to start; none is tried for a while.
    #[error("{failures} workers in a row failed to start, next try in {retry_in:?}")]
    CircuitOpen {
        /// Failures in a row.
        failures: u32,
        /// Time until the next try.
        retry_in: Duration,
        /// The last of them.
        #[source]
        failure: Failure,
    },
    /// The pool was shut down.
    #[error("the pool is shut down")]
    Closed,
}

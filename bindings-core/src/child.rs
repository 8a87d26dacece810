//! Running commands with their streams.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use supermachine::async_::{AsyncExecChild, AsyncExecOutput, AsyncExecStdin};
use supermachine::{Error, ExecControl, ExecStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex as AsyncMutex;

use crate::blocking::blocking;
use crate::numbers::{fitting, whole};
use crate::{BindingError, Cancel, Result};

/// Most bytes that one read gives, and what it gives if it does not say.
pub const MAX_READ_BYTES: usize = 64 << 10;

/// A running command. Dropping it kills the command, with its descendants.
#[derive(Debug)]
pub struct Child {
    child: Mutex<AsyncExecChild>,
    /// Held by who waits for the end: only one at a time is told of it.
    waits: AsyncMutex<()>,
    control: ExecControl,
    stdin: AsyncMutex<Option<AsyncExecStdin>>,
    outputs: [AsyncMutex<Option<AsyncExecOutput>>; 2],
    scope: Cancel,
}

impl Child {
    pub(crate) fn new(mut child: AsyncExecChild, scope: Cancel) -> Self {
        Self {
            control: child.control(),
            stdin: AsyncMutex::new(child.stdin()),
            child: Mutex::new(child),
            waits: AsyncMutex::default(),
            outputs: Default::default(),
            scope,
        }
    }

    fn child(&self) -> MutexGuard<'_, AsyncExecChild> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By what it is found again, if it is durable.
    pub fn id(&self) -> Option<String> {
        self.child().id().map(|id| id.to_string())
    }

    /// Writes all of `bytes` to the standard input; waits while the command does not
    /// read.
    ///
    /// # Errors
    /// An error with the code `stream` if the input was closed, or the command is over.
    pub async fn write_stdin(&self, bytes: &[u8]) -> Result<()> {
        self.in_scope(async {
            let mut stdin = self.stdin.lock().await;
            let Some(stdin) = stdin.as_mut() else {
                let closed = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
                return Err(BindingError::stream(&closed));
            };
            let written = stdin.write_all(bytes).await;
            written.map_err(|error| BindingError::stream(&error))
        })
        .await
    }

    /// Ends the standard input. Again is no mistake.
    ///
    /// # Errors
    /// As [`Child::write_stdin`].
    pub async fn close_stdin(&self) -> Result<()> {
        match self.stdin.lock().await.take() {
            Some(mut stdin) => {
                let closed = stdin.shutdown().await;
                closed.map_err(|error| BindingError::stream(&error))
            }
            None => Ok(()),
        }
    }

    /// Reads what there is of the standard output, at most `max` bytes and
    /// [`MAX_READ_BYTES`]; nothing at its end.
    ///
    /// # Errors
    /// An error with the code `stream` where output is missing.
    pub async fn read_stdout(&self, max: Option<f64>) -> Result<Vec<u8>> {
        self.read(0, max).await
    }

    /// The same of the standard error.
    ///
    /// # Errors
    /// As [`Child::read_stdout`].
    pub async fn read_stderr(&self, max: Option<f64>) -> Result<Vec<u8>> {
        self.read(1, max).await
    }

    async fn read(&self, which: usize, max: Option<f64>) -> Result<Vec<u8>> {
        let max = match max {
            Some(max) => whole("maxBytes", max, 1)?,
            None => MAX_READ_BYTES as u64,
        };
        let max = usize::try_from(max).unwrap_or(MAX_READ_BYTES);
        let mut output = self.outputs[which].lock().await;
        if output.is_none() {
            // Untaken outputs are dropped by whoever waits for the end.
            *output = match which {
                0 => self.child().stdout(),
                _ => self.child().stderr(),
            };
        }
        let Some(output) = output.as_mut() else {
            return Ok(Vec::new());
        };
        let mut bytes = vec![0; max.min(MAX_READ_BYTES)];
        let read = async { Ok(output.read(&mut bytes).await) };
        let count = self.in_scope(read).await?;
        bytes.truncate(count.map_err(|error| BindingError::stream(&error))?);
        Ok(bytes)
    }

    /// Sends a signal to the command's process group; 9 ends all its descendants.
    ///
    /// # Errors
    /// As [`supermachine::ExecChild::signal`].
    pub async fn signal(&self, number: f64) -> Result<()> {
        let number = fitting("signum", number, 1)?;
        self.control(move |control| control.signal(number)).await
    }

    /// Tells the command's terminal its new size.
    ///
    /// # Errors
    /// As [`supermachine::ExecChild::resize`].
    pub async fn resize(&self, columns: f64, rows: f64) -> Result<()> {
        let (columns, rows) = (fitting("cols", columns, 0)?, fitting("rows", rows, 0)?);
        self.control(move |control| control.resize(columns, rows))
            .await
    }

    async fn control(
        &self,
        what: impl FnOnce(&ExecControl) -> std::result::Result<(), Error> + Send + 'static,
    ) -> Result<()> {
        let control = self.control.clone();
        blocking(move || what(&control)).await
    }

    /// Waits for the command to end. Output that nobody has begun to read is
    /// dropped; the input stays open until it is closed.
    ///
    /// # Errors
    /// As [`supermachine::ExecChild::wait`].
    pub async fn wait(&self) -> Result<ExecStatus> {
        // The lock is held while it is asked and not while it is awaited, so that
        // streams can be taken meanwhile.
        let ended = poll_fn(|context| {
            let mut child = self.child();
            pin!(child.wait()).poll(context)
        });
        let next = async {
            let _turn = self.waits.lock().await;
            Ok(ended.await?)
        };
        self.in_scope(next).await
    }

    async fn in_scope<T>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        Cancel::or(Some(self.scope.clone()), call).await
    }
}

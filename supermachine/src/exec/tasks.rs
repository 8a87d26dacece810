//! A running command's streams for tasks of tokio: nothing here blocks a thread of
//! its runtime.

use super::StreamOffsets;
use super::begun::{AsOpens, ExecBegun};
use super::cancel::Cancel;
use super::{
    Command, ExecChild, ExecControl, ExecId, ExecOutcome, ExecOutput, ExecStatus, ExecStdin,
};
use crate::Error;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{JoinHandle, spawn_blocking};

/// Does what blocks on a thread of tokio for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Err(Error::Cancelled),
        },
    }
}

/// An [`ExecChild`] for tasks. Dropping it kills the command with all its
/// descendants, unless it is durable.
#[derive(Debug)]
pub struct AsyncExecChild(ExecChild);

/// The command's standard input. Shutting it down, or dropping it, ends the input.
#[derive(Debug)]
pub struct AsyncExecStdin {
    stdin: ExecStdin,
    /// Sends what the connection did not take at once.
    sending: Option<JoinHandle<Result<(), Error>>>,
}

/// A command's standard output or error, as [`ExecOutput`].
#[derive(Debug)]
pub struct AsyncExecOutput(ExecOutput);

impl AsyncExecChild {
    pub(crate) fn new(child: ExecChild) -> Self {
        Self(child)
    }

    /// By what it can be found again, if it is durable.
    pub fn id(&self) -> Option<ExecId> {
        self.0.id()
    }

    /// Takes the standard input.
    pub fn stdin(&mut self) -> Option<AsyncExecStdin> {
        let stdin = self.0.stdin()?;
        Some(AsyncExecStdin {
            stdin,
            sending: None,
        })
    }

    /// Takes the standard output; see [`ExecChild::stdout`].
    pub fn stdout(&mut self) -> Option<AsyncExecOutput> {
        self.0.stdout().map(AsyncExecOutput)
    }

    /// Takes the standard error; see [`ExecChild::stdout`].
    pub fn stderr(&mut self) -> Option<AsyncExecOutput> {
        self.0.stderr().map(AsyncExecOutput)
    }

    /// Sends a signal as [`ExecChild::signal`] does.
    ///
    /// # Errors
    /// As [`ExecChild::signal`].
    pub async fn signal(&self, number: u32) -> Result<(), Error> {
        let channel = self.0.channel().clone();
        blocking(move || channel.signal(number)).await
    }

    /// What signals and resizes it from elsewhere, on threads that may block.
    pub fn control(&self) -> ExecControl {
        self.0.control()
    }

    /// Kills the command as [`ExecChild::kill`] does.
    ///
    /// # Errors
    /// As [`ExecChild::kill`].
    pub async fn kill(&self) -> Result<(), Error> {
        self.signal(super::child::KILL).await
    }

    /// Tells the command's terminal its new size.
    ///
    /// # Errors
    /// As [`ExecChild::resize`].
    pub async fn resize(&self, columns: u16, rows: u16) -> Result<(), Error> {
        let channel = self.0.channel().clone();
        blocking(move || channel.resize(columns, rows)).await
    }

    /// Ends the input, drops outputs that were not taken, and waits for the command
    /// to end. A wait that is given up can be begun again.
    ///
    /// # Errors
    /// As [`ExecChild::wait`].
    pub async fn wait(&mut self) -> Result<ExecStatus, Error> {
        drop(self.0.stdin());
        self.0.outputs().await_end();
        poll_fn(|context| self.0.outputs().poll_result(context))
            .await?
            .status()
    }

    /// How the command ended, if it has, as [`ExecChild::try_wait`] tells.
    ///
    /// # Errors
    /// As [`ExecChild::try_wait`].
    pub fn try_wait(&mut self) -> Result<Option<ExecStatus>, Error> {
        self.0.try_wait()
    }

    /// Lets the command go on alone, as [`ExecChild::detach`] does.
    ///
    /// # Errors
    /// As [`ExecChild::detach`].
    pub async fn detach(self) -> Result<ExecId, Error> {
        blocking(move || self.0.detach()).await
    }

    /// The same command for threads.
    pub fn into_blocking(self) -> ExecChild {
        self.0
    }
}

impl AsyncExecOutput {
    /// Where the next read begins, as [`ExecOutput::offset`] tells.
    pub fn offset(&self) -> u64 {
        self.0.offset()
    }
}

impl AsyncRead for AsyncExecOutput {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = ready!(self.0.poll_read(context, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncExecStdin {
    /// Waits until all that was taken is on its way.
    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(sending) = &mut self.sending {
            let sent = ready!(Pin::new(sending).poll(context));
            self.sending = None;
            return Poll::Ready(match sent {
                Ok(sent) => sent.map_err(io::Error::other),
                Err(_) => Err(io::Error::other(Error::Cancelled)),
            });
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what is queued; a thread that may wait does what cannot be done at once.
    fn send(&mut self) -> io::Result<()> {
        let channel = &self.stdin.channel;
        if !channel.send_some().map_err(io::Error::other)? {
            let channel = channel.clone();
            self.sending = Some(spawn_blocking(move || channel.flush()));
        }
        Ok(())
    }
}

impl AsyncWrite for AsyncExecStdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(context))?;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Some(count) = ready!(self.stdin.channel.poll_write_stdin(context, bytes)) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        self.send()?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(context))?;
        self.stdin.channel.queue_end_of_stdin();
        self.send()?;
        self.poll_sent(context)
    }
}

/// Cancels when the future that has it is dropped.
struct CancelOnDrop(Arc<Cancel>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Runs a command on a thread that may block. It is asked for before that, if that needs
/// no wait. Dropping the future kills the command with all its descendants, and whoever
/// holds the machine for it lets go of it.
pub(crate) async fn run<T>(on: Arc<T>, command: Command) -> Result<ExecOutcome, Error>
where
    T: AsOpens + Send + Sync + 'static,
{
    if let Some(begun) = ExecBegun::ask(&on, &command) {
        let _guard = CancelOnDrop(begun.cancel());
        return blocking(move || begun.wait()).await;
    }
    let cancel = Arc::new(Cancel::default());
    let _guard = CancelOnDrop(cancel.clone());
    blocking(move || cancel.run(on.opens(), &command, None)).await
}

/// Takes up the streams of a durable command for tasks.
pub(crate) async fn attach<T>(
    on: Arc<T>,
    id: ExecId,
    from: StreamOffsets,
) -> Result<AsyncExecChild, Error>
where
    T: AsOpens + Send + Sync + 'static,
{
    blocking(move || super::attach(on.opens(), id, from).map(AsyncExecChild)).await
}

//! A running command with its streams.

use super::output::{ExecOutput, Outputs, Pour, Which};
use super::{Channel, ExecStatus};
use crate::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A running command. Dropping it kills the command with all its descendants.
#[derive(Debug)]
pub struct ExecChild {
    channel: Arc<Channel>,
    stdin: Option<ExecStdin>,
    outputs: Arc<Outputs>,
    is_taken: [bool; 2],
    reader: Option<JoinHandle<Result<ExecStatus, Error>>>,
}

/// The command's standard input. Dropping it ends the input.
#[derive(Debug)]
pub struct ExecStdin {
    channel: Arc<Channel>,
}

impl ExecStdin {
    /// Ends the input.
    pub fn close(self) -> Result<(), Error> {
        self.channel.close_stdin()
    }
}

impl Write for ExecStdin {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.channel.write_stdin(bytes) {
            Ok(true) => Ok(bytes.len()),
            Ok(false) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ExecStdin {
    fn drop(&mut self) {
        self.channel.let_go_of_stdin();
    }
}

impl ExecChild {
    /// Its own time limit ends `reserve` before that of `channel`.
    pub(super) fn new(
        channel: Channel,
        max_unread_bytes: usize,
        reserve: Duration,
    ) -> Result<Self, Error> {
        let channel = Arc::new(channel);
        let outputs = Arc::new(Outputs::new(max_unread_bytes));
        let reader = {
            let (channel, outputs) = (channel.clone(), outputs.clone());
            std::thread::Builder::new()
                .name("exec-output".into())
                .spawn(move || {
                    let mut pour = Pour::new(&outputs, &channel, reserve);
                    let result = channel.read_to_end(&mut pour);
                    pour.finish(result.is_ok());
                    result
                })
                .map_err(Error::system("start a thread"))?
        };
        Ok(Self {
            stdin: Some(ExecStdin {
                channel: channel.clone(),
            }),
            channel,
            outputs,
            is_taken: [false; 2],
            reader: Some(reader),
        })
    }

    /// Takes the standard input.
    pub fn stdin(&mut self) -> Option<ExecStdin> {
        self.stdin.take()
    }

    /// Takes the standard output.
    ///
    /// The command waits while nobody reads what it writes, except where that
    /// would keep its owner waiting for ever: while the other output is being
    /// waited for, or the end in [`ExecChild::wait`], or after the time limit,
    /// up to [`crate::ExecBuilder::max_output_bytes`] of this one are kept, 16 MiB
    /// if that is not set. What goes beyond is lost to an output that nobody has
    /// taken, and of one that somebody has the command waits for room until its
    /// time limit. An output that lost something fails where that is missing.
    pub fn stdout(&mut self) -> Option<ExecOutput> {
        self.take(Which::Stdout)
    }

    /// Takes the standard error; see [`ExecChild::stdout`].
    pub fn stderr(&mut self) -> Option<ExecOutput> {
        self.take(Which::Stderr)
    }

    fn take(&mut self, which: Which) -> Option<ExecOutput> {
        let [stdout, stderr] = &mut self.is_taken;
        let is_taken = match which {
            Which::Stdout => stdout,
            Which::Stderr => stderr,
        };
        (!std::mem::replace(is_taken, true)).then(|| self.outputs.take(which))
    }

    /// Sends a signal to the command's process group.
    pub fn signal(&self, number: u32) -> Result<(), Error> {
        self.channel.signal(number)
    }

    /// Tells the command's terminal its new size.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<(), Error> {
        self.channel.resize(columns, rows)
    }

    /// Ends the input, drops outputs that were not taken, and waits for the
    /// command to end.
    pub fn wait(mut self) -> Result<ExecStatus, Error> {
        self.stdin = None;
        self.outputs.await_end();
        match self.reader.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(Error::connection("waiting for it")(io::Error::other(
                "its reader panicked",
            ))),
        }
    }
}

impl Drop for ExecChild {
    fn drop(&mut self) {
        if self.reader.is_some() {
            // The reader ends by itself, and soon: nobody waits for it.
            self.outputs.let_go();
            self.channel.close();
        }
    }
}

//! A running command with its streams.

use super::{Channel, ExecStatus, Sinks};
use crate::Error;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::Arc;
use std::thread::JoinHandle;

/// A running command. Dropping it kills the command with all its descendants.
#[derive(Debug)]
pub struct ExecChild {
    channel: Arc<Channel>,
    stdin: Option<ExecStdin>,
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
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
        let _ = self.channel.close_stdin();
    }
}

/// Output into pipes. A pipe whose reader is gone swallows what comes.
struct Pipes {
    stdout: Option<PipeWriter>,
    stderr: Option<PipeWriter>,
}

fn pour(pipe: &mut Option<PipeWriter>, bytes: &[u8]) {
    if let Some(writer) = pipe
        && writer.write_all(bytes).is_err()
    {
        *pipe = None;
    }
}

impl Sinks for Pipes {
    fn stdout(&mut self, bytes: &[u8]) -> Result<(), Error> {
        pour(&mut self.stdout, bytes);
        Ok(())
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<(), Error> {
        pour(&mut self.stderr, bytes);
        Ok(())
    }
}

impl ExecChild {
    pub(super) fn new(channel: Channel) -> Result<Self, Error> {
        let pipe = || io::pipe().map_err(Error::system("make pipes"));
        let (stdout, out) = pipe()?;
        let (stderr, err) = pipe()?;
        let channel = Arc::new(channel);
        let reader = {
            let channel = channel.clone();
            std::thread::Builder::new()
                .name("exec-output".into())
                .spawn(move || {
                    channel.read_to_end(&mut Pipes {
                        stdout: Some(out),
                        stderr: Some(err),
                    })
                })
                .map_err(Error::system("start a thread"))?
        };
        Ok(Self {
            stdin: Some(ExecStdin {
                channel: channel.clone(),
            }),
            channel,
            stdout: Some(stdout),
            stderr: Some(stderr),
            reader: Some(reader),
        })
    }

    /// Takes the standard input.
    pub fn stdin(&mut self) -> Option<ExecStdin> {
        self.stdin.take()
    }

    /// Takes the standard output. Both outputs arrive in one stream: who reads
    /// only one must expect the command to wait once the other's pipe is full.
    pub fn stdout(&mut self) -> Option<PipeReader> {
        self.stdout.take()
    }

    /// Takes the standard error.
    pub fn stderr(&mut self) -> Option<PipeReader> {
        self.stderr.take()
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
        self.stdout = None;
        self.stderr = None;
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
            // The reader ends by itself. It is not waited for: it may be
            // writing into a pipe whose other end someone took and holds.
            self.channel.close();
        }
    }
}

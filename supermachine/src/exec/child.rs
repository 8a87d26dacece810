//! A running command with its streams.

use super::output::{ExecOutput, Outputs, Pour, Which};
use super::{Channel, ExecId, ExecStatus, Finished, StreamOffsets};
use crate::Error;
use crate::deadline::Deadline;
use crate::limits::GUEST_ANSWER_TIMEOUT;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

/// SIGKILL, the same on every architecture of Linux.
pub(super) const KILL: u32 = 9;

/// A running command. Dropping it kills the command with all its descendants,
/// unless it is durable: then it goes on.
#[derive(Debug)]
pub struct ExecChild {
    channel: Arc<Channel>,
    stdin: Option<ExecStdin>,
    outputs: Arc<Outputs>,
    is_taken: [bool; 2],
    id: Option<ExecId>,
    /// Dropping it ends nothing.
    is_let_go: bool,
}

/// The command's standard input. Dropping it ends the input.
#[derive(Debug)]
pub struct ExecStdin {
    pub(super) channel: Arc<Channel>,
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

/// Signals and resizes a running command while somebody else waits for it.
#[derive(Clone, Debug)]
pub struct ExecControl {
    channel: Arc<Channel>,
}

impl ExecControl {
    /// Sends a signal as [`ExecChild::signal`] does.
    ///
    /// # Errors
    /// As [`ExecChild::signal`].
    pub fn signal(&self, number: u32) -> Result<(), Error> {
        self.channel.signal(number)
    }

    /// Tells the command's terminal its new size as [`ExecChild::resize`] does.
    ///
    /// # Errors
    /// As [`ExecChild::resize`].
    pub fn resize(&self, columns: u16, rows: u16) -> Result<(), Error> {
        self.channel.resize(columns, rows)
    }
}

/// Says that the command is over when its reader is, however that ends.
struct Reader<'a> {
    outputs: &'a Outputs,
    result: Option<Result<Finished, Error>>,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let panicked = || {
            let panicked = io::Error::other("its reader panicked");
            Err(Error::connection("waiting for it")(panicked))
        };
        self.outputs
            .finish(self.result.take().unwrap_or_else(panicked));
    }
}

impl ExecChild {
    /// Its own time limit ends `reserve` before that of `channel`.
    pub(super) fn new(
        channel: Channel,
        max_unread_bytes: usize,
        reserve: Duration,
    ) -> Result<Self, Error> {
        Self::begun(channel, max_unread_bytes, reserve, StreamOffsets::default())
    }

    /// A command whose streams begin there.
    pub(super) fn begun(
        channel: Channel,
        max_unread_bytes: usize,
        reserve: Duration,
        begins: StreamOffsets,
    ) -> Result<Self, Error> {
        let channel = Arc::new(channel);
        let outputs = Arc::new(Outputs::new(max_unread_bytes, begins));
        {
            let (channel, outputs) = (channel.clone(), outputs.clone());
            std::thread::Builder::new()
                .name("exec-output".into())
                .spawn(move || {
                    let mut reader = Reader {
                        outputs: &outputs,
                        result: None,
                    };
                    let mut pour = Pour::new(&outputs, &channel, reserve);
                    reader.result = Some(channel.read_to_finish(&mut pour));
                })
                .map_err(Error::system("start a thread"))?;
        }
        Ok(Self {
            stdin: Some(ExecStdin {
                channel: channel.clone(),
            }),
            channel,
            outputs,
            is_taken: [false; 2],
            id: None,
            is_let_go: false,
        })
    }

    /// A durable command, by its id.
    pub(super) fn durable(self, id: ExecId) -> Self {
        let mut child = self;
        child.id = Some(id);
        child
    }

    /// By what it can be found again, if it is [durable](crate::ExecBuilder::durable).
    pub fn id(&self) -> Option<ExecId> {
        self.id
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

    /// Sends a signal to the command's process group; 9 (KILL) ends all its
    /// descendants, wherever they are.
    pub fn signal(&self, number: u32) -> Result<(), Error> {
        self.channel.signal(number)
    }

    /// What signals and resizes it from elsewhere.
    pub fn control(&self) -> ExecControl {
        ExecControl {
            channel: self.channel.clone(),
        }
    }

    /// Kills the command with all its descendants. [`ExecChild::wait`] tells its end.
    ///
    /// # Errors
    /// [`Error::Connection`] if the machine cannot be reached any more.
    pub fn kill(&self) -> Result<(), Error> {
        self.signal(KILL)
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
        self.outputs.result()?.status()
    }

    /// How the command ended, if it has. Input and outputs stay as they are: a
    /// command whose output nobody reads may wait for that.
    ///
    /// # Errors
    /// As [`ExecChild::wait`], once; [`Error::Unsuitable`] after that.
    pub fn try_wait(&mut self) -> Result<Option<ExecStatus>, Error> {
        match self.outputs.try_result() {
            Some(result) => result?.status().map(Some),
            None => Ok(None),
        }
    }

    /// Lets the command go on without its owner, and gives by what it is found
    /// again: [`crate::Vm::attach`]. Its input stays open. What was read is not told
    /// again if [`ExecOutput::offset`] is asked where to go on; outputs that were
    /// taken give what has come until now, and end.
    ///
    /// # Errors
    /// [`Error::Unsuitable`] if it has ended, and is not durable from its start;
    /// [`Error::Ended`] if the machine has.
    pub fn detach(mut self) -> Result<ExecId, Error> {
        self.is_let_go = true;
        self.channel.limit(Deadline::within(GUEST_ANSWER_TIMEOUT));
        self.channel.detach()?;
        self.outputs.await_rest();
        match (self.outputs.result()?, self.id) {
            (Finished::LetGo(id), _) | (Finished::Ended(_), Some(id)) => Ok(id),
            (Finished::Ended(_), None) => Err(Error::Unsuitable {
                what: "detaching from a command",
                needs: "one that runs, or is durable from its start",
            }),
        }
    }

    #[cfg(feature = "tokio")]
    pub(super) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    #[cfg(feature = "tokio")]
    pub(super) fn outputs(&self) -> &Arc<Outputs> {
        &self.outputs
    }
}

impl Drop for ExecChild {
    fn drop(&mut self) {
        if self.is_let_go {
            // Its input goes on too.
            self.channel.keep_stdin();
        } else if !self.outputs.has_ended() {
            // The reader ends by itself, and soon: nobody waits for it.
            self.outputs.let_go();
            self.channel.close();
        }
    }
}

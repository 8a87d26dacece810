//! Who is attached to a detached machine's command.

use super::log::Writer;
use crate::Error;
use crate::cli::frames::{self, Frame};
use crate::exec::{Channel, ExecId, Sinks, StreamOffsets};
use crate::limits::cli::CLIENT_TIMEOUT;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A command that others can attach to.
pub struct Attachable {
    channel: Arc<Channel>,
    /// By what the guest knows it.
    pub id: ExecId,
    /// What it had written of which somebody was told.
    told: Mutex<StreamOffsets>,
    pub tty: bool,
    pub interactive: bool,
    clients: Mutex<Clients>,
}

#[derive(Default)]
struct Clients {
    streams: Vec<(u64, UnixStream)>,
    next: u64,
    ended: Option<u8>,
}

impl Attachable {
    /// A command by its id, and where its outputs begin.
    pub fn new(
        channel: Arc<Channel>,
        (id, begins): (ExecId, StreamOffsets),
        (tty, interactive): (bool, bool),
    ) -> Self {
        Self {
            channel,
            id,
            told: Mutex::new(begins),
            tty,
            interactive,
            clients: Mutex::default(),
        }
    }

    /// Up to where its outputs have come.
    pub fn told(&self) -> StreamOffsets {
        *self.lock_told()
    }

    fn lock_told(&self) -> MutexGuard<'_, StreamOffsets> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a client until it leaves. `greet` says the first word to it, before
    /// anything that the command writes.
    pub fn serve(
        &self,
        stream: &UnixStream,
        greet: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        let number = {
            let mut clients = self.clients();
            greet()?;
            if let Some(status) = clients.ended {
                return frames::write(stream, &Frame::End(status));
            }
            let number = clients.next;
            clients.next += 1;
            clients.streams.push((number, stream.try_clone()?));
            number
        };
        let result = self.listen(stream);
        self.forget(number);
        result.map(drop)
    }

    /// Has everything from here on told to the terminal that the command was started
    /// from. It is waited for as long as it likes: the command is its own.
    pub fn attend(&self, stream: &UnixStream) -> io::Result<u64> {
        let mut clients = self.clients();
        let number = clients.next;
        clients.next += 1;
        clients.streams.push((number, stream.try_clone()?));
        Ok(number)
    }

    /// Does what that terminal says, until it is gone. Tells whether the command was
    /// left to itself.
    pub fn heed(&self, number: u64, stream: &UnixStream) -> bool {
        let is_left = self.listen(stream).unwrap_or(false);
        self.forget(number);
        is_left
    }

    fn forget(&self, number: u64) {
        self.clients().streams.retain(|(other, _)| *other != number);
    }

    /// Does what a client says, until it leaves. Tells whether it said that it would.
    fn listen(&self, stream: &UnixStream) -> io::Result<bool> {
        while let Some(frame) = frames::read(stream)? {
            // A broken connection to the agent is the news of who reads from it.
            match frame {
                Frame::Input(bytes) if self.interactive => {
                    let _ = self.channel.write_stdin(&bytes);
                }
                Frame::InputEnd if self.interactive => {
                    let _ = self.channel.close_stdin();
                }
                Frame::Size(columns, rows) if self.tty => {
                    let _ = self.channel.resize(columns, rows);
                }
                Frame::Signal(signal) => {
                    let _ = self.channel.signal(signal.into());
                }
                Frame::Leave => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Tells all clients. Those that do not take it in time are left behind.
    fn tell(&self, frame: &Frame) {
        self.clients().streams.retain(|(_, stream)| {
            let is_told = frames::write(stream, frame).is_ok();
            if !is_told {
                // Half a frame is nothing to go on from.
                let _ = stream.shutdown(Shutdown::Both);
            }
            is_told
        });
    }

    /// Tells all clients, and those that come later, how the command has ended; if
    /// something has failed, also what, to those that are there.
    pub fn end(&self, status: u8, failure: Option<String>) {
        if let Some(failure) = failure {
            self.tell(&Frame::Failed(failure));
        }
        self.clients().ended = Some(status);
        self.tell(&Frame::End(status));
    }
}

/// Writes what a command says to its log and to its clients.
pub struct Told<'a> {
    pub log: Writer,
    pub to: &'a Attachable,
}

impl Sinks for Told<'_> {
    fn stdout(&mut self, bytes: &[u8]) -> Result<(), Error> {
        {
            // What is in the log is counted by then.
            let mut told = self.to.lock_told();
            self.log.stdout(bytes)?;
            told.stdout = told.stdout.saturating_add(bytes.len() as u64);
        }
        self.to.tell(&Frame::Output(bytes.to_vec()));
        Ok(())
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<(), Error> {
        {
            let mut told = self.to.lock_told();
            self.log.stderr(bytes)?;
            told.stderr = told.stderr.saturating_add(bytes.len() as u64);
        }
        self.to.tell(&Frame::Error(bytes.to_vec()));
        Ok(())
    }

    fn gap(&mut self, is_stderr: bool, bytes: u64) -> Result<(), Error> {
        let words = format!("supermachine: here {bytes} bytes are missing: the copy was late\n");
        self.log.stderr(words.as_bytes())?;
        let mut told = self.to.lock_told();
        let told = match is_stderr {
            true => &mut told.stderr,
            false => &mut told.stdout,
        };
        *told = told.saturating_add(bytes);
        Ok(())
    }
}

//! Commands that outlive a session.

use super::conversation::Owed;
use super::{Session, Stdin};
use crate::{Offsets, ProtoError, Request};

impl Session {
    /// Asks that the command goes on without this session, as a durable one.
    /// Answered by [`super::Event::Detached`], or by [`super::Event::Exited`] if it ended
    /// before; nothing happens without a command.
    pub fn detach(&mut self) {
        if self.state.has_command() {
            self.state.detaching = true;
            Request::Detach.encode(&mut self.out);
        }
    }

    /// Queues that the streams of a durable command are taken up at these places,
    /// or at their ends if these are before. Whoever had them until then gets
    /// [`crate::ErrorKind::TakenOver`]. Answered by [`super::Event::Attached`]; what
    /// follows is as after [`Session::exec`].
    ///
    /// # Errors
    /// As [`Session::exec`].
    pub fn attach(&mut self, id: u64, from: Offsets) -> Result<(), ProtoError> {
        self.control(&Request::Attach { id, from }, Owed::Attach)?;
        self.state.stdin = Stdin::None;
        self.state.stdin_starved = false;
        Ok(())
    }

    /// Queues a question for the durable commands, answered by
    /// [`super::Event::Execs`].
    ///
    /// # Errors
    /// As [`Session::ping`].
    pub fn list_execs(&mut self) -> Result<(), ProtoError> {
        self.control(&Request::ListExecs, Owed::Execs)
    }
}

//! Connections to ports of the machine.

use alloc::vec::Vec;

use super::Session;
use super::conversation::Owed;
use crate::{ProtoError, Request, Transport};

impl Session {
    /// Queues a connection to a port of the machine, answered by
    /// [`Event::Done`](super::Event::Done) or [`Event::Failed`](super::Event::Failed).
    /// After the first the connection carries what that port speaks, and the session
    /// is of use only for [`Self::take_rest`].
    ///
    /// # Errors
    /// As [`Self::ping`], and for port 0.
    pub fn dial(&mut self, transport: Transport, port: u16) -> Result<(), ProtoError> {
        if port == 0 {
            return Err(ProtoError::Misuse {
                what: "no such port",
            });
        }
        self.control(&Request::Dial { transport, port }, Owed::Done)
    }

    /// Takes what was received behind the last event: the first bytes from a port
    /// that was dialed.
    pub fn take_rest(&mut self) -> Vec<u8> {
        self.frames.take_rest()
    }
}

//! A command's standard input, as much of it as the guest has room for.

use super::Session;
use super::conversation::Stdin;
use crate::{Kind, MAX_DATA_BYTES, Request, encode_header};

impl Session {
    /// Queues stdin for the command and returns how many bytes were taken;
    /// the rest must wait for [`StdinReady`](super::Event::StdinReady). Once the command has
    /// closed its stdin all bytes are taken and dropped.
    pub fn write_stdin(&mut self, data: &[u8]) -> usize {
        match self.state.stdin {
            Stdin::None | Stdin::Closed => return data.len(),
            Stdin::Open => {}
        }
        let take = data.len().min(self.state.stdin_window);
        for piece in data.get(..take).unwrap_or_default().chunks(MAX_DATA_BYTES) {
            self.out
                .extend_from_slice(&encode_header(Kind::Stdin, piece.len()));
            self.out.extend_from_slice(piece);
        }
        self.state.stdin_window -= take;
        self.state.stdin_starved |= take < data.len();
        take
    }

    /// How many bytes [`Self::write_stdin`] would send now.
    #[must_use]
    pub fn stdin_capacity(&self) -> usize {
        match self.state.stdin {
            Stdin::Open => self.state.stdin_window,
            Stdin::None | Stdin::Closed => 0,
        }
    }

    /// Ends the command's stdin. Later calls do nothing.
    pub fn close_stdin(&mut self) {
        if self.state.stdin == Stdin::Open {
            Request::StdinEof.encode(&mut self.out);
            self.state.stdin = Stdin::Closed;
        }
    }
}

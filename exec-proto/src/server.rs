//! The agent's end: bytes in, requests out.

use alloc::vec::Vec;

use crate::{Deframer, Direction, Kind, ProtoError, Request};

/// Splits and decodes what a host sends, insisting on a hello first.
///
/// The agent decides what each request does; this only guarantees that what it
/// sees is well formed, within limits, and of our version.
#[derive(Debug)]
pub struct Parser {
    frames: Deframer,
    greeted: bool,
    failed: Option<ProtoError>,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// A parser for a fresh connection.
    #[must_use]
    pub fn new() -> Self {
        Self {
            frames: Deframer::new(Direction::ToAgent),
            greeted: false,
            failed: None,
        }
    }

    /// Adds received bytes. Take all requests before feeding again, to keep
    /// memory bounded.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.frames.feed(bytes);
    }

    /// Where received bytes may be added without a copy: onto its end. As
    /// [`Parser::feed`] otherwise.
    pub fn room(&mut self) -> &mut Vec<u8> {
        self.frames.room()
    }

    /// How many bytes the frame lacks that has begun, as far as that is known.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.frames.missing()
    }

    /// Takes what was received behind the last request, for a connection that is
    /// something else from there on.
    pub fn take_rest(&mut self) -> Vec<u8> {
        self.frames.take_rest()
    }

    /// The next request, if one is complete.
    ///
    /// # Errors
    /// A breach of the protocol; final for this connection.
    pub fn next_request(&mut self) -> Result<Option<Request<'_>>, ProtoError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let greeted = self.greeted;
        let result = match self.frames.next_frame() {
            Ok(None) => Ok(None),
            Ok(Some((kind, payload))) => {
                if greeted == (kind == Kind::Hello) {
                    Err(if greeted {
                        ProtoError::Unexpected { kind: kind.byte() }
                    } else {
                        ProtoError::HelloExpected { kind: kind.byte() }
                    })
                } else {
                    self.greeted = true;
                    Request::decode(kind, payload).map(Some)
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }
}
